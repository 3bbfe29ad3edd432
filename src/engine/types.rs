//! What goes into an engine and what comes out.

use std::borrow::Cow;

use super::{EngineError, TargetTable};
use crate::data::ImageShape;
use crate::model::{Layer, ModelError, Network, Op, State};
use crate::rng::{Purpose, Stream};

/// How the border is filled before a random crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Mirror the image without repeating its edge (CFA, FAIR-TAT, Rice et al.)
    Reflect,
    /// Black pixels (TRADES, Friendly AT, FRL, BAT)
    Zero,
}

/// Augmentation of training images: a random crop of the padded image, and a random horizontal flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augment {
    /// Pixels added on every side before the crop; 0 for no crop.
    pub padding: usize,
    /// What they are.
    pub mode: Padding,
    /// Whether half of the images are mirrored.
    pub flip: bool,
}

impl Augment {
    /// Row offset, column offset and flip of one image, from its stream.
    fn draw(&self, stream: Stream) -> (usize, usize, bool) {
        let words = stream.block(0);
        // Multiplication and shift instead of a remainder; the bias is below 2⁻²⁷.
        let offset = |word: u32| ((word >> 16) as usize * (2 * self.padding + 1)) >> 16;
        (offset(words[0]), offset(words[1]), self.flip && words[2] >> 31 == 1)
    }
}

/// Labelled images on their way into an engine.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// `B × C × H × W` bytes.
    pub pixels: &'a [u8],
    /// Class of each image.
    pub labels: &'a [u32],
    /// Which image of the data set each is: the key of its random numbers, so that they do not depend on the batch.
    pub ids: &'a [u32],
    /// Random changes, or none.
    pub augment: Option<Augment>,
    /// Key of the random numbers.
    pub seed: u64,
    /// Epoch, the second part of the key.
    pub epoch: u32,
}

impl Batch<'_> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Checks sizes and labels against a network's input and classes.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with expected and found.
    pub fn check(&self, shape: ImageShape, classes: usize) -> Result<(), EngineError> {
        let n = self.len();
        let fail = |what: String| Err(EngineError::Invalid(what));
        if n == 0 {
            return fail("a batch needs at least one image".into());
        }
        if self.pixels.len() != n * shape.len() || self.ids.len() != n {
            return fail(format!(
                "a batch of {n} labels with images of {shape} needs {} bytes and {n} ids, found {} and {}",
                n * shape.len(),
                self.pixels.len(),
                self.ids.len()
            ));
        }
        check_labels(self.labels, classes)
    }

    /// Augmented images in `[0, 1]`, `B × C × H × W`. The reference for what engines do on their device.
    pub fn prepare(&self, shape: ImageShape) -> Vec<f32> {
        let scale = |pixel: u8| f32::from(pixel) / 255.0;
        let Some(augment) = self.augment else { return self.pixels.iter().map(|p| scale(*p)).collect() };
        let (height, width) = (shape.height, shape.width);
        let mut out = vec![0.0; self.pixels.len()];
        for (i, (image, target)) in self.pixels.chunks(shape.len()).zip(out.chunks_mut(shape.len())).enumerate() {
            let stream = Stream::new(self.seed, Purpose::Augment, self.epoch, self.ids[i]);
            let (row_offset, column_offset, flip) = augment.draw(stream);
            for (y, row) in target.chunks_mut(width).enumerate() {
                let (channel, y) = (y / height, y % height);
                let source_y = source(y + row_offset, augment.padding, height, augment.mode);
                for (x, value) in row.iter_mut().enumerate() {
                    let x = if flip { width - 1 - x } else { x };
                    let source_x = source(x + column_offset, augment.padding, width, augment.mode);
                    if let (Some(sy), Some(sx)) = (source_y, source_x) {
                        *value = scale(image[(channel * height + sy) * width + sx]);
                    }
                }
            }
        }
        out
    }
}

/// The pixel of the original that lies at `position` of the padded image, or none for a black one.
fn source(position: usize, padding: usize, size: usize, mode: Padding) -> Option<usize> {
    let (position, size) = (position as isize - padding as isize, size as isize);
    if (0..size).contains(&position) {
        return Some(position as usize);
    }
    match mode {
        Padding::Zero => None,
        Padding::Reflect => {
            let period = (2 * (size - 1)).max(1);
            let folded = position.rem_euclid(period);
            Some(folded.min(period - folded).min(size - 1) as usize)
        }
    }
}

