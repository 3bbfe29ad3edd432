//! Files of PyTorch (`tests/golden/state_dicts.py`), whole and damaged. `tests/pytorch/state_dicts.rs` compares their
//! logits.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
/// A file that is read.
#[derive(Debug, Deserialize)]
struct Case {
    file: String,
    arch: Architecture,
    width: usize,
    weights: Option<String>,
    normalize: Option<String>,
    ignore_extra: bool,
    notes: Vec<String>,
    normalisation: Option<(Vec<f32>, Vec<f32>)>,
    same: bool,
}

/// A file that is refused.
#[derive(Debug, Deserialize)]
struct Refused {
    file: String,
    arch: Architecture,
    width: usize,
    weights: Option<String>,
    normalize: Option<String>,
    expected: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Cases {
    classes: usize,
    shape: [usize; 3],
    read: Vec<Case>,
    refused: Vec<Refused>,
}

impl Cases {
    fn load() -> Self {
        serde_json::from_slice(&std::fs::read(path("cases.json")).unwrap()).unwrap()
    }

    fn network(&self, arch: Architecture, width: usize) -> Network {
        let [channels, height, width_of_images] = self.shape;
        arch.build(ImageShape::new(channels, height, width_of_images), self.classes, None, Some(width))
    }
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/state-dicts").join(file)
}

fn options(weights: Option<&String>, normalize: Option<&String>, ignore_extra: bool) -> Options {
    Options { weights: weights.cloned(), normalize: normalize.map(|text| text.parse().unwrap()), ignore_extra }
}

fn small(cases: &Cases) -> Imported {
    let options = options(None, Some(&"none".to_owned()), false);
    load(&path("zip.pth"), &cases.network(Architecture::SmallCnn, 2), &options).unwrap()
}

#[test]
fn every_container_wrapper_prefix_and_type_is_read() {
    let cases = Cases::load();
    let reference = small(&cases).state;
    assert!(cases.read.len() > 40);
    for case in &cases.read {
        let options = options(case.weights.as_ref(), case.normalize.as_ref(), case.ignore_extra);
        assert!(is_foreign(&path(&case.file)).unwrap(), "{}", case.file);
        let imported = load(&path(&case.file), &cases.network(case.arch, case.width), &options)
            .unwrap_or_else(|error| panic!("{}: {error}", case.file));
        let notes = imported.notes.join("\n");
        for note in &case.notes {
            assert!(notes.contains(note), "{}: expected '{note}' in\n{notes}", case.file);
        }
        assert!(notes.contains("ReLU and 1e-5 are assumed"), "{notes}");
        assert_eq!(imported.normalisation, case.normalisation, "{}", case.file);
        assert!(!case.same || imported.state == reference, "{} holds other numbers", case.file);
    }
}

#[test]
fn every_other_file_is_refused_with_its_name_and_the_reason() {
    let cases = Cases::load();
    assert!(cases.refused.len() > 20);
    for case in &cases.refused {
        let options = options(case.weights.as_ref(), case.normalize.as_ref(), false);
        let error = match load(&path(&case.file), &cases.network(case.arch, case.width), &options) {
            Ok(_) => panic!("{} is read", case.file),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(&case.file), "{error}");
        for expected in &case.expected {
            assert!(error.contains(expected), "{error}\nexpected '{expected}'");
        }
    }
    for mark in [Path::new("fairtat-was-here"), &path("fairtat-was-here")] {
        assert!(!mark.exists(), "a file ran a command");
    }
}

#[test]
fn images_and_classes_are_those_of_the_file() {
    let open = |file: &str| Checkpoint::open(&path(file), &Options::default()).unwrap();
    let network = open("zip.pth").network(Architecture::SmallCnn, Some(2));
    assert_eq!((network.input.channels, network.classes), (3, 4));
    // Of another architecture: the usual numbers.
    let network = open("silu.pt").network(Architecture::SmallCnn, Some(2));
    assert_eq!((network.input.channels, network.classes), (3, 10));
}

#[test]
fn own_and_damaged_files_are_not_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.safetensors");
    let state = small(&Cases::load()).state;
    let metadata = BTreeMap::from([("experiment".to_owned(), "[model]".to_owned())]);
    state.save(&file, &metadata).unwrap();
    assert!(!is_foreign(&file).unwrap());
    let bytes = std::fs::read(&file).unwrap();
    for length in [0, 7, 8, 100] {
        std::fs::write(&file, &bytes[..length]).unwrap();
        assert!(!is_foreign(&file).unwrap(), "{length} bytes");
    }
    state.save(&file, &BTreeMap::new()).unwrap();
    assert!(is_foreign(&file).unwrap());
    let open = |file: &Path| Checkpoint::open(file, &Options::default()).map_err(|error| error.to_string());
    let without_checksum = |file: &Path| open(file).unwrap().notes.iter().any(|note| note.contains("no checksum"));
    assert!(!without_checksum(&file) && !without_checksum(&path("zip.pth")));
    assert!(without_checksum(&path("no-check-sums.pth")) && without_checksum(&path("legacy.pt")));
    let mut damaged = std::fs::read(&file).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&file, damaged).unwrap();
    assert!(open(&file).unwrap_err().contains("a.safetensors: the file is damaged"));
    let missing = is_foreign(&dir.path().join("none.pth")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read ") && missing.contains("none.pth"), "{missing}");
}

