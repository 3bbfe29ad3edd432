//! Checkpoints of other programs (`tests/golden/state_dicts.py`): logits of every file that is read.

use fairtat::data::ImageShape;
use fairtat::engine::{Batch, BatchNormMode, Input};
use fairtat::model::Architecture;
use fairtat::model::pytorch::{Options, load};
use serde::Deserialize;

use crate::engines::ENGINES;
use crate::golden;

/// Largest difference of a logit; the logits are about 1.
const TOLERANCE: f32 = 1e-5;

#[derive(Debug, Deserialize)]
struct Case {
    file: String,
    arch: Architecture,
    width: usize,
    weights: Option<String>,
    normalize: Option<String>,
    ignore_extra: bool,
    logits: Vec<f32>,
}

#[derive(Debug, Deserialize)]
struct Cases {
    classes: usize,
    shape: [usize; 3],
    images: Vec<u8>,
    read: Vec<Case>,
}

#[test]
fn logits_of_every_file_are_pytorchs() {
    let directory = golden::path("state-dicts");
    let cases: Cases = serde_json::from_slice(&std::fs::read(directory.join("cases.json")).unwrap()).unwrap();
    let [channels, height, width] = cases.shape;
    let shape = ImageShape::new(channels, height, width);
    let ids: Vec<u32> = (0..(cases.images.len() / shape.len()) as u32).collect();
    let labels = vec![0; ids.len()];
    for (i, case) in cases.read.iter().enumerate() {
        let build = |values: Option<(&[f32], &[f32])>| case.arch.build(shape, cases.classes, values, Some(case.width));
        let options = Options {
            weights: case.weights.clone(),
            normalize: case.normalize.as_ref().map(|text| text.parse().unwrap()),
            ignore_extra: case.ignore_extra,
        };
        let imported = load(&directory.join(&case.file), &build(None), &options)
            .unwrap_or_else(|error| panic!("{}: {error}", case.file));
        let values = imported.normalisation.as_ref().map(|(mean, std)| (mean.as_slice(), std.as_slice()));
        // The state is the same on every engine, so one file is enough for the others.
        for tested in ENGINES.into_iter().take(if i == 0 { ENGINES.len() } else { 1 }) {
            let mut engine = (tested.open)(build(values), &imported.state);
            let batch = Batch { pixels: &cases.images, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
            let logits = engine.logits(&Input::Batch(&batch), BatchNormMode::Eval).unwrap();
            assert_eq!(logits.len(), case.logits.len());
            for (found, expected) in logits.iter().zip(&case.logits) {
                let (name, file) = (tested.name, &case.file);
                assert!((found - expected).abs() <= TOLERANCE, "{name}, {file}: {found}, expected {expected}");
            }
        }
    }
}
