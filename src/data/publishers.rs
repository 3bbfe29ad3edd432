//! The official files of known data sets: addresses, lengths and checksums.
//!
//! Every size and checksum names its source. A value that the publisher does not give is `None`, and the source field
//! says so.

use std::path::{Path, PathBuf};

use super::DataError;

/// A checksum, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// MD5. Guards against accidents, not against an attacker; for most old sets nothing else was ever published.
    Md5(String),
    /// SHA-256.
    Sha256(String),
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Md5(hex) => write!(f, "MD5 {hex}"),
            Self::Sha256(hex) => write!(f, "SHA-256 {hex}"),
        }
    }
}

/// Length and checksums of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Length.
    pub bytes: u64,
    /// MD5, lower-case hexadecimal.
    pub md5: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// Whether a file is an archive, and of which kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packing {
    /// The file is read as it is.
    None,
    /// A tar file that holds one directory.
    Tar {
        /// Name of that directory.
        directory: String,
    },
    /// A gzip-compressed tar file that holds one directory.
    TarGz {
        /// Name of that directory.
        directory: String,
    },
}

impl Packing {
    /// The directory that unpacking creates next to the archive; `None` if the file is not an archive.
    pub fn directory(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Tar { directory } | Self::TarGz { directory } => Some(directory),
        }
    }
}

/// One file of a set, as its publisher describes it.
#[derive(Debug, Clone)]
pub struct PublishedFile {
    /// Name on disk.
    pub name: String,
    /// Addresses of the file, tried in this order.
    pub urls: Vec<String>,
    /// Exact length, if the publisher gives it.
    pub bytes: Option<u64>,
    /// Upper bound of the length of the file that the publisher describes.
    pub at_most: u64,
    /// What the publisher says about the length, and where.
    pub size_source: String,
    /// Checksum, if one was published.
    pub checksum: Option<Checksum>,
    /// Who published the checksum, and where.
    pub checksum_source: String,
    /// Whether and how it is unpacked.
    pub packing: Packing,
}

impl PublishedFile {
    /// Compares the digests of a file with the values of the publisher.
    ///
    /// `Ok` says what the file was verified against; `Err` holds the expected and the found value.
    pub fn compare(&self, found: &Digests) -> Result<String, Mismatch> {
        if let Some(bytes) = self.bytes.filter(|bytes| *bytes != found.bytes) {
            return Err(Mismatch {
                expected: format!("{bytes} bytes ({})", self.size_source),
                found: format!("{} bytes", found.bytes),
            });
        }
        if found.bytes > self.at_most {
            return Err(Mismatch {
                expected: format!("at most {} bytes ({})", self.at_most, self.size_source),
                found: format!("{} bytes", found.bytes),
            });
        }
        let (expected, have) = match &self.checksum {
            None => {
                return Ok(match self.bytes {
                    Some(bytes) => format!("its length of {bytes} bytes only: {}", self.checksum_source),
                    None => format!("nothing: {}", self.checksum_source),
                });
            }
            Some(checksum @ Checksum::Md5(_)) => (checksum, Checksum::Md5(found.md5.clone())),
            Some(checksum @ Checksum::Sha256(_)) => (checksum, Checksum::Sha256(found.sha256.clone())),
        };
        if *expected == have {
            Ok(format!("{expected}, {}", self.checksum_source))
        } else {
            Err(Mismatch { expected: format!("{expected} ({})", self.checksum_source), found: have.to_string() })
        }
    }
}

/// Why a file is not the published one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Length or checksum that the publisher gives, with its source.
    pub expected: String,
    /// Length or checksum of the file.
    pub found: String,
}

/// A data set that is fetched from its publisher.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Name on the command line, and of the directory below the root.
    pub name: String,
    /// What it is, for a list.
    pub title: String,
    /// The publisher's own page.
    pub page: String,
    /// Its licence, and where that is stated.
    pub licence: String,
    /// All its files.
    pub files: Vec<PublishedFile>,
}

impl Publisher {
    /// The directory of this set below `root`.
    pub fn directory(&self, root: &Path) -> PathBuf {
        root.join(&self.name)
    }

    /// The directory of the files that a reader opens: the unpacked directory, or the set's own directory.
    pub fn data_directory(&self, root: &Path) -> PathBuf {
        let directory = self.directory(root);
        match self.files.iter().find_map(|file| file.packing.directory()) {
            Some(inner) => directory.join(inner),
            None => directory,
        }
    }
}

