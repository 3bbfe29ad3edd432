//! Numbers, headings and cards with a uniform appearance.

use egui::{RichText, Ui};

use crate::app::context::{Action, Context, Export, Format};
use crate::app::theme;

/// A fraction as a percentage with one decimal; `–` for NaN.
pub fn percent(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.1} %", 100.0 * fraction) } else { "–".into() }
}

/// A radius as `8/255 (0.0314)`.
pub fn epsilon(value: f64) -> String {
    let levels = (value * 255.0 * 100.0).round() / 100.0;
    format!("{levels}/255 ({value:.4})")
}

/// Text in a bolder weight.
pub fn strong(text: impl Into<String>) -> RichText {
    RichText::new(text).family(theme::strong_family())
}

/// Secondary text.
pub fn weak(ui: &Ui, text: impl Into<String>) -> RichText {
    RichText::new(text).color(theme::palette(ui).weak)
}

/// A framed part of a panel with a title.
pub fn card<R>(ui: &mut Ui, title: &str, contents: impl FnOnce(&mut Ui) -> R) -> R {
    let palette = theme::palette(ui);
    egui::Frame::new()
        .fill(palette.card)
        .stroke((1.0, palette.line))
        .corner_radius(6)
        .inner_margin(10)
        .show(ui, |ui| {
            if !title.is_empty() {
                ui.label(strong(title));
            }
            contents(ui)
        })
        .inner
}

/// Shown by a panel without content: what will be here, and how to get it.
pub fn empty(ui: &mut Ui, what: &str, how: &str) {
    ui.vertical_centered(|ui| {
        ui.add_space((ui.available_height() * 0.3).min(120.0));
        ui.label(strong(what).size(16.0));
        ui.label(weak(ui, how));
    });
}

/// A label with a glossary tooltip.
pub fn term(ui: &mut Ui, context: &Context<'_>, text: &str, key: &str) -> egui::Response {
    let response = ui.label(text);
    match context.glossary.tooltip(key) {
        Some(tooltip) => response.on_hover_text(tooltip),
        None => response,
    }
}

/// The menu of export formats for a figure. `export` is called only when one is chosen.
pub fn export_menu(ui: &mut Ui, context: &mut Context<'_>, name: &str, export: impl FnOnce() -> Option<Export>) {
    let mut chosen = None;
    let button = egui::Button::new("Export").small();
    let (response, _) = egui::containers::menu::MenuButton::from_button(button).ui(ui, |ui| {
        for (text, format) in [
            ("Copy as image", Format::CopyImage),
            ("Copy numbers (CSV)", Format::CopyCsv),
            ("Save as PNG…", Format::Png),
            ("Save as SVG…", Format::Svg),
            ("Save numbers as CSV…", Format::Csv),
        ] {
            if ui.button(text).clicked() {
                chosen = Some(format);
                ui.close();
            }
        }
    });
    response.accessible_name(format!("Export {name}"));
    if let Some(format) = chosen {
        match export() {
            Some(export) => context.ask(Action::Export(export, format)),
            None => {
                let text = format!("There is nothing to export in “{name}” yet.");
                context.ask(Action::Toast(crate::app::level::Level::Warning, text));
            }
        }
    }
}
