//! The entry point to every data set: its name, its path if it has one, and the wanted form of its images.

use std::path::{Path, PathBuf};

use super::cifar::Cifar;
use super::fit::{check_memory, fit_dataset};
use super::folder::FolderOptions;
use super::idx::IdxSet;
use super::layout::{Layout, candidates, check_parts, detect};
use super::reading::did_you_mean;
use super::{DataError, ImageShape, ShapesOptions, TrainTest, digits, folder, npy_sets, shapes};
use crate::files::FileError;

/// Which data set, from where, in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOptions {
    /// One of [`source_names`].
    pub dataset: String,
    /// The directory of the set, or a directory that holds only that one. `root/dataset` if `None`.
    pub path: Option<PathBuf>,
    /// The directory of named sets.
    pub root: PathBuf,
    /// Side of the square to which every image is cropped and scaled, see [`FolderOptions`]; `None` keeps the size.
    pub image_size: Option<usize>,
    /// 1 for grey or 3 for colour; `None` keeps the channels.
    pub channels: Option<usize>,
    /// Seed of the sets that are generated.
    pub seed: u64,
}

/// The sets that are read from disk, with their layouts.
const ON_DISK: [(&str, Layout); 6] = [
    ("cifar10", Layout::Cifar(Cifar::Ten)),
    ("cifar100", Layout::Cifar(Cifar::Hundred)),
    ("mnist", Layout::Idx(IdxSet::Mnist)),
    ("fashion-mnist", Layout::Idx(IdxSet::FashionMnist)),
    ("folder", Layout::Folder),
    ("npy", Layout::Npy),
];

/// The sets that are built into the program.
const BUILT_IN: [&str; 2] = ["digits", "shapes"];

/// Every name that [`load`] knows.
pub fn source_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.into_iter().chain(ON_DISK.iter().map(|(name, _)| *name))
}

/// Checks that a data set's name is one of [`source_names`].
///
/// # Errors
/// [`DataError::Missing`] with the names there are, and the nearest one.
pub fn check_name(name: &str) -> Result<(), DataError> {
    if source_names().any(|known| known == name) {
        return Ok(());
    }
    Err(unknown(name))
}

fn unknown(name: &str) -> DataError {
    let (hint, known) = (did_you_mean(name, source_names()), source_names().collect::<Vec<_>>().join(", "));
    DataError::Missing(format!("no data set is called '{name}'{hint} (known: {known})"))
}

/// Checks that a data set has a name that is known, and a path where it needs one and none where it does not. Nothing is read.
///
/// # Errors
/// An unknown name, a path that is missing, does not exist or is not for this set.
pub fn check_source(options: &SourceOptions) -> Result<(), DataError> {
    let name = options.dataset.as_str();
    check_name(name)?;
    match &options.path {
        Some(path) if BUILT_IN.contains(&name) => {
            let what = format!("the data set '{name}' is built in and has no path, found {}", path.display());
            Err(DataError::Missing(what))
        }
        None if matches!(name, "folder" | "npy") => {
            Err(DataError::Missing(format!("data set '{name}' needs --path DIR, the directory that holds it")))
        }
        Some(path) => std::fs::metadata(path).map(|_| ()).map_err(|e| FileError::reading(path)(e).into()),
        None => Ok(()),
    }
}

/// Number of classes of a data set whose name says it; `None` for folders, npy files and unknown names.
pub fn known_classes(name: &str) -> Option<usize> {
    match name {
        "digits" | "shapes" | "cifar10" | "mnist" | "fashion-mnist" => Some(10),
        "cifar100" => Some(100),
        _ => None,
    }
}

/// Loads a data set, converts it to the wanted form, and checks that its parts agree and have every class.
///
/// # Errors
/// Returns an error if the name is unknown, if the set is missing or is another set than named, or if its reader fails.
pub fn load(options: &SourceOptions) -> Result<TrainTest, DataError> {
    check_source(options)?;
    let name = options.dataset.as_str();
    if BUILT_IN.contains(&name) {
        let data = match name {
            "digits" => digits()?,
            _ => shapes(&ShapesOptions { seed: options.seed, ..ShapesOptions::default() })?,
        };
        return fitted(data, options);
    }
    let (_, layout) = ON_DISK.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(name))?;
    let directory = match (&options.path, layout) {
        (Some(path), _) => find(path, *layout)?,
        (None, _) => {
            let place = options.root.join(name);
            if !place.exists() {
                let what = format!(
                    "{name} is not in {}: run `fairtat data fetch {name}`, or give the path of a copy",
                    place.display()
                );
                return Err(DataError::Missing(what));
            }
            find(&place, *layout)?
        }
    };
    load_layout(*layout, &directory, options)
}

