//! Properties of any network, image and attack, tested on small networks with images of 8×8 pixels.

mod certain;
mod gradients;
mod mistakes;
mod repeats;
mod searches;

use fairtat::data::{Dataset, ImageShape};
use fairtat::engine::{Batch, BatchNormMode, Engine, Input, LossSpec, SgdStep, View};
use fairtat::model::{Architecture, Network, State};
use fairtat::rng::{Purpose, Stream};
use proptest::test_runner::Config;

use crate::engines::Tested;
use crate::passes::no_search;

const CLASSES: usize = 5;

/// Few cases: each one runs a network several times.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(24) }
}

/// A network with random parameters, and random images for it.
#[derive(Debug)]
struct Subject {
    network: Network,
    state: State,
    pixels: Vec<u8>,
    labels: Vec<u32>,
    ids: Vec<u32>,
    seed: u64,
}

impl Subject {
    /// `kind` selects an architecture: with and without pooling, strides and shortcuts, in grey and colour.
    fn new(kind: usize, n: usize, seed: u64) -> Self {
        let architectures = [
            (Architecture::DigitsCnn, 1, 4),
            (Architecture::SmallCnn, 3, 4),
            (Architecture::ResNet20, 3, 2),
            (Architecture::PreActResNet18, 1, 2),
        ];
        let (architecture, channels, width) = architectures[kind % architectures.len()];
        let shape = ImageShape::new(channels, 8, 8);
        let normalisation = (vec![0.45; channels], vec![0.25; channels]);
        let network = architecture.build(shape, CLASSES, Some((&normalisation.0, &normalisation.1)), Some(width));
        let stream = |sample| Stream::new(seed, Purpose::Test, 1, sample);
        // The factor of 1.5 makes some pixels entirely black or white.
        let pixel = |i: u32| (127.5 + 127.5 * 1.5 * stream(0).symmetric(i)) as u8;
        Self {
            state: State::initialise(&network, seed),
            pixels: (0..(n * shape.len()) as u32).map(pixel).collect(),
            labels: (0..n as u32).map(|i| stream(1).word(i) % CLASSES as u32).collect(),
            ids: (0..n as u32).map(|i| 10 + 3 * i).collect(),
            network,
            seed,
        }
    }

    fn open(&self, tested: Tested) -> Box<dyn Engine> {
        (tested.open)(self.network.clone(), &self.state)
    }

    fn batch(&self) -> Batch<'_> {
        self.part(0..self.labels.len())
    }

    fn part(&self, range: std::ops::Range<usize>) -> Batch<'_> {
        let image = self.network.input.len();
        Batch {
            pixels: &self.pixels[range.start * image..range.end * image],
            labels: &self.labels[range.clone()],
            ids: &self.ids[range],
            augment: None,
            seed: self.seed,
            epoch: 2,
        }
    }

    /// The images in `[0, 1]`.
    fn images(&self) -> Vec<f32> {
        self.batch().prepare(self.network.input)
    }
}

/// A subject whose running statistics are close to those of its images, so that no layer outputs only zeros in eval
/// mode.
fn settled(tested: Tested, kind: usize, seed: u64) -> Subject {
    let subject = Subject::new(kind, 6, seed);
    let mut engine = subject.open(tested);
    for _ in 0..20 {
        engine.logits(&Input::Batch(&subject.batch()), BatchNormMode::Train).unwrap();
    }
    Subject { state: engine.state().unwrap().model, ..subject }
}

/// Noise images with a bright patch whose position depends on the class.
fn patches(n: usize, seed: u64) -> Dataset {
    let shape = ImageShape::new(1, 8, 8);
    let stream = Stream::new(seed, Purpose::Test, 2, 0);
    let pixel = |i: u32| {
        let (image, row, column) = (i as usize / 64, i as usize / 8 % 8, i as usize % 8);
        let class = image % CLASSES;
        let inside = row / 3 == class / 2 && column / 4 == class % 2;
        (100.0 + if inside { 50.0 } else { 0.0 } + 30.0 * stream.normal(i)) as u8
    };
    let names = (0..CLASSES).map(|k| k.to_string()).collect();
    let labels = (0..n).map(|i| (i % CLASSES) as u32).collect();
    Dataset::new("patches", names, shape, (0..(n * 64) as u32).map(pixel).collect(), labels).unwrap()
}

/// A small network after some epochs on [`patches`], so that its running statistics and decisions are meaningful.
fn trained(tested: Tested) -> (Box<dyn Engine>, Dataset) {
    let set = patches(60, 5);
    let network = Architecture::DigitsCnn.build(set.shape(), CLASSES, Some((&[0.45], &[0.2])), Some(4));
    let mut engine = (tested.open)(network.clone(), &State::initialise(&network, 3));
    let ids: Vec<u32> = (0..set.len() as u32).collect();
    let batch = Batch { pixels: set.images(), labels: set.labels(), ids: &ids, augment: None, seed: 0, epoch: 0 };
    let views = engine.perturb(&batch, &no_search(set.len())).unwrap();
    let sgd = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 0.0, nesterov: false };
    for _ in 0..20 {
        engine.train_step(&views, &LossSpec::cross_entropy(View::Clean), &sgd).unwrap();
    }
    (engine, patches(70, 6))
}
