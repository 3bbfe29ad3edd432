//! What the data set offers: which settings would change, from what to what, and the way to take them or to keep one's own.

use std::collections::BTreeSet;

use egui::{Button, RichText, Ui};

use crate::app::context::Context;
use crate::app::form::Offer;
use crate::app::theme;
use crate::app::widgets::{strong, weak};
use crate::config::defaults::DataKind;
use crate::data::ImageShape;

/// Which of the offered settings are not ticked.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The data set and kind that the ticks are for.
    of: Option<(String, DataKind)>,
    unticked: BTreeSet<&'static str>,
}

impl Choice {
    /// Begins anew where another data set offers something: everything is ticked but what the user set himself.
    fn follow(&mut self, offer: &Offer) {
        let of = Some((offer.dataset.clone(), offer.kind));
        if self.of != of {
            let own = offer.settings.iter().filter(|offered| offered.own);
            *self = Self { of, unticked: own.map(|offered| offered.change.field.path).collect() };
        }
    }
}

/// Width of the column of labels.
const LABEL: f32 = 118.0;

/// Draws the offer, if there is one.
pub(super) fn show(ui: &mut Ui, context: &mut Context<'_>, choice: &mut Choice, on_disk: Option<ImageShape>) {
    let Some(offer) = context.form.offer(on_disk) else {
        choice.of = None;
        return;
    };
    choice.follow(&offer);
    let palette = theme::palette(ui);
    let frame = egui::Frame::new().fill(palette.accent.gamma_multiply(0.12)).corner_radius(6).inner_margin(8);
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.spacing_mut().item_spacing.y = 3.0;
        ui.label(strong(format!("{} usually takes other settings", offer.dataset)));
        let why = format!("{}; these settings were made for {}.", capital(offer.kind.title()), offer.made_for);
        ui.add(egui::Label::new(weak(ui, why).small()).wrap());
        for offered in &offer.settings {
            let change = &offered.change;
            let mut ticked = !choice.unticked.contains(change.field.path);
            let row = ui.horizontal(|ui| {
                ui.spacing_mut().interact_size.y = 18.0;
                let left = ui.cursor().left();
                let tick = ui.checkbox(&mut ticked, RichText::new(change.field.label).size(13.0));
                ui.add_space((left + LABEL + 22.0 - ui.cursor().left()).max(0.0));
                ui.label(weak(ui, change.field.written(&change.old)).size(13.0));
                ui.label(weak(ui, "→").size(13.0));
                ui.label(RichText::new(change.field.written(&change.new)).size(13.0));
                if offered.own {
                    ui.label(RichText::new("yours").small().color(palette.accent));
                }
                tick
            });
            let tick = row.inner.on_hover_text(format!("{}.", change.field.help.trim_end_matches('.')));
            if tick.changed() {
                match ticked {
                    true => choice.unticked.remove(change.field.path),
                    false => choice.unticked.insert(change.field.path),
                };
            }
        }
        ui.add_space(3.0);
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = 6.0;
            let count = offer.settings.iter().filter(|o| !choice.unticked.contains(o.change.field.path)).count();
            let text = if count == 1 { "Take 1 setting".to_owned() } else { format!("Take {count} settings") };
            let take = ui.add_enabled(count > 0, Button::new(RichText::new(text).size(13.0)));
            let take = take.on_hover_text("Give the ticked settings these values. Can be undone.");
            if take.on_disabled_hover_text("No setting is ticked.").clicked() {
                context.form.take(&offer, |path| !choice.unticked.contains(path));
            }
            let keep = ui.button(RichText::new("Keep mine").size(13.0));
            if keep.on_hover_text("Leave all settings as they are and close this. Can be undone.").clicked() {
                context.form.keep();
            }
        });
    });
    ui.add_space(4.0);
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