/// Loads the set that `path` holds, see [`detect`]; the name and path in `options` are ignored.
///
/// # Errors
/// As [`detect`] and [`load`].
pub fn load_path(path: &Path, options: &SourceOptions) -> Result<TrainTest, DataError> {
    let found = detect(path)?;
    load_layout(found.layout, &found.directory, options)
}

/// The shape of the first image of a folder or of npy files, `dataset`, as it is on disk. Reads as little as possible:
/// only [`load`] checks the other images.
///
/// # Errors
/// Returns an error if the data set is of another kind or has no path, or if its reader fails.
pub fn first_shape(dataset: &str, path: Option<&Path>) -> Result<ImageShape, DataError> {
    match (dataset, path) {
        ("folder", Some(path)) => folder::first_shape(&find(path, Layout::Folder)?),
        ("npy", Some(path)) => npy_sets::first_shape(&find(path, Layout::Npy)?),
        _ => Err(DataError::Missing(format!("'{dataset}' is not a folder or npy files with a path"))),
    }
}

fn load_layout(layout: Layout, directory: &Path, options: &SourceOptions) -> Result<TrainTest, DataError> {
    let wanted = FolderOptions { image_size: options.image_size, channels: options.channels };
    fitted(layout.load(directory, wanted)?, options)
}

/// Converts both parts to the wanted form and checks that they agree.
fn fitted(TrainTest { train, test, notes }: TrainTest, options: &SourceOptions) -> Result<TrainTest, DataError> {
    let from = train.shape();
    let side = |own: usize| options.image_size.unwrap_or(own);
    let to = ImageShape::new(options.channels.unwrap_or(from.channels), side(from.height), side(from.width));
    check_memory(train.name(), train.len() + test.len(), 0, to)?;
    let fit = |set| fit_dataset(set, options.channels, options.image_size);
    let mut data = TrainTest { train: fit(train)?, test: fit(test)?, notes };
    check_parts(&data)?;
    data.notes.extend(about_classes(&data));
    Ok(data)
}

/// From this ratio between the largest and the smallest class on, a set is called unbalanced.
const UNBALANCED: usize = 2;
/// Names of classes in a note.
const LISTED: usize = 4;

/// What is uncommon about the numbers of images of the classes.
fn about_classes(data: &TrainTest) -> Vec<String> {
    let mut notes = Vec::new();
    let names = data.train.class_names();
    let counts = data.train.class_counts();
    let extreme = |of: fn(&(usize, &usize)) -> (usize, usize)| counts.iter().enumerate().min_by_key(of);
    if let (Some((least, &few)), Some((most, &many))) =
        (extreme(|(k, n)| (**n, *k)), extreme(|(k, n)| (usize::MAX - **n, *k)))
        && many >= UNBALANCED * few
    {
        notes.push(format!(
            "the classes are unbalanced: {many} training images of '{}', {few} of '{}'; a mean accuracy weighs large \
             classes more",
            names[most], names[least]
        ));
    }
    let tested = data.test.class_counts();
    let without: Vec<&str> = names.iter().zip(tested).filter(|(_, n)| *n == 0).map(|(name, _)| name.as_str()).collect();
    if let Some((last, others)) = without.split_last() {
        let shown = match others.len() {
            0 => format!("class '{last}' has"),
            n if n < LISTED => format!("classes '{}' and '{last}' have", others.join("', '")),
            n => format!("{} classes, '{}' and others, have", n + 1, others[..LISTED].join("', '")),
        };
        notes.push(format!("{shown} no test images: their test accuracy is n/a, and worst and gap are of the others"));
    }
    notes
}

