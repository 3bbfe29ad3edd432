//! The files of an image folder: its layout, its classes and what in it is no image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::DataError;
use super::folder::starts_as_image;
use super::reading::{all_entries, is_hidden, read_class_names, read_text};

/// Maximum nesting of directories below a class directory; a link to a parent would otherwise never end.
const MAX_DEPTH: usize = 8;
/// Names of the parts in lower case. Without a test part, `VALIDATION` takes its place.
const TRAIN: [&str; 4] = ["train", "training", "train_set", "training_set"];
const TEST: [&str; 4] = ["test", "testing", "test_set", "testing_set"];
const VALIDATION: [&str; 5] = ["val", "valid", "validation", "val_set", "validation_set"];
/// Tiny-ImageNet's labels of the images in `val/images`.
const ANNOTATIONS: &str = "val_annotations.txt";
const CLASS_NAMES: &str = "class_names.txt";
/// What operating systems, archivers and file servers leave behind, in lower case, besides hidden files.
const LITTER: [&str; 9] = [
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
];
/// Extensions of files that describe images. They are skipped unless their content is an image.
const NOT_IMAGES: [&str; 22] = [
    "txt", "csv", "tsv", "json", "jsonl", "xml", "md", "rst", "html", "htm", "yaml", "yml", "toml", "ini", "log", "db",
    "py", "ipynb", "sh", "mat", "npy", "pdf",
];
/// Names in a note.
const LISTED: usize = 4;

pub(super) type Files = Vec<(PathBuf, u32)>;

/// Class names, and the files of both parts with their classes.
pub(super) struct Listing {
    pub(super) names: Vec<String>,
    pub(super) train: Files,
    pub(super) test: Files,
    /// What was skipped and assumed; for people.
    pub(super) notes: Vec<String>,
}

/// A class directory: its name and path.
type Class = (String, PathBuf);

/// Lists the folder.
pub(super) fn list(directory: &Path) -> Result<Listing, DataError> {
    let (mut skipped, mut notes) = (Skipped::default(), Vec::new());
    let with_index = |files: Vec<PathBuf>, class: usize| files.into_iter().map(move |f| (f, class as u32));
    let (mut train, mut test) = (Files::new(), Files::new());
    let parts = parts(directory)?;
    let root = parts.as_ref().map_or(directory, |parts| &parts.train);
    let mut classes = class_directories(root, &mut skipped)?;
    let names = names(directory, &mut classes, &mut notes)?;
    match parts {
        Some(parts) => {
            skipped.others(directory, &[&parts.train, &parts.test])?;
            for (i, (_, path)) in classes.iter().enumerate() {
                train.extend(with_index(files_of_class(path, 1, &mut skipped)?, i));
            }
            notes.extend(parts.note);
            if parts.annotated {
                test = annotated(&parts.test, &classes, &mut skipped)?;
            } else {
                let is_class = |(name, _): &Class| classes.iter().any(|(known, _)| known == name);
                if !directories(&parts.test)?.iter().any(is_class) {
                    let (train, first) = (parts.train.display(), &classes[0].0);
                    let what = format!(
                        "has no directory of a class of {train}, such as '{first}'; sort its images into such directories, \
                         or give {train} itself as the path: the last fifth of each class is then the test part"
                    );
                    return Err(DataError::format(&parts.test, what));
                }
                let there = subdirectories(&parts.test, &mut skipped)?;
                if let Some((class, _)) = there.iter().find(|class| !is_class(class)) {
                    let what = format!("has no directory '{class}', which {} has", parts.test.display());
                    return Err(DataError::format(&parts.train, what));
                }
                for (i, (name, _)) in classes.iter().enumerate() {
                    if let Some((_, path)) = there.iter().find(|(found, _)| found == name) {
                        test.extend(with_index(files_of_class(path, 0, &mut skipped)?, i));
                    }
                }
                if test.is_empty() {
                    return Err(DataError::format(&parts.test, "holds no image"));
                }
            }
        }
        None => {
            for (i, (_, path)) in classes.iter().enumerate() {
                let mut files = files_of_class(path, 2, &mut skipped)?;
                let held_out = (files.len() / 5).max(1);
                test.extend(with_index(files.split_off(files.len() - held_out), i));
                train.extend(with_index(files, i));
            }
        }
    }
    notes.extend(skipped.note(directory));
    Ok(Listing { names, train, test, notes })
}

