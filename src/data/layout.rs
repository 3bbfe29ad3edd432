//! Detects the data set in a directory from the files in it.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use super::cifar::Cifar;
use super::folder_files::is_folder;
use super::idx::{IdxSet, is_idx_directory};
use super::npy::UNPACK;
use super::reading::entries;
use super::{DataError, cifar, folder, idx, npy_sets};
use super::{Dataset, TrainTest};

/// The layout of a data set on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// The binary files of CIFAR-10 or CIFAR-100.
    Cifar(Cifar),
    /// The IDX files of MNIST or Fashion-MNIST.
    Idx(IdxSet),
    /// PNG and JPEG files in class directories.
    Folder,
    /// `train_images.npy` and the three files that belong to it.
    Npy,
    /// `labels.npy` and an array for each corruption: a test set, see [`super::Corruptions`].
    Corruptions,
}

impl Layout {
    /// The name of the data set on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cifar(which) => which.name(),
            Self::Idx(which) => which.name(),
            Self::Folder => "folder",
            Self::Npy => "npy",
            Self::Corruptions => "corruptions",
        }
    }

    /// Reads the set in `directory` in this layout.
    ///
    /// # Errors
    /// As the layout's reader; [`DataError::Format`] for [`Layout::Corruptions`], which has no training part.
    pub fn load(self, directory: &Path, options: folder::FolderOptions) -> Result<TrainTest, DataError> {
        match self {
            Self::Cifar(which) => cifar::load_cifar(directory, which),
            Self::Idx(which) => idx::load_idx(directory, which),
            Self::Folder => folder::load_folder(directory, options),
            Self::Npy => npy_sets::load_npy(directory),
            Self::Corruptions => Err(DataError::format(
                directory,
                "holds corrupted test images: a network can be evaluated on them, not trained",
            )),
        }
    }
}

/// A layout and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The layout.
    pub layout: Layout,
    /// The directory that holds its files.
    pub directory: PathBuf,
}

/// Detects the data set in `path`, or in the only directory in it that holds one (such as `cifar-10-batches-bin`).
///
/// MNIST and Fashion-MNIST have the same files: it is Fashion-MNIST if the path contains "fashion".
///
/// # Errors
/// Returns an error if `path` is not a directory, or holds no known layout or several.
pub fn detect(path: &Path) -> Result<Detected, DataError> {
    let mut found = candidates(path)?;
    if found.len() > 1 {
        let several: Vec<String> =
            found.iter().map(|d| format!("{} in {}", d.layout.name(), d.directory.display())).collect();
        let what = format!("holds several data sets: {}; name one of them", several.join(", "));
        return Err(DataError::format(path, what));
    }
    found.pop().ok_or_else(|| {
        if let Some(remedy) = remedy(path) {
            return DataError::format(path, remedy);
        }
        let what = "holds no known data set, expected CIFAR binary files (data_batch_1.bin or train.bin), IDX files \
                    (train-images-idx3-ubyte), a directory of PNG or JPEG files for each class (in train and test, or \
                    alone), or train_images.npy";
        DataError::format(path, what)
    })
}

/// The data set in `path` itself, otherwise all data sets in its subdirectories.
pub(super) fn candidates(path: &Path) -> Result<Vec<Detected>, DataError> {
    let metadata = std::fs::metadata(path).map_err(DataError::reading(path))?;
    if !metadata.is_dir() {
        let advice = if is_npz(path) { format!("; it is an archive of .npy files: {UNPACK}") } else { String::new() };
        return Err(DataError::format(path, format!("is a file, expected the directory of a data set{advice}")));
    }
    if let Some(layout) = layout_of(path) {
        return Ok(vec![Detected { layout, directory: path.to_path_buf() }]);
    }
    let mut found = Vec::new();
    for entry in entries(path)? {
        let directory = entry.path();
        if !directory.is_dir() {
            continue;
        }
        if let Some(layout) = layout_of(&directory) {
            found.push(Detected { layout, directory });
            continue;
        }
        // As torchvision stores it.
        let raw = directory.join("raw");
        if is_idx_directory(&raw) {
            found.push(Detected { layout: Layout::Idx(idx_set(&raw)), directory: raw });
        }
    }
    Ok(found)
}

