//! Short lessons, each of which sets up the window.
//!
//! A lesson is a Markdown file in `assets/lessons/`. It begins with TOML between lines of `+++`: title, summary,
//! minutes, the panels to show, the one in front, the preset to train, and changes to that preset. Every heading begins
//! a step; within a step, `### Do`, `### Look for`, `### Think` and `### Answer` begin its parts. [`Link`] lists the
//! links.

use std::sync::LazyLock;

use serde::Deserialize;

use super::command::Command;
use super::form::Form;
use super::layout::PanelKind;
use super::settings::Settings;
use super::widgets::markdown::Markdown;
use crate::config::{ConfigError, DataConfig, Experiment};

/// Names and texts, in display order.
const FILES: [(&str, &str); 7] = [
    ("01-adversarial-example", include_str!("../../assets/lessons/01-adversarial-example.md")),
    ("02-unequal-classes", include_str!("../../assets/lessons/02-unequal-classes.md")),
    ("03-targets", include_str!("../../assets/lessons/03-targets.md")),
    ("04-class-epsilon", include_str!("../../assets/lessons/04-class-epsilon.md")),
    ("05-honest-numbers", include_str!("../../assets/lessons/05-honest-numbers.md")),
    ("06-does-it-help", include_str!("../../assets/lessons/06-does-it-help.md")),
    ("07-eight-ways-to-be-fair", include_str!("../../assets/lessons/07-eight-ways-to-be-fair.md")),
];

/// A lesson.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// Name of its file without the extension.
    pub id: String,
    /// Title.
    pub title: String,
    /// What it is about, in one sentence.
    pub summary: String,
    /// Its duration including training.
    pub minutes: u32,
    /// The panels that it shows; always includes the Learn panel.
    pub panels: Vec<PanelKind>,
    /// The panel in front at the beginning.
    pub focus: PanelKind,
    /// The preset that it trains.
    pub preset: String,
    /// Changes to the preset: sections and fields of an experiment.
    pub setup: toml::Table,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// A step of a lesson.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// Title.
    pub title: String,
    /// What it is about.
    pub text: Markdown,
    /// What to do.
    pub todo: Markdown,
    /// What to look for.
    pub look: Markdown,
    /// A question to think about.
    pub question: Markdown,
    /// Its answer.
    pub answer: Markdown,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontMatter {
    title: String,
    summary: String,
    minutes: u32,
    panels: Vec<PanelKind>,
    focus: PanelKind,
    preset: String,
    #[serde(default)]
    setup: toml::Table,
}

/// All lessons, in display order.
pub fn all() -> &'static [Lesson] {
    static ALL: LazyLock<Vec<Lesson>> =
        LazyLock::new(|| FILES.iter().filter_map(|(id, text)| Lesson::parse(id, text).ok()).collect());
    &ALL
}

/// The lesson of this name.
pub fn find(id: &str) -> Option<&'static Lesson> {
    all().iter().find(|lesson| lesson.id == id)
}

impl Lesson {
    /// Parses a lesson.
    ///
    /// # Errors
    /// Describes what is missing or could not be parsed.
    pub fn parse(id: &str, text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("+++\n").ok_or("a lesson begins with +++")?;
        let (front, body) = rest.split_once("\n+++\n").ok_or("the second +++ is missing")?;
        let front: FrontMatter = toml::from_str(front).map_err(|error| error.to_string())?;
        let mut panels = front.panels;
        if !panels.contains(&PanelKind::Learn) {
            panels.push(PanelKind::Learn);
        }
        Ok(Self {
            id: id.to_owned(),
            title: front.title,
            summary: front.summary,
            minutes: front.minutes,
            panels,
            focus: front.focus,
            preset: front.preset,
            setup: front.setup,
            steps: body.split("\n## ").skip(1).map(Step::parse).collect::<Result<_, _>>()?,
        })
    }

    /// The experiment that it trains.
    ///
    /// # Errors
    /// If the preset does not exist or a change is invalid.
    pub fn experiment(&self) -> Result<Experiment, ConfigError> {
        changed(&Experiment::preset(&self.preset)?, &self.setup, &format!("lesson {}", self.id))
    }