const CIFAR_PAGE: &str = "https://www.cs.toronto.edu/~kriz/cifar.html";
const ZENODO_PAGE: &str = "https://zenodo.org/records/2535967";
const FASHION_PAGE: &str = "https://github.com/zalandoresearch/fashion-mnist";
const MNIST_PAGE: &str = "http://yann.lecun.com/exdb/mnist/";
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A CIFAR archive. The page prints whole megabytes, so only an upper bound follows from it.
fn cifar(name: &str, megabytes: u64, md5: &str, directory: &str) -> PublishedFile {
    PublishedFile {
        name: name.into(),
        urls: vec![format!("https://www.cs.toronto.edu/~kriz/{name}")],
        bytes: None,
        at_most: (megabytes + 1) * MIB,
        size_source: format!("rounded to {megabytes} MB on {CIFAR_PAGE}, no exact length is published"),
        checksum: Some(Checksum::Md5(md5.into())),
        checksum_source: format!("printed on {CIFAR_PAGE}"),
        packing: Packing::TarGz { directory: directory.into() },
    }
}

/// An MNIST file. Its first publisher's site no longer serves the files and never printed checksums.
fn mnist(name: &str, bytes: u64, md5: &str) -> PublishedFile {
    PublishedFile {
        name: name.into(),
        urls: vec![
            format!("https://ossci-datasets.s3.amazonaws.com/mnist/{name}"),
            format!("https://storage.googleapis.com/cvdf-datasets/mnist/{name}"),
        ],
        bytes: Some(bytes),
        at_most: bytes,
        size_source: format!("once printed on {MNIST_PAGE}"),
        checksum: Some(Checksum::Md5(md5.into())),
        checksum_source: "checksum as recorded by torchvision (torchvision/datasets/mnist.py); the publisher gave none"
            .into(),
        packing: Packing::None,
    }
}

/// A Fashion-MNIST file, whose publisher prints rounded lengths and MD5s.
fn fashion(name: &str, printed: &str, at_most: u64, md5: &str) -> PublishedFile {
    PublishedFile {
        name: name.into(),
        urls: vec![
            format!("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}"),
            format!("{FASHION_PAGE}/raw/master/data/fashion/{name}"),
        ],
        bytes: None,
        at_most,
        size_source: format!("rounded to {printed} in the README of {FASHION_PAGE}, no exact length is published"),
        checksum: Some(Checksum::Md5(md5.into())),
        checksum_source: format!("printed in the README of {FASHION_PAGE}"),
        packing: Packing::None,
    }
}

