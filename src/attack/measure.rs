//! Accuracy on a data set under an attack: mean, worst class, every class.

use serde::Serialize;

use super::{Attack, Predictions};
use crate::data::Dataset;
use crate::engine::{Batch, Engine, EngineError};
use crate::fairness::{Confusion, MANY_CLASSES};

/// The result of [`measure`], with its attack.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The attack.
    pub attack: Attack,
    /// True class × prediction.
    pub confusion: Confusion,
    /// The prediction for each image; empty if they are not known.
    pub predictions: Vec<u32>,
    /// Images whose gradient was exactly zero in at least one step ([`Predictions::without_gradient`]).
    pub without_gradient: u64,
}

/// Attacks every image of `set`. `progress` gets the number of images done, and stops the work by returning `false`. It
/// may use the engine for calls that do not change its state.
///
/// The result does not depend on `batch_size`.
///
/// # Errors
/// Returns an error if the engine fails. Returns `Ok(None)` if `progress` stopped the work.
pub fn measure(
    engine: &mut dyn Engine,
    set: &Dataset,
    attack: &Attack,
    batch_size: usize,
    progress: &mut dyn FnMut(&mut dyn Engine, usize) -> bool,
) -> Result<Option<Measured>, EngineError> {
    let mut confusion = Confusion::new(set.classes());
    let mut images_without_gradient = 0;
    let mut all = Vec::with_capacity(set.len());
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
        let Predictions { predictions, without_gradient, .. } = attack.predictions(engine, &batch)?;
        confusion.add_all(labels, &predictions);
        all.extend(predictions);
        images_without_gradient += without_gradient.iter().filter(|without| **without).count() as u64;
    }
    progress(engine, set.len());
    Ok(Some(Measured {
        attack: attack.clone(),
        confusion,
        predictions: all,
        without_gradient: images_without_gradient,
    }))
}

/// A [`Measured`] as text and numbers, for machine-readable files.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The attack in one line.
    pub attack: String,
    /// The same attack as values; `None` for several attacks together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<Attack>,
    /// Number of images attacked.
    pub images: u64,
    /// Number of images whose gradient was exactly zero in at least one step. If there are any, the attack was weaker
    /// than it seems, and the accuracy is too high.
    pub images_without_gradient: u64,
    /// Proportion predicted correctly.
    pub accuracy: f64,
    /// 95 % interval of it, low and high ([`crate::fairness::wilson`]).
    pub interval: [f64; 2],
    /// Accuracy of the worst class.
    pub worst_class_accuracy: f64,
    /// 95 % interval of it.
    pub worst_class_interval: [f64; 2],
    /// Its name.
    pub worst_class: String,
    /// Other classes whose intervals overlap that of the worst class; any of them may be the worst.
    pub worst_class_ties: Vec<String>,
    /// Best minus worst class.
    pub gap: f64,
    /// Mean of the worst tenth of the classes.
    pub worst_tenth_accuracy: f64,
    /// Accuracy of each class, by name, in the order of the labels.
    pub classes: Vec<ClassAccuracy>,
}

impl Report {
    /// [`Self::worst_tenth_accuracy`] if there are more than [`MANY_CLASSES`] classes, to be shown beside the worst class.
    pub fn shown_worst_tenth(&self) -> Option<f64> {
        (self.classes.len() > MANY_CLASSES).then_some(self.worst_tenth_accuracy)
    }

    /// Indices of the `count` worst classes with images, the worst first.
    pub fn worst_classes(&self, count: usize) -> Vec<usize> {
        let measured = self.classes.iter().enumerate().filter_map(|(k, class)| Some((k, class.accuracy?)));
        let mut order: Vec<(usize, f64)> = measured.collect();
        order.sort_by(|a, b| a.1.total_cmp(&b.1));
        order.into_iter().take(count).map(|(k, _)| k).collect()
    }
}

/// Accuracy of one class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassAccuracy {
    /// Name of the class.
    pub name: String,
    /// Proportion predicted correctly; `None` for a class without images.
    pub accuracy: Option<f64>,
    /// 95 % interval of it; `[0, 1]` for a class without images.
    pub interval: [f64; 2],
    /// Number of images of the class.
    pub images: u64,
}

impl Measured {
    /// The report, with these names of the classes.
    pub fn report(&self, class_names: &[String]) -> Report {
        let c = &self.confusion;
        let (worst, worst_class_accuracy) = c.worst_class().unwrap_or((0, 0.0));
        let name = |k: usize| class_names.get(k).cloned().unwrap_or_else(|| k.to_string());
        let (accuracy, interval) = (c.measured_class_accuracy(), c.class_intervals());
        Report {
            attack: self.attack.to_string(),
            settings: Some(self.attack.clone()),
            images: c.total(),
            images_without_gradient: self.without_gradient,
            accuracy: c.accuracy(),
            interval: c.interval(),
            worst_class_accuracy,
            worst_class_interval: c.worst_interval(),
            worst_class: name(worst),
            worst_class_ties: c.worst_class_ties().into_iter().map(name).collect(),
            gap: c.gap(),
            worst_tenth_accuracy: c.worst_tenth(),
            classes: (0..c.classes())
                .map(|k| ClassAccuracy {
                    name: name(k),
                    accuracy: accuracy[k],
                    interval: interval[k],
                    images: c.of_class(k),
                })
                .collect(),
        }
    }
}