/// The step that makes a known data set of what `directory` holds.
fn remedy(directory: &Path) -> Option<String> {
    let entries = entries(directory).ok()?;
    if let Some(archive) = entries.iter().map(DirEntry::path).find(|path| is_npz(path)) {
        let name = archive.file_name()?.to_string_lossy().into_owned();
        return Some(format!("holds {name}, an archive of .npy files: {UNPACK}"));
    }
    let has_pickles = |path: &Path| path.join("data_batch_1").is_file() || path.join("fine_label_names").is_file();
    let pickles = has_pickles(directory) || entries.iter().any(|entry| has_pickles(&entry.path()));
    pickles.then(|| "holds CIFAR's version for Python; `fairtat data fetch cifar10` fetches the binary version".into())
}

fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
}

/// MNIST and Fashion-MNIST have the same files.
fn idx_set(directory: &Path) -> IdxSet {
    let fashion = directory.to_string_lossy().to_lowercase().contains("fashion");
    if fashion { IdxSet::FashionMnist } else { IdxSet::Mnist }
}

/// The layout whose characteristic files are in `directory`.
fn layout_of(directory: &Path) -> Option<Layout> {
    let has = |name: &str| directory.join(name).is_file();
    let is_cifar = |which: Cifar| which.train_files().iter().any(|f| has(f)) || has(which.test_file());
    if let Some(which) = [Cifar::Ten, Cifar::Hundred].into_iter().find(|which| is_cifar(*which)) {
        return Some(Layout::Cifar(which));
    }
    if is_idx_directory(directory) {
        return Some(Layout::Idx(idx_set(directory)));
    }
    if npy_sets::is_npy_directory(directory) {
        return Some(Layout::Npy);
    }
    if has("labels.npy") {
        return Some(Layout::Corruptions);
    }
    is_folder(directory).then_some(Layout::Folder)
}

