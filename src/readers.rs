//! The readers of all files that users and other programs write, in one list: what `fuzz/` feeds with changed files, and
//! the test below with the files in `fuzz/corpus`.
//!
//! A reader gives a value or an error. It never panics, and its memory is bounded by the length of the file and by what
//! the format can need.

use std::error::Error;
use std::path::Path;

use crate::config::Experiment;
use crate::data::{self, Cifar, ImageShape};
use crate::evaluate::FinalReport;
use crate::files;
use crate::model::pytorch::{self, Options};
use crate::model::{Architecture, Network};
use crate::train::{Checkpoint, RunDir, StoredNetwork};

/// One of [`READERS`].
#[derive(Debug)]
pub struct Reader {
    /// The name of its fuzz target and of its directory in `fuzz/corpus`.
    pub name: &'static str,
    /// Reads a file.
    pub read: fn(&Path) -> Result<(), Box<dyn Error>>,
}

macro_rules! readers {
    ($($name:literal: |$path:ident| $read:expr;)*) => {
        /// Every reader.
        pub const READERS: &[Reader] = &[$(Reader { name: $name, read: |$path| Ok($read.map(|_| ())?) }),*];
    };
}

readers! {
    "annotations": |path| data::check_annotations(path);
    "checkpoint": |path| StoredNetwork::load(path, None);
    "cifar10": |path| data::check_cifar(path, Cifar::Ten);
    "cifar100": |path| data::check_cifar(path, Cifar::Hundred);
    "class-names": |path| data::check_class_names(path);
    "classes": |path| RunDir::check_rows(path, true);
    "config": |path| Experiment::load(path);
    "evaluation": |path| serde_json::from_str::<FinalReport>(&files::read_to_string(path)?);
    "foreign": |path| pytorch::load(path, &network(), &Options::default());
    "idx-images": |path| data::check_idx(path, 3);
    "idx-labels": |path| data::check_idx(path, 1);
    "image": |path| data::load_image(path, ImageShape::new(3, 4, 4));
    "metrics": |path| RunDir::check_rows(path, false);
    "npy": |path| data::read_npy_u64(path);
    "npy-images": |path| data::check_npy(path, true);
    "npy-labels": |path| data::check_npy(path, false);
    "npz": |path| data::read_npz_u64(path, "counts");
    "resume": |path| Checkpoint::load(path);
}

/// The network of the files in `fuzz/corpus/foreign`.
fn network() -> Network {
    Architecture::SmallCnn.build(ImageShape::new(3, 8, 8), 4, None, Some(2))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// Larger files slow fuzzing down.
    const LARGEST: usize = 8 << 10;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
    }

    fn files_in(directory: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn every_reader_has_a_fuzz_target_and_a_corpus() {
        let names: Vec<&str> = READERS.iter().map(|reader| reader.name).collect();
        let manifest = fs::read_to_string(corpus().with_file_name("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        let targets: Vec<&str> =
            manifest["bin"].as_array().unwrap().iter().map(|target| target["name"].as_str().unwrap()).collect();
        assert_eq!(targets, names);
        let directories: Vec<String> =
            files_in(&corpus()).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(directories, names);
    }

    /// The files that are whole are read, the others refused with a message that names the file.
    #[test]
    fn corpora_are_read_or_refused_as_their_names_say() {
        let mut wrong = Vec::new();
        for reader in READERS {
            let files = files_in(&corpus().join(reader.name));
            let of = |kind: &str| files.iter().filter(|path| name(path).starts_with(kind)).count();
            assert!(of("good-") > 0 && of("bad-") > 0 && of("good-") + of("bad-") == files.len(), "{}", reader.name);
            for path in files {
                assert!(fs::metadata(&path).unwrap().len() <= LARGEST as u64, "{}", path.display());
                match (reader.read)(&path) {
                    Ok(()) if !name(&path).starts_with("good-") => wrong.push(format!("{} was read", path.display())),
                    Err(error) if !name(&path).starts_with("bad-") => {
                        wrong.push(format!("{}: {error}", path.display()))
                    }
                    _ => {}
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn name(path: &Path) -> &str {
        path.file_name().unwrap().to_str().unwrap()
    }

    /// Cut off, with a changed byte, and in the place of every other file.
    #[test]
    fn no_file_makes_a_reader_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for of in READERS {
            for file in files_in(&corpus().join(of.name)) {
                READERS.iter().for_each(|reader| drop((reader.read)(&file)));
                let bytes = fs::read(&file).unwrap();
                for i in 1..24 {
                    let at = bytes.len() * i / 24;
                    fs::write(&path, &bytes[..at]).unwrap();
                    drop((of.read)(&path));
                    let mut changed = bytes.clone();
                    // Headers are at the start.
                    let at = if i % 2 == 0 { i } else { at };
                    if let Some(byte) = changed.get_mut(at) {
                        *byte ^= 1 << (i % 8);
                    }
                    fs::write(&path, changed).unwrap();
                    drop((of.read)(&path));
                }
            }
        }
    }

    /// What `files::open` refuses is refused everywhere only if nothing goes past it.
    #[test]
    fn files_are_opened_by_files_open_alone() {
        fn check(directory: &Path) {
            for path in files_in(directory) {
                if path.is_dir() {
                    check(&path);
                } else if !name(&path).ends_with("tests.rs") && !path.ends_with("src/files.rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    let code = text.split("mod tests {").next().unwrap();
                    for call in
                        [" File::open(", "fs::read(", "fs::read_to_string(", "::from_path(", "ImageReader::open("]
                    {
                        let found = code
                            .lines()
                            .find(|line| line.contains(call) && !line.contains("//") && !line.contains(".unwrap()"));
                        assert_eq!(found, None, "{}", path.display());
                    }
                }
            }
        }
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    }

    /// Every path that a user can name leads to a reader.
    #[cfg(unix)]
    #[test]
    fn no_reader_waits_for_a_pipe_or_reads_a_device() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for reader in READERS {
            for path in [&pipe, Path::new("/dev/zero"), Path::new("/dev/null")] {
                let error = (reader.read)(path).unwrap_err().to_string();
                let expected = format!("cannot read {}: it is a ", path.display());
                assert!(
                    error.contains(&expected) && error.contains("expected a regular file"),
                    "{}: {error}",
                    reader.name
                );
            }
        }
    }
}
