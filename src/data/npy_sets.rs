//! Data sets in `.npy` files: pairs of images and labels, and CIFAR-10-C.
//!
//! Images are `N × H × W × 3`, `N × H × W × 1` or `N × H × W` unsigned bytes, channels last as usual in NumPy and in
//! CIFAR-10-C, or floats in `[0, 1]`, which become bytes; labels are `N` integers.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::npy::NpyFile;
use super::reading::{class_names_or, did_you_mean, entries, read_class_names};
use super::{DataError, Dataset, ImageShape, TrainTest};

/// Number of severities of each corruption in CIFAR-10-C.
pub const SEVERITIES: usize = 5;

/// Reads a set from an array of images and an array of labels.
///
/// # Errors
/// Returns an error if a file is unreadable or of another format, if an array has another type or shape, if the numbers
/// of images and labels differ, or if a label is out of range.
pub fn load_pair(images: &Path, labels: &Path, class_names: &[String]) -> Result<Dataset, DataError> {
    let values = read_labels(labels, Some(class_names.len()))?;
    let mut file = ImageFile::open(images)?;
    file.must_match(labels, values.len())?;
    let name = images.file_stem().unwrap_or_default().to_string_lossy();
    file.dataset(&name, class_names, 0, values)
}

/// Reads `train_images.npy`, `train_labels.npy`, `test_images.npy` and `test_labels.npy` from a directory, or `x_train.npy`,
/// `y_train.npy`, `x_test.npy` and `y_test.npy`, as Keras calls them.
///
/// Class names come from `class_names.txt` (one per line); without that file they are the numbers from 0 to the largest
/// label.
///
/// # Errors
/// As [`load_pair`].
pub fn load_npy(directory: &Path) -> Result<TrainTest, DataError> {
    let path = |part: &str, kind: &str| file_of(directory, part, kind);
    let names_path = directory.join("class_names.txt");
    let names = if names_path.exists() {
        read_class_names(&names_path)?
    } else {
        let train = read_labels(&path("train", "labels"), None)?;
        let test = read_labels(&path("test", "labels"), None)?;
        if !train.contains(&0) && !test.contains(&0) {
            let least = train.iter().chain(&test).min().copied().unwrap_or(0);
            let what = format!("the smallest label is {least}, expected 0; {}", starts_at(least.into()));
            return Err(DataError::format(path("train", "labels"), what));
        }
        (0..=train.iter().chain(&test).max().copied().unwrap_or(0)).map(|k| k.to_string()).collect()
    };
    let load = |part: &str| load_pair(&path(part, "images"), &path(part, "labels"), &names);
    let mut data = TrainTest::new(load("train")?, load("test")?);
    if NpyFile::open(&path("train", "images"))?.is_float() {
        data.notes.push("the images are floats from 0 to 1 and became bytes: round(255 · v)".into());
    }
    Ok(data)
}

/// A file of [`load_npy`]; if there is none under any name, the first of its names.
fn file_of(directory: &Path, part: &str, kind: &str) -> PathBuf {
    let letters: &[&str] = if kind == "images" { &["x", "X"] } else { &["y", "Y"] };
    let name = directory.join(format!("{part}_{kind}.npy"));
    let others = letters.iter().map(|letter| directory.join(format!("{letter}_{part}.npy")));
    std::iter::once(name.clone()).chain(others).find(|path| path.is_file()).unwrap_or(name)
}

/// Whether a directory holds the training images or labels of [`load_npy`].
pub(super) fn is_npy_directory(directory: &Path) -> bool {
    ["images", "labels"].iter().any(|kind| file_of(directory, "train", kind).is_file())
}

/// The hint for labels whose smallest is `least`.
fn starts_at(least: u64) -> String {
    format!("do the labels start at {least}? Then save labels - {least}")
}

/// The shape of the training images in a directory that [`load_npy`] reads, from the header of their file.
pub(super) fn first_shape(directory: &Path) -> Result<ImageShape, DataError> {
    Ok(ImageFile::open(&file_of(directory, "train", "images"))?.shape)
}

