//! IDX files of bytes: MNIST and Fashion-MNIST, plain or gzipped.
//!
//! Two zero bytes, the type (`08`: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
//! integer, then the values. Source: <https://yann.lecun.org/exdb/mnist/>, "the IDX file format".

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::reading::{describe_start, fill, open};
use super::{DataError, Dataset, ImageShape, TrainTest};

/// Which of the two sets: they have the same file names and differ in the meaning of the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdxSet {
    /// Handwritten digits.
    Mnist,
    /// Articles of clothing.
    FashionMnist,
}

impl IdxSet {
    /// Name of the set on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
        }
    }

    /// The class names, in the order of the labels.
    pub const fn class_names(self) -> [&'static str; 10] {
        match self {
            Self::Mnist => ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            Self::FashionMnist => [
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ],
        }
    }
}

/// Reads MNIST or Fashion-MNIST from the directory that holds its four files.
///
/// Each is `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, or with a dot before `idx`, or with `.gz` at the end;
/// whether a file is compressed is decided by its first bytes.
///
/// # Errors
/// Returns an error if a file is missing, unreadable, of another format, or shorter or longer than its header says, if
/// a label is above 9, or if the numbers of images and labels differ.
pub fn load_idx(directory: &Path, which: IdxSet) -> Result<TrainTest, DataError> {
    let names: Vec<String> = which.class_names().map(str::to_owned).to_vec();
    let load = |part: &str| {
        let images_path = find(directory, part, "images", 3)?;
        let labels_path = find(directory, part, "labels", 1)?;
        let labels = read_idx(&labels_path, 1, &|_| Ok(()))?;
        // Compared before the images are unpacked.
        let images = read_idx(&images_path, 3, &|images| {
            let labels = labels.values.len();
            if images == labels {
                return Ok(());
            }
            let of = images_path.display();
            let what = format!("holds {labels} labels, expected one for each of the {images} images of {of}");
            Err(DataError::format(&labels_path, what))
        })?;
        if let Some(i) = labels.values.iter().position(|l| usize::from(*l) >= names.len()) {
            // Eight bytes of header.
            let what =
                format!("byte {}: label {} of image {i}, expected 0 to {}", i + 8, labels.values[i], names.len() - 1);
            return Err(DataError::format(labels_path, what));
        }
        let shape = ImageShape::new(1, images.dimensions[1], images.dimensions[2]);
        let labels = labels.values.into_iter().map(u32::from).collect();
        Dataset::new(which.name(), names.clone(), shape, images.values, labels)
    };
    Ok(TrainTest::new(load("train")?, load("t10k")?))
}

/// The file of one part and kind under any of its usual names.
fn find(directory: &Path, part: &str, kind: &str, dimensions: usize) -> Result<PathBuf, DataError> {
    let candidates = file_names(part, kind, dimensions);
    candidates.iter().map(|name| directory.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        DataError::format(directory, format!("expected one of {}, found none of them", candidates.join(", ")))
    })
}

fn file_names(part: &str, kind: &str, dimensions: usize) -> [String; 4] {
    let name = |separator: char, end: &str| format!("{part}-{kind}{separator}idx{dimensions}-ubyte{end}");
    [name('-', ""), name('.', ""), name('-', ".gz"), name('.', ".gz")]
}

/// Whether a directory holds one of the four files.
pub(super) fn is_idx_directory(directory: &Path) -> bool {
    ["train", "t10k"].iter().any(|part| {
        [("images", 3), ("labels", 1)].iter().any(|(kind, dimensions)| find(directory, part, kind, *dimensions).is_ok())
    })
}

/// Largest number of values of a file with labels or with images: a few bytes of gzip may hold gigabytes. QMNIST, the
/// largest published set in this format with ten classes, has 402,953 images and 316 MB.
const fn max_values(dimensions: usize) -> u64 {
    if dimensions == 1 { 1 << 22 } else { 1 << 29 }
}

#[derive(Debug)]
struct Idx {
    dimensions: Vec<usize>,
    values: Vec<u8>,
}

/// Checks the number of entries that a header declares.
type Check<'a> = &'a dyn Fn(usize) -> Result<(), DataError>;

fn read_idx(path: &Path, dimensions: usize, check: Check<'_>) -> Result<Idx, DataError> {
    let (file, length) = open(path)?;
    parse(path, BufReader::with_capacity(1 << 16, file), length, dimensions, check)
}

/// Checks a file with arrays of these dimensions.
pub(crate) fn check_idx(path: &Path, dimensions: usize) -> Result<(), DataError> {
    read_idx(path, dimensions, &|_| Ok(())).map(|_| ())
}

