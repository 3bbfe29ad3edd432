//! A network as an attack on the host uses it: logits and gradients of images in `[0, 1]`, counted and interruptible.

use crate::data::ImageShape;
use crate::engine::{BatchNormMode, Engine, EngineError, GradientScale, Input, Objective};

/// Why an attack ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum AttackError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The caller stopped it.
    #[error("stopped")]
    Stopped,
}

/// Calls of a network, in images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Cost {
    /// Forward passes alone.
    pub forward: u64,
    /// Forward passes, each followed by a gradient with respect to the pixels.
    pub gradient: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.forward += other.forward;
        self.gradient += other.gradient;
    }
}

/// What an attack is told to do between two passes.
pub(super) type Tick<'a> = dyn FnMut(f64) -> bool + 'a;

/// A network in eval mode.
///
/// An engine that prepares a program for each batch size gets batches of few sizes, the last image being repeated.
pub(super) struct Oracle<'a> {
    engine: &'a mut dyn Engine,
    tick: &'a mut Tick<'a>,
    largest: usize,
    cost: Cost,
}

impl<'a> Oracle<'a> {
    /// At most `largest` images are passed to the engine at once. `tick` is called before each pass with the part of the
    /// attack that is done, in `[0, 1]`, and stops the attack by returning `false`.
    pub(super) fn new(engine: &'a mut dyn Engine, largest: usize, tick: &'a mut Tick<'a>) -> Self {
        Self { engine, tick, largest: largest.max(1), cost: Cost::default() }
    }

    /// Shape of an image.
    pub(super) fn shape(&self) -> ImageShape {
        self.engine.network().input
    }

    /// Number of classes.
    pub(super) fn classes(&self) -> usize {
        self.engine.network().classes
    }

    /// What was computed so far.
    pub(super) const fn cost(&self) -> Cost {
        self.cost
    }

    /// Says how much of the attack is done.
    ///
    /// # Errors
    /// Returns [`AttackError::Stopped`] if the caller wants no more.
    pub(super) fn tick(&mut self, done: f64) -> Result<(), AttackError> {
        if (self.tick)(done.clamp(0.0, 1.0)) { Ok(()) } else { Err(AttackError::Stopped) }
    }

    /// The number of images that are passed to the engine for `images`.
    fn padded(&self, images: usize) -> usize {
        if self.engine.prefers_few_sizes() { padded(images, self.largest) } else { images }
    }

    /// Logits, `B × K`.
    pub(super) fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, AttackError> {
        let (len, classes) = (self.shape().len(), self.classes());
        let mut all = Vec::with_capacity(images.len() / len * classes);
        for images in images.chunks(self.largest * len) {
            let n = images.len() / len;
            let padded = self.padded(n);
            let labels = vec![0; padded];
            let mut logits = if padded == n {
                self.engine.logits(&Input::Images(images, &labels), BatchNormMode::Eval)?
            } else {
                let images = repeated(images, len, padded);
                self.engine.logits(&Input::Images(&images, &labels), BatchNormMode::Eval)?
            };
            logits.truncate(n * classes);
            all.extend(logits);
            self.cost.forward += n as u64;
        }
        Ok(all)
    }

    /// Logits, and gradients of each image's objective up to a positive factor, `B × C × H × W`. The factor of margins is
    /// one: their gradients are the true ones.
    pub(super) fn gradient(
        &mut self,
        images: &[f32],
        labels: &[u32],
        objective: &Aim<'_>,
    ) -> Result<(Vec<f32>, Vec<f32>), AttackError> {
        let (len, classes) = (self.shape().len(), self.classes());
        let (mut all, mut gradients) = (Vec::with_capacity(labels.len() * classes), Vec::with_capacity(images.len()));
        for (chunk, images) in images.chunks(self.largest * len).enumerate() {
            let n = images.len() / len;
            let first = chunk * self.largest;
            let padded = self.padded(n);
            let labels = repeated(&labels[first..first + n], 1, padded);
            let objective = objective.of(first, n, padded);
            let images = std::borrow::Cow::from(images);
            let images = if padded == n { images } else { repeated(&images, len, padded).into() };
            let input = Input::Images(&images, &labels);
            let (mut logits, mut gradient) =
                self.engine.scaled_input_gradient(&input, &objective, GradientScale::PerImage, BatchNormMode::Eval)?;
            logits.truncate(n * classes);
            gradient.truncate(n * len);
            all.extend(logits);
            gradients.extend(gradient);
            self.cost.gradient += n as u64;
        }
        Ok((all, gradients))
    }
}

/// The smallest of 8, 16, 32, … that holds `images`, but no more than `largest`: an engine keeps programs for a few sizes.
fn padded(images: usize, largest: usize) -> usize {
    images.next_power_of_two().max(8).min(largest).max(images)
}

/// `rows` of length `len`, the last of them repeated until there are `count`.
fn repeated<T: Copy>(rows: &[T], len: usize, count: usize) -> Vec<T> {
    let mut all = rows.to_vec();
    while all.len() < count * len {
        all.extend_from_within(all.len() - len..);
    }
    all
}

/// The objective of some images.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim<'a> {
    CrossEntropy,
    Dlr,
    Margin,
    DlrTowards(&'a [u32]),
    MarginTo(&'a [u32]),
}

impl Aim<'_> {
    /// That of the images `first..first + n`, padded.
    fn of(&self, first: usize, n: usize, padded: usize) -> Objective {
        let given = |targets: &[u32]| repeated(&targets[first..first + n], 1, padded);
        match self {
            Self::CrossEntropy => Objective::CrossEntropy,
            Self::Dlr => Objective::Dlr,
            Self::Margin => Objective::Margin,
            Self::DlrTowards(targets) => Objective::DlrTowards(given(targets)),
            Self::MarginTo(targets) => Objective::MarginTo(given(targets)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_sizes() {
        assert_eq!([1, 8, 9, 100, 128, 187].map(|n| padded(n, 187)), [8, 8, 16, 128, 128, 187]);
        assert_eq!((padded(3, 5), padded(5, 5), padded(1, 1)), (5, 5, 1));
        assert_eq!(repeated(&[1, 2, 3, 4], 2, 4), [1, 2, 3, 4, 3, 4, 3, 4]);
        assert_eq!(repeated(&[7], 1, 1), [7]);
    }
}
