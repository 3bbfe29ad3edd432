//! One image of the gallery.

use egui::text::{LayoutJob, TextFormat};
use egui::{Align, Color32, FontId, Rect, Response, Sense, Ui, Vec2, pos2, vec2};

use super::filter::{Row, over};
use crate::app::widgets::picture::{self, Textures};
use crate::app::widgets::{epsilon, percent};
use crate::app::{focus, theme};
use crate::worker::{self, Counted};

/// Space between cards.
pub(super) const GAP: f32 = 10.0;
/// Width of a card without its images.
pub(super) const FRAME: f32 = 2.0 * PADDING + 2.0 * BETWEEN;
const PADDING: f32 = 8.0;
const BETWEEN: f32 = 4.0;
const LINE: f32 = 17.0;
const SMALL: f32 = 12.0;

/// Size of a card whose images are `side` points wide.
pub(super) fn size(side: f32) -> Vec2 {
    vec2(3.0 * side + FRAME, side + 2.0 * PADDING + 4.0 * LINE + 4.0)
}

/// See the [module](self).
pub(super) struct Card<'a> {
    pub(super) set: &'a worker::Examples,
    /// The part of the data set that the images belong to.
    pub(super) part: Counted,
    pub(super) row: &'a Row,
    pub(super) names: &'a [String],
    pub(super) generation: u64,
    pub(super) magnification: f32,
}

