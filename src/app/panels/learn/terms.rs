//! The glossary: every term with its explanation, and a search.

use egui::{RichText, Ui};

use super::column;
use crate::app::glossary::{Entry, Glossary};
use crate::app::theme;
use crate::app::widgets::markdown::{formula, reading_size, unbroken};
use crate::app::widgets::weak;

/// Display state of the glossary.
#[derive(Debug, Default)]
pub(super) struct Terms {
    search: String,
    /// A term to scroll to.
    wanted: Option<String>,
    /// The term that was scrolled to, which is highlighted.
    marked: Option<String>,
}

impl Terms {
    /// Scrolls to a term.
    pub(super) fn select(&mut self, key: &str) {
        self.search.clear();
        self.wanted = Some(key.to_owned());
    }

    pub(super) fn ui(&mut self, ui: &mut Ui, glossary: &Glossary) {
        let size = reading_size(ui.available_width());
        column(ui, size, |ui| {
            ui.horizontal(|ui| {
                let width = (ui.available_width() - 130.0).clamp(120.0, 360.0);
                let field = egui::TextEdit::singleline(&mut self.search).hint_text("Search").desired_width(width);
                let field = ui.add(field.font(egui::FontId::proportional(15.0)));
                field.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, true, "Search the glossary"));
                if !self.search.is_empty() && ui.button("Clear").clicked() {
                    self.search.clear();
                }
            });
        });
        let found = glossary.find(&self.search);
        let wanted = self.wanted.take().and_then(|key| glossary.get(&key).map(|entry| entry.key.clone()));
        if wanted.is_some() {
            self.marked.clone_from(&wanted);
        }
        egui::ScrollArea::vertical().id_salt("terms").auto_shrink(false).show(ui, |ui| {
            column(ui, size, |ui| {
                if found.is_empty() {
                    ui.label(weak(ui, "No term has all of these words.").size(size));
                }
                for entry in found {
                    let marked = self.marked.as_deref() == Some(&entry.key);
                    let (response, link) = show(ui, entry, glossary, size, marked);
                    if wanted.as_deref() == Some(&entry.key) {
                        response.scroll_to_me(Some(egui::Align::TOP));
                        // Entries above may have changed their height in this frame.
                        ui.ctx().request_repaint();
                    }
                    if let Some(link) = link {
                        self.select(&link);
                    }
                }
            });
        });
    }
}

/// Draws an entry. Returns the related term that was clicked in it.
fn show(ui: &mut Ui, entry: &Entry, glossary: &Glossary, size: f32, marked: bool) -> (egui::Response, Option<String>) {
    let palette = theme::palette(ui);
    let mut link = None;
    let line = if marked { (2.0, palette.accent) } else { (1.0, palette.line) };
    let frame = egui::Frame::new().fill(palette.card).stroke(line).corner_radius(8).inner_margin(12);
    let response = frame
        .show(ui, |ui| {
            ui.set_width(ui.available_width());
            ui.label(RichText::new(&entry.title).size(1.1 * size).family(theme::strong_family()));
            ui.label(RichText::new(unbroken(&entry.what)).size(size * 0.95).line_height(Some(1.4 * size)));
            let color = ui.visuals().text_color();
            if let Some(text) = &entry.formula {
                egui::Frame::new()
                    .fill(ui.visuals().faint_bg_color)
                    .corner_radius(5)
                    .inner_margin(egui::Margin::symmetric(10, 5))
                    .show(ui, |ui| ui.label(formula(&unbroken(text), size * 0.95, color)));
            }
            for (name, text) in [("Unit", &entry.unit), ("Usual", &entry.range)] {
                if let Some(text) = text {
                    let mut job = egui::text::LayoutJob::default();
                    let font = |family| egui::FontId::new(size * 0.9, family);
                    let strong = egui::TextFormat::simple(font(theme::strong_family()), palette.weak);
                    job.append(&format!("{name}  "), 0.0, strong);
                    job.append(
                        &unbroken(text),
                        0.0,
                        egui::TextFormat::simple(font(egui::FontFamily::Proportional), palette.weak),
                    );
                    ui.label(job);
                }
            }
            if !entry.see.is_empty() {
                ui.horizontal_wrapped(|ui| {
                    ui.label(weak(ui, "See also").size(size * 0.9));
                    for other in entry.see.iter().filter_map(|key| glossary.get(key)) {
                        if ui
                            .link(RichText::new(&other.title).size(size * 0.9))
                            .on_hover_text(other.tooltip())
                            .clicked()
                        {
                            link = Some(other.key.clone());
                        }
                    }
                });
            }
        })
        .response;
    (response, link)
}
