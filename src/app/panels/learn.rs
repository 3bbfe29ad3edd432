//! Short lessons, and the meaning of every term.

mod lesson;
mod terms;

use egui::{RichText, Ui};

use crate::app::context::{Action, Context, Panel};
use crate::app::lessons::{self, Lesson, Link};
use crate::app::level::Level;
use crate::app::theme;
use crate::app::widgets::markdown::{measure, reading_size};
use crate::app::widgets::{scrolled, strong, weak};
use crate::worker::Subject;

/// Minimum width of a card in the list of lessons, as a multiple of the font size.
const CARD: f32 = 26.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Tab {
    #[default]
    Lessons,
    Glossary,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Learn {
    tab: Tab,
    terms: terms::Terms,
    lesson: lesson::Reader,
}

impl Panel for Learn {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        ui.horizontal_wrapped(|ui| {
            for (tab, text) in [(Tab::Lessons, "Lessons"), (Tab::Glossary, "Glossary")] {
                ui.selectable_value(&mut self.tab, tab, RichText::new(text).size(15.0));
            }
        });
        ui.add_space(2.0);
        let open = context.settings.lesson.as_deref().and_then(lessons::find);
        let link = match (self.tab, open) {
            (Tab::Glossary, _) => {
                self.terms.ui(ui, context.glossary);
                None
            }
            (Tab::Lessons, Some(lesson)) => self.lesson.ui(ui, lesson, context),
            (Tab::Lessons, None) => {
                list(ui, context);
                None
            }
        };
        if let Some(link) = link {
            self.follow(&link, context);
        }
    }
}

impl Learn {
    /// Shows a term of the glossary.
    pub fn find(&mut self, key: &str) {
        self.tab = Tab::Glossary;
        self.terms.select(key);
    }

    /// Carries out a link.
    fn follow(&mut self, address: &str, context: &mut Context<'_>) {
        let tell = |text: String| Action::Toast(Level::Warning, text);
        let action = match Link::parse(address) {
            Some(Link::Do(command)) => Action::Command(command),
            Some(Link::Show(panel)) => Action::Show(panel),
            Some(Link::Lesson(id)) => Action::Lesson(id),
            Some(Link::Term(key)) => {
                self.find(&key);
                return;
            }
            Some(Link::Inspect(index)) => match subject(context, index) {
                Some(subject) => Action::Inspect(subject),
                None => tell(format!("There is no test image {index} yet: start the run first.")),
            },
            Some(Link::Set { field, value }) => match lessons::with_field(&context.form.experiment, &field, &value) {
                Ok(experiment) => {
                    context.form.experiment = experiment;
                    let label = crate::config::fields::field(&field).map_or(&*field, |known| known.label);
                    // A run takes a change over when it is told to.
                    let how = match context.run.status.is_live() {
                        true => {
                            " The run takes it over with “Apply to the run” in the Experiment panel, where that is possible."
                        }
                        false => "",
                    };
                    Action::Toast(Level::Info, format!("{label} is now {value}.{how}"))
                }
                Err(error) => tell(error.to_string()),
            },
            None => tell(format!("The link “{address}” has no target.")),
        };
        context.ask(action);
    }
}

/// A test image of the run.
fn subject(context: &Context<'_>, index: usize) -> Option<Subject> {
    let test = &context.run.info.as_ref()?.test;
    let label = *test.labels().get(index)?;
    let (shape, pixels) = (test.shape(), test.image(index).into());
    Some(Subject { name: format!("test image {index}"), shape, pixels, label: Some(label) })
}

/// All lessons as cards, in as many columns as fit.
fn list(ui: &mut Ui, context: &mut Context<'_>) {
    scrolled(ui, egui::ScrollArea::vertical().auto_shrink(false), |ui| {
        let size = reading_size(ui.available_width());
        let text = "Each lesson arranges the window for itself; leaving it gives everything back.";
        ui.label(weak(ui, text).size(0.9 * size));
        ui.add_space(4.0);
        let columns = ((ui.available_width() / (CARD * size)) as usize).clamp(1, 3);
        let gap = ui.spacing().item_spacing.x;
        let width = (ui.available_width() - gap * (columns - 1) as f32) / columns as f32;
        let lessons: Vec<(usize, &Lesson)> = lessons::all().iter().enumerate().collect();
        for row in lessons.chunks(columns) {
            // All cards of a row have the height of the one with the longest summary.
            let lines = row.iter().map(|(_, lesson)| summary(ui, lesson, size, width).rows.len()).max().unwrap_or(1);
            ui.horizontal_top(|ui| {
                for (number, lesson) in row {
                    card(ui, (*number, lesson), size, (width, lines), context);
                }
            });
        }
    });
}