/// The directory with the wanted layout: `path`, or a directory in it.
fn find(path: &Path, wanted: Layout) -> Result<PathBuf, DataError> {
    // MNIST and Fashion-MNIST cannot be told apart by their files.
    let fits = |layout| layout == wanted || matches!((layout, wanted), (Layout::Idx(_), Layout::Idx(_)));
    let found = candidates(path)?;
    let fitting: Vec<_> = found.iter().filter(|d| fits(d.layout)).collect();
    match (&fitting[..], &found[..]) {
        ([one], _) => Ok(one.directory.clone()),
        // The reader of folders gives a more precise error.
        ([], []) if wanted == Layout::Folder => Ok(path.to_path_buf()),
        ([], [other, ..]) => {
            let what = format!("holds a data set of the kind {}, expected {}", other.layout.name(), wanted.name());
            Err(DataError::format(&other.directory, what))
        }
        // Several sets, or none.
        _ => detect(path).map(|found| found.directory),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::npy::tests::array;
    use super::*;

    fn options(dataset: &str, path: Option<&Path>, root: &Path) -> SourceOptions {
        let (path, root) = (path.map(Path::to_path_buf), root.to_path_buf());
        SourceOptions { dataset: dataset.into(), path, root, image_size: None, channels: None, seed: 0 }
    }

    /// Ten images of ten classes in both parts, as CIFAR-10.
    fn cifar10(dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        let records: Vec<u8> = (0..10).flat_map(|l| [vec![l], vec![l * 2; 3072]].concat()).collect();
        for file in Cifar::Ten.train_files().iter().chain([&"test_batch.bin"]) {
            fs::write(dir.join(file), &records).unwrap();
        }
    }

    #[test]
    fn named_sets_come_from_the_root_or_a_path() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("cifar10/cifar-10-batches-bin");
        cifar10(&inner);
        let by_name = load(&options("cifar10", None, root.path())).unwrap();
        assert_eq!(by_name.train.len(), 50);
        for path in [inner.as_path(), &root.path().join("cifar10")] {
            assert_eq!(load(&options("cifar10", Some(path), Path::new("none"))).unwrap().train, by_name.train);
            assert_eq!(load_path(path, &options("", None, path)).unwrap().test, by_name.test);
        }
        fs::create_dir(root.path().join("cifar10/other")).unwrap();
        fs::write(root.path().join("cifar10/other/train.bin"), "").unwrap();
        assert_eq!(load(&options("cifar10", None, root.path())).unwrap().train, by_name.train);
        let small = SourceOptions { image_size: Some(8), channels: Some(1), ..options("cifar10", None, root.path()) };
        let small = load(&small).unwrap();
        assert_eq!((small.train.shape().len(), small.train.image(9)[0]), (64, 18));
    }

    #[test]
    fn wrong_names_and_paths_are_errors() {
        let root = tempfile::tempdir().unwrap();
        cifar10(&root.path().join("cifar100"));
        let message = |dataset, path| load(&options(dataset, path, root.path())).unwrap_err().to_string();
        for (dataset, expected) in [
            ("cifar-10", "no data set is called 'cifar-10'; did you mean 'cifar10'? (known: "),
            ("cifar10", "run `fairtat data fetch cifar10`"),
            ("cifar100", "holds a data set of the kind cifar10, expected cifar100"),
            ("folder", "data set 'folder' needs --path DIR"),
            ("npy", "data set 'npy' needs --path DIR"),
        ] {
            let text = message(dataset, None);
            assert!(text.contains(expected), "{text}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(message("mnist", Some(empty.path())).contains("holds no known data set"));
        assert!(message("folder", Some(empty.path())).contains("at least two classes, found 0"));
        assert!(message("folder", Some(&empty.path().join("none"))).contains("none: "));
    }

    #[test]
    fn built_in_sets_have_the_classes_that_their_names_say() {
        let root = tempfile::tempdir().unwrap();
        for name in BUILT_IN {
            let loaded = load(&options(name, None, root.path())).unwrap();
            assert_eq!(known_classes(name), Some(loaded.train.classes()), "{name}");
        }
        for (name, layout) in ON_DISK {
            let classes = match layout {
                Layout::Cifar(which) => Some(which.built_in_names().len()),
                Layout::Idx(_) => Some(10),
                _ => None,
            };
            assert_eq!(known_classes(name), classes, "{name}");
        }
        assert_eq!(known_classes("nope"), None);
    }

    #[test]
    fn uncommon_numbers_of_images_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes| fs::write(dir.path().join(name), bytes).unwrap();
        put("class_names.txt", b"cat\ndog\nemu".to_vec());
        for (part, labels) in [("train", &[0, 1, 1, 1, 2][..]), ("test", &[1, 1, 1, 1, 1])] {
            put(&format!("{part}_images.npy"), array("|u1", &[5, 1, 1], &[1, 2, 3, 4, 5]));
            put(&format!("{part}_labels.npy"), array("|u1", &[5], labels));
        }
        let data = load(&options("npy", Some(dir.path()), dir.path())).unwrap();
        let expected = [
            "the classes are unbalanced: 3 training images of 'dog', 1 of 'cat'; a mean accuracy weighs large classes more",
            "classes 'cat' and 'emu' have no test images: their test accuracy is n/a, and worst and gap are of the others",
        ];
        assert_eq!(data.notes, expected);
        assert!(load(&options("digits", None, dir.path())).unwrap().notes.is_empty());
    }

    #[test]
    fn empty_classes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes| fs::write(dir.path().join(name), bytes).unwrap();
        put("class_names.txt", b"cat\ndog\nemu".to_vec());
        for part in ["train", "test"] {
            put(&format!("{part}_images.npy"), array("|u1", &[2, 1, 1], &[1, 2]));
            put(&format!("{part}_labels.npy"), array("|u1", &[2], &[0, 2]));
        }
        let text = load(&options("npy", Some(dir.path()), dir.path())).unwrap_err().to_string();
        assert!(text.contains("class 1, 'dog', has no training image"), "{text}");
    }
}