impl Card<'_> {
    fn name(&self, class: u32) -> String {
        self.names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// Everything that the card shows, for screen readers and the tooltip.
    fn description(&self) -> String {
        let Row { label, target, prediction, confidence, outcome, clean_prediction, .. } = *self.row;
        let before = match clean_prediction == label {
            true => String::new(),
            false => format!(" (before the attack {})", self.name(clean_prediction)),
        };
        let target = target.map_or_else(String::new, |target| format!(", target {}", self.name(target)));
        format!(
            "{} image {}: {}{target}, predicted {} {}{before}, {}",
            match self.part {
                Counted::Training => "Training",
                Counted::Validation => "Validation",
            },
            self.set.ids[self.row.index],
            self.name(label),
            self.name(prediction),
            percent(f64::from(confidence)),
            outcome.text(self.row.target.is_some(), over(self.set)),
        )
    }

    pub(super) fn ui(&self, ui: &mut Ui, rect: Rect, textures: &mut Textures) -> Response {
        let palette = theme::palette(ui);
        let description = self.description();
        let id = ui.scope_id().with(("card", self.row.index));
        let response = ui.interact(rect, id, Sense::click());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, &description));
        let label = self.row.label as usize;
        let highlighted = focus::highlighted(ui) == Some(label);
        if ui.rect_contains_pointer(rect) {
            focus::highlight(ui, label);
        }
        let line =
            if highlighted || response.hovered() || response.has_focus() { palette.accent } else { palette.line };
        let width = if highlighted { 2.5 } else { 1.0 };
        ui.painter().rect(rect, 6, palette.card, (width, line), egui::StrokeKind::Inside);
        let mut ui = ui.new_child(egui::UiBuilder::new().max_rect(rect.shrink(PADDING)).id_salt(id));
        ui.set_clip_rect(ui.clip_rect().intersect(rect));
        let side = (rect.width() - FRAME) / 3.0;
        self.images(&mut ui, rect.shrink(PADDING), side, textures);
        let top = rect.top() + PADDING + side + 2.0;
        self.text(&ui, Rect::from_min_max(pos2(rect.left() + PADDING, top), rect.max - vec2(PADDING, PADDING)));
        response.on_hover_text("Click to open this image in the inspector, as it is without augmentation.")
    }

    fn images(&self, ui: &mut Ui, rect: Rect, side: f32, textures: &mut Textures) {
        let (shape, index) = (self.set.shape, self.row.index);
        let pixels = |values: &'_ [f32]| index * shape.len()..((index + 1) * shape.len()).min(values.len());
        let before = &self.set.clean[pixels(&self.set.clean)];
        let after = &self.set.adversarial[pixels(&self.set.adversarial)];
        for (place, what) in ["original", "perturbation", "adversarial"].into_iter().enumerate() {
            // Only the perturbation depends on the magnification.
            let factor = if place == 1 { self.magnification } else { 1.0 };
            let key = (self.generation, index, place, factor.to_bits());
            let texture = textures.get(ui.ctx(), key, || match place {
                0 => picture::plain(before, shape),
                1 => picture::perturbation(before, after, shape, factor),
                _ => picture::plain(after, shape),
            });
            let left = rect.left() + place as f32 * (side + BETWEEN);
            let place = Rect::from_min_size(pos2(left, rect.top()), vec2(side, side));
            let mut ui = ui.new_child(egui::UiBuilder::new().max_rect(place).id_salt(what));
            let shown = picture::show(&mut ui, texture, side, what);
            picture::explain_pixel(&shown, shape, before, after);
        }
    }

    fn text(&self, ui: &Ui, rect: Rect) {
        let (palette, row) = (theme::palette(ui), self.row);
        let painter = ui.painter();
        let line = |i: usize| rect.top() + i as f32 * LINE;
        let magnified = format!("×{}", self.magnification);
        let third = rect.width() / 3.0;
        for (i, caption) in ["original", &magnified, "adversarial"].into_iter().enumerate() {
            let at = pos2(rect.left() + (i as f32 + 0.5) * third, line(0) + LINE / 2.0);
            let size = if third < 56.0 { 9.5 } else { 11.0 };
            painter.text(at, egui::Align2::CENTER_CENTER, caption, FontId::proportional(size), palette.weak);
        }
        let mut aim = self.class(ui, row.label, false);
        if let Some(target) = row.target {
            append(&mut aim, "  →  ", palette.weak, false);
            let dark = ui.visuals().dark_mode;
            append(&mut aim, "● ", theme::class_color(target as usize, dark), false);
            append(&mut aim, &self.name(target), ui.visuals().text_color(), false);
        }
        self.line(ui, aim, rect, line(1));
        let mut said = LayoutJob::default();
        append(&mut said, "→ ", palette.weak, false);
        let dark = ui.visuals().dark_mode;
        append(&mut said, "● ", theme::class_color(row.prediction as usize, dark), false);
        append(&mut said, &self.name(row.prediction), ui.visuals().text_color(), true);
        append(&mut said, &format!("  {:.0} %", 100.0 * row.confidence), ui.visuals().text_color(), false);
        if row.clean_prediction != row.label {
            append(&mut said, &format!("  was {}", self.name(row.clean_prediction)), palette.weak, false);
        }
        self.line(ui, said, rect, line(2));

        let color = row.outcome.color(palette);
        let sign = Rect::from_center_size(pos2(rect.left() + 6.0, line(3) + LINE / 2.0), vec2(10.0, 10.0));
        row.outcome.sign(painter, sign, color);
        let mut outcome = LayoutJob::default();
        append(&mut outcome, row.outcome.text(row.target.is_some(), over(self.set)), color, true);
        let levels = epsilon(f64::from(row.epsilon));
        let levels = levels.split(' ').next().unwrap_or_default().replace("/255", "");
        let levels = levels.parse::<f64>().map_or(levels, |k| format!("ε {:.1}/255", k)).replace(".0/", "/");
        let right = painter.text(
            pos2(rect.right(), line(3) + LINE / 2.0),
            egui::Align2::RIGHT_CENTER,
            levels,
            FontId::proportional(11.0),
            palette.weak,
        );
        let room = Rect::from_min_max(pos2(rect.left() + 16.0, rect.top()), pos2(right.left() - 4.0, rect.bottom()));
        self.line(ui, outcome, room, line(3));
    }

    fn class(&self, ui: &Ui, class: u32, bold: bool) -> LayoutJob {
        let mut job = LayoutJob::default();
        append(&mut job, "● ", theme::class_color(class as usize, ui.visuals().dark_mode), false);
        append(&mut job, &self.name(class), ui.visuals().text_color(), bold);
        job
    }

    fn line(&self, ui: &Ui, mut job: LayoutJob, rect: Rect, top: f32) {
        job.wrap = egui::text::TextWrapping::truncate_at_width(rect.width());
        let galley = ui.painter().layout_job(job);
        let down = (LINE - galley.size().y) / 2.0;
        ui.painter().galley(pos2(rect.left(), top + down), galley, Color32::PLACEHOLDER);
    }
}

fn append(job: &mut LayoutJob, text: &str, color: Color32, bold: bool) {
    let family = if bold { theme::strong_family() } else { egui::FontFamily::Proportional };
    let format = TextFormat { font_id: FontId::new(SMALL, family), color, valign: Align::Center, ..Default::default() };
    job.append(text, 0.0, format);
}
