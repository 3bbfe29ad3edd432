//! CIFAR-10 and CIFAR-100 in their authors' binary layout.
//!
//! A file is a sequence of records: one label byte (CIFAR-100: the coarse label, then the fine one), then 3,072 pixels,
//! planar, row by row, which is the order of [`Dataset`].
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>, "binary version".

use std::path::Path;

use super::reading::{class_names_or, describe_start, read_file};
use super::{DataError, Dataset, ImageShape, TrainTest};

const SHAPE: ImageShape = ImageShape::new(3, 32, 32);
/// Coarse labels of CIFAR-100: twenty superclasses. They are checked but not used.
const COARSE_CLASSES: usize = 20;
/// Limit for one file; the largest published file has 154 MB.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Which of the two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cifar {
    /// Ten classes; `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin`, names in `batches.meta.txt`.
    Ten,
    /// A hundred fine classes; `train.bin`, `test.bin`, names in `fine_label_names.txt`.
    Hundred,
}

impl Cifar {
    /// Name of the set on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ten => "cifar10",
            Self::Hundred => "cifar100",
        }
    }

    /// The published class names, in the order of the labels.
    pub const fn built_in_names(self) -> &'static [&'static str] {
        match self {
            Self::Ten => &CIFAR10_NAMES,
            Self::Hundred => &CIFAR100_NAMES,
        }
    }

    pub(super) const fn train_files(self) -> &'static [&'static str] {
        match self {
            Self::Ten => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            Self::Hundred => &["train.bin"],
        }
    }

    pub(super) const fn test_file(self) -> &'static str {
        match self {
            Self::Ten => "test_batch.bin",
            Self::Hundred => "test.bin",
        }
    }

    const fn names_file(self) -> &'static str {
        match self {
            Self::Ten => "batches.meta.txt",
            Self::Hundred => "fine_label_names.txt",
        }
    }

    const fn label_bytes(self) -> usize {
        match self {
            Self::Ten => 1,
            Self::Hundred => 2,
        }
    }
}

/// Reads CIFAR-10 or CIFAR-100 from the directory that holds its `.bin` files.
///
/// The files may hold fewer images than the published ones, but none may be missing.
///
/// # Errors
/// Returns an error if a file is missing or unreadable, if its length is not a multiple of the record size, or if a
/// label is out of range.
pub fn load_cifar(directory: &Path, which: Cifar) -> Result<TrainTest, DataError> {
    let names = class_names_or(&directory.join(which.names_file()), which.built_in_names())?;
    let load = |files: &[&str]| {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for file in files {
            let path = directory.join(file);
            if !path.exists() {
                let needed = [which.train_files(), &[which.test_file()]].concat().join(", ");
                return Err(DataError::format(
                    directory,
                    format!("{file} is missing; {} needs {needed}", which.name()),
                ));
            }
            append_records(which, &path, &read_file(&path, MAX_FILE_BYTES)?, &mut images, &mut labels)?;
        }
        Dataset::new(which.name(), names.clone(), SHAPE, images, labels)
    };
    Ok(TrainTest::new(load(which.train_files())?, load(&[which.test_file()])?))
}

/// Checks one file.
pub(crate) fn check_cifar(path: &Path, which: Cifar) -> Result<(), DataError> {
    append_records(which, path, &read_file(path, MAX_FILE_BYTES)?, &mut Vec::new(), &mut Vec::new())
}

/// Appends the images and (fine) labels of one file's bytes; `path` is for messages.
fn append_records(
    which: Cifar,
    path: &Path,
    bytes: &[u8],
    images: &mut Vec<u8>,
    labels: &mut Vec<u32>,
) -> Result<(), DataError> {
    let label_bytes = which.label_bytes();
    let record_bytes = label_bytes + SHAPE.len();
    let (whole, rest) = (bytes.len() / record_bytes, bytes.len() % record_bytes);
    if whole == 0 || rest != 0 {
        return Err(DataError::format(
            path,
            format!(
                "expected records of {record_bytes} bytes, found {whole} of them and {rest} bytes more from byte {} \
                 ({}); fetch the file again",
                whole * record_bytes,
                describe_start(bytes, &mut std::io::empty())
            ),
        ));
    }
    images.reserve(whole * SHAPE.len());
    labels.reserve(whole);
    for (record, content) in bytes.chunks_exact(record_bytes).enumerate() {
        let (label, pixels) = content.split_at(label_bytes);
        let limits: &[usize] = match which {
            Cifar::Ten => &[CIFAR10_NAMES.len()],
            Cifar::Hundred => &[COARSE_CLASSES, CIFAR100_NAMES.len()],
        };
        for (offset, (&value, &limit)) in label.iter().zip(limits).enumerate() {
            if usize::from(value) >= limit {
                let byte = record * record_bytes + offset;
                let what = format!("record {record}, byte {byte}: label {value}, expected 0 to {}", limit - 1);
                return Err(DataError::format(path, what));
            }
        }
        labels.push(u32::from(label[label_bytes - 1]));
        images.extend_from_slice(pixels);
    }
    Ok(())
}

