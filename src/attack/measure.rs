//! Accuracy on a data set under an attack: mean, worst class, every class.

use serde::Serialize;

use super::{Attack, Predictions};
use crate::data::Dataset;
use crate::engine::{Batch, Engine, EngineError};
use crate::fairness::Confusion;

/// What [`measure`] found, with the attack it holds for.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The attack.
    pub attack: Attack,
    /// True class × prediction.
    pub confusion: Confusion,
    /// Images whose gradient was exactly zero in at least one step ([`Predictions::without_gradient`]).
    pub without_gradient: u64,
}

/// Attacks every image of `set`. `progress` is told the number of images done and may end the work by giving `false`; it has
/// the engine for whatever leaves its state as it is.
///
/// The result does not depend on `batch_size`.
///
/// # Errors
/// When the engine fails; `Ok(None)` when `progress` ended the work.
pub fn measure(
    engine: &mut dyn Engine,
    set: &Dataset,
    attack: &Attack,
    batch_size: usize,
    progress: &mut dyn FnMut(&mut dyn Engine, usize) -> bool,
) -> Result<Option<Measured>, EngineError> {
    let mut confusion = Confusion::new(set.classes());
    let mut images_without_gradient = 0;
    let image = set.shape().len();
    for first in (0..set.len()).step_by(batch_size.max(1)) {
        if !progress(engine, first) {
            return Ok(None);
        }
        let last = (first + batch_size.max(1)).min(set.len());
        let ids: Vec<u32> = (first as u32..last as u32).collect();
        let labels = &set.labels()[first..last];
        let pixels = &set.images()[first * image..last * image];
        let batch = Batch { pixels, labels, ids: &ids, augment: None, seed: attack.seed, epoch: 0 };
        let Predictions { predictions, without_gradient } = attack.predictions(engine, &batch)?;
        confusion.add_all(labels, &predictions);
        images_without_gradient += without_gradient.iter().filter(|without| **without).count() as u64;
    }
    progress(engine, set.len());
    Ok(Some(Measured { attack: attack.clone(), confusion, without_gradient: images_without_gradient }))
}

/// A [`Measured`] in words and numbers, for files that programs read.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The attack in one line.
    pub attack: String,
    /// The same as values.
    pub settings: Attack,
    /// Images attacked.
    pub images: u64,
    /// Images whose gradient was exactly zero in at least one step: where there are some, the attack was weaker than it
    /// looks, and the accuracy is too high.
    pub images_without_gradient: u64,
    /// Share predicted right.
    pub accuracy: f64,
    /// Accuracy of the worst class.
    pub worst_class_accuracy: f64,
    /// Its name.
    pub worst_class: String,
    /// Best minus worst class.
    pub gap: f64,
    /// Mean of the worst tenth of the classes.
    pub worst_tenth_accuracy: f64,
    /// Accuracy of each class, by name, in the order of the labels.
    pub classes: Vec<ClassAccuracy>,
}

/// Accuracy of one class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassAccuracy {
    /// Name of the class.
    pub name: String,
    /// Share predicted right.
    pub accuracy: f64,
    /// Images of the class.
    pub images: u64,
}

impl Measured {
    /// With names for the classes.
    pub fn report(&self, class_names: &[String]) -> Report {
        let c = &self.confusion;
        let (worst, worst_class_accuracy) = c.worst_class().unwrap_or((0, 0.0));
        let name = |k: usize| class_names.get(k).cloned().unwrap_or_else(|| k.to_string());
        let accuracy = c.class_accuracy();
        Report {
            attack: self.attack.to_string(),
            settings: self.attack.clone(),
            images: c.total(),
            images_without_gradient: self.without_gradient,
            accuracy: c.accuracy(),
            worst_class_accuracy,
            worst_class: name(worst),
            gap: c.gap(),
            worst_tenth_accuracy: c.worst_tenth(),
            classes: (0..c.classes())
                .map(|k| ClassAccuracy { name: name(k), accuracy: accuracy[k], images: c.of_class(k) })
                .collect(),
        }
    }
}
