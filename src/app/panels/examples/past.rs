//! The examples of an earlier epoch, which the scrubber shows.

use std::sync::Arc;

use egui::Ui;

use crate::app::context::Context;
use crate::app::past::PastSet;
use crate::app::view::RunView;
use crate::app::widgets::{empty, weak};
use crate::worker::Examples;

/// The set that was unpacked last.
#[derive(Debug, Default)]
pub(super) struct Unpacked(Option<(Arc<PastSet>, Arc<Examples>)>);

impl Unpacked {
    /// The examples of an epoch; `None` if none are kept.
    pub(super) fn of(&mut self, run: &RunView, epoch: u32) -> Option<Arc<Examples>> {
        let packed = run.past.of(epoch)?;
        match &self.0 {
            Some((of, examples)) if Arc::ptr_eq(of, packed) => Some(Arc::clone(examples)),
            _ => {
                let examples = Arc::new(packed.examples());
                self.0 = Some((Arc::clone(packed), Arc::clone(&examples)));
                Some(examples)
            }
        }
    }
}

/// The epoch that the scrubber shows; `None` if the newest is followed.
pub(super) fn epoch_shown(context: &Context<'_>) -> Option<u32> {
    let record = context.focus.record(context.run).filter(|_| !context.focus.is_live())?;
    Some(record.metrics.epoch)
}

/// Says that an epoch has no examples, why, and where there are some.
pub(super) fn nothing(ui: &mut Ui, context: &mut Context<'_>, epoch: u32) {
    let past = &context.run.past;
    let why = if past.was_dropped(epoch) {
        format!(
            "They were dropped: the examples of all epochs take at most {} MiB of memory, so that of a long run only some \
             epochs keep theirs.",
            past.limit_mib()
        )
    } else {
        "Examples are kept only while the window watches a run: this panel must be visible and not frozen, and the epoch must \
         take longer than half a second."
            .to_owned()
    };
    empty(ui, &format!("No examples of epoch {}", epoch + 1), &why);
    let nearest = past.nearest(epoch);
    ui.vertical_centered(|ui| {
        ui.add_space(8.0);
        if let Some(nearest) = nearest
            && ui
                .button(format!("Show epoch {}", nearest + 1))
                .on_hover_text("The nearest epoch with examples")
                .clicked()
        {
            context.focus.epoch = Some(nearest);
        }
        if ui.button("Live").on_hover_text("Follow the newest epoch").clicked() {
            context.focus.epoch = None;
        }
    });
}

/// Says how a kept set differs from the one that was shown.
pub(super) fn rounded(ui: &mut Ui, set: &PastSet) {
    let kept = set.kept();
    let text = match kept == set.of {
        true => "kept as bytes".to_owned(),
        false => format!("kept as bytes, {kept} of {} images", set.of),
    };
    ui.label(weak(ui, text))
        .on_hover_text("Original images are rounded to bytes, the change to 1/127 of its largest value in the image.");
}
