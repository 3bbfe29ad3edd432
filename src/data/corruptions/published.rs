//! The published files of CIFAR-10-C and CIFAR-100-C.
//!
//! One array of bytes per corruption, `5 N × H × W × 3` and channels last: the test set at severity 1, then 2, up to 5.
//! `labels.npy` holds the labels of the test set five times; those of CIFAR-100-C are the fine labels.
//! Sources: <https://zenodo.org/records/2535967> (CIFAR-10-C), <https://zenodo.org/records/3555552> (CIFAR-100-C).

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Corruption, Severity};
use crate::data::npy::NpyFile;
use crate::data::npy_sets::SEVERITIES;
use crate::data::{DataError, Dataset, ImageShape};

/// A directory with published corruptions of a test set.
///
/// Opening reads the labels and the headers of all files, so that a long evaluation does not fail on its last file.
#[derive(Debug, Clone)]
pub struct PublishedSet {
    directory: PathBuf,
    class_names: Vec<String>,
    corruptions: Vec<Corruption>,
    /// Labels of one severity.
    labels: Vec<u32>,
    shape: ImageShape,
}

impl PublishedSet {
    /// Opens a directory that must hold `labels.npy` and the files of all `corruptions`.
    ///
    /// # Errors
    /// Returns an error that names all missing files; or if a file is damaged or of another format, if the arrays differ
    /// in their shape from each other or from the labels, if the labels are not five times the same, or if a label is
    /// not below the number of class names.
    pub fn open(directory: &Path, class_names: &[String], corruptions: &[Corruption]) -> Result<Self, DataError> {
        let labels_path = directory.join("labels.npy");
        let files: Vec<PathBuf> = corruptions.iter().map(|c| directory.join(c.file())).collect();
        let missing: Vec<String> = std::iter::once(&labels_path)
            .chain(&files)
            .filter(|path| !path.is_file())
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        if !missing.is_empty() {
            let what = format!(
                "{} missing; unpack CIFAR-10-C (zenodo.org/records/2535967) or CIFAR-100-C \
                 (zenodo.org/records/3555552) and give the directory with its .npy files",
                match &missing[..] {
                    [one] => format!("{one} is"),
                    [all @ .., last] => format!("{} and {last} are", all.join(", ")),
                    [] => String::new(),
                }
            );
            return Err(DataError::format(directory, what));
        }
        let labels = read_labels(&labels_path, class_names.len())?;
        let mut shape = None;
        for path in &files {
            let found = image_shape(path, &NpyFile::open(path)?, labels.len())?;
            let (first, expected) = shape.get_or_insert((path, found));
            if *expected != found {
                let what = format!("images of {found}, expected {expected} as in {}", first.display());
                return Err(DataError::format(path, what));
            }
        }
        let Some((_, shape)) = shape else {
            return Err(DataError::Missing(format!(
                "no corruption of {} was requested, expected at least one",
                directory.display()
            )));
        };
        let (directory, class_names, corruptions) =
            (directory.to_path_buf(), class_names.to_vec(), corruptions.to_vec());
        Ok(Self { directory, class_names, corruptions, labels, shape })
    }

    /// The corruptions that were requested.
    pub fn corruptions(&self) -> &[Corruption] {
        &self.corruptions
    }

    /// Number of images of one corruption at one severity.
    pub fn images_per_severity(&self) -> usize {
        self.labels.len()
    }

    /// Shape of each image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The first `limit` images (all if `None` or if there are fewer) under a corruption. Image `i` is image `i` of the
    /// clean test set.
    ///
    /// # Errors
    /// Returns an error if `limit` is 0, or if the file is missing or has changed since the set was opened.
    pub fn load(&self, corruption: Corruption, severity: Severity, limit: Option<usize>) -> Result<Dataset, DataError> {
        let path = self.directory.join(corruption.file());
        let mut file = NpyFile::open(&path)?;
        let found = image_shape(&path, &file, self.labels.len())?;
        if found != self.shape {
            let what = format!("images of {found}, expected {} as in the other files", self.shape);
            return Err(DataError::format(path, what));
        }
        let count = limit.unwrap_or(usize::MAX).min(self.labels.len());
        let first = (usize::from(severity.get()) - 1) * self.labels.len();
        let interleaved = file.read_rows(first, count)?;
        let mut images = vec![0; interleaved.len()];
        let plane = self.shape.height * self.shape.width;
        images.par_chunks_exact_mut(self.shape.len()).zip(interleaved.par_chunks_exact(self.shape.len())).for_each(
            |(planar, interleaved)| {
                for (i, value) in planar.iter_mut().enumerate() {
                    *value = interleaved[i % plane * self.shape.channels + i / plane];
                }
            },
        );
        let labels = self.labels[..count].to_vec();
        Dataset::new(format!("{corruption}-{severity}"), self.class_names.clone(), self.shape, images, labels)
    }
}

/// The labels of one severity.
fn read_labels(path: &Path, classes: usize) -> Result<Vec<u32>, DataError> {
    let fail = |what: String| Err(DataError::format(path, what));
    let mut file = NpyFile::open(path)?;
    if !matches!(file.shape(), [_] | [_, 1]) {
        return fail(format!("expected labels of shape (N,) or (N, 1), found {:?}", file.shape()));
    }
    let values = file.read_u64()?;
    if values.is_empty() || !values.len().is_multiple_of(SEVERITIES) {
        return fail(format!("expected labels for {SEVERITIES} severities of equal size, found {}", values.len()));
    }
    let count = values.len() / SEVERITIES;
    if let Some(i) = (count..values.len()).find(|i| values[*i] != values[i % count]) {
        return fail(format!(
            "image {} has label {} at severity {} and {} at severity 1, expected the same test set five times",
            i % count,
            values[i],
            i / count + 1,
            values[i % count]
        ));
    }
    if let Some((i, label)) = values.iter().enumerate().find(|(_, label)| **label >= classes as u64) {
        return fail(format!(
            "label {label} of image {i}, expected 0 to {}; are these the labels of another data set?",
            classes.saturating_sub(1)
        ));
    }
    Ok(values[..count].iter().map(|label| *label as u32).collect())
}

/// The shape of the images in an array that must hold `count` of them for each severity.
fn image_shape(path: &Path, file: &NpyFile, count: usize) -> Result<ImageShape, DataError> {
    let fail = |what: String| Err(DataError::format(path, what));
    let (images, shape) = match *file.shape() {
        [n, height, width, channels @ (1 | 3)] => (n, ImageShape::new(channels, height, width)),
        _ => {
            return fail(format!(
                "expected images of shape (N, H, W, 3) or (N, H, W, 1), channels last, found {:?}",
                file.shape()
            ));
        }
    };
    if !file.is_u8() {
        return fail(format!("expected images of unsigned bytes (u1), found {}", file.kind()));
    }
    if images != SEVERITIES * count {
        return fail(format!(
            "holds {images} images, expected {} ({SEVERITIES} severities of the {count} labels in labels.npy)",
            SEVERITIES * count
        ));
    }
    if shape.is_empty() {
        return fail(format!("images of {shape} have no pixels"));
    }
    Ok(shape)
}
