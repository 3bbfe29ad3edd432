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
}
