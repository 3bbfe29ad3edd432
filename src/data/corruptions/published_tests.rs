//! Reading of published files: order of values, missing, damaged and foreign files.

use std::fs;
use std::path::Path;

use super::{Corruption, PublishedSet, Severity};
use crate::data::npy::tests::array;

fn severity(value: u8) -> Severity {
    Severity::try_from(value).unwrap()
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("c{i}")).collect()
}

fn put(dir: &Path, name: &str, bytes: Vec<u8>) {
    fs::write(dir.join(name), bytes).unwrap();
}

const WANTED: [Corruption; 2] = [Corruption::Frost, Corruption::Fog];

/// Two images of 1×2 pixels.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "labels.npy", array("|u1", &[10], &[0, 1].repeat(5)));
    for (i, corruption) in WANTED.into_iter().enumerate() {
        let values: Vec<u8> = (0..60).map(|v| v + 100 * i as u8).collect();
        put(dir.path(), &corruption.file(), array("|u1", &[10, 1, 2, 3], &values));
    }
    dir
}

#[test]
fn a_severity_is_a_planar_set() {
    let dir = directory();
    let set = PublishedSet::open(dir.path(), &names(2), &WANTED).unwrap();
    assert_eq!((set.images_per_severity(), set.shape()), (2, crate::data::ImageShape::new(3, 1, 2)));
    assert_eq!(set.corruptions(), WANTED);
    let second = set.load(Corruption::Fog, severity(2), None).unwrap();
    assert_eq!(second.images(), [112, 115, 113, 116, 114, 117, 118, 121, 119, 122, 120, 123]);
    assert_eq!((second.labels(), second.name()), (&[0, 1][..], "fog-2"));
    let first = set.load(Corruption::Fog, severity(2), Some(1)).unwrap();
    assert_eq!(first.images(), &second.images()[..6]);
    assert_eq!(set.load(Corruption::Frost, severity(5), Some(9)).unwrap().len(), 2);
    assert!(set.load(Corruption::Frost, severity(5), Some(0)).is_err());
    fs::remove_file(dir.path().join("fog.npy")).unwrap();
    assert!(set.load(Corruption::Fog, severity(1), None).unwrap_err().to_string().contains("fog.npy"));
}

#[test]
fn all_missing_files_are_named() {
    let dir = directory();
    fs::remove_file(dir.path().join("labels.npy")).unwrap();
    let wanted = [Corruption::Fog, Corruption::Snow, Corruption::Spatter];
    let message = PublishedSet::open(dir.path(), &names(2), &wanted).unwrap_err().to_string();
    assert!(message.contains("labels.npy, snow.npy and spatter.npy are missing; unpack"), "{message}");
    let message = PublishedSet::open(dir.path(), &names(2), &[]).unwrap_err().to_string();
    assert!(message.contains("labels.npy is missing"), "{message}");
    put(dir.path(), "labels.npy", array("|u1", &[10], &[0, 1].repeat(5)));
    let message = PublishedSet::open(dir.path(), &names(2), &[]).unwrap_err().to_string();
    assert!(message.contains("expected at least one"), "{message}");
}

#[test]
fn damaged_and_foreign_files_are_rejected() {
    let labels = |values: &[u8]| array("|u1", &[values.len()], values);
    let images = |descr: &str, shape: &[usize]| array(descr, shape, &vec![0; shape.iter().product()]);
    for (name, bytes, expected) in [
        ("labels.npy", labels(&[0; 9]), "labels for 5 severities of equal size, found 9"),
        ("labels.npy", labels(&[]), "found 0"),
        ("labels.npy", labels(&[0, 2].repeat(5)), "label 2 of image 1, expected 0 to 1"),
        ("labels.npy", labels(&[0, 1, 0, 1, 1, 1, 0, 1, 0, 1]), "image 0 has label 1 at severity 3 and 0 at"),
        ("labels.npy", images("|u1", &[5, 2]), "labels of shape (N,) or (N, 1), found [5, 2]"),
        ("labels.npy", labels(&[0; 5]), "holds 10 images, expected 5"),
        ("fog.npy", images("|u1", &[10, 3, 1, 2]), "channels last, found [10, 3, 1, 2]"),
        ("fog.npy", images("|u1", &[10, 1, 2]), "channels last, found [10, 1, 2]"),
        ("fog.npy", images("|i1", &[10, 1, 2, 3]), "unsigned bytes (u1), found i1"),
        ("fog.npy", array("<f4", &[10, 1, 2, 3], &[0; 240]), "unsigned bytes (u1), found f4"),
        ("fog.npy", images("|u1", &[9, 1, 2, 3]), "holds 9 images, expected 10"),
        ("fog.npy", images("|u1", &[10, 2, 2, 3]), "images of 3×2×2, expected 3×1×2 as in"),
        ("frost.npy", images("|u1", &[10, 0, 2, 3]), "have no pixels"),
        ("fog.npy", array("|u1", &[10, 1, 2, 3], &[0; 59]), "needs 60 bytes"),
        ("fog.npy", b"<html>".to_vec(), "HTML page"),
        ("fog.npy", Vec::new(), "it is empty"),
    ] {
        let dir = directory();
        put(dir.path(), name, bytes);
        let message = PublishedSet::open(dir.path(), &names(2), &WANTED).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(".npy: "), "{message}\nexpected: {expected}");
    }
}
