//! The panels, one file each.

pub mod compare;
pub mod evaluate;
pub mod examples;
pub mod experiment;
pub mod fairness;
pub mod inspector;
pub mod learn;
pub mod log;
pub mod story;
pub mod training;
pub mod watch;

use super::context::{Context, Panel};
use super::layout::PanelKind;
pub use examples::Cell;

/// All panels with their state.
#[derive(Debug, Default)]
pub struct Panels {
    pub(super) experiment: experiment::Experiment,
    pub(super) story: story::Story,
    pub(super) training: training::Training,
    pub(super) fairness: fairness::Fairness,
    pub(super) examples: examples::Examples,
    pub(super) inspector: inspector::Inspector,
    pub(super) evaluate: evaluate::Evaluate,
    pub(super) compare: compare::Compare,
    pub(super) watch: watch::Watch,
    pub(super) learn: learn::Learn,
    pub(super) log: log::Log,
}

impl Panels {
    /// The panel of a kind.
    pub fn of(&mut self, kind: PanelKind) -> &mut dyn Panel {
        match kind {
            PanelKind::Experiment => &mut self.experiment,
            PanelKind::Story => &mut self.story,
            PanelKind::Training => &mut self.training,
            PanelKind::Fairness => &mut self.fairness,
            PanelKind::Examples => &mut self.examples,
            PanelKind::Inspector => &mut self.inspector,
            PanelKind::Evaluate => &mut self.evaluate,
            PanelKind::Compare => &mut self.compare,
            PanelKind::Watch => &mut self.watch,
            PanelKind::Learn => &mut self.learn,
            PanelKind::Log => &mut self.log,
        }
    }

    /// Drops what the panels keep of a run that is no longer shown.
    pub fn forget_run(&mut self) {
        self.story = story::Story::default();
        self.training = training::Training::default();
        self.fairness = fairness::Fairness::default();
        self.examples = examples::Examples::default();
        self.inspector = inspector::Inspector::default();
        self.watch = watch::Watch::default();
    }

    /// Called for a panel that was visible in the last frame and no longer is.
    pub fn hidden(&mut self, kind: PanelKind, context: &mut Context<'_>) {
        if kind == PanelKind::Examples {
            self.examples.hidden(context);
        }
    }
}
