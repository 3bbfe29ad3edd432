//! State of the current search that all engines keep on the host, besides its tensors.

use super::checks::check_labels;
use super::{Batch, EngineError, SearchSpec, Snapshots, Stop, View, Views};
use crate::data::ImageShape;

/// Progress of a search for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageProgress {
    /// Whether further steps move it.
    pub(super) active: bool,
    /// Whether any of its iterates so far was misclassified.
    pub(super) misclassified: bool,
    /// Steps that it may still take while it is misclassified.
    pub(super) budget: u32,
}

impl ImageProgress {
    /// The state before the first step.
    pub(super) const fn start(stop: Stop) -> Self {
        let budget = match stop {
            Stop::Never => 0,
            Stop::WhileMisclassified { budget } | Stop::Spent { budget } => budget,
        };
        Self { active: true, misclassified: false, budget }
    }

    /// Updates the progress from the prediction on the iterate that the next step starts from. Returns whether this is
    /// the first misclassified iterate. The reference for `shaders/shared/search_progress.wgsl`.
    pub(super) fn look(&mut self, stop: Stop, wrong: bool) -> bool {
        let stops = match stop {
            Stop::Never => false,
            Stop::WhileMisclassified { .. } => wrong && self.budget == 0,
            Stop::Spent { .. } => self.budget == 0,
        };
        self.active &= !stops;
        if self.active && wrong && stop != Stop::Never {
            self.budget -= 1;
        }
        let first = wrong && !self.misclassified;
        self.misclassified |= wrong;
        first
    }
}

/// The search whose views an engine holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) generation: u64,
    pub(super) spec: SearchSpec,
    pub(super) labels: Vec<u32>,
    pub(super) ids: Vec<u32>,
    pub(super) seed: u64,
    pub(super) epoch: u32,
    /// The target class of each image; `None` until the host knows it.
    pub(super) targets: Option<Vec<u32>>,
    /// Whether each image's gradient was exactly zero in some step.
    pub(super) without_gradient: Vec<bool>,
    /// Remaining budget of each image ([`ImageProgress::budget`]).
    pub(super) budgets: Vec<u32>,
    /// Steps taken.
    pub(super) taken: u32,
}

impl Held {
    /// Checks that `steps` more steps are left.
    pub(super) fn check_steps(&self, steps: u32) -> Result<(), EngineError> {
        let left = self.spec.steps - self.taken;
        if steps <= left {
            return Ok(());
        }
        Err(EngineError::Invalid(format!("a search of {} steps has {left} left, asked for {steps}", self.spec.steps)))
    }

    pub(super) fn new(generation: u64, batch: &Batch<'_>, spec: &SearchSpec) -> Self {
        Self {
            generation,
            spec: spec.clone(),
            labels: batch.labels.to_vec(),
            ids: batch.ids.to_vec(),
            seed: batch.seed,
            epoch: batch.epoch,
            targets: None,
            without_gradient: vec![false; batch.len()],
            budgets: vec![ImageProgress::start(spec.stop).budget; batch.len()],
            taken: 0,
        }
    }

    /// The handle that callers get.
    pub(super) fn views(&self) -> Views {
        Views { generation: self.generation, len: self.labels.len() }
    }

    /// Checks that this search keeps `view`.
    pub(super) fn check_view(&self, view: View) -> Result<(), EngineError> {
        let Snapshots { last_clean, first_adversarial } = self.spec.snapshots;
        let kept = match view {
            View::Clean | View::Adversarial => true,
            View::LastClean => last_clean,
            View::FirstAdversarial => first_adversarial,
        };
        if kept { Ok(()) } else { Err(EngineError::Invalid(format!("the search did not keep the view {view:?}"))) }
    }
}

/// The search that `views` belongs to, if it is the one that the engine holds.
pub(super) fn current<'a>(held: Option<&'a Held>, views: &Views) -> Result<&'a Held, EngineError> {
    held.filter(|held| held.generation == views.generation).ok_or_else(|| {
        EngineError::Invalid(
            "these views are no longer valid: another search has begun since, or this one failed".into(),
        )
    })
}

/// A search that was set aside ([`super::Engine::set_aside`]).
#[derive(Debug, Clone, PartialEq)]
pub struct SetAside {
    pub(super) held: Held,
    pub(super) progress: Vec<ImageProgress>,
    /// The views, `B × C × H × W`.
    pub(super) views: Vec<(View, Vec<f32>)>,
    /// The perturbation, `B × C × H × W`.
    pub(super) delta: Vec<f32>,
    /// Logits on the clean images, `B × K`; empty if the objective does not need them.
    pub(super) reference: Vec<f32>,
}

impl SetAside {
    /// Checks that the search fits images of `shape` and a network with `classes` classes.
    pub(super) fn check(&self, shape: ImageShape, classes: usize) -> Result<(), EngineError> {
        let values = self.held.labels.len() * shape.len();
        let fits = self.delta.len() == values && self.views.iter().all(|(_, images)| images.len() == values);
        let reference = self.reference.is_empty() || self.reference.len() == self.held.labels.len() * classes;
        if !fits || !reference || self.held.spec.objective.check(self.held.labels.len(), classes).is_err() {
            return Err(EngineError::Invalid(format!(
                "the search that was set aside does not fit images of {shape} of {classes} classes"
            )));
        }
        check_labels(&self.held.labels, classes)
    }

    /// The images of one view.
    pub(super) fn images(&self, view: View) -> &[f32] {
        self.views.iter().find(|(of, _)| *of == view).map_or(&[], |(_, images)| images)
    }
}

/// The views that a search keeps.
pub(super) fn kept_views(snapshots: Snapshots) -> Vec<View> {
    let mut views = vec![View::Clean, View::Adversarial];
    if snapshots.last_clean {
        views.push(View::LastClean);
    }
    if snapshots.first_adversarial {
        views.push(View::FirstAdversarial);
    }
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an image moves at each step, given which of its iterates are misclassified.
    fn moves(stop: Stop, wrong: &[bool]) -> Vec<bool> {
        let mut image = ImageProgress::start(stop);
        let step = |wrong: &bool| {
            image.look(stop, *wrong);
            image.active
        };
        wrong.iter().map(step).collect()
    }

    #[test]
    fn budgets_count_steps_from_misclassified_images() {
        let wrong = [false, true, false, true, true, false, true];
        assert_eq!(moves(Stop::Never, &wrong), [true; 7]);
        let friendly = |budget| moves(Stop::WhileMisclassified { budget }, &wrong);
        assert_eq!(friendly(0), [true, false, false, false, false, false, false]);
        assert_eq!(friendly(1), [true, true, true, false, false, false, false]);
        assert_eq!(friendly(3), [true, true, true, true, true, true, false]);
        // `Spent` stops the image although it is classified correctly again.
        let spent = |budget| moves(Stop::Spent { budget }, &wrong);
        assert_eq!(spent(0), [false; 7]);
        assert_eq!(spent(1), [true, true, false, false, false, false, false]);
        assert_eq!(spent(3), [true, true, true, true, true, false, false]);
    }

    #[test]
    fn the_first_misclassified_iterate_is_reported_once() {
        let mut image = ImageProgress::start(Stop::Never);
        assert_eq!([false, true, false, true].map(|wrong| image.look(Stop::Never, wrong)), [false, true, false, false]);
    }
}
