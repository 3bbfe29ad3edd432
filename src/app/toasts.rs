//! Transient messages in the corner of the window. All of them are in the log, too.

use std::time::{Duration, Instant};

use egui::{Align2, Color32, Frame, RichText};

use super::level::Level;
use super::theme;
use super::widgets::strong;

/// Maximum number of messages; new ones replace the oldest.
const MOST: usize = 4;

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
    shown: Vec<(Instant, Level, String)>,
}

impl Toasts {
    /// Shows a message. A repeated text is shown once.
    pub(super) fn add(&mut self, now: Instant, level: Level, text: String) {
        self.shown.retain(|(_, _, other)| *other != text);
        if self.shown.len() == MOST {
            self.shown.remove(0);
        }
        self.shown.push((now, level, text));
    }

    /// Draws the current messages, newest at the bottom. None of them stays: the log has all.
    pub(super) fn ui(&mut self, context: &egui::Context, now: Instant) {
        self.shown.retain(|(at, level, _)| now - *at < life(*level));
        let next = self.shown.iter().map(|(at, level, _)| life(*level).saturating_sub(now - *at)).min();
        if let Some(next) = next {
            context.request_repaint_after(next);
        }
        if self.shown.is_empty() {
            return;
        }
        let mut closed = None;
        egui::Area::new(egui::Id::unique("toasts"))
            .order(egui::Order::Foreground)
            .anchor(Align2::RIGHT_BOTTOM, [-12.0, -40.0])
            .show(context, |ui| {
                ui.set_max_width(360.0_f32.min(context.content_rect().width() - 24.0));
                for (i, (_, level, text)) in self.shown.iter().enumerate() {
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
                                ui.add(egui::Label::new(RichText::new(text)).wrap());
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
    }
}

#[cfg(test)]
mod tests {
    use egui_kittest::Harness;
    use egui_kittest::kittest::Queryable;

    use super::*;

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
