//! The command palette: finds any command, panel, setting, lesson or term of the glossary by part of its name.

use egui::{Key, Modifiers, ScrollArea};

use super::command::Command;
use super::context::Action;
use super::glossary::{Entry, Glossary};
use super::lessons::{self, Lesson};
use super::widgets::weak;
use crate::config::fields::{self, Field};

/// Rank of what matches by another name than its title: after matches in a title, before scattered letters.
const OTHER_NAME: usize = 50;
/// Maximum number of lines.
const MOST: usize = 60;

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

    /// Draws the palette; returns what to do.
    pub(super) fn ui(
        &mut self,
        context: &egui::Context,
        glossary: &Glossary,
        enabled: impl Fn(Command) -> Result<(), &'static str>,
    ) -> Option<Action> {
        if !self.open {
            return None;
        }
        let found = find(&self.query, glossary);
        let enabled = |found: &Found<'_>| match found {
            Found::Command(command) => enabled(*command),
            _ => Ok(()),
        };
        let keys = |key| context.input_mut(|input| input.count_and_consume_key(Modifiers::NONE, key));
        let last = found.len().saturating_sub(1);
        self.selected = (self.selected + keys(Key::ArrowDown)).min(last).saturating_sub(keys(Key::ArrowUp));
        let mut chosen = None;
        if keys(Key::Enter) > 0 {
            chosen = found.get(self.selected).copied();
        }
        let modal = egui::Modal::new(egui::Id::unique("palette")).show(context, |ui| {
            ui.set_width(460.0_f32.min(context.content_rect().width() - 40.0));
            let field = egui::TextEdit::singleline(&mut self.query)
                .hint_text("Type a command, setting, term or lesson")
                .desired_width(f32::INFINITY);
            let field = ui.add(field);
            field.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, true, "Command"));
            field.request_focus();
            if field.changed() {
                self.selected = 0;
            }
            ui.add_space(4.0);
            let height = (context.content_rect().height() * 0.6).min(420.0);
            ScrollArea::vertical().max_height(height).show(ui, |ui| {
                for (i, one) in found.iter().enumerate() {
                    let possible = enabled(one);
                    let keys = match one {
                        Found::Command(command) => command.shortcut().map(|keys| context.format_shortcut(&keys)),
                        _ => None,
                    };
                    let side = format!("{}  {}", one.kind(), keys.unwrap_or_default());
                    let button = egui::Button::selectable(i == self.selected, one.title())
                        .shortcut_text(side.trim())
                        .min_size(egui::vec2(ui.available_width(), 0.0));
                    let response = ui.add_enabled(possible.is_ok(), button).on_hover_text(one.tooltip());
                    let response = match possible {
                        Err(why) => response.on_disabled_hover_text(why),
                        Ok(()) => response,
                    };
                    if i == self.selected {
                        response.scroll_to_me(None);
                    }
                    if response.clicked() {
                        chosen = Some(*one);
                    }
                }
                if found.is_empty() {
                    ui.label(weak(ui, "No command, setting, term or lesson has these letters."));
                }
            });
        });
        chosen = chosen.filter(|found| enabled(found).is_ok());
        if chosen.is_some() || modal.should_close() {
            self.open = false;
        }
        chosen.map(|found| found.action())
    }
}

