//! The WGSL engine over many steps in a separate process, so that anything that grows with each step shows in its
//! memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use fairtat::data::ImageShape;
use fairtat::engine::wgsl::{WgslEngine, WgslOptions};
use fairtat::engine::{Batch, BatchNormMode, Engine, LossSpec, Norm, Objective, SearchSpec, SgdStep, Start, View};
use fairtat::model::{Layer, Network, Op, State};
use fairtat::rng::Purpose;

/// 20,000 training steps of a tiny network: memory must not grow after the first thousand.
#[test]
fn memory_stays_flat_over_twenty_thousand_steps() {
    let layer = |name: &str, op, input, shape| Layer { name: name.into(), op, inputs: vec![input], shape };
    let conv = Op::Conv2d { in_channels: 1, out_channels: 4, kernel: 3, stride: 1, padding: 1 };
    let network = Network {
        architecture: "tiny".into(),
        input: ImageShape::new(1, 4, 4),
        classes: 2,
        layers: vec![
            layer("conv", conv, 0, ImageShape::new(4, 4, 4)),
            layer("bn", Op::BatchNorm { channels: 4 }, 1, ImageShape::new(4, 4, 4)),
            layer("pool", Op::GlobalAvgPool, 2, ImageShape::new(4, 1, 1)),
            layer("linear", Op::Linear { in_features: 4, out_features: 2 }, 3, ImageShape::new(2, 1, 1)),
        ],
    };
    let state = State::initialise(&network, 0);
    let options =
        WgslOptions { adapter: std::env::var("FAIRTAT_TEST_ADAPTER").ok(), pipelines: None, ..Default::default() };
    let mut engine = WgslEngine::new(network, &state, &options).unwrap();
    let (pixels, labels, ids) = ([90u8; 32], [0, 1], [0, 1]);
    let sgd = SgdStep { lr: 1e-4, momentum: 0.9, weight_decay: 0.0, nesterov: false };
    let spec = SearchSpec {
        objective: Objective::CrossEntropy,
        norm: Norm::Linf,
        epsilon: vec![0.03; 2],
        step_size: vec![0.01; 2],
        steps: 1,
        start: Start::Uniform { purpose: Purpose::AttackStart, epoch: 0 },
        batch_norm: BatchNormMode::Eval,
        ..SearchSpec::default()
    };
    let mut early = (0, 0);
    for step in 0..20_000 {
        let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: step };
        let views = engine.perturb(&batch, &spec).unwrap();
        engine.train_step(&views, &LossSpec::cross_entropy(View::Adversarial), &sgd).unwrap();
        if step == 1000 {
            early = (engine.device_bytes(), resident_bytes());
        }
    }
    let late = (engine.device_bytes(), resident_bytes());
    println!("device {} to {} bytes, process {} to {} bytes", early.0, late.0, early.1, late.1);
    assert_eq!(late.0, early.0);
    assert!(late.1 < early.1 + (8 << 20), "the process grew from {} to {} bytes", early.1, late.1);
    let pace = engine.pace();
    assert!(pace.most_in_flight <= 3, "{pace:?}");
}

/// Resident memory of this process if the system reports it; otherwise 0.
fn resident_bytes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    4096 * text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0)
}