/// Margin within a card.
const MARGIN: f32 = 14.0;
/// Line height of its summary, as a multiple of the font size.
const LINE: f32 = 1.4;

/// The layout of a lesson's summary in a card of this width.
fn summary(ui: &Ui, lesson: &Lesson, size: f32, width: f32) -> std::sync::Arc<egui::Galley> {
    let font = egui::FontId::proportional(0.95 * size);
    let mut format = egui::TextFormat::simple(font, ui.visuals().text_color());
    format.line_height = Some(LINE * size);
    let mut job = egui::text::LayoutJob::single_section(lesson.summary.clone(), format);
    job.wrap.max_width = width - 2.0 * MARGIN - 2.0;
    ui.fonts_mut(|fonts| fonts.layout_job(job))
}

/// One lesson of the list, with this width and height in lines of summary.
fn card(
    ui: &mut Ui,
    (number, lesson): (usize, &Lesson),
    size: f32,
    (width, lines): (f32, usize),
    context: &mut Context<'_>,
) {
    let palette = theme::palette(ui);
    let done = context.settings.lessons_done.contains(&lesson.id);
    let frame = egui::Frame::new().fill(palette.card).stroke((1.0, palette.line)).corner_radius(8).inner_margin(MARGIN);
    frame.show(ui, |ui| {
        ui.vertical(|ui| {
            ui.set_width(width - 2.0 * MARGIN - 2.0);
            ui.add(egui::Label::new(strong(format!("{}. {}", number + 1, lesson.title)).size(1.12 * size)).truncate());
            let text = summary(ui, lesson, size, width);
            let missing = lines.saturating_sub(text.rows.len()) as f32 * LINE * size;
            ui.label(text);
            ui.add_space(missing + 6.0);
            ui.horizontal(|ui| {
                let text = if done { "Again" } else { "Begin" };
                let button = egui::Button::new(RichText::new(text).size(0.95 * size).color(palette.accent));
                let button = ui.add(button.stroke((1.0, palette.accent)));
                button.widget_info(|| {
                    egui::WidgetInfo::labeled(egui::Role::Button, true, format!("{text}: {}", lesson.title))
                });
                if button.clicked() {
                    context.ask(Action::Lesson(lesson.id.clone()));
                }
                ui.label(
                    weak(ui, format!("{} minutes, {} steps", lesson.minutes, lesson.steps.len())).size(0.87 * size),
                );
                if done {
                    ui.label(RichText::new("✓ done").size(0.87 * size).color(palette.good));
                }
            });
        });
    });
}

/// Draws a column of text in the middle of the panel, at most as wide as is readable.
fn column<R>(ui: &mut Ui, size: f32, contents: impl FnOnce(&mut Ui) -> R) -> R {
    // Scrolled content leaves room for the scroll bar on the right.
    let width = measure(size).min(ui.available_width());
    let side = ((ui.available_width() - width) / 2.0).max(0.0);
    ui.horizontal_top(|ui| {
        ui.add_space(side);
        ui.vertical(|ui| {
            ui.set_width(width);
            contents(ui)
        })
        .inner
    })
    .inner
}

#[cfg(test)]
mod tests {
    use egui_kittest::kittest::Queryable;

    use super::*;
    use crate::app::command::Command;
    use crate::app::layout::PanelKind;
    use crate::app::sample;
    use crate::app::testing::{Stage, harness};
    use crate::app::view::RunView;

    fn stage(lesson: Option<&str>) -> Stage<Learn> {
        let mut stage = Stage::new(Learn::default(), sample::run());
        stage.settings.lesson = lesson.map(str::to_owned);
        stage
    }

