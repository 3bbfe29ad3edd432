//! A labelled set of images, and the errors of the data layer.

use crate::files::FileError;
use std::path::{Path, PathBuf};

/// Channels, height and width of every image of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ImageShape {
    /// 1 for grey, 3 for red, green, blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Shape of an image with `channels` planes of `height` rows and `width` columns.
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Values in one image: `channels × height × width`.
    pub const fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether an image of this shape has no values.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Display for ImageShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}×{}", self.channels, self.height, self.width)
    }
}

/// Labelled images in memory: `N × C × H × W` bytes and a class index for each image.
///
/// A `Dataset` always holds at least one image and only labels below the number of class names: [`Dataset::new`]
/// rejects anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    name: String,
    class_names: Vec<String>,
    shape: ImageShape,
    images: Vec<u8>,
    labels: Vec<u32>,
}

/// The first two of these names that are the same.
pub(crate) fn same_name(names: &[String]) -> Option<(usize, usize)> {
    let mut known = std::collections::HashMap::new();
    names.iter().enumerate().find_map(|(place, name)| known.insert(name, place).map(|first| (first, place)))
}

impl Dataset {
    /// Builds a set from `N × C × H × W` bytes and `N` labels.
    ///
    /// # Errors
    /// Returns [`DataError::Inconsistent`] if the byte count is not `labels.len() × shape.len()`, if there is no image
    /// or fewer than two classes, if two classes have one name, or if a label is not below `class_names.len()`.
    pub fn new(
        name: impl Into<String>,
        class_names: Vec<String>,
        shape: ImageShape,
        images: Vec<u8>,
        labels: Vec<u32>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        let fail = |what: String| Err(DataError::Inconsistent { name: name.clone(), what });
        if labels.is_empty() || shape.is_empty() {
            return fail("it holds no image".into());
        }
        if class_names.len() < 2 {
            return fail(format!("a classifier needs at least two classes, found {}", class_names.len()));
        }
        if let Some((a, b)) = same_name(&class_names) {
            return fail(format!("classes {a} and {b} are both called '{}'; rename one of them", class_names[a]));
        }
        if images.len() != labels.len() * shape.len() {
            return fail(format!(
                "{} labels of {shape} images need {} bytes, found {}",
                labels.len(),
                labels.len() * shape.len(),
                images.len()
            ));
        }
        if let Some((i, label)) = labels.iter().enumerate().find(|(_, l)| **l as usize >= class_names.len()) {
            return fail(format!("image {i} has label {label}, expected 0 to {}", class_names.len() - 1));
        }
        Ok(Self { name, class_names, shape, images, labels })
    }

    /// Name of the set in messages and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name for every class, in the order of the labels.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Number of classes `K`.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// Shape of each image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Number of images `N`.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Always `false`, as an empty set cannot be built. Exists because `len` does.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of image `index`, planar. `index` must be below [`Self::len`].
    pub fn image(&self, index: usize) -> &[u8] {
        &self.images[index * self.shape.len()..][..self.shape.len()]
    }

    /// All bytes, `N × C × H × W`.
    pub fn images(&self) -> &[u8] {
        &self.images
    }