/// Whether a folder has a directory for training images and one for test images.
///
/// # Errors
/// If it cannot be read, or has only one of them.
pub fn has_parts(directory: &Path) -> Result<bool, DataError> {
    Ok(parts(directory)?.is_some())
}

/// The first image of the training part; no other file is read.
pub(super) fn first_file(directory: &Path) -> Result<PathBuf, DataError> {
    let directory = parts(directory)?.map_or_else(|| directory.to_path_buf(), |parts| parts.train);
    let mut skipped = Skipped::default();
    let (_, class) = class_directories(&directory, &mut skipped)?.swap_remove(0);
    match first_below(&class, 0)? {
        Some(file) => Ok(file),
        // The error says what is missing.
        None => Ok(files_of_class(&class, 1, &mut skipped)?.swap_remove(0)),
    }
}

/// The first file that [`files_of_class`] would list. Directories after it are not read: a path that is still being typed
/// may name the root of a file system.
fn first_below(directory: &Path, depth: usize) -> Result<Option<PathBuf>, DataError> {
    if depth > MAX_DEPTH {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in all_entries(directory)?.iter().filter(|entry| !is_litter(&entry.path())) {
        let path = entry.path();
        let is_directory = path.is_dir();
        let mut key = path.as_os_str().as_encoded_bytes().to_vec();
        // In the order of the paths below it.
        key.extend(is_directory.then_some(b'/'));
        found.push((key, path, is_directory));
    }
    found.sort();
    for (_, path, is_directory) in found {
        if is_directory {
            if let Some(file) = first_below(&path, depth + 1)? {
                return Ok(Some(file));
            }
        } else if !has_extension_of_no_image(&path) || starts_as_image(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a directory looks like an image folder: parts, of which `train` holds directories, or directories that hold
/// images.
pub(super) fn is_folder(directory: &Path) -> bool {
    let below = |path: &Path| directories(path).unwrap_or_default();
    match parts(directory) {
        Ok(Some(parts)) if !below(&parts.train).is_empty() => return true,
        Ok(_) => {}
        // Parts in a combination that the reader refuses; a directory `train` alone is a set in itself.
        Err(_) => return below(directory).len() > 1,
    }
    below(directory).iter().any(|(_, class)| {
        let files = all_entries(class).unwrap_or_default();
        files.iter().filter(|file| !is_litter(&file.path())).take(16).any(|file| starts_as_image(&file.path()))
    })
}

/// The parts of a folder.
struct Parts {
    train: PathBuf,
    test: PathBuf,
    /// Whether the labels of the test part are in [`ANNOTATIONS`].
    annotated: bool,
    /// Why the test part is not called so, and what is not read.
    note: Option<String>,
}

/// The directories of the two parts; `None` if the folder has no parts.
fn parts(directory: &Path) -> Result<Option<Parts>, DataError> {
    let found = directories(directory)?;
    let of = |role: &[&str]| {
        let named: Vec<&Class> =
            found.iter().filter(|(name, _)| role.contains(&name.to_lowercase().as_str())).collect();
        match named[..] {
            [] => Ok(None),
            [(_, path)] => Ok(Some(path.clone())),
            [(a, _), (b, _), ..] => {
                Err(DataError::format(directory, format!("holds both {a} and {b}; move one of them away")))
            }
        }
    };
    let (train, test, validation) = (of(&TRAIN)?, of(&TEST)?, of(&VALIDATION)?);
    let of_validation = |path: PathBuf, train: &PathBuf, why: &str| {
        let annotated = path.join(ANNOTATIONS).is_file();
        let note = format!("{why}: the images of {} are the test part", file_name(&path));
        Parts { train: train.clone(), annotated, note: Some(note), test: path }
    };
    match (&train, test, validation) {
        (Some(train), Some(test), Some(validation)) => {
            let known = directories(train)?;
            if directories(&test)?.iter().any(|(class, _)| known.iter().any(|(name, _)| name == class)) {
                let not_read = format!(
                    "{} is not read: validation images are held out from {}",
                    file_name(&validation),
                    file_name(train)
                );
                return Ok(Some(Parts { train: train.clone(), test, annotated: false, note: Some(not_read) }));
            }
            let why = format!("{} has no directories of classes", file_name(&test));
            return Ok(Some(of_validation(validation, train, &why)));
        }
        (Some(train), Some(test), None) => {
            return Ok(Some(Parts { train: train.clone(), test, annotated: false, note: None }));
        }
        // `train` may also be a class (a vehicle): a part holds directories.
        (Some(train), None, Some(validation)) if !directories(train)?.is_empty() => {
            return Ok(Some(of_validation(validation, train, "there is no directory test")));
        }
        _ => {}
    }
    let is_part = |name: &String| [&TRAIN[..], &TEST, &VALIDATION].concat().contains(&name.to_lowercase().as_str());
    if !found.is_empty() && found.iter().all(|(name, _)| is_part(name)) {
        let what = format!(
            "expected the directories train and test (or val), found {}; without a test part, give the directory of the \
             classes itself as the path: the last fifth of each class is then the test part",
            found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
        );
        return Err(DataError::format(directory, what));
    }
    Ok(None)
}

/// Names and paths of the directories in `directory` that are no litter.
fn directories(directory: &Path) -> Result<Vec<Class>, DataError> {
    let paths = all_entries(directory)?.into_iter().map(|entry| entry.path());
    let is_wanted = |path: &PathBuf| !is_litter(path) && path.is_dir();
    Ok(paths.filter(is_wanted).map(|path| (file_name(&path), path)).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// As [`directories`], in bytewise order, for the directories of classes: images beside them are an error.
fn subdirectories(directory: &Path, skipped: &mut Skipped) -> Result<Vec<Class>, DataError> {
    let mut found = Vec::new();
    for entry in all_entries(directory)? {
        let path = entry.path();
        if is_litter(&path) {
            skipped.0.push(path);
        } else if path.is_dir() {
            match entry.file_name().into_string() {
                Ok(name) => found.push((name, path)),
                Err(_) => return Err(DataError::format(path, "the name of this class is not UTF-8; rename it")),
            }
        } else if starts_as_image(&path) {
            return Err(DataError::format(
                path,
                "is an image next to the class directories, expected it in one of them; move it into that of its class",
            ));
        } else {
            skipped.0.push(path);
        }
    }
    Ok(found)
}

/// At least two classes, sorted by name, or by number if all names are numbers.
fn class_directories(directory: &Path, skipped: &mut Skipped) -> Result<Vec<Class>, DataError> {
    let mut classes = subdirectories(directory, skipped)?;
    if classes.len() < 2 {
        let what = format!("expected a directory for each of at least two classes, found {}", classes.len());
        return Err(DataError::format(directory, what));
    }
    let numbers: Option<Vec<u64>> = classes.iter().map(|(name, _)| number(name)).collect();
    if numbers.is_some() {
        classes.sort_by_key(|(name, _)| number(name));
    }
    Ok(classes)
}

fn number(name: &str) -> Option<u64> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

/// The names of the classes: those of the directories, or those in `class_names.txt`, which may also list the
/// directories in another order.
fn names(directory: &Path, classes: &mut [Class], notes: &mut Vec<String>) -> Result<Vec<String>, DataError> {
    let path = directory.join(CLASS_NAMES);
    if path.exists() {
        let names = read_class_names(&path)?;
        if names.len() != classes.len() {
            let what =
                format!("expected a name for each of the {} class directories, found {}", classes.len(), names.len());
            return Err(DataError::format(path, what));
        }
        let place: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        if classes.iter().all(|(name, _)| place.contains_key(name.as_str())) {
            classes.sort_by_key(|(name, _)| place.get(name.as_str()).copied());
            notes.push(format!("{CLASS_NAMES} gives the order of the classes"));
        } else {
            let pairs: Vec<String> =
                classes.iter().zip(&names).map(|((directory, _), name)| format!("{directory} is '{name}'")).collect();
            notes.push(format!("{CLASS_NAMES} names the class directories in their order: {}", listed(&pairs)));
        }
        return Ok(names);
    }
    if !classes.is_sorted_by(|a, b| a.0.as_bytes() <= b.0.as_bytes()) {
        notes.push("the class directories are numbers and sorted as such: 2 comes before 10".into());
    }
    Ok(classes.iter().map(|class| class.0.clone()).collect())
}

/// All images below a class directory, of which there must be at least `least`, in bytewise order of their paths.
fn files_of_class(directory: &Path, least: usize, skipped: &mut Skipped) -> Result<Vec<PathBuf>, DataError> {
    fn walk(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, skipped: &mut Skipped) -> Result<(), DataError> {
        if depth > MAX_DEPTH {
            let what = format!("is nested more than {MAX_DEPTH} directories deep (a link to a parent?)");
            return Err(DataError::format(directory, what));
        }
        for entry in all_entries(directory)? {
            let path = entry.path();
            if is_litter(&path) {
                skipped.0.push(path);
                continue;
            }
            // `DirEntry::file_type` needs no further system call, but does not follow links.
            let kind = entry.file_type().map_err(DataError::reading(&path))?;
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                walk(&path, depth + 1, files, skipped)?;
            } else if has_extension_of_no_image(&path) && !starts_as_image(&path) {
                skipped.0.push(path);
            } else {
                files.push(path);
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    walk(directory, 0, &mut files, skipped)?;
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    if files.len() < least {
        let class = file_name(directory);
        let why = if least > 1 { " (one to train on, one to test on)" } else { "" };
        let what = format!("class '{class}' has {} images, expected at least {least}{why}", files.len());
        return Err(DataError::format(directory, what));
    }
    Ok(files)
}

/// The images of a part that [`ANNOTATIONS`] lists with their classes, in bytewise order of their paths.
fn annotated(part: &Path, classes: &[Class], skipped: &mut Skipped) -> Result<Files, DataError> {
    let path = part.join(ANNOTATIONS);
    let text = read_text(&path, 1 << 26)?;
    let labels = annotations(&text, classes.iter().map(|class| class.0.as_str()));
    let labels = labels.map_err(|what| DataError::format(&path, what))?;
    let mut files = Files::new();
    let images = Some(part.join("images")).filter(|path| path.is_dir());
    for file in files_of_class(images.as_deref().unwrap_or(part), 1, skipped)? {
        let label = file.file_name().and_then(|name| labels.get(name.to_str()?));
        match label {
            Some(label) => files.push((file, *label)),
            None => return Err(DataError::format(file, format!("has no line in {}; remove it", path.display()))),
        }
    }
    if files.len() < labels.len() {
        let what = format!("lists {} images, of which {} are there; fetch the set again", labels.len(), files.len());
        return Err(DataError::format(path, what));
    }
    Ok(files)
}

/// Checks a file like [`ANNOTATIONS`] of two classes.
pub(crate) fn check_annotations(path: &Path) -> Result<(), DataError> {
    let text = read_text(path, 1 << 26)?;
    annotations(&text, ["n01", "n02"].into_iter()).map(|_| ()).map_err(|what| DataError::format(path, what))
}

/// File names and labels; a line is the file, the class and more, which is ignored.
fn annotations<'a, 'c>(
    text: &'a str,
    classes: impl Iterator<Item = &'c str>,
) -> Result<BTreeMap<&'a str, u32>, String> {
    let classes: BTreeMap<&str, u32> = classes.zip(0..).collect();
    let mut labels = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let (Some(file), Some(class)) = (words.next(), words.next()) else {
            return Err(format!("line {}: expected a file and its class", number + 1));
        };
        let Some(label) = classes.get(class) else {
            return Err(format!("line {}: '{class}' is not the directory of a class in train", number + 1));
        };
        if labels.insert(file, *label).is_some() {
            return Err(format!("line {}: '{file}' is listed twice", number + 1));
        }
    }
    Ok(labels)
}

fn is_litter(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    is_hidden(name) || LITTER.contains(&name.to_string_lossy().to_lowercase().as_str())
}

fn has_extension_of_no_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    NOT_IMAGES.contains(&extension.as_str())
}

/// Files and directories that were not read.
#[derive(Default)]
struct Skipped(Vec<PathBuf>);

impl Skipped {
    /// What lies beside the parts.
    fn others(&mut self, directory: &Path, parts: &[&PathBuf]) -> Result<(), DataError> {
        let known = [TRAIN.as_slice(), &TEST, &VALIDATION].concat();
        for entry in all_entries(directory)? {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().to_lowercase());
            if !parts.contains(&&path) && !known.contains(&name.as_str()) {
                self.0.push(path);
            }
        }
        Ok(())
    }

    /// How many, and the names of the first ones.
    fn note(self, directory: &Path) -> Option<String> {
        let mut paths = self.0;
        paths.retain(|path| ![CLASS_NAMES, ANNOTATIONS].iter().any(|read| path.ends_with(read)));
        paths.sort();
        paths.dedup();
        let names: Vec<String> =
            paths.iter().map(|path| path.strip_prefix(directory).unwrap_or(path).display().to_string()).collect();
        let count = match names.len() {
            0 => return None,
            1 => "1 file or directory that is no image was".to_owned(),
            n => format!("{n} files and directories that are no images were"),
        };
        Some(format!("{count} skipped: {}", listed(&names)))
    }
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