/// Largest number of classes of a set without names: a larger label is more likely damage than a class.
const MAX_UNNAMED_CLASSES: usize = 10_000;

/// Checks a file of images, or of labels.
pub(crate) fn check_npy(path: &Path, images: bool) -> Result<(), DataError> {
    if !images {
        return read_labels(path, None).map(|_| ());
    }
    let mut file = ImageFile::open(path)?;
    let labels = vec![0; file.count];
    file.dataset("npy", &["a".into(), "b".into()], 0, labels).map(|_| ())
}

/// Labels, below the number of classes.
fn read_labels(path: &Path, classes: Option<usize>) -> Result<Vec<u32>, DataError> {
    let mut file = NpyFile::open(path)?;
    if !matches!(file.shape(), [_] | [_, 1]) {
        let what = format!("expected labels of shape (N,) or (N, 1), found {:?}", file.shape());
        return Err(DataError::format(path, what));
    }
    let limit = classes.unwrap_or(MAX_UNNAMED_CLASSES);
    let labels = file.read_u64()?;
    let least = labels.iter().min().copied().unwrap_or(0);
    let checked = labels.iter().enumerate().map(|(i, &label)| {
        u32::try_from(label).ok().filter(|l| (*l as usize) < limit).ok_or_else(|| {
            let mut what = format!("label {label} of image {i}, expected 0 to {}", limit.saturating_sub(1));
            if least == 1 && label == limit as u64 {
                what += &format!("; {}", starts_at(least));
            }
            DataError::format(path, what)
        })
    });
    checked.collect()
}

/// An open array of images.
#[derive(Debug)]
struct ImageFile {
    path: PathBuf,
    file: NpyFile,
    count: usize,
    shape: ImageShape,
}

impl ImageFile {
    fn open(path: &Path) -> Result<Self, DataError> {
        let file = NpyFile::open(path)?;
        let (count, shape) = match *file.shape() {
            [n, h, w, c @ (1 | 3)] => (n, ImageShape::new(c, h, w)),
            [n, h, w] => (n, ImageShape::new(1, h, w)),
            _ => {
                let remedy = match *file.shape() {
                    [_, 1 | 3, _, _] => "; save them with numpy.ascontiguousarray(images.transpose(0, 2, 3, 1))",
                    [_, _] => "; save them with .reshape(N, H, W)",
                    _ => "",
                };
                let what = format!(
                    "expected images of shape (N, H, W, 3), (N, H, W, 1) or (N, H, W), channels last, found {:?}{remedy}",
                    file.shape()
                );
                return Err(DataError::format(path, what));
            }
        };
        if !file.is_u8() && !file.is_float() {
            let what = format!(
                "expected images of unsigned bytes (u1), found {}; save them with .astype('uint8')",
                file.kind()
            );
            return Err(DataError::format(path, what));
        }
        Ok(Self { path: path.to_path_buf(), file, count, shape })
    }

    fn must_match(&self, labels_path: &Path, labels: usize) -> Result<(), DataError> {
        if labels == self.count {
            return Ok(());
        }
        let what = format!(
            "holds {labels} labels, expected one for each of the {} images of {}",
            self.count,
            self.path.display()
        );
        Err(DataError::format(labels_path, what))
    }

    /// The set of `labels.len()` images from image `first` on.
    fn dataset(
        &mut self,
        name: &str,
        class_names: &[String],
        first: usize,
        labels: Vec<u32>,
    ) -> Result<Dataset, DataError> {
        let mut images = match self.file.is_float() {
            true => self.file.read_unit_rows(first, labels.len())?,
            false => self.file.read_rows(first, labels.len())?,
        };
        if self.shape.channels > 1 && !self.shape.is_empty() {
            images.par_chunks_exact_mut(self.shape.len()).for_each(|image| make_planar(image, self.shape.channels));
        }
        Dataset::new(name, class_names.to_vec(), self.shape, images, labels)
    }
}

/// Channels last → channels first.
fn make_planar(image: &mut [u8], channels: usize) {
    let interleaved = image.to_vec();
    for (c, plane) in image.chunks_exact_mut(interleaved.len() / channels).enumerate() {
        for (value, pixel) in plane.iter_mut().zip(interleaved.chunks_exact(channels)) {
            *value = pixel[c];
        }
    }
}

