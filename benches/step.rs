//! `cargo bench`: the two phases of a FAIR-TAT training step on the Candle engine.
//!
//! `fairtat bench` measures whole steps of every architecture and writes JSON; this benchmark compares two versions of
//! the engine with Criterion's statistics.

#![allow(missing_docs, reason = "Criterion's macros generate functions")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot run must report it")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use fairtat::engine::candle::{CandleDevice, CandleEngine};
use fairtat::engine::{Batch, BatchNormMode, Engine, LossSpec, Norm, Objective, SearchSpec, SgdStep, Start, View};
use fairtat::evaluate::bench::image_shape;
use fairtat::fairness::TargetDistribution;
use fairtat::model::{Architecture, State};
use fairtat::rng::{Purpose, Stream};

const CLASSES: usize = 10;
const IMAGES: usize = 32;

fn step(criterion: &mut Criterion) {
    for architecture in [Architecture::DigitsCnn, Architecture::SmallCnn] {
        let shape = image_shape(architecture);
        let network = architecture.build(shape, CLASSES, None, None);
        let state = State::initialise(&network, 0);
        let mut engine = CandleEngine::new(network, &state, CandleDevice::Cpu).expect("the CPU is always there");
        let mut random = Stream::new(0, Purpose::Test, 0, 0).sequence();
        let pixels: Vec<u8> = (0..IMAGES * shape.len()).map(|_| random.word() as u8).collect();
        let labels: Vec<u32> = (0..IMAGES).map(|_| random.below(CLASSES as u32)).collect();
        let ids: Vec<u32> = (0..IMAGES as u32).collect();
        let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
        let targets = TargetDistribution::uniform(CLASSES).sample(&labels, &ids, 0, 0);
        let spec = SearchSpec {
            objective: Objective::Targeted(targets),
            norm: Norm::Linf,
            epsilon: vec![8.0 / 255.0; IMAGES],
            step_size: vec![2.0 / 255.0; IMAGES],
            steps: 10,
            start: Start::Uniform { purpose: Purpose::AttackStart, epoch: 0 },
            batch_norm: BatchNormMode::Train,
            ..SearchSpec::default()
        };
        let loss = LossSpec::cross_entropy(View::Adversarial);
        // A step size of zero, so that every sample of the measurement does the same work on the same weights.
        let sgd = SgdStep { lr: 0.0, momentum: 0.9, weight_decay: 5e-4, nesterov: false };

        let mut group = criterion.benchmark_group(architecture.name());
        group.throughput(Throughput::Elements(IMAGES as u64)).sample_size(10);
        group.bench_function("perturb (PGD-10)", |bencher| {
            bencher.iter(|| engine.perturb(&batch, &spec).expect("a valid batch"));
        });
        let views = engine.perturb(&batch, &spec).expect("a valid batch");
        group.bench_function("update", |bencher| {
            bencher.iter(|| engine.train_step(&views, &loss, &sgd).expect("a valid step"));
        });
        group.finish();
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