    /// The class of every image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Number of images of each class.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes()];
        for &label in &self.labels {
            counts[label as usize] += 1;
        }
        counts
    }

    /// A set of the images at `indices`, in that order, with the same classes.
    ///
    /// # Errors
    /// Returns [`DataError::Inconsistent`] if `indices` is empty or one of them is out of range.
    pub fn select(&self, indices: &[usize]) -> Result<Self, DataError> {
        if let Some(bad) = indices.iter().find(|i| **i >= self.len()) {
            return Err(DataError::Inconsistent {
                name: self.name.clone(),
                what: format!("image {bad} was requested, expected 0 to {}", self.len() - 1),
            });
        }
        let mut images = Vec::with_capacity(indices.len() * self.shape.len());
        for &i in indices {
            images.extend_from_slice(self.image(i));
        }
        let labels = indices.iter().map(|&i| self.labels[i]).collect();
        Self::new(self.name.clone(), self.class_names.clone(), self.shape, images, labels)
    }

    /// The same images with the classes in the order of `names`.
    ///
    /// # Errors
    /// Returns [`DataError::Inconsistent`] if a class is not among `names`.
    pub fn in_classes(&self, names: &[String]) -> Result<Self, DataError> {
        let place = |class: &String| {
            names.iter().position(|name| name == class).map(|place| place as u32).ok_or_else(|| {
                DataError::Inconsistent { name: self.name.clone(), what: format!("no class is called '{class}'") }
            })
        };
        let places = self.class_names.iter().map(place).collect::<Result<Vec<u32>, _>>()?;
        let labels = self.labels.iter().map(|label| places[*label as usize]).collect();
        Self::new(self.name.clone(), names.to_vec(), self.shape, self.images.clone(), labels)
    }

    /// These images and those of `other`.
    ///
    /// # Errors
    /// Returns [`DataError::Inconsistent`] if shapes or classes differ.
    pub fn joined(&self, other: &Self) -> Result<Self, DataError> {
        if (self.shape, &self.class_names) != (other.shape, &other.class_names) {
            let what = format!("its shape or classes differ from those of '{}'", other.name);
            return Err(DataError::Inconsistent { name: self.name.clone(), what });
        }
        let images = [&self.images[..], &other.images].concat();
        let labels = [&self.labels[..], &other.labels].concat();
        Self::new(self.name.clone(), self.class_names.clone(), self.shape, images, labels)
    }
}

/// The two parts of every data source.
#[derive(Debug, Clone)]
pub struct TrainTest {
    /// Images to train on, and to take the validation split from.
    pub train: Dataset,
    /// Images for evaluation only. A class may have none.
    pub test: Dataset,
    /// What was skipped, converted and assumed in reading the set; for people.
    pub notes: Vec<String>,
}

impl TrainTest {
    /// Both parts, without notes.
    pub fn new(train: Dataset, test: Dataset) -> Self {
        Self { train, test, notes: Vec::new() }
    }
}

/// Errors of the data layer. Every message says where, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or directory could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The content of a file does not match its format.
    #[error("{path}: {what}")]
    Format {
        /// The file or directory.
        path: PathBuf,
        /// Offset or entry, the expected and the found value, as text.
        what: String,
    },
    /// Images, labels and class names do not fit together.
    #[error("data set '{name}': {what}")]
    Inconsistent {
        /// Name of the set.
        name: String,
        /// The expected and the found value, as text.
        what: String,
    },
    /// The set is missing, or a requested item does not exist.
    #[error("{0}")]
    Missing(String),
    /// A download failed or delivered something else than expected.
    #[error("{0}")]
    Download(String),
    /// A file is not the one that its publisher describes.
    #[error("{path}: expected {expected}, found {found}; {advice}")]
    Checksum {
        /// Where the file was.
        path: PathBuf,
        /// Length or checksum, with its source.
        expected: String,
        /// Length or checksum of the file.
        found: String,
        /// What was done with the file, and what to do.
        advice: String,
    },
    /// The user asked to stop.
    #[error("{0}")]
    Stopped(String),
}

impl DataError {
    /// A closure that adds the path to an [`std::io::Error`]: `File::open(path).map_err(DataError::reading(path))`.
    pub fn reading(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let error = FileError::reading(path);
        move |cause| error(cause).into()
    }

    /// The same for a failure to create, write or rename to `path`.
    pub fn writing(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let error = FileError::writing(path);
        move |cause| error(cause).into()
    }

    /// A [`DataError::Format`] for `path`.
    pub fn format(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_path_buf(), what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_classes_never_have_one_name() {
        let set = |names: [&str; 3]| {
            Dataset::new("pets", names.map(str::to_owned).to_vec(), ImageShape::new(1, 1, 1), vec![0; 3], vec![0, 1, 2])
        };
        assert!(set(["cat", "dog", "Cat"]).is_ok());
        let message = set(["cat", "dog", "cat"]).unwrap_err().to_string();
        assert!(message.contains("classes 0 and 2 are both called 'cat'; rename one of them"), "{message}");
    }
}