const CIFAR10_NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

#[rustfmt::skip]
const CIFAR100_NAMES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// A record whose pixel `i` is `i + label`, so that order and label can both be checked.
    fn record(labels: &[u8]) -> Vec<u8> {
        let last = usize::from(labels[labels.len() - 1]);
        labels.iter().copied().chain((0..3072).map(|i| (i + last) as u8)).collect()
    }

    fn cifar10(dir: &Path) {
        for (i, file) in Cifar::Ten.train_files().iter().enumerate() {
            let bytes = [record(&[i as u8 * 2]), record(&[i as u8 * 2 + 1])].concat();
            fs::write(dir.join(file), bytes).unwrap();
        }
        fs::write(dir.join("test_batch.bin"), (0..10).flat_map(|l| record(&[l])).collect::<Vec<_>>()).unwrap();
    }

    fn message(dir: &Path, which: Cifar) -> String {
        load_cifar(dir, which).unwrap_err().to_string()
    }

    #[test]
    fn reads_cifar10_in_file_order() {
        let dir = tempfile::tempdir().unwrap();
        cifar10(dir.path());
        let data = load_cifar(dir.path(), Cifar::Ten).unwrap();
        assert_eq!(data.train.labels(), (0..10).collect::<Vec<u32>>());
        assert_eq!(data.train.shape(), SHAPE);
        assert_eq!(data.train.image(3)[0..3], [3, 4, 5]);
        assert_eq!(data.train.image(9)[3071], (3071 + 9) as u8);
        assert_eq!(data.test.class_names()[9], "truck");
        fs::write(dir.path().join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
        assert_eq!(load_cifar(dir.path(), Cifar::Ten).unwrap().train.class_names()[9], "j");
    }

    #[test]
    fn reads_the_fine_labels_of_cifar100() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("train.bin"), [record(&[19, 99]), record(&[0, 5])].concat()).unwrap();
        fs::write(dir.path().join("test.bin"), record(&[3, 42])).unwrap();
        let data = load_cifar(dir.path(), Cifar::Hundred).unwrap();
        assert_eq!(data.train.labels(), [99, 5]);
        assert_eq!(data.train.image(1)[0..2], [5, 6]);
        assert_eq!(data.test.class_names()[42], "leopard");
        fs::write(dir.path().join("test.bin"), record(&[20, 42])).unwrap();
        let text = message(dir.path(), Cifar::Hundred);
        assert!(text.contains("record 0, byte 0: label 20, expected 0 to 19"), "{text}");
        fs::write(dir.path().join("test.bin"), [record(&[0, 0]), record(&[0, 100])].concat()).unwrap();
        let text = message(dir.path(), Cifar::Hundred);
        assert!(text.contains("record 1, byte 3075: label 100, expected 0 to 99"), "{text}");
    }

    #[test]
    fn built_in_names_are_sorted_and_distinct() {
        for which in [Cifar::Ten, Cifar::Hundred] {
            assert!(which.built_in_names().windows(2).all(|w| w[0] < w[1]));
        }
    }

    #[test]
    fn damaged_files_are_refused_with_file_and_byte() {
        let dir = tempfile::tempdir().unwrap();
        cifar10(dir.path());
        let third = dir.path().join("data_batch_3.bin");
        let good = fs::read(&third).unwrap();
        for (bytes, expected) in [
            (good[..good.len() - 1].to_vec(), "found 1 of them and 3072 bytes more from byte 3073"),
            ([&good[..], &[0]].concat(), "found 2 of them and 1 bytes more from byte 6146"),
            (Vec::new(), "it is empty"),
            (b"<!DOCTYPE html><html>not found</html>".to_vec(), "HTML page"),
            (record(&[10]), "record 0, byte 0: label 10, expected 0 to 9"),
        ] {
            fs::write(&third, bytes).unwrap();
            let text = message(dir.path(), Cifar::Ten);
            assert!(text.contains(expected) && text.contains("data_batch_3.bin"), "{text}");
        }
        fs::remove_file(&third).unwrap();
        let text = message(dir.path(), Cifar::Ten);
        assert!(text.contains("data_batch_3.bin is missing"), "{text}");
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(
            mut bytes in prop::collection::vec(any::<u8>(), 0..64),
            records in 0usize..3,
        ) {
            bytes.resize(bytes.len() + records * 3073, 1);
            for which in [Cifar::Ten, Cifar::Hundred] {
                let (mut images, mut labels) = (Vec::new(), Vec::new());
                if append_records(which, Path::new("f"), &bytes, &mut images, &mut labels).is_ok() {
                    prop_assert_eq!(images.len(), labels.len() * 3072);
                    prop_assert_eq!(labels.len() * (3072 + which.label_bytes()), bytes.len());
                }
            }
        }
    }
}