/// Every set that can be fetched by name.
pub fn publishers() -> Vec<Publisher> {
    vec![
        Publisher {
            name: "cifar10".into(),
            title: "CIFAR-10, binary version: 60,000 colour images of 32×32 in 10 classes".into(),
            page: CIFAR_PAGE.into(),
            licence: format!("no licence is stated; {CIFAR_PAGE} asks to cite the technical report of 2009"),
            files: vec![cifar(
                "cifar-10-binary.tar.gz",
                162,
                "c32a1d4ab5d03f1284b67883e8d87530",
                "cifar-10-batches-bin",
            )],
        },
        Publisher {
            name: "cifar100".into(),
            title: "CIFAR-100, binary version: 60,000 colour images of 32×32 in 100 classes".into(),
            page: CIFAR_PAGE.into(),
            licence: format!("no licence is stated; {CIFAR_PAGE} asks to cite the technical report of 2009"),
            files: vec![cifar("cifar-100-binary.tar.gz", 161, "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary")],
        },
        Publisher {
            name: "mnist".into(),
            title: "MNIST: 70,000 grey handwritten digits of 28×28 in 10 classes".into(),
            page: MNIST_PAGE.into(),
            licence: format!(
                "not stated at {MNIST_PAGE}; copyright of Yann LeCun and Corinna Cortes, CC BY-SA 3.0 according to Keras"
            ),
            files: vec![
                mnist("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                mnist("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
                mnist("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
                mnist("t10k-labels-idx1-ubyte.gz", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
            ],
        },
        Publisher {
            name: "fashion-mnist".into(),
            title: "Fashion-MNIST: 70,000 grey pictures of clothes of 28×28 in 10 classes".into(),
            page: FASHION_PAGE.into(),
            licence: format!("MIT, see {FASHION_PAGE}"),
            files: vec![
                fashion("train-images-idx3-ubyte.gz", "26 MBytes", 27 * MIB, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                fashion("train-labels-idx1-ubyte.gz", "29 KBytes", 30 * KIB, "25c81989df183df01b3e8a0aad5dffbe"),
                fashion("t10k-images-idx3-ubyte.gz", "4.3 MBytes", 44 * MIB / 10, "bef4ecab320f06d8554ea6380940ec79"),
                fashion("t10k-labels-idx1-ubyte.gz", "5.1 KBytes", 52 * KIB / 10, "bb300cfdad3c16e7a12a480ee83cd310"),
            ],
        },
        Publisher {
            name: "cifar10-c".into(),
            title: "CIFAR-10-C: the CIFAR-10 test images under 19 corruptions at 5 severities".into(),
            page: ZENODO_PAGE.into(),
            licence: format!("CC BY 4.0, see {ZENODO_PAGE}"),
            files: vec![PublishedFile {
                name: "CIFAR-10-C.tar".into(),
                urls: vec![format!("{ZENODO_PAGE}/files/CIFAR-10-C.tar?download=1")],
                bytes: Some(2_918_471_680),
                at_most: 2_918_471_680,
                size_source: format!("the file's length in the record {ZENODO_PAGE}"),
                checksum: Some(Checksum::Md5("56bf5dcef84df0e2308c6dcbcbbd8499".into())),
                checksum_source: format!("printed on {ZENODO_PAGE}"),
                packing: Packing::Tar { directory: "CIFAR-10-C".into() },
            }],
        },
    ]
}

/// The set called `name`.
///
/// # Errors
/// Returns [`DataError::Missing`], with the known names and the most similar one, if there is no such set.
pub fn publisher(name: &str) -> Result<Publisher, DataError> {
    let all = publishers();
    if let Some(found) = all.iter().find(|publisher| publisher.name.eq_ignore_ascii_case(name)) {
        return Ok(found.clone());
    }
    let names: Vec<&str> = all.iter().map(|publisher| publisher.name.as_str()).collect();
    let nearest = names
        .iter()
        .map(|known| (strsim::jaro_winkler(known, &name.to_lowercase()), *known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = nearest.map(|(_, known)| format!(" Did you mean '{known}'?")).unwrap_or_default();
    Err(DataError::Missing(format!("there is no data set '{name}' to fetch.{hint} Known sets: {}.", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_well_formed_and_names_its_sources() {
        let all = publishers();
        for publisher in &all {
            assert_eq!(all.iter().filter(|p| p.name == publisher.name).count(), 1);
            assert!(publisher.licence.contains(&publisher.page), "{}", publisher.licence);
            for file in &publisher.files {
                assert!(!file.urls.is_empty() && file.urls.iter().all(|url| url.starts_with("http")));
                assert!(!file.size_source.is_empty() && !file.checksum_source.is_empty());
                assert!(file.at_most > 0 && file.bytes.is_none_or(|bytes| bytes == file.at_most));
                let (hex, digits) = match file.checksum.as_ref().unwrap() {
                    Checksum::Md5(hex) => (hex, 32),
                    Checksum::Sha256(hex) => (hex, 64),
                };
                assert_eq!(hex.len(), digits, "{}", file.name);
                assert!(hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            }
        }
    }

    #[test]
    fn bounds_from_rounded_sizes_admit_the_lengths_seen_in_practice() {
        let at_most = |set: &str, file: usize| publisher(set).unwrap().files[file].at_most;
        for (set, file, bytes) in [
            ("cifar10", 0, 170_052_171),
            ("cifar100", 0, 168_513_733),
            ("fashion-mnist", 0, 26_421_880),
            ("fashion-mnist", 1, 29_515),
            ("fashion-mnist", 2, 4_422_102),
            ("fashion-mnist", 3, 5_148),
        ] {
            assert!(bytes <= at_most(set, file) && at_most(set, file) < bytes + bytes / 10, "{set} {file}");
        }
    }

    #[test]
    fn unknown_name_gets_a_suggestion() {
        let message = publisher("cifar-10").unwrap_err().to_string();
        assert!(message.contains("Did you mean 'cifar10"), "{message}");
        assert!(publisher("zebra").unwrap_err().to_string().contains("fashion-mnist"));
        assert_eq!(publisher("MNIST").unwrap().name, "mnist");
    }

    #[test]
    fn compare_tells_length_and_checksum_apart() {
        let file = &publisher("mnist").unwrap().files[3];
        let digests = |bytes, md5: &str| Digests { bytes, md5: md5.into(), sha256: String::new() };
        assert!(file.compare(&digests(4_541, "")).unwrap_err().found.contains("4541 bytes"));
        assert!(file.compare(&digests(4_542, "00")).unwrap_err().expected.contains("MD5 ec29112"));
        let against = file.compare(&digests(4_542, "ec29112dd5afa0611ce80d1b7f02629c")).unwrap();
        assert!(against.contains("torchvision"));
        let bare = PublishedFile { bytes: None, checksum: None, checksum_source: "none given".into(), ..file.clone() };
        assert_eq!(bare.compare(&digests(7, "")).unwrap(), "nothing: none given");
    }
}