/// Reads `stream`, of `length` bytes, plain or gzipped.
fn parse(
    path: &Path,
    mut stream: impl BufRead,
    length: u64,
    dimensions: usize,
    check: Check<'_>,
) -> Result<Idx, DataError> {
    let head = stream.fill_buf().map_err(DataError::reading(path))?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let damaged = |e: std::io::Error| DataError::format(path, format!("its gzip stream is damaged: {e}"));
        parse_plain(path, MultiGzDecoder::new(stream), None, dimensions, check, damaged)
    } else {
        let unreadable = |e| DataError::reading(path)(e);
        parse_plain(path, stream, Some(length), dimensions, check, unreadable)
    }
}

/// Reads an uncompressed stream; if its `length` is known, it is checked before anything is allocated.
fn parse_plain(
    path: &Path,
    mut stream: impl Read,
    length: Option<u64>,
    dimensions: usize,
    check: Check<'_>,
    failed: impl Fn(std::io::Error) -> DataError,
) -> Result<Idx, DataError> {
    let header_bytes = 4 + 4 * dimensions;
    let mut header = vec![0; header_bytes];
    let found = fill(&mut stream, &mut header).map_err(&failed)?;
    let magic = [0, 0, 8, dimensions as u8];
    if found < 4 || header[..4] != magic {
        let what = format!(
            "expected an IDX file of {dimensions}-dimensional bytes, which starts with 00 00 08 {dimensions:02x}; {}",
            describe_start(&header[..found], &mut stream)
        );
        return Err(DataError::format(path, what));
    }
    if found < header_bytes {
        let what = format!("ends at byte {found}, within its header of {header_bytes} bytes");
        return Err(DataError::format(path, what));
    }
    let sizes: Vec<usize> =
        header[4..].chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    // An empty axis must not hide that the others are too large.
    let product = |least| sizes.iter().try_fold(1u64, |n, size| n.checked_mul((*size).max(least) as u64));
    let max = max_values(dimensions);
    let text = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("×");
    let Some(expected) = product(1).filter(|n| *n <= max).and_then(|_| product(0)) else {
        let what = format!("byte 4: the header declares {text} values, expected at most {max}");
        return Err(DataError::format(path, what));
    };
    let wrong_length = |found: &str| {
        let what = format!("expected {text} = {expected} values from byte {header_bytes}, found {found}");
        Err(DataError::format(path, what))
    };
    if let Some(found) = length.map(|l| l.saturating_sub(header_bytes as u64)).filter(|n| *n != expected) {
        return wrong_length(&found.to_string());
    }
    check(sizes[0])?;
    // Reading one byte more than expected detects a longer stream, and makes gzip verify its checksum.
    let mut values = Vec::new();
    stream.take(expected + 1).read_to_end(&mut values).map_err(&failed)?;
    match values.len() as u64 {
        n if n < expected => wrong_length(&n.to_string()),
        n if n > expected => wrong_length("more"),
        _ => Ok(Idx { dimensions: sizes, values }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn parse_bytes(bytes: &[u8], dimensions: usize) -> Result<Idx, DataError> {
        parse(Path::new("file"), bytes, bytes.len() as u64, dimensions, &|_| Ok(()))
    }

    fn images() -> Vec<u8> {
        idx(&[10, 2, 3], &(0..60).collect::<Vec<u8>>())
    }

    fn labels() -> Vec<u8> {
        idx(&[10], &(0..10).rev().collect::<Vec<u8>>())
    }

    #[test]
    fn reads_every_file_name_plain_and_gzipped() {
        for variant in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            for part in ["train", "t10k"] {
                for (kind, dimensions, bytes) in [("images", 3, images()), ("labels", 1, labels())] {
                    let name = &file_names(part, kind, dimensions)[variant];
                    let compress = name.ends_with(".gz");
                    fs::write(dir.path().join(name), if compress { gzip(&bytes) } else { bytes }).unwrap();
                }
            }
            assert!(is_idx_directory(dir.path()));
            let data = load_idx(dir.path(), IdxSet::FashionMnist).unwrap();
            assert_eq!(data.train.shape(), ImageShape::new(1, 2, 3));
            assert_eq!(data.train.image(1), [6, 7, 8, 9, 10, 11]);
            assert_eq!(data.test.labels(), (0..10).rev().collect::<Vec<u32>>());
            assert_eq!(data.test.class_names()[9], "Ankle boot");
            assert_eq!(load_idx(dir.path(), IdxSet::Mnist).unwrap().train.class_names()[9], "9");
        }
    }

    #[test]
    fn compression_is_detected_by_content_not_by_name() {
        assert_eq!(parse_bytes(&gzip(&labels()), 1).unwrap().values, parse_bytes(&labels(), 1).unwrap().values);
    }

    #[test]
    fn labels_must_fit_the_images_and_the_classes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        write("train-images-idx3-ubyte", &images());
        let message = || load_idx(dir.path(), IdxSet::Mnist).unwrap_err().to_string();
        assert!(message().contains("train-labels-idx1-ubyte"), "{}", message());
        write("train-labels-idx1-ubyte", &idx(&[9], &[0; 9]));
        assert!(message().contains("holds 9 labels, expected one for each of the 10 images"), "{}", message());
        // A stream of images that would be too long is not unpacked to find that out.
        write("train-images-idx3-ubyte", &gzip(&idx(&[9999, 2, 3], &[0; 8])));
        assert!(message().contains("expected one for each of the 9999 images"), "{}", message());
        write("train-images-idx3-ubyte", &images());
        write("train-labels-idx1-ubyte", &idx(&[10], &[0, 1, 2, 10, 4, 5, 6, 7, 8, 9]));
        assert!(message().contains("byte 11: label 10 of image 3, expected 0 to 9"), "{}", message());
    }

    #[test]
    fn damaged_streams_are_rejected() {
        let good = images();
        let compressed = gzip(&good);
        let mut flipped = compressed.clone();
        let checksum = flipped.len() - 8;
        flipped[checksum] ^= 1;
        for (bytes, expected) in [
            (good[..good.len() - 1].to_vec(), "10×2×3 = 60 values from byte 16, found 59"),
            ([&good[..], &[0, 0]].concat(), "found 62"),
            (gzip(&good[..20]), "found 4"),
            (gzip(&[&good[..], &[0]].concat()), "found more"),
            (compressed[..compressed.len() / 2].to_vec(), "gzip stream is damaged"),
            (flipped, "gzip stream is damaged"),
            ([&compressed[..], b"tail"].concat(), "gzip stream is damaged"),
            (good[..10].to_vec(), "ends at byte 10, within its header of 16"),
            (labels(), "starts with 00 00 08 03; it starts with the bytes 00 00 08 01"),
            (vec![0, 0, 13, 3], "00 00 0d 03"),
            (b"<!doctype html><p>404</p>".to_vec(), "HTML page"),
            (Vec::new(), "it is empty"),
        ] {
            let message = parse_bytes(&bytes, 3).unwrap_err().to_string();
            assert!(message.starts_with("file: ") && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn absurd_sizes_are_rejected_before_they_are_allocated() {
        let message = |bytes: &[u8]| parse_bytes(bytes, 3).unwrap_err().to_string();
        let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[]);
        assert!(message(&huge).contains("4294967295×4294967295×4294967295 values"), "{}", message(&huge));
        assert!(message(&gzip(&huge)).contains("expected at most"));
        assert!(message(&idx(&[0, u32::MAX, u32::MAX], &[])).contains("expected at most"));
        // 4 GiB of zeros in 4 MB: refused by the header alone.
        assert!(message(&gzip(&idx(&[1 << 12, 1 << 10, 1 << 10], &[0]))).contains("expected at most 536870912"));
        let labels = parse_bytes(&gzip(&idx(&[1 << 23], &[0])), 1).unwrap_err().to_string();
        assert!(labels.contains("8388608 values, expected at most 4194304"), "{labels}");
        let large = idx(&[1 << 9, 1 << 10, 1 << 10], &[1]);
        assert!(message(&large).contains("found 1"));
        assert!(message(&gzip(&large)).contains("found 1"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_bytes(&bytes, 1);
            let _ = parse_bytes(&[&[0x1f, 0x8b, 8, 0][..], &bytes].concat(), 3);
            for dimensions in [1, 3] {
                let magic = [0, 0, 8, dimensions as u8];
                let padded = [&[0, 0, 0], &bytes[..]].concat();
                // The second is more likely to declare few values.
                for wrapped in [[&magic[..], &bytes[..]].concat(), [&magic[..], &padded[..]].concat()] {
                    for file in [gzip(&wrapped), wrapped] {
                        if let Ok(idx) = parse_bytes(&file, dimensions) {
                            prop_assert_eq!(idx.values.len(), idx.dimensions.iter().product::<usize>());
                        }
                    }
                }
            }
        }
    }
}