/// Checks that both parts have the same shape and classes, and that every class has a training image.
///
/// # Errors
/// Returns [`DataError::Inconsistent`] with the difference or the first empty class.
pub fn check_parts(data: &TrainTest) -> Result<(), DataError> {
    let (train, test) = (&data.train, &data.test);
    let fail = |set: &Dataset, what: String| Err(DataError::Inconsistent { name: set.name().into(), what });
    if train.shape() != test.shape() {
        let what =
            format!("training images are {}, test images {}; expected the same shape", train.shape(), test.shape());
        return fail(train, what);
    }
    if train.class_names() != test.class_names() {
        let pairs = train.class_names().iter().zip(test.class_names());
        let difference = match pairs.enumerate().find(|(_, (a, b))| a != b) {
            Some((k, (a, b))) => format!("class {k} is '{a}' in the training part and '{b}' in the test part"),
            None => format!("{} classes in the training part, {} in the test part", train.classes(), test.classes()),
        };
        return fail(train, difference);
    }
    match train.class_counts().iter().position(|n| *n == 0) {
        Some(class) => fail(train, format!("class {class}, '{}', has no training image", train.class_names()[class])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::ImageShape;
    use super::*;

    #[test]
    fn every_layout_is_detected_from_its_files() {
        let png = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];
        for (files, expected) in [
            (&["data_batch_2.bin"][..], Layout::Cifar(Cifar::Ten)),
            (&["test_batch.bin"], Layout::Cifar(Cifar::Ten)),
            (&["train.bin"], Layout::Cifar(Cifar::Hundred)),
            (&["t10k-images.idx3-ubyte.gz"], Layout::Idx(IdxSet::Mnist)),
            (&["train_images.npy"], Layout::Npy),
            (&["labels.npy", "fog.npy"], Layout::Corruptions),
            (&["cat/1.png", "dog/1.png"], Layout::Folder),
            (&["train/cat/1.png", "test/cat/1.png"], Layout::Folder),
            (&["train/cat/images/1.png", "test/cat/1.png"], Layout::Folder),
        ] {
            for below in ["", "inner"] {
                let dir = tempfile::tempdir().unwrap();
                for file in files {
                    let path = dir.path().join(below).join(file);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    let content: &[u8] = if file.ends_with(".png") { &png } else { b"content" };
                    fs::write(path, content).unwrap();
                }
                let found = detect(dir.path()).unwrap();
                assert_eq!(
                    (found.layout, found.directory),
                    (expected, dir.path().join(below)),
                    "{files:?} in '{below}'"
                );
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let fashion = dir.path().join("Fashion-MNIST");
        fs::create_dir(&fashion).unwrap();
        fs::write(fashion.join("train-labels-idx1-ubyte"), []).unwrap();
        assert_eq!(detect(&fashion).unwrap().layout, Layout::Idx(IdxSet::FashionMnist));
        // As torchvision stores it.
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("FashionMNIST/raw");
        fs::create_dir_all(&raw).unwrap();
        fs::write(raw.join("train-images-idx3-ubyte"), []).unwrap();
        for path in [dir.path(), &dir.path().join("FashionMNIST"), &raw] {
            let expected = Detected { layout: Layout::Idx(IdxSet::FashionMnist), directory: raw.clone() };
            assert_eq!(detect(path).unwrap(), expected, "{}", path.display());
        }
    }

    #[test]
    fn what_can_be_made_a_set_is_named_with_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| detect(path).unwrap_err().to_string();
        fs::create_dir(dir.path().join("cifar-10-batches-py")).unwrap();
        fs::write(dir.path().join("cifar-10-batches-py/data_batch_1"), "x").unwrap();
        assert!(message(dir.path()).contains("`fairtat data fetch cifar10` fetches the binary version"));
        let archive = dir.path().join("pathmnist.npz");
        fs::write(&archive, "PK").unwrap();
        for path in [dir.path(), &archive] {
            let text = message(path);
            assert!(text.contains("archive of .npy files: unpack it, as with `unzip FILE.npz`"), "{text}");
        }
    }

    #[test]
    fn nothing_and_too_much_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| detect(path).unwrap_err().to_string();
        fs::write(dir.path().join("notes.txt"), "x").unwrap();
        assert!(message(dir.path()).contains("holds no known data set"));
        assert!(message(&dir.path().join("notes.txt")).contains("is a file, expected the directory"));
        assert!(matches!(detect(&dir.path().join("none")), Err(DataError::File(_))));
        for (name, file) in [("a", "train.bin"), ("b", "test_batch.bin")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(file), []).unwrap();
        }
        let text = message(dir.path());
        assert!(text.contains("cifar100 in") && text.contains("cifar10 in") && text.contains("several"), "{text}");
        let text = Layout::Corruptions.load(dir.path(), folder::FolderOptions::default()).unwrap_err().to_string();
        assert!(text.contains("not trained"), "{text}");
    }

    #[test]
    fn parts_must_agree_and_have_every_class() {
        let set = |names: &[&str], width, labels: &[u32]| {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            let images = vec![0; labels.len() * width];
            Dataset::new("set", names, ImageShape::new(1, 1, width), images, labels.to_vec()).unwrap()
        };
        let train = set(&["a", "b"], 2, &[0, 1]);
        assert!(check_parts(&TrainTest::new(train.clone(), train.clone())).is_ok());
        for (test, expected) in [
            (set(&["a", "b"], 3, &[0, 1]), "training images are 1×1×2, test images 1×1×3"),
            (set(&["a", "c"], 2, &[0, 1]), "class 1 is 'b' in the training part and 'c' in the test part"),
            (set(&["a", "b", "c"], 2, &[0, 1, 2]), "2 classes in the training part, 3 in the test part"),
        ] {
            let message = check_parts(&TrainTest::new(train.clone(), test)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let message = check_parts(&TrainTest::new(set(&["a", "b"], 2, &[1]), train)).unwrap_err().to_string();
        assert!(message.contains("class 0, 'a', has no training image"), "{message}");
    }
}
