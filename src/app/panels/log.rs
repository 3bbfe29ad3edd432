//! Events since the program started.

use egui::{Align, Layout};

use crate::app::context::{Action, Context, Panel};
use crate::app::level::Level;
use crate::app::theme;
use crate::app::widgets::{empty, weak};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Log {
    warnings_only: bool,
}

impl Panel for Log {
    fn ui(&mut self, ui: &mut egui::Ui, context: &mut Context<'_>) {
        let lines: Vec<_> =
            context.run.log.iter().filter(|line| !self.warnings_only || line.level > Level::Info).collect();
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.warnings_only, "Warnings only");
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if ui.button("Copy all").clicked() {
                    let text: String = lines.iter().map(|line| format!("{} {}\n", clock(line.at), line.text)).collect();
                    context.actions.push(Action::CopyText(text));
                }
            });
        });
        if lines.is_empty() {
            return empty(ui, "Nothing has happened yet", "Start a run: warnings and failures are kept here.");
        }
        let palette = theme::palette(ui);
        let height = ui.text_style_height(&egui::TextStyle::Body);
        egui::ScrollArea::vertical().auto_shrink(false).stick_to_bottom(true).show_rows(
            ui,
            height,
            lines.len(),
            |ui, range| {
                for line in &lines[range] {
                    ui.horizontal(|ui| {
                        ui.label(weak(ui, clock(line.at)).monospace());
                        let (mark, color) = match line.level {
                            Level::Info => ("", ui.visuals().text_color()),
                            Level::Warning => ("warning: ", palette.warning),
                            Level::Error => ("error: ", palette.error),
                        };
                        ui.add(
                            egui::Label::new(egui::RichText::new(format!("{mark}{}", line.text)).color(color))
                                .truncate(),
                        )
                        .on_hover_text(&line.text);
                    });
                }
            },
        );
    }
}

/// `minutes:seconds` since the program started.
fn clock(at: std::time::Duration) -> String {
    let seconds = at.as_secs();
    format!("{:>3}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use egui_kittest::kittest::Queryable;

    use super::*;
    use crate::app::sample;
    use crate::app::testing::{Stage, harness, shoot};

    #[test]
    fn warnings_can_be_seen_alone_and_lines_copied() {
        let mut harness = harness(Stage::new(Log::default(), sample::run()), [600.0, 300.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label_contains("Opened cifar10").is_some());
        harness.get_by_label("Warnings only").click();
        harness.run();
        assert!(harness.query_by_label_contains("Opened cifar10").is_none());
        assert!(harness.query_by_label_contains("learning rate fell").is_some());
        harness.get_by_label("Copy all").click();
        harness.run();
        assert!(matches!(&harness.state().actions[..], [Action::CopyText(text)] if text.contains("learning rate")));
        shoot(&mut harness, "log");
    }
}