/// A directory in the layout of CIFAR-10-C: `labels.npy`, and one array per corruption with the test set at severity 1,
/// then 2, up to 5.
///
/// Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
/// ICLR 2019. Only headers and labels are read until a severity is loaded.
#[derive(Debug, Clone)]
pub struct Corruptions {
    directory: PathBuf,
    class_names: Vec<String>,
    names: Vec<String>,
    labels: Vec<u32>,
}

impl Corruptions {
    /// Lists a directory and reads its labels.
    ///
    /// # Errors
    /// Returns an error if `labels.npy` is missing or damaged, if the number of labels is not a multiple of five, if there
    /// is no corruption, or if the name of one is not UTF-8.
    pub fn open(directory: &Path, class_names: &[String]) -> Result<Self, DataError> {
        let labels_path = directory.join("labels.npy");
        let labels = read_labels(&labels_path, Some(class_names.len()))?;
        if labels.is_empty() || !labels.len().is_multiple_of(SEVERITIES) {
            let what = format!("expected labels for {SEVERITIES} severities of equal size, found {}", labels.len());
            return Err(DataError::format(labels_path, what));
        }
        let mut names = Vec::new();
        for entry in entries(directory)? {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "npy") && path != labels_path {
                match path.file_stem().unwrap_or_default().to_str() {
                    Some(name) => names.push(name.to_owned()),
                    None => {
                        return Err(DataError::format(
                            path,
                            "the name of this corruption is not UTF-8; rename the file",
                        ));
                    }
                }
            }
        }
        if names.is_empty() {
            return Err(DataError::format(
                directory,
                "expected a .npy file for each corruption next to labels.npy, found none",
            ));
        }
        Ok(Self { directory: directory.to_path_buf(), class_names: class_names.to_vec(), names, labels })
    }

    /// The corruptions, sorted by name.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of images of one corruption at one severity.
    pub fn images_per_severity(&self) -> usize {
        self.labels.len() / SEVERITIES
    }

    /// The test set under one corruption, at a severity from 1 to [`SEVERITIES`].
    ///
    /// # Errors
    /// Returns an error if the corruption or severity is unknown, if a file is damaged, or if the numbers of images and
    /// labels differ.
    pub fn load(&self, corruption: &str, severity: usize) -> Result<Dataset, DataError> {
        if !self.names.iter().any(|n| n == corruption) {
            let hint = did_you_mean(corruption, self.names.iter().map(String::as_str));
            let (place, known) = (self.directory.display(), self.names.join(", "));
            return Err(DataError::Missing(format!("{place} has no corruption '{corruption}'{hint} (it has {known})")));
        }
        if !(1..=SEVERITIES).contains(&severity) {
            return Err(DataError::Missing(format!(
                "severity {severity} of '{corruption}': expected 1 to {SEVERITIES}"
            )));
        }
        let mut file = ImageFile::open(&self.directory.join(format!("{corruption}.npy")))?;
        file.must_match(&self.directory.join("labels.npy"), self.labels.len())?;
        let count = self.images_per_severity();
        let first = (severity - 1) * count;
        let labels = self.labels[first..first + count].to_vec();
        file.dataset(&format!("{corruption}-{severity}"), &self.class_names, first, labels)
    }
}