pub(super) fn check_labels(labels: &[u32], classes: usize) -> Result<(), EngineError> {
    match labels.iter().enumerate().find(|(_, label)| **label as usize >= classes) {
        Some((i, label)) => {
            Err(EngineError::Invalid(format!("image {i} has class {label}, expected 0 to {}", classes - 1)))
        }
        None => Ok(()),
    }
}

/// Checks images of `shape`, `B × C × H × W`, and their labels.
pub(super) fn check_images(data: &[f32], labels: &[u32], shape: ImageShape, classes: usize) -> Result<(), EngineError> {
    let expected = labels.len() * shape.len();
    if labels.is_empty() || data.len() != expected {
        return Err(EngineError::Invalid(format!(
            "{} images of {shape} hold {expected} values, found {}",
            labels.len(),
            data.len()
        )));
    }
    check_labels(labels, classes)
}

/// Checks that each array of `running` is a running statistic of `network`, has its shape and holds numbers.
pub(super) fn check_running(running: &State, network: &Network) -> Result<(), EngineError> {
    let specs = network.state_specs();
    for (name, array) in &running.0 {
        let what = match specs.iter().find(|spec| spec.name == *name && !spec.trained) {
            None => format!("'{name}' is not one of its running statistics"),
            Some(spec) if spec.shape != array.shape => {
                format!("'{name}' has shape {:?}, expected {:?}", array.shape, spec.shape)
            }
            Some(_) if !array.data.iter().all(|v| v.is_finite()) => {
                format!("'{name}' holds values that are not finite")
            }
            Some(_) => continue,
        };
        return Err(ModelError::Mismatch { architecture: network.architecture.clone(), what }.into());
    }
    Ok(())
}

/// Checks that batch norm has statistics: in train mode it needs more than one value per channel, as in PyTorch. With one
/// value the output is the layer's bias whatever the image, the gradient is zero, and the running variance tends to zero.
///
/// # Errors
/// [`EngineError::Invalid`] names the first layer that would see one value per channel.
pub(super) fn check_batch_norm(network: &Network, images: usize, mode: BatchNormMode) -> Result<(), EngineError> {
    let single = |layer: &&Layer| {
        matches!(layer.op, Op::BatchNorm { .. }) && images * layer.shape.height * layer.shape.width == 1
    };
    if mode == BatchNormMode::Eval {
        return Ok(());
    }
    match network.layers.iter().find(single) {
        None => Ok(()),
        Some(layer) => Err(EngineError::Invalid(format!(
            "batch norm '{}' sees one value per channel in train mode: {images} image, whose maps are 1×1 there; expected \
             more than one. Use at least two images in a batch, larger images, or batch norm in eval mode",
            layer.name
        ))),
    }
}

/// Where batch norm takes its statistics from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormMode {
    /// From the batch; the running statistics move with every forward pass (the authors' code)
    Train,
    /// From the running statistics, which stay
    Eval,
}

/// What a search changes images for. Every objective is *maximised*, each image on its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Objective {
    /// Cross-entropy of the true label: away from it (untargeted).
    CrossEntropy,
    /// Minus the cross-entropy of a target class for each image: towards it (targeted).
    Targeted(Vec<u32>),
    /// As [`Self::Targeted`], towards a class that the engine draws for each image from the stream
    /// `(seed, Target, epoch, id)` of its batch.
    Drawn(TargetTable),
    /// `KL(p(clean) ‖ p(x))`, with the prediction on the unperturbed image held fixed (TRADES). The search must start
    /// away from the clean image, where this gradient is zero.
    KlToClean,
    /// Difference-of-logits ratio of the true label (Croce and Hein 2020). Needs three classes.
    Dlr,
}