/// Proportion of images without a gradient above which a robust accuracy needs a warning.
const MANY_WITHOUT_GRADIENT: f64 = 0.01;

/// The number of attacked images whose gradient was exactly zero in some step: `3 of 355 images had no gradient`.
pub fn describe_without_gradient(without: u64, images: u64) -> String {
    format!("{without} of {images} images had no gradient")
}

impl Measured {
    /// A warning that more than 1 % of the images had no gradient, and what that means for the accuracy; `None`
    /// otherwise.
    pub fn warning(&self) -> Option<String> {
        warn_without_gradient(&self.attack, self.without_gradient, self.confusion.total())
    }
}

/// The warning of [`Measured::warning`], for `without` of `images` attacked images.
pub(crate) fn warn_without_gradient(attack: &Attack, without: u64, images: u64) -> Option<String> {
    if without as f64 <= MANY_WITHOUT_GRADIENT * images as f64 {
        return None;
    }
    Some(format!(
        "{attack}: {} in at least one step; the attack could not move them there and the robust accuracy may be too high. \
         Check it with an attack that needs no gradient",
        describe_without_gradient(without, images)
    ))
}

/// The worst class in words, with its 95 % interval and the classes whose intervals overlap it:
/// `cat, 12.0 % [8.1, 17.3]; its interval overlaps those of bird and deer`.
pub fn describe_worst_class(name: &str, accuracy: f64, interval: [f64; 2], ties: &[String]) -> String {
    let [low, high] = interval.map(|bound| 100.0 * bound);
    let of = format!("{name}, {:.1} % [{low:.1}, {high:.1}]", 100.0 * accuracy);
    match ties {
        [] => of,
        [one] => format!("{of}; its interval overlaps that of {one}"),
        [some @ .., last] if ties.len() <= 4 => {
            format!("{of}; its interval overlaps those of {} and {last}", some.join(", "))
        }
        _ => {
            format!("{of}; its interval overlaps those of {} and {} more classes", ties[..3].join(", "), ties.len() - 3)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_class_is_named_with_those_that_may_be_it() {
        let said = |ties: &[&str]| {
            let ties: Vec<String> = ties.iter().map(|name| (*name).to_owned()).collect();
            describe_worst_class("cat", 0.12, [0.081, 0.173], &ties)
        };
        assert_eq!(said(&[]), "cat, 12.0 % [8.1, 17.3]");
        assert_eq!(said(&["bird"]), "cat, 12.0 % [8.1, 17.3]; its interval overlaps that of bird");
        assert_eq!(said(&["bird", "deer"]), "cat, 12.0 % [8.1, 17.3]; its interval overlaps those of bird and deer");
        assert!(said(&["a", "b", "c", "d"]).ends_with("; its interval overlaps those of a, b, c and d"));
        assert!(
            said(&["a", "b", "c", "d", "e"]).ends_with("; its interval overlaps those of a, b, c and 2 more classes")
        );
    }

    #[test]
    fn a_report_has_an_interval_for_every_number() {
        let mut confusion = Confusion::new(2);
        confusion.add_all(&[0, 0, 0, 0, 1], &[0, 0, 1, 1, 1]);
        let report = Measured {
            attack: Attack::clean(),
            confusion: confusion.clone(),
            predictions: Vec::new(),
            without_gradient: 0,
        }
        .report(&["a".into(), "b".into()]);
        assert_eq!((report.interval, report.worst_class_interval), (confusion.interval(), confusion.worst_interval()));
        assert_eq!(report.classes[0].interval, report.worst_class_interval);
        assert_eq!((report.worst_class.as_str(), report.worst_class_ties), ("a", vec!["b".to_owned()]));
    }

    #[test]
    fn more_than_one_in_a_hundred_images_without_gradient_is_a_warning() {
        let mut confusion = Confusion::new(2);
        confusion.add_all(&[0; 300], &[0; 300]);
        let attack = Attack::fgsm(crate::units::Epsilon::levels(8.0), crate::engine::Norm::Linf);
        let warning = |without_gradient| {
            Measured { attack: attack.clone(), confusion: confusion.clone(), predictions: Vec::new(), without_gradient }
                .warning()
        };
        assert_eq!((warning(0), warning(3)), (None, None));
        let told = warning(4).unwrap();
        assert!(told.starts_with("FGSM, L∞, ε 8/255") && told.contains("4 of 300 images had no gradient"), "{told}");
        let nothing = Measured {
            attack: attack.clone(),
            confusion: Confusion::new(2),
            predictions: Vec::new(),
            without_gradient: 0,
        };
        assert_eq!(nothing.warning(), None);
    }
}