    /// The panels that it hides.
    pub fn hidden(&self) -> Vec<PanelKind> {
        PanelKind::ALL.into_iter().filter(|kind| !self.panels.contains(kind)).collect()
    }

    /// Sets up the window: the hidden panels, and the experiment in the form. Returns what to restore when the lesson
    /// is left. [`Self::focus`] is the panel to bring to the front.
    ///
    /// # Errors
    /// As [`Self::experiment`]; nothing has changed then.
    pub fn begin(&self, settings: &mut Settings, form: &mut Form) -> Result<Before, ConfigError> {
        let experiment = self.experiment()?;
        let made_for = experiment.data.clone();
        let before = Before {
            hidden: std::mem::replace(&mut settings.hidden, self.hidden()),
            experiment: std::mem::replace(&mut form.experiment, experiment),
            preset: std::mem::replace(&mut form.preset, self.preset.clone()),
            made_for: std::mem::replace(&mut form.made_for, made_for),
        };
        settings.lesson = Some(self.id.clone());
        settings.lesson_step = 0;
        Ok(before)
    }
}

/// The state of the window before a lesson.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    hidden: Vec<PanelKind>,
    experiment: Experiment,
    preset: String,
    made_for: DataConfig,
}

impl Before {
    /// Restores that state.
    pub fn restore(self, settings: &mut Settings, form: &mut Form) {
        leave(settings);
        settings.hidden = self.hidden;
        form.experiment = self.experiment;
        form.preset = self.preset;
        form.made_for = self.made_for;
    }
}

/// Leaves a lesson that was begun before the last start. The state before it is unknown, so every panel is shown again.
pub fn leave(settings: &mut Settings) {
    settings.lesson = None;
    settings.lesson_step = 0;
    settings.hidden.clear();
}

impl Step {
    fn parse(text: &str) -> Result<Self, String> {
        let (title, body) = text.trim_start_matches("## ").split_once('\n').ok_or("a step has a title and a text")?;
        let mut step = Self { title: title.trim().to_owned(), ..Self::default() };
        let mut parts = body.split("\n### ");
        step.text = Markdown::parse(parts.next().unwrap_or_default());
        for part in parts {
            let (name, text) = part.split_once('\n').unwrap_or((part, ""));
            let place = match name.trim() {
                "Do" => &mut step.todo,
                "Look for" => &mut step.look,
                "Think" => &mut step.question,
                "Answer" => &mut step.answer,
                other => return Err(format!("{}: there is no part '{other}'", step.title)),
            };
            *place = Markdown::parse(text);
        }
        Ok(step)
    }

    /// The addresses of all its links.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        [&self.text, &self.todo, &self.look, &self.question, &self.answer].into_iter().flat_map(|part| part.links())
    }
}

/// The target of a link in a lesson.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    /// `do:start`: carries out a command.
    Do(Command),
    /// `show:fairness`: brings a panel to the front.
    Show(PanelKind),
    /// `inspect:test/3`: opens an image of the run's test set in the inspector.
    Inspect(usize),
    /// `term:epsilon`: opens the glossary.
    Term(String),
    /// `set:fairness.method=at`: changes a field of the form.
    Set {
        /// Section and field.
        field: String,
        /// Its value as TOML; a bare word is a string.
        value: String,
    },
    /// `lesson:03-targets`: begins another lesson.
    Lesson(String),
}

impl Link {
    /// Parses the address of a link.
    pub fn parse(address: &str) -> Option<Self> {
        let (scheme, rest) = address.split_once(':')?;
        match scheme {
            "do" => command(rest).map(Self::Do),
            "show" => panel(rest).map(Self::Show),
            "inspect" => rest.strip_prefix("test/")?.parse().ok().map(Self::Inspect),
            "term" => Some(Self::Term(rest.to_owned())),
            "set" => {
                let (field, value) = rest.split_once('=')?;
                Some(Self::Set { field: field.to_owned(), value: value.to_owned() })
            }
            "lesson" => Some(Self::Lesson(rest.to_owned())),
            _ => None,
        }
    }
}