impl Objective {
    /// Checks targets and classes for `n` images and a network with `classes` classes.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with expected and found.
    pub fn check(&self, n: usize, classes: usize) -> Result<(), EngineError> {
        let fail = |what: String| Err(EngineError::Invalid(what));
        match self {
            Self::Targeted(targets) if targets.len() != n => {
                fail(format!("targets are given for {} images, expected {n}", targets.len()))
            }
            Self::Targeted(targets) => check_labels(targets, classes),
            Self::Drawn(table) if table.classes() != classes => {
                fail(format!("targets are drawn from {} classes, the network has {classes}", table.classes()))
            }
            Self::Dlr if classes < 3 => fail(format!("DLR compares three logits, the network has {classes}")),
            Self::CrossEntropy | Self::Drawn(_) | Self::KlToClean | Self::Dlr => Ok(()),
        }
    }

    /// Checks that this objective has a meaning for images that no search has prepared.
    pub(super) fn check_without_search(&self) -> Result<(), EngineError> {
        let what = match self {
            Self::KlToClean => "the KL objective is for a perturbation, which knows the clean images",
            Self::Drawn(_) => "targets are drawn for a perturbation; a gradient by itself needs targets that are given",
            Self::CrossEntropy | Self::Targeted(_) | Self::Dlr => return Ok(()),
        };
        Err(EngineError::Invalid(what.into()))
    }

    /// The same with targets in the place of their distribution. The reference for what engines do on their device.
    pub fn aimed(&self, batch: &Batch<'_>) -> Cow<'_, Self> {
        let Self::Drawn(table) = self else { return Cow::Borrowed(self) };
        let draw = |(label, id): (&u32, &u32)| table.draw(*label, batch.seed, batch.epoch, *id);
        Cow::Owned(Self::Targeted(batch.labels.iter().zip(batch.ids).map(draw).collect()))
    }
}

/// The ball a perturbation stays in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Largest absolute change of a value; steps follow the sign of the gradient
    Linf,
    /// Euclidean length of the change; steps follow the gradient scaled to length one
    L2,
}

/// Where a search starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// At the clean image.
    Zero,
    /// `ε · u` with `u` uniform in `[-1, 1)` for each value (for L2 scaled into the ball), from the stream
    /// `(seed, purpose, epoch, id)`.
    Uniform {
        /// [`Purpose::AttackStart`] or [`Purpose::EvaluationStart`].
        purpose: Purpose,
        /// Epoch, or restart of an evaluation.
        epoch: u32,
    },
    /// `deviation · n` with `n` standard normal (TRADES: 0.001).
    Normal {
        /// Standard deviation in pixel units.
        deviation: f32,
        /// As for [`Start::Uniform`].
        purpose: Purpose,
        /// As for [`Start::Uniform`].
        epoch: u32,
    },
    /// At the clean image plus these values, `B × C × H × W`, which are led into the ball and the image into `[0, 1]` as
    /// after a step. For noise that was drawn elsewhere, and for going on from an earlier perturbation.
    Given(Vec<f32>),
}

/// The inner maximisation: projected gradient ascent in a ball of its own for each image.
///
/// A step follows the direction of the gradient, so networks that are certain are no obstacle: gradients are computed
/// with a scale of each image where that leaves the direction ([`super::loss::GradientScale`]), and do not underflow.
#[derive(Debug, Clone, PartialEq)]
pub struct PerturbSpec {
    /// What is maximised.
    pub objective: Objective,
    /// Shape of the ball.
    pub norm: Norm,
    /// Radius for each image, in `[0, 1]` pixel units.
    pub epsilon: Vec<f32>,
    /// Step size for each image.
    pub step_size: Vec<f32>,
    /// Number of steps; 0 gives the start.
    pub steps: u32,
    /// Where the search starts.
    pub start: Start,
    /// Batch norm during the search.
    pub batch_norm: BatchNormMode,
}

impl PerturbSpec {
    /// Checks sizes and numbers for a batch of `n` images of `shape` and a network with `classes` classes.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with expected and found.
    pub fn check(&self, n: usize, shape: ImageShape, classes: usize) -> Result<(), EngineError> {
        let fail = |what: String| Err(EngineError::Invalid(what));
        for (name, values) in [("epsilon", &self.epsilon), ("step_size", &self.step_size)] {
            if values.len() != n {
                return fail(format!("{name} is given for {} images, expected {n}", values.len()));
            }
            if let Some(bad) = values.iter().find(|v| !(v.is_finite() && **v >= 0.0)) {
                return fail(format!("{name} is {bad}, expected a number of at least 0"));
            }
        }
        match &self.start {
            Start::Given(values) if values.len() != n * shape.len() => {
                let (expected, found) = (n * shape.len(), values.len());
                return fail(format!("a start for {n} images of {shape} holds {expected} values, found {found}"));
            }
            Start::Given(values) if !values.iter().all(|v| v.is_finite()) => {
                return fail("a start holds values that are not finite".into());
            }
            Start::Normal { deviation, .. } if !deviation.is_finite() => {
                return fail(format!("the deviation of the start is {deviation}, expected a number"));
            }
            Start::Zero | Start::Uniform { .. } | Start::Normal { .. } | Start::Given(_) => {}
        }
        self.objective.check(n, classes)
    }
}

