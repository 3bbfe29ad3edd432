//! The command palette: finds any command by part of its name.

use egui::{Key, Modifiers, ScrollArea};

use super::command::Command;
use super::widgets::weak;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct CommandPalette {
    open: bool,
    query: String,
    selected: usize,
}

impl CommandPalette {
    /// Opens it with an empty field, or closes it.
    pub(super) fn toggle(&mut self) {
        *self = Self { open: !self.open, ..Self::default() };
    }

    /// Whether it is open and takes the keyboard input.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Draws the palette; returns the chosen command.
    pub(super) fn ui(
        &mut self,
        context: &egui::Context,
        enabled: impl Fn(Command) -> Result<(), &'static str>,
    ) -> Option<Command> {
        if !self.open {
            return None;
        }
        let found = find(&self.query);
        let keys = |key| context.input_mut(|input| input.count_and_consume_key(Modifiers::NONE, key));
        let last = found.len().saturating_sub(1);
        self.selected = (self.selected + keys(Key::ArrowDown)).min(last).saturating_sub(keys(Key::ArrowUp));
        let mut chosen = None;
        if keys(Key::Enter) > 0 {
            chosen = found.get(self.selected).copied();
        }
        let modal = egui::Modal::new(egui::Id::unique("palette")).show(context, |ui| {
            ui.set_width(460.0_f32.min(context.content_rect().width() - 40.0));
            let field =
                egui::TextEdit::singleline(&mut self.query).hint_text("Type a command").desired_width(f32::INFINITY);
            let field = ui.add(field);
            field.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, true, "Command"));
            field.request_focus();
            if field.changed() {
                self.selected = 0;
            }
            ui.add_space(4.0);
            let height = (context.content_rect().height() * 0.6).min(420.0);
            ScrollArea::vertical().max_height(height).show(ui, |ui| {
                for (i, command) in found.iter().enumerate() {
                    let possible = enabled(*command);
                    let keys = command.shortcut().map(|keys| context.format_shortcut(&keys)).unwrap_or_default();
                    let button = egui::Button::selectable(i == self.selected, command.title())
                        .shortcut_text(keys)
                        .min_size(egui::vec2(ui.available_width(), 0.0));
                    let response = ui.add_enabled(possible.is_ok(), button).on_hover_text(command.tooltip());
                    let response = match possible {
                        Err(why) => response.on_disabled_hover_text(why),
                        Ok(()) => response,
                    };
                    if i == self.selected {
                        response.scroll_to_me(None);
                    }
                    if response.clicked() {
                        chosen = Some(*command);
                    }
                }
                if found.is_empty() {
                    ui.label(weak(ui, "No command has these letters."));
                }
            });
        });
        chosen = chosen.filter(|command| enabled(*command).is_ok());
        if chosen.is_some() || modal.should_close() {
            self.open = false;
        }
        chosen
    }
}

/// Commands whose title contains the letters of `query` in order, closest match first.
fn find(query: &str) -> Vec<Command> {
    let query = query.trim().to_lowercase();
    let mut found: Vec<(usize, Command)> = Command::all()
        .filter_map(|command| Some((distance(&command.title().to_lowercase(), &query)?, command)))
        .collect();
    found.sort_by_key(|(distance, _)| *distance);
    found.into_iter().map(|(_, command)| command).collect()
}

/// Number of letters skipped in `title`; `None` if it does not contain the letters of `query` in order.
fn distance(title: &str, query: &str) -> Option<usize> {
    if let Some(at) = title.find(query) {
        return Some(at);
    }
    let mut letters = title.chars().enumerate();
    let mut end = 0;
    for wanted in query.chars() {
        end = letters.find(|(_, letter)| *letter == wanted)?.0;
    }
    Some(100 + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_a_part_of_their_name_or_its_letters() {
        assert_eq!(find("").len(), Command::all().count());
        assert_eq!(find("undo")[0], Command::Undo);
        assert_eq!(find("slow")[0], Command::SlowMotion);
        assert!(find("opnchk").contains(&Command::OpenCheckpoint));
        assert!(find("xyzzy").is_empty());
    }

    #[test]
    fn no_two_commands_share_a_name_or_keys() {
        let titles: std::collections::HashSet<_> = Command::all().map(Command::title).collect();
        assert_eq!(titles.len(), Command::all().count());
        let keys: Vec<_> = Command::all().filter_map(Command::shortcut).collect();
        for (i, one) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(one), "{one:?}");
        }
    }
}