/// The command with this name in lessons.
fn command(name: &str) -> Option<Command> {
    Some(match name {
        "start" => Command::Start,
        "play-pause" => Command::PlayPause,
        "one-batch" => Command::OneBatch,
        "one-attack-step" => Command::OneAttackStep,
        "slow-motion" => Command::SlowMotion,
        "stop-and-save" => Command::StopAndSave,
        "stop-without-saving" => Command::StopWithoutSaving,
        "open-image" => Command::OpenImage,
        "copy-as-command" => Command::CopyAsCommand,
        "add-to-comparison" => Command::AddToComparison,
        _ => return None,
    })
}

/// The panel with this name in files.
fn panel(name: &str) -> Option<PanelKind> {
    PanelKind::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name)).ok()
}

/// An experiment with one field (`section.field`) changed to a TOML value or a bare word.
///
/// # Errors
/// If there is no such field or the value is invalid for it.
pub fn with_field(experiment: &Experiment, field: &str, value: &str) -> Result<Experiment, ConfigError> {
    let fail = |what: String| ConfigError::Format { origin: field.to_owned(), what };
    let (section, name) = field.split_once('.').ok_or_else(|| fail("expected section.field".into()))?;
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut table| table.remove("v"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let fields = toml::Table::from_iter([(name.to_owned(), value)]);
    changed(experiment, &toml::Table::from_iter([(section.to_owned(), toml::Value::Table(fields))]), field)
}

fn changed(experiment: &Experiment, changes: &toml::Table, origin: &str) -> Result<Experiment, ConfigError> {
    let fail = |what: String| ConfigError::Format { origin: origin.to_owned(), what };
    let mut all: toml::Table = toml::from_str(&experiment.to_toml()).map_err(|error| fail(error.to_string()))?;
    for (section, fields) in changes {
        match (all.get_mut(section), fields) {
            (Some(toml::Value::Table(there)), toml::Value::Table(fields)) => there.extend(fields.clone()),
            _ => return Err(fail(format!("there is no section '{section}'"))),
        }
    }
    let changed = Experiment::from_toml(&all.to_string(), origin)?;
    changed.validate()?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::glossary::Glossary;
    use crate::config::MethodChoice;

    #[test]
    fn every_lesson_is_whole_and_its_links_lead_somewhere() {
        let glossary = Glossary::load();
        for (id, text) in FILES {
            let lesson = Lesson::parse(id, text).unwrap_or_else(|error| panic!("{id}: {error}"));
            let experiment = lesson.experiment().unwrap();
            experiment.validate().unwrap();
            // The preset's attack and augmentation are tuned for its own images.
            let preset = Experiment::preset(&lesson.preset).unwrap();
            assert_eq!(experiment.data.dataset, preset.data.dataset, "{id}");
            assert!(lesson.panels.contains(&lesson.focus), "{id}");
            assert!((3..=9).contains(&lesson.steps.len()), "{id} has {} steps", lesson.steps.len());
            assert!(lesson.summary.ends_with(['.', '?']) && lesson.minutes > 0);
            for step in &lesson.steps {
                let place = format!("{id}, {}", step.title);
                for part in [&step.todo, &step.look, &step.question, &step.answer] {
                    assert!(!part.is_empty(), "{place}");
                }
                for address in step.links() {
                    match Link::parse(address).unwrap_or_else(|| panic!("{place}: {address}")) {
                        Link::Do(_) | Link::Inspect(_) => {}
                        Link::Show(kind) => {
                            assert!(lesson.panels.contains(&kind), "{place} shows a hidden panel: {address}")
                        }
                        Link::Term(key) => assert!(glossary.get(&key).is_some(), "{place}: {address}"),
                        Link::Set { field, value } => {
                            with_field(&lesson.experiment().unwrap(), &field, &value).unwrap();
                        }
                        Link::Lesson(other) => assert!(find(&other).is_some(), "{place}: {address}"),
                    }
                }
            }
        }
        assert_eq!(all().len(), FILES.len());
        assert!(find("01-adversarial-example").is_some() && find("nothing").is_none());
    }

    /// The first lesson trains without an attack, then with one and nothing else changed, and its images show what it says.
    #[test]
    fn the_first_lesson_trains_both_networks_alike_and_names_its_images() {
        let lesson = &all()[0];
        let standard = lesson.experiment().unwrap();
        assert_eq!(standard.fairness.method, MethodChoice::Standard);
        let set = lesson.steps.iter().flat_map(Step::links).find(|link| link.starts_with("set:"));
        let Some(Link::Set { field, value }) = set.and_then(Link::parse) else { panic!("{set:?}") };
        let robust = with_field(&standard, &field, &value).unwrap();
        assert_eq!(robust.fairness.method, MethodChoice::At);
        let changed: Vec<String> = standard.differences(&robust).into_iter().map(|change| change.path).collect();
        assert_eq!(changed, ["fairness.method"]);
        let options = crate::data::ShapesOptions { train_per_class: 1, test_per_class: 5, ..Default::default() };
        let test = crate::data::shapes(&options).unwrap().test;
        let class = |image: usize| test.class_names()[test.labels()[image] as usize].as_str();
        assert_eq!((class(1), class(48)), ("ellipse", "cross"));
        let opened: Vec<Link> = lesson.steps.iter().flat_map(Step::links).filter_map(Link::parse).collect();
        for image in [1, 48] {
            assert_eq!(opened.iter().filter(|link| **link == Link::Inspect(image)).count(), 2, "before and after");
        }
    }

    #[test]
    fn a_lesson_is_set_up_and_left_again() {
        let (mut settings, mut form) = (Settings::default(), Form::default());
        form.experiment.optimizer.epochs = 77;
        let (old_settings, old_experiment) = (settings.clone(), form.experiment.clone());
        let made_for = form.made_for.clone();
        let lesson = find("02-unequal-classes").unwrap();
        let before = lesson.begin(&mut settings, &mut form).unwrap();
        assert_eq!(settings.lesson.as_deref(), Some("02-unequal-classes"));
        assert!(settings.hidden.contains(&PanelKind::Compare) && !settings.hidden.contains(&PanelKind::Learn));
        assert_eq!((form.experiment.fairness.method, form.preset.as_str()), (MethodChoice::At, "shapes-unfair"));
        assert_eq!(form.offer(None), None);
        before.restore(&mut settings, &mut form);
        assert_eq!(form.made_for, made_for);
        assert_eq!((settings, form.experiment), (old_settings, old_experiment));
    }

    #[test]
    fn fields_are_set_by_name() {
        let experiment = Experiment::default();
        let at = with_field(&experiment, "fairness.method", "at").unwrap();
        assert_eq!(at.fairness.method, MethodChoice::At);
        assert_eq!(with_field(&experiment, "fairness.temperature", "20").unwrap().fairness.temperature, 20.0);
        assert_eq!(with_field(&experiment, "attack.epsilon", "4/255").unwrap().attack.epsilon.to_string(), "4/255");
        assert!(with_field(&experiment, "fairness.temprature", "20").is_err());
        assert!(with_field(&experiment, "nothing.here", "1").is_err());
        assert!(with_field(&experiment, "optimizer.lr", "-1").is_err());
    }

    #[test]
    fn mistakes_in_a_lesson_are_named() {
        let front = "+++\ntitle = 'T'\nsummary = 'S.'\nminutes = 1\npanels = ['log']\nfocus = 'log'\npreset = 'digits-60s'\n+++\n";
        let error = Lesson::parse("x", &format!("{front}\n## A\ntext\n\n### Dance\nx\n")).unwrap_err();
        assert!(error.contains("there is no part 'Dance'"), "{error}");
        assert!(Lesson::parse("x", "title").is_err());
        assert_eq!(Link::parse("do:dance"), None);
        assert_eq!(Link::parse("show:failure-watch"), None);
        assert_eq!(Link::parse("show:watch"), Some(Link::Show(PanelKind::Watch)));
    }
}