/// One version of a batch's images inside an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Prepared, not perturbed.
    Clean,
    /// The last iterate of the search.
    Adversarial,
}

/// The receipt for the views that an engine holds. It is valid until the next perturbation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Views {
    pub(super) generation: u64,
    pub(super) len: usize,
}

impl Views {
    /// Number of images in each view.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no image. An engine never gives such views.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Images that an engine is asked about.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A batch, prepared as for a perturbation.
    Batch(&'a Batch<'a>),
    /// What a perturbation left in the engine.
    View(&'a Views, View),
    /// Images in `[0, 1]`, `B × C × H × W`, and the label of each.
    Images(&'a [f32], &'a [u32]),
}

/// Weight of each image in a term of a loss.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// The mean over the batch, times a factor.
    Mean(f32),
    /// A factor for each image; the term is the sum.
    PerSample(Vec<f32>),
}

impl Weights {
    /// The factor of image `i` in a batch of `n`.
    pub fn at(&self, i: usize, n: usize) -> f32 {
        match self {
            Self::Mean(factor) => factor / n as f32,
            Self::PerSample(factors) => factors[i],
        }
    }
}

/// What a term measures for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// Cross-entropy of the true label on a view.
    CrossEntropy(View),
    /// `KL(p(from) ‖ p(to))`; the gradient flows through both.
    Kl {
        /// The reference distribution.
        from: View,
        /// The distribution that is compared with it.
        to: View,
    },
    /// `KL(p ‖ uniform)` on a view: minus the entropy, up to a constant.
    KlToUniform(View),
}

/// One term of a loss with its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct LossTerm {
    /// What is measured.
    pub term: Term,
    /// How the images' values are added up.
    pub weights: Weights,
}

/// The outer loss: a sum of terms. The first view named gets its forward pass first.
#[derive(Debug, Clone, PartialEq)]
pub struct LossSpec {
    /// The terms.
    pub terms: Vec<LossTerm>,
}

impl LossSpec {
    /// Mean cross-entropy on one view.
    pub fn cross_entropy(view: View) -> Self {
        Self { terms: vec![LossTerm { term: Term::CrossEntropy(view), weights: Weights::Mean(1.0) }] }
    }

    /// The views that the terms name, each once, in order of appearance.
    pub fn views(&self) -> Vec<View> {
        let mut views = Vec::new();
        for term in &self.terms {
            let named = match term.term {
                Term::CrossEntropy(view) | Term::KlToUniform(view) => [view, view],
                Term::Kl { from, to } => [from, to],
            };
            for view in named {
                if !views.contains(&view) {
                    views.push(view);
                }
            }
        }
        views
    }

    /// Checks the number of weights for a batch of `n` images.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with expected and found.
    pub fn check(&self, n: usize) -> Result<(), EngineError> {
        if self.terms.is_empty() {
            return Err(EngineError::Invalid("a loss needs at least one term".into()));
        }
        for term in &self.terms {
            if let Weights::PerSample(weights) = &term.weights
                && weights.len() != n
            {
                let found = weights.len();
                return Err(EngineError::Invalid(format!("a loss has weights for {found} images, expected {n}")));
            }
        }
        Ok(())
    }
}

/// One step of stochastic gradient descent with PyTorch's momentum: `g ← g + decay · p`, `m ← momentum · m + g`,
/// `p ← p - lr · m`, for all parameters, batch norm's included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// Share of the last step's direction that is kept.
    pub momentum: f64,
    /// Weight decay (added to the gradient).
    pub weight_decay: f64,
}

