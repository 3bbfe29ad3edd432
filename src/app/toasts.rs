//! Transient messages in the corner of the window. All of them are in the log, too.

use std::time::{Duration, Instant};

use egui::{Align2, Color32, Frame, RichText};

use super::layout::PanelKind;
use super::level::Level;
use super::theme;
use super::widgets::strong;

/// Maximum number of messages; new ones replace the oldest.
const MOST: usize = 4;

/// Distance of the messages from the lower edge: above the status line and the slider of epochs.
const ABOVE: f32 = 72.0;

/// Time for which a message is shown. An error has a next step to read, and may come while nobody looks.
const fn life(level: Level) -> Duration {
    Duration::from_secs(match level {
        Level::Info => 5,
        Level::Warning => 12,
        Level::Error => 40,
    })
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Toasts {
    shown: Vec<Toast>,
}

#[derive(Debug, Clone)]
struct Toast {
    at: Instant,
    level: Level,
    text: String,
    /// The panel that has more about it.
    panel: Option<PanelKind>,
}

impl Toasts {
    /// Shows a message. A repeated text is shown once.
    pub(super) fn add(&mut self, at: Instant, level: Level, text: String) {
        self.push(Toast { at, level, text, panel: None });
    }

    /// Shows a message with a button for the panel that has more about it.
    pub(super) fn add_about(&mut self, at: Instant, level: Level, text: String, panel: PanelKind) {
        self.push(Toast { at, level, text, panel: Some(panel) });
    }

    fn push(&mut self, toast: Toast) {
        self.shown.retain(|other| other.text != toast.text);
        if self.shown.len() == MOST {
            self.shown.remove(0);
        }
        self.shown.push(toast);
    }

    /// Draws the current messages, newest at the bottom. None of them stays: the log has all. Returns the panel that the
    /// user wants to see.
    pub(super) fn ui(&mut self, context: &egui::Context, now: Instant) -> Option<PanelKind> {
        self.shown.retain(|toast| now - toast.at < life(toast.level));
        let next = self.shown.iter().map(|toast| life(toast.level).saturating_sub(now - toast.at)).min();
        if let Some(next) = next {
            context.request_repaint_after(next);
        }
        if self.shown.is_empty() {
            return None;
        }
        let (mut closed, mut wanted) = (None, None);
        egui::Area::new(egui::Id::unique("toasts"))
            .order(egui::Order::Foreground)
            .anchor(Align2::RIGHT_BOTTOM, [-12.0, -ABOVE])
            .show(context, |ui| {
                ui.set_max_width(360.0_f32.min(context.content_rect().width() - 24.0));
                for (i, Toast { level, text, panel, .. }) in self.shown.iter().enumerate() {
                    let palette = theme::palette(ui);
                    let (mark, color) = match level {
                        Level::Info => ("Done", palette.good),
                        Level::Warning => ("Note", palette.warning),
                        Level::Error => ("Failed", palette.error),
                    };
                    let shadow =
                        egui::Shadow { offset: [0, 2], blur: 8, spread: 0, color: Color32::from_black_alpha(60) };
                    Frame::new()
                        .fill(palette.card)
                        .stroke((1.0, color))
                        .corner_radius(6)
                        .inner_margin(10)
                        .shadow(shadow)
                        .show(ui, |ui| {
                            ui.horizontal_top(|ui| {
                                ui.label(strong(mark).color(color));
                                ui.vertical(|ui| {
                                    ui.set_max_width(ui.available_width() - 28.0);
                                    ui.add(egui::Label::new(RichText::new(text)).wrap());
                                    let more = panel.filter(|panel| ui.button(panel.title()).clicked());
                                    if more.is_some() {
                                        (wanted, closed) = (more, Some(i));
                                    }
                                });
                                let close = ui.add(egui::Button::new("×").small().frame(false));
                                close.widget_info(|| {
                                    egui::WidgetInfo::labeled(egui::Role::Button, true, "Close message")
                                });
                                if close.clicked() {
                                    closed = Some(i);
                                }
                            });
                        });
                }
            });
        if let Some(closed) = closed {
            self.shown.remove(closed);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use egui_kittest::Harness;
    use egui_kittest::kittest::Queryable;

    use super::*;

    #[test]
    fn a_message_leads_to_the_panel_that_has_more_and_is_gone() {
        let began = Instant::now();
        let mut toasts = Toasts::default();
        toasts.add_about(began, Level::Warning, "A class is lost.".into(), PanelKind::Watch);
        let mut harness = Harness::builder().with_size([500.0, 400.0]).build_ui_state(
            |ui, (toasts, wanted): &mut (Toasts, Option<PanelKind>)| {
                super::theme::install(ui.ctx());
                *wanted = toasts.ui(ui.ctx(), began).or(*wanted);
            },
            (toasts, None),
        );
        harness.run();
        harness.get_by_label(PanelKind::Watch.title()).click();
        harness.run();
        assert_eq!(harness.state().1, Some(PanelKind::Watch));
        assert!(harness.query_by_label("A class is lost.").is_none());
    }

    #[test]
    fn every_message_expires_an_error_last() {
        let began = Instant::now();
        let mut toasts = Toasts::default();
        for (level, text) in [(Level::Info, "saved"), (Level::Warning, "careful"), (Level::Error, "broken")] {
            toasts.add(began, level, text.into());
        }
        for (secs, expected) in [(0, 3), (4, 3), (6, 2), (13, 1), (39, 1), (41, 0)] {
            let now = began + Duration::from_secs(secs);
            let harness = Harness::builder().with_size([500.0, 400.0]).build_ui_state(
                |ui, toasts: &mut Toasts| {
                    super::theme::install(ui.ctx());
                    toasts.ui(ui.ctx(), now);
                },
                std::mem::take(&mut toasts),
            );
            let shown = ["saved", "careful", "broken"].iter().filter(|text| harness.query_by_label(text).is_some());
            assert_eq!(shown.count(), expected, "after {secs} s");
            toasts.shown.clone_from(&harness.state().shown);
        }
    }
}