#[test]
fn states_of_this_program_lose_prefixes_counters_and_normalisation() {
    let state = small(&Cases::load()).state;
    let mut wrapped = State::default();
    for (name, array) in &state.0 {
        wrapped.0.insert(format!("module.1.{name}"), array.clone());
    }
    wrapped.0.insert("module.0.mean".into(), Array::zeros(&[3]));
    wrapped.0.insert("module.1.bn1.num_batches_tracked".into(), Array::zeros(&[]));
    assert_eq!(without_wrapping(wrapped), state);
}

/// One change of a file.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // The structure is at the start of a legacy file and at the end of an archive; `Index` reaches both.
        let at = |index: &prop::sample::Index, length: usize| index.index(length.max(1)).min(length);
        let length = bytes.len();
        match self {
            Self::Set(index, value) => bytes.iter_mut().skip(at(index, length)).take(1).for_each(|byte| *byte = *value),
            Self::Flip(index, bit) => {
                bytes.iter_mut().skip(at(index, length)).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Self::Remove(index, count) => {
                let at = at(index, length);
                drop(bytes.drain(at..(at + count).min(length)));
            }
            Self::Insert(index, values) => {
                let at = at(index, length);
                bytes.splice(at..at, values.iter().copied());
            }
            Self::Repeat(index, count) => {
                let at = at(index, length);
                let part = bytes[at..(at + count).min(length)].to_vec();
                bytes.splice(at..at, part);
            }
            Self::Cut(index) => bytes.truncate(at(index, length)),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(i, value)| Change::Set(i, value)),
        4 => (index(), any::<u8>()).prop_map(|(i, bit)| Change::Flip(i, bit)),
        2 => (index(), 1usize..9).prop_map(|(i, count)| Change::Remove(i, count)),
        2 => (index(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(i, values)| Change::Insert(i, values)),
        1 => (index(), 1usize..64).prop_map(|(i, count)| Change::Repeat(i, count)),
        1 => index().prop_map(Change::Cut),
    ]
}

/// Files without check sums, so that changes reach the readers.
const FUZZED: [&str; 6] = [
    "legacy.pt",
    "no-check-sums.pth",
    "wrapped-net.pt",
    "strided-legacy.pt",
    "f16.safetensors",
    "one-storage-legacy.pt",
];

proptest! {
    /// Whatever the bytes are, there is an error or a state that fits; never a panic.
    #[test]
    fn changed_files_never_panic(
        file in prop::sample::select(&FUZZED[..]),
        changes in prop::collection::vec(change(), 1..6),
        // Most of a file are numbers; changes of the first part reach the pickles.
        first in any::<bool>(),
    ) {
        let mut bytes = std::fs::read(path(file)).unwrap();
        let rest = if first { bytes.split_off(bytes.len() / 2) } else { Vec::new() };
        changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes.extend(rest);
        let network = Architecture::SmallCnn.build(ImageShape::new(3, 8, 8), 4, None, Some(2));
        for ignore_extra in [false, true] {
            let options = Options { normalize: Some(Normalisation::None), ignore_extra, ..Options::default() };
            if let Ok(imported) = Checkpoint::read(Path::new(file), bytes.clone(), &options).and_then(|c| c.fit(&network)) {
                imported.state.check(&network).unwrap();
            }
        }
    }

    #[test]
    fn any_bytes_as_a_pickle_never_panic(bytes in prop::collection::vec(
        prop_oneof![any::<u8>(), prop::sample::select(&b"\x80\x02}q\x00(XKM\x8ac\n)R\x85\x86\x87tu.esabQhj0122]\x81N"[..])],
        0..200,
    )) {
        drop(pickle::Pickle::read(&bytes));
    }
}