/// What a training step measured, before its update.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchStats {
    /// The loss.
    pub loss: f64,
    /// Predicted class of each image, for each view that the loss named, in the order of [`LossSpec::views`].
    pub predictions: Vec<(View, Vec<u32>)>,
    /// How often each true class (row) was predicted as each class (column), `K × K`, for the same views.
    pub confusion: Vec<(View, Vec<u32>)>,
}

impl BatchStats {
    /// Predictions on one view, if the loss named it.
    pub fn predictions(&self, view: View) -> Option<&[u32]> {
        self.predictions.iter().find(|(v, _)| *v == view).map(|(_, p)| p.as_slice())
    }

    /// Confusion counts on one view, if the loss named it.
    pub fn confusion(&self, view: View) -> Option<&[u32]> {
        self.confusion.iter().find(|(v, _)| *v == view).map(|(_, counts)| counts.as_slice())
    }
}

/// Everything an engine carries from one step to the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EngineState {
    /// Parameters and running statistics.
    pub model: State,
    /// SGD's momentum for every parameter.
    pub momentum: State,
}

impl EngineState {
    /// Checks that there is finite momentum of the right shape for every parameter of `network`. The model is checked
    /// where it is loaded.
    pub(super) fn check_momentum(&self, network: &Network) -> Result<(), EngineError> {
        for spec in network.state_specs().iter().filter(|spec| spec.trained) {
            let what = match self.momentum.0.get(&spec.name) {
                None => format!("momentum of '{}' is missing", spec.name),
                Some(array) if array.shape != spec.shape => {
                    format!("momentum of '{}' has shape {:?}, expected {:?}", spec.name, array.shape, spec.shape)
                }
                Some(array) if !array.data.iter().all(|v| v.is_finite()) => {
                    format!("momentum of '{}' holds values that are not finite", spec.name)
                }
                Some(_) => continue,
            };
            return Err(ModelError::Mismatch { architecture: network.architecture.clone(), what }.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_repeats_no_edge() {
        let row: Vec<_> = (0..8).map(|p| source(p, 2, 4, Padding::Reflect).unwrap()).collect();
        assert_eq!(row, [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(source(0, 3, 1, Padding::Reflect), Some(0));
        assert_eq!([0, 2, 5, 6].map(|p| source(p, 2, 4, Padding::Zero)), [None, Some(0), Some(3), None]);
    }

    #[test]
    fn augmentation_takes_every_offset_evenly_and_depends_on_the_image_alone() {
        let augment = Augment { padding: 4, mode: Padding::Reflect, flip: true };
        let (mut rows, mut columns, mut flips) = ([0u32; 9], [0u32; 9], 0);
        let n = 9000;
        for id in 0..n {
            let (row, column, flip) = augment.draw(Stream::new(1, Purpose::Augment, 0, id));
            rows[row] += 1;
            columns[column] += 1;
            flips += u32::from(flip);
        }
        for counts in [rows, columns] {
            let chi2: f64 = counts.iter().map(|c| (f64::from(*c) - 1000.0).powi(2) / 1000.0).sum();
            assert!(chi2 < 31.8, "chi-squared {chi2} with 8 degrees of freedom, p < 1e-4");
        }
        assert!((f64::from(flips) - 4500.0).abs() < 4.0 * 2250f64.sqrt());

        let shape = ImageShape::new(1, 4, 4);
        let pixels: Vec<u8> = (0..32).map(|i| i * 7).collect();
        let batch =
            |pixels, ids| Batch { pixels, labels: &[0, 0][..1], ids, augment: Some(augment), seed: 3, epoch: 1 };
        let both = Batch { labels: &[0, 0], ..batch(&pixels, &[5, 9]) }.prepare(shape);
        assert_eq!(both[16..], batch(&pixels[16..], &[9]).prepare(shape));
    }

    #[test]
    fn padding_zero_without_offset_is_the_image() {
        let shape = ImageShape::new(3, 2, 3);
        let pixels: Vec<u8> = (0..18).collect();
        let batch = Batch { pixels: &pixels, labels: &[1], ids: &[0], augment: None, seed: 0, epoch: 0 };
        let plain = batch.prepare(shape);
        let augment = Some(Augment { padding: 0, mode: Padding::Zero, flip: false });
        assert_eq!(plain, Batch { augment, ..batch }.prepare(shape));
        assert_eq!(plain[17], 17.0 / 255.0);
    }
}