/// The names in `class_names.txt` of the directory if it exists, otherwise the built-in names of CIFAR-10 or CIFAR-100,
/// depending on the labels.
///
/// # Errors
/// Returns an error if labels or names are damaged.
pub fn corruption_class_names(directory: &Path) -> Result<Vec<String>, DataError> {
    use super::cifar::Cifar;
    let labels = read_labels(&directory.join("labels.npy"), None)?;
    let ten = Cifar::Ten.built_in_names();
    let which = if labels.iter().all(|l| (*l as usize) < ten.len()) { ten } else { Cifar::Hundred.built_in_names() };
    class_names_or(&directory.join("class_names.txt"), which)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::npy::tests::array;
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("c{i}")).collect()
    }

    fn put(dir: &Path, name: &str, bytes: Vec<u8>) -> PathBuf {
        fs::write(dir.join(name), bytes).unwrap();
        dir.join(name)
    }

    #[test]
    fn channels_last_becomes_planar() {
        let dir = tempfile::tempdir().unwrap();
        let images = put(dir.path(), "i.npy", array("|u1", &[2, 1, 2, 3], &(0..12).collect::<Vec<u8>>()));
        let labels = put(dir.path(), "l.npy", array("<i4", &[2, 1], &[1, 0, 0, 0, 0, 0, 0, 0]));
        let set = load_pair(&images, &labels, &names(2)).unwrap();
        assert_eq!(set.images(), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(set.labels(), [1, 0]);
        for shape in [vec![2, 2, 3], vec![2, 2, 3, 1]] {
            let images = put(dir.path(), "g.npy", array("|u1", &shape, &(0..12).collect::<Vec<u8>>()));
            let set = load_pair(&images, &labels, &names(2)).unwrap();
            assert_eq!(set.shape(), ImageShape::new(1, 2, 3));
            assert_eq!(set.images(), (0..12).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn arrays_that_do_not_fit_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let good_images = array("|u1", &[2, 1, 1, 3], &[0; 6]);
        let good_labels = array("|u1", &[2], &[0, 1]);
        for (images, labels, expected) in [
            (
                array("|u1", &[2, 3, 1, 1][..3], &[0; 6]),
                array("|u1", &[3], &[0; 3]),
                "l.npy: holds 3 labels, expected one for each of the 2",
            ),
            (array("|u1", &[1, 3, 2, 2], &[0; 12]), good_labels.clone(), "transpose(0, 2, 3, 1)"),
            (
                array("|i1", &[2, 1, 1, 3], &[0; 6]),
                good_labels.clone(),
                "i.npy: expected images of unsigned bytes (u1), found i1; save them with .astype('uint8')",
            ),
            (
                good_images.clone(),
                array("|u1", &[1, 2], &[0; 2]),
                "l.npy: expected labels of shape (N,) or (N, 1), found [1, 2]",
            ),
            (good_images.clone(), array("|u1", &[2], &[0, 2]), "l.npy: label 2 of image 1, expected 0 to 1"),
            (array("|u1", &[0, 1, 1, 3], &[]), array("|u1", &[0], &[]), "holds no image"),
            (array("|u1", &[2, 0, 1, 3], &[]), good_labels.clone(), "holds no image"),
        ] {
            let images = put(dir.path(), "i.npy", images);
            let labels = put(dir.path(), "l.npy", labels);
            let message = load_pair(&images, &labels, &names(2)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn directory_of_four_arrays_is_read() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "train_images.npy", array("|u1", &[2, 1, 1], &[5, 6]));
        put(dir.path(), "train_labels.npy", array("|u1", &[2], &[0, 1]));
        put(dir.path(), "test_images.npy", array("|u1", &[1, 1, 1], &[7]));
        assert!(load_npy(dir.path()).unwrap_err().to_string().contains("test_labels.npy"));
        put(dir.path(), "test_labels.npy", array("|u1", &[1], &[2]));
        let data = load_npy(dir.path()).unwrap();
        assert_eq!(data.train.class_names(), ["0", "1", "2"]);
        assert_eq!(data.test.labels(), [2]);
        // Keras' names, and floats.
        for (to, from) in [("x_train", "train_images"), ("y_train", "train_labels"), ("Y_test", "test_labels")] {
            fs::rename(dir.path().join(format!("{from}.npy")), dir.path().join(format!("{to}.npy"))).unwrap();
        }
        assert_eq!(load_npy(dir.path()).unwrap().train.images(), data.train.images());
        assert!(is_npy_directory(dir.path()) && data.notes.is_empty());
        put(dir.path(), "x_train.npy", array("<f4", &[2, 1, 1], &[0.0f32, 0.2].map(f32::to_le_bytes).concat()));
        let floats = load_npy(dir.path()).unwrap();
        assert_eq!(floats.train.images(), [0, 51]);
        assert!(floats.notes[0].contains("floats from 0 to 1 and became bytes"), "{:?}", floats.notes);
        put(dir.path(), "test_labels.npy", array("|u1", &[1], &[2]));
        put(dir.path(), "class_names.txt", b"x\ny\n".to_vec());
        let message = load_npy(dir.path()).unwrap_err().to_string();
        assert!(message.contains("test_labels.npy: label 2 of image 0, expected 0 to 1"), "{message}");
    }

    #[test]
    fn labels_that_start_at_one_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        for part in ["train", "test"] {
            put(dir.path(), &format!("{part}_images.npy"), array("|u1", &[3, 1, 1], &[5, 6, 7]));
            put(dir.path(), &format!("{part}_labels.npy"), array("|u1", &[3], &[1, 3, 2]));
        }
        let message = || load_npy(dir.path()).unwrap_err().to_string();
        let expected =
            "train_labels.npy: the smallest label is 1, expected 0; do the labels start at 1? Then save labels - 1";
        assert!(message().contains(expected), "{}", message());
        put(dir.path(), "class_names.txt", b"a\nb\nc".to_vec());
        let expected = "label 3 of image 1, expected 0 to 2; do the labels start at 1? Then save labels - 1";
        assert!(message().contains(expected), "{}", message());
        // One label that is far off is damage.
        put(dir.path(), "train_labels.npy", array("|u1", &[3], &[1, 200, 2]));
        assert!(message().ends_with("label 200 of image 1, expected 0 to 2"), "{}", message());
    }

    /// Converted to text, both names would be the same.
    #[cfg(target_os = "linux")]
    #[test]
    fn names_of_corruptions_that_are_not_utf_8_are_refused() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "labels.npy", array("|u1", &[10], &[0, 1].repeat(5)));
        let images: Vec<u8> = (0..30).collect();
        for name in [b"fog\xff.npy", b"fog\xfe.npy"] {
            let path = dir.path().join(std::ffi::OsStr::from_bytes(name));
            std::fs::write(path, array("|u1", &[10, 1, 1, 3], &images)).unwrap();
        }
        let message = Corruptions::open(dir.path(), &names(2)).unwrap_err().to_string();
        assert!(message.ends_with("the name of this corruption is not UTF-8; rename the file"), "{message}");
        assert!(message.contains(&dir.path().display().to_string()), "{message}");
    }

    #[test]
    fn corruptions_are_listed_and_sliced() {
        let dir = tempfile::tempdir().unwrap();
        let labels: Vec<u8> = [0, 1].repeat(5);
        put(dir.path(), "labels.npy", array("|u1", &[10], &labels));
        let images: Vec<u8> = (0..30).collect();
        put(dir.path(), "frost.npy", array("|u1", &[10, 1, 1, 3], &images));
        put(dir.path(), "brightness.npy", array("|u1", &[9, 1, 1, 3], &images[..27]));
        let set = Corruptions::open(dir.path(), &names(2)).unwrap();
        assert_eq!(set.names(), ["brightness", "frost"]);
        assert_eq!(set.images_per_severity(), 2);
        let third = set.load("frost", 3).unwrap();
        assert_eq!(third.images(), (12..18).collect::<Vec<u8>>());
        assert_eq!((third.labels(), third.name()), (&[0, 1][..], "frost-3"));
        for (corruption, severity, expected) in [
            ("frots", 1, "did you mean 'frost'?"),
            ("frost", 0, "severity 0 of 'frost': expected 1 to 5"),
            ("frost", 6, "expected 1 to 5"),
            ("brightness", 1, "holds 10 labels, expected one for each of the 9 images"),
        ] {
            let message = set.load(corruption, severity).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(corruption_class_names(dir.path()).unwrap()[1], "automobile");
        put(dir.path(), "labels.npy", array("|u1", &[9], &labels[..9]));
        assert!(Corruptions::open(dir.path(), &names(2)).unwrap_err().to_string().contains("found 9"));
        let empty = tempfile::tempdir().unwrap();
        put(empty.path(), "labels.npy", array("|u1", &[10], &labels));
        assert!(Corruptions::open(empty.path(), &names(2)).unwrap_err().to_string().contains("found none"));
    }
}
