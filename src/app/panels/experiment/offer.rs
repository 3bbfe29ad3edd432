//! What the data set offers: the settings that would change with their old and new values, and controls to accept them
//! or to keep the current ones.

use std::collections::BTreeSet;

use egui::{Button, RichText, Ui};

use crate::app::context::Context;
use crate::app::form::{Offer, Offered};
use crate::app::theme;
use crate::app::widgets::{strong, weak};
use crate::config::defaults::DataKind;
use crate::data::ImageShape;

/// The offered settings that are not ticked.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The data set and kind that the ticks belong to.
    of: Option<(String, DataKind)>,
    unticked: BTreeSet<&'static str>,
}

impl Choice {
    /// Resets the ticks when another data set makes an offer: every setting is ticked except those the user set.
    /// Returns whether it did.
    fn follow(&mut self, offer: &Offer) -> bool {
        let of = Some((offer.dataset.clone(), offer.kind));
        let new = self.of != of;
        if new {
            let own = offer.settings.iter().filter(|offered| offered.own);
            *self = Self { of, unticked: own.map(|offered| offered.change.field.path).collect() };
        }
        new
    }
}

/// Width of the column of labels.
const LABEL: f32 = 100.0;
/// Minimum width for settings in two columns.
const TWO_COLUMNS: f32 = 640.0;

/// Draws the offer, if any.
pub(super) fn show(ui: &mut Ui, context: &mut Context<'_>, choice: &mut Choice, on_disk: Option<ImageShape>) {
    let Some(offer) = context.form.offer(on_disk) else {
        choice.of = None;
        return;
    };
    let new = choice.follow(&offer);
    let palette = theme::palette(ui);
    let frame = egui::Frame::new().fill(palette.accent.gamma_multiply(0.12)).corner_radius(6).inner_margin(8);
    let card = frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.spacing_mut().item_spacing.y = 3.0;
        ui.label(strong(format!("{} usually takes other settings", offer.dataset)));
        let why = format!("{}; these settings were made for {}.", capital(offer.kind.title()), offer.made_for);
        ui.add(egui::Label::new(weak(ui, why).small()).wrap());
        if ui.available_width() >= TWO_COLUMNS {
            let half = offer.settings.len().div_ceil(2);
            ui.columns(2, |columns| {
                for (column, settings) in columns.iter_mut().zip(offer.settings.chunks(half)) {
                    settings.iter().for_each(|offered| setting(column, choice, offered));
                }
            });
        } else {
            offer.settings.iter().for_each(|offered| setting(ui, choice, offered));
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
    if new {
        // A user who has scrolled down to the data set would not notice the offer.
        card.response.scroll_to_me(Some(egui::Align::TOP));
    }
    ui.add_space(4.0);
}

/// One setting: a check box to accept it, its current value and the offered value.
fn setting(ui: &mut Ui, choice: &mut Choice, offered: &Offered) {
    let Offered { change, own } = offered;
    let mut ticked = !choice.unticked.contains(change.field.path);
    let row = ui.horizontal(|ui| {
        ui.spacing_mut().interact_size.y = 18.0;
        ui.spacing_mut().item_spacing.x = 5.0;
        let left = ui.cursor().left();
        let tick = ui.checkbox(&mut ticked, RichText::new(change.field.label).size(13.0));
        ui.add_space((left + LABEL + 22.0 - ui.cursor().left()).max(0.0));
        ui.label(weak(ui, change.field.written(&change.old)).size(13.0));
        ui.label(weak(ui, "→").size(13.0));
        ui.label(RichText::new(change.field.written(&change.new)).size(13.0));
        if *own {
            let yours = RichText::new("yours").small().color(theme::palette(ui).accent);
            ui.label(yours).on_hover_text("You set this yourself: it is not ticked.");
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

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
