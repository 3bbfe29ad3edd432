//! What the whole window looks at: an epoch, which the scrubber chooses, and a class, which the pointer is on.

use egui::{Id, Ui};

use super::view::RunView;
use crate::worker::EpochRecord;

/// The epoch that all panels show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Focus {
    /// Epoch index; `None` follows the newest.
    pub epoch: Option<u32>,
}

impl Focus {
    /// Whether the newest epoch is followed.
    pub fn is_live(self) -> bool {
        self.epoch.is_none()
    }

    /// The focus on a run that has just been opened: its newest epoch, or that of the checkpoint that was opened.
    pub fn opened(run: &RunView) -> Self {
        let looked = run.info.as_ref().and_then(|info| info.looked.as_ref());
        let trained = looked.and_then(|looked| looked.position);
        let is = |record: &&EpochRecord| Some(f64::from(record.metrics.epoch + 1)) == trained;
        Self { epoch: run.epochs.iter().find(is).map(|record| record.metrics.epoch) }
    }

    /// The record of the epoch, or the last one before it; the newest if it is followed.
    pub fn record(self, run: &RunView) -> Option<&EpochRecord> {
        let Some(epoch) = self.epoch else { return run.epochs.last() };
        run.epochs.iter().rev().find(|record| record.metrics.epoch <= epoch).or(run.epochs.first())
    }

    /// The records up to the epoch; all if the newest is followed.
    pub fn until(self, run: &RunView) -> &[EpochRecord] {
        let Some(shown) = self.record(run) else { return &[] };
        let end = run.epochs.iter().rposition(|record| record.metrics.epoch <= shown.metrics.epoch);
        &run.epochs[..end.map_or(0, |end| end + 1)]
    }
}

/// The class under the pointer in the last frame, and what has been found in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Pointed {
    shown: Option<usize>,
    next: Option<usize>,
}

fn id() -> Id {
    Id::unique("class under the pointer")
}

/// Called once at the beginning of a frame.
pub fn begin_frame(context: &egui::Context) {
    context.data_mut(|data| {
        let pointed = data.get_temp_mut_or_default::<Pointed>(id());
        *pointed = Pointed { shown: pointed.next, next: None };
    });
}

/// Called once at the end of a frame: what is highlighted no longer must be drawn again.
pub fn end_frame(context: &egui::Context) {
    let pointed = context.data(|data| data.get_temp::<Pointed>(id())).unwrap_or_default();
    if pointed.shown != pointed.next {
        context.request_repaint();
    }
}

/// The class that is highlighted in every panel: the one that the pointer was on in the last frame.
pub fn highlighted(ui: &Ui) -> Option<usize> {
    ui.data(|data| data.get_temp::<Pointed>(id())).and_then(|pointed| pointed.shown)
}

#[cfg(test)]
pub(in crate::app) fn pointed(context: &egui::Context) -> Option<usize> {
    context.data(|data| data.get_temp::<Pointed>(id())).and_then(|pointed| pointed.next)
}

/// Highlights a class in every panel from the next frame on, for as long as this is called.
pub fn highlight(ui: &Ui, class: usize) {
    ui.data_mut(|data| data.get_temp_mut_or_default::<Pointed>(id()).next = Some(class));
}

/// The ground of a highlighted row, and the highlight of a row under the pointer.
pub fn row(ui: &Ui, rect: egui::Rect, class: usize) {
    if highlighted(ui) == Some(class) {
        let color = super::theme::palette(ui).accent.gamma_multiply(0.18);
        ui.painter().rect_filled(rect, 3, color);
    }
    if ui.rect_contains_pointer(rect) {
        highlight(ui, class);
    }
}

/// As [`row`], for a class of another run: the class of the open run with this name. Without an open run, `index`.
pub fn row_named(ui: &Ui, rect: egui::Rect, name: &str, open: &[String], index: usize) {
    let class = if open.is_empty() { Some(index) } else { open.iter().position(|other| other == name) };
    if let Some(class) = class {
        row(ui, rect, class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::sample;

    #[test]
    fn an_epoch_between_records_shows_the_one_before() {
        let mut run = sample::run();
        run.epochs.remove(5);
        let shown = |epoch| Focus { epoch }.record(&run).map(|record| record.metrics.epoch);
        assert_eq!([shown(None), shown(Some(5)), shown(Some(6)), shown(Some(99))], [17, 4, 6, 17].map(Some));
        let until = |epoch| Focus { epoch }.until(&run).len();
        assert_eq!([until(None), until(Some(5)), until(Some(6))], [17, 5, 6]);
        run.epochs.clear();
        assert!(Focus::default().record(&run).is_none() && Focus { epoch: Some(3) }.until(&run).is_empty());
    }

    #[test]
    fn a_checkpoint_that_is_opened_shows_its_own_epoch() {
        let mut run = sample::run();
        assert_eq!(Focus::opened(&run), Focus::default());
        let mut look = |position| {
            let looked = crate::worker::Looked { file: "runs/a/checkpoints/best.safetensors".into(), position };
            run.info.as_mut().unwrap().looked = Some(looked);
            Focus::opened(&run).epoch
        };
        assert_eq!([look(Some(3.0)), look(Some(18.0)), look(Some(99.0)), look(None)], [Some(2), Some(17), None, None]);
    }

    #[test]
    fn the_probabilities_of_the_inspector_are_highlighted_and_highlight() {
        use crate::app::context::Action;
        use crate::app::panels::inspector::Inspector;
        use crate::app::testing::{Stage, harness, is_highlighted};
        use egui_kittest::kittest::Queryable;
        let mut window = harness(Stage::new(Inspector::default(), sample::run()), [1200.0, 1000.0], 1.0, true);
        window.run_steps(4);
        let stage = window.state_mut();
        for action in std::mem::take(&mut stage.actions) {
            if let Action::Worker(request) = action
                && let Some(update) = sample::answer(&request)
            {
                stage.run.apply(update, std::time::Instant::now());
            }
        }
        window.run_steps(6);
        // The first test image is an airplane.
        let bar = window.get_all_by_label_contains("airplane (true) ").next().unwrap().rect();
        assert!(is_highlighted(&mut window, bar, 0));
        assert!(!is_highlighted(&mut window, bar, 1));
        window.hover_at(bar.center());
        window.run_steps(3);
        assert_eq!(pointed(&window.ctx), Some(0));
    }
}