    #[test]
    fn a_card_asks_for_its_lesson_and_a_gone_through_one_is_marked() {
        let mut stage = stage(None);
        stage.settings.lessons_done.push("01-adversarial-example".into());
        let mut harness = harness(stage, [900.0, 600.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label("✓ done").is_some());
        harness.get_by_label("Begin: What do targets do?").click();
        harness.run();
        assert!(matches!(&harness.state().actions[..], [Action::Lesson(id)] if id == "03-targets"));
    }

    #[test]
    fn steps_go_forth_and_back_and_the_last_one_marks_the_lesson() {
        let mut harness = harness(stage(Some("01-adversarial-example")), [700.0, 900.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label("A network without a defence").is_some());
        harness.get_by_label("Next").click();
        harness.run();
        assert!(harness.query_by_label("Attack one image").is_some());
        assert_eq!(harness.state().settings.lesson_step, 1);
        harness.get_by_label("Previous").click();
        harness.run();
        assert_eq!(harness.state().settings.lesson_step, 0);
        harness.get_by_label("Step 7: A map of decisions").click();
        harness.run();
        assert!(harness.query_by_label("Next").is_none());
        harness.get_by_label("Finish").click();
        harness.run();
        assert_eq!(harness.state().settings.lessons_done, ["01-adversarial-example"]);
        assert!(matches!(&harness.state().actions[..], [Action::LeaveLesson]));
    }

    #[test]
    fn an_answer_is_folded_until_it_is_asked_for() {
        let mut harness = harness(stage(Some("01-adversarial-example")), [700.0, 1000.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label_contains("At 10").is_none());
        harness.get_by_label("Show the answer").click();
        harness.run();
        assert!(harness.query_by_label_contains("At 10").is_some());
        harness.get_by_label("Next").click();
        harness.run();
        harness.get_by_label("Previous").click();
        harness.run();
        assert!(harness.query_by_label_contains("At 10").is_some(), "an answer that was opened stays open");
    }

    #[test]
    fn links_ask_for_what_they_say() {
        let mut harness = harness(stage(Some("01-adversarial-example")), [700.0, 1000.0], 1.0, true);
        harness.run();
        harness.get_by_label("Start the run").click();
        harness.run();
        harness.get_by_label("Next").click();
        harness.run();
        harness.get_by_label("Open test image 1").click();
        harness.run();
        let state = harness.state();
        assert!(matches!(&state.actions[0], Action::Command(Command::Start)));
        let Action::Inspect(subject) = &state.actions[1] else { panic!("{:?}", state.actions) };
        let test = &state.run.info.as_ref().unwrap().test;
        assert_eq!((subject.label, &subject.pixels[..]), (Some(test.labels()[1]), test.image(1)));
        harness.get_by_label("Next").click();
        harness.run();
        harness.get_by_label("Show the inspector").click();
        harness.run();
        assert!(matches!(harness.state().actions[2], Action::Show(PanelKind::Inspector)));
        harness.get_by_label("Epsilon").click();
        harness.run();
        assert!(harness.query_by_label_contains("the radius of the ball").is_some(), "the glossary opens at the term");
    }

    #[test]
    fn links_change_the_form_and_say_what_is_missing() {
        let mut stage = Stage::new(Learn::default(), RunView::default());
        stage.settings.lesson = Some("06-does-it-help".into());
        stage.settings.lesson_step = 1;
        let mut harness = harness(stage, [700.0, 1000.0], 1.0, true);
        harness.run();
        harness.get_by_label("Choose PGD-AT").click();
        harness.run();
        assert_eq!(harness.state().form.experiment.fairness.method, crate::config::MethodChoice::At);
        let state = harness.state_mut();
        state.settings.lesson = Some("01-adversarial-example".into());
        state.actions.clear();
        harness.run();
        harness.get_by_label("Open test image 1").click();
        harness.run();
        assert!(
            matches!(&harness.state().actions[..], [Action::Toast(Level::Warning, text)] if text.contains("start the run"))
        );
    }

    #[test]
    fn the_glossary_is_searched() {
        let mut harness = harness(stage(None), [700.0, 900.0], 1.0, true);
        harness.run();
        harness.get_by_label("Glossary").click();
        harness.run();
        harness.get_by_label("Search the glossary").focus();
        harness.get_by_label("Search the glossary").type_text("fawa");
        harness.run();
        assert!(harness.query_all_by_label("FAWA (fairness-aware weight average)").count() > 0);
        assert!(harness.query_all_by_label("Momentum").count() == 0);
        harness.get_by_label("Clear").click();
        harness.run();
        assert!(harness.query_all_by_label("Adapter").count() > 0);
    }
}