/// What the palette finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found<'g> {
    /// A command; the panels are among them.
    Command(Command),
    /// A setting of the experiment.
    Setting(&'static Field),
    /// A lesson.
    Lesson(&'static Lesson),
    /// A term of the glossary.
    Term(&'g Entry),
}

impl Found<'_> {
    fn title(&self) -> &str {
        match self {
            Self::Command(command) => command.title(),
            Self::Setting(field) => field.label,
            Self::Lesson(lesson) => &lesson.title,
            Self::Term(entry) => &entry.title,
        }
    }

    /// What it is, beside its title.
    fn kind(&self) -> &'static str {
        match self {
            Self::Command(Command::Show(_)) => "panel",
            Self::Command(_) => "",
            Self::Setting(_) => "setting",
            Self::Lesson(_) => "lesson",
            Self::Term(_) => "term",
        }
    }

    fn tooltip(&self) -> &str {
        match self {
            Self::Command(command) => command.tooltip(),
            Self::Setting(field) => &field.help,
            Self::Lesson(lesson) => &lesson.summary,
            Self::Term(entry) => entry.tooltip(),
        }
    }

    /// The action that choosing it requests.
    fn action(&self) -> Action {
        match self {
            Self::Command(command) => Action::Command(*command),
            Self::Setting(field) => Action::FindSetting(field.path),
            Self::Lesson(lesson) => Action::Lesson(lesson.id.clone()),
            Self::Term(entry) => Action::FindTerm(entry.key.clone()),
        }
    }
}

/// Commands whose title contains the letters of `query` in order, and lessons, settings and terms that contain its words;
/// the closest match first. Without a query, all commands.
fn find<'g>(query: &str, glossary: &'g Glossary) -> Vec<Found<'g>> {
    let query = query.trim().to_lowercase();
    let commands = Command::all().map(Found::Command);
    let mut found: Vec<(usize, Found<'g>)> =
        commands.filter_map(|command| Some((distance(&command.title().to_lowercase(), &query)?, command))).collect();
    if !query.is_empty() {
        let lessons = lessons::all().iter().map(|lesson| (Found::Lesson(lesson), lesson.summary.clone()));
        let settings =
            fields::all().iter().map(|field| (Found::Setting(field), format!("{} {}", field.flag, field.path)));
        let terms = glossary.entries().iter();
        let terms = terms.map(|entry| (Found::Term(entry), format!("{} {}", entry.key, entry.also.join(" "))));
        let words: Vec<&str> = query.split_whitespace().collect();
        found.extend(lessons.chain(settings).chain(terms).filter_map(|(one, more)| {
            let (title, more) = (one.title().to_lowercase(), more.to_lowercase());
            let has_all = words.iter().all(|word| title.contains(word) || more.contains(word));
            has_all.then(|| (title.find(&query).unwrap_or(OTHER_NAME), one))
        }));
    }
    found.sort_by_key(|(distance, _)| *distance);
    found.into_iter().take(MOST).map(|(_, found)| found).collect()
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
        let glossary = Glossary::default();
        let find = |query| super::find(query, &glossary);
        assert_eq!(find("").len(), Command::all().count());
        assert_eq!(find("undo")[0], Found::Command(Command::Undo));
        assert_eq!(find("slow")[0], Found::Command(Command::SlowMotion));
        assert!(find("opnchk").contains(&Found::Command(Command::OpenCheckpoint)));
        assert!(find("xyzzy").is_empty());
    }

    #[test]
    fn panels_settings_lessons_and_terms_are_found() {
        let glossary = Glossary::default();
        let find = |query| super::find(query, &glossary);
        assert_eq!(find("failure")[0].kind(), "panel");
        let rate = find("learning rate");
        let kinds: Vec<&str> = rate.iter().map(Found::kind).collect();
        assert!(kinds.contains(&"setting") && kinds.contains(&"term"), "{kinds:?}");
        assert!(rate.iter().all(|found| !found.title().is_empty() && !found.tooltip().is_empty()));
        // By the name of a flag, too.
        let by_flag = find("weight-decay");
        assert!(matches!(by_flag[0], Found::Setting(field) if field.path == "optimizer.weight_decay"), "{by_flag:?}");
        for field in fields::all() {
            assert!(super::find(field.label, &glossary).contains(&Found::Setting(field)), "{}", field.path);
        }
        for lesson in lessons::all() {
            let found = super::find(&lesson.title, &glossary);
            assert_eq!(found[0], Found::Lesson(lesson));
            assert!(matches!(found[0].action(), Action::Lesson(id) if id == lesson.id));
        }
        for entry in glossary.entries() {
            assert!(super::find(&entry.title, &glossary).contains(&Found::Term(entry)), "{}", entry.key);
        }
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
