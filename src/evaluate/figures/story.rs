//! What is known of each class in an epoch, left to right as the data flow: CFPS, targets, radius, what else the method
//! adapts, accuracy, confusion.

use super::axes::{BLUE, GREEN, LABEL, MARGIN, SMALL, VERMILLION, gutter, header, named, percent, row_labels, trimmed};
use super::shown::{NAMED_PITCH, Shown};
use super::story_columns::{StoryColumn, StoryQuantity, StoryScale, StorySeries};
use super::svg::{AXIS, Canvas, GRID, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError};
use crate::config::Experiment;
use crate::fairness::{Confusion, wilson};
use crate::train::ClassRow;

/// An accuracy with its 95 % interval, if the number of images is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rated {
    /// The accuracy.
    pub value: f64,
    /// Wilson's interval.
    pub interval: Option<[f64; 2]>,
}

/// A class in a [`Story`]. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoryRow {
    /// Share of all mistakes that landed on the class in [`Story::counted`].
    pub cfps: Option<f64>,
    /// Probability that it is the target in [`Story::epoch`].
    pub target: Option<f64>,
    /// Radius of the attack on its images in [`Story::epoch`].
    pub epsilon: Option<f64>,
    /// The radius that the rule gives.
    pub rule: Option<f64>,
    /// Accuracy on unperturbed validation images after [`Story::measured`].
    pub clean: Option<Rated>,
    /// The same under the evaluation attack.
    pub robust: Option<Rated>,
    /// The class that its images are most often mistaken for under the evaluation attack, and their share.
    pub confused: Option<(usize, f64)>,
}

/// What is known of each class in an epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Story {
    /// Index of the epoch whose mistakes were counted.
    pub counted: Option<u32>,
    /// Index of the epoch in which targets and radii are used.
    pub epoch: u32,
    /// Index of the epoch after which accuracies were measured.
    pub measured: Option<u32>,
    /// Index of the epoch that the class series belong to.
    pub adapted: Option<u32>,
    /// One row for each class.
    pub rows: Vec<StoryRow>,
    /// What else the method adapts for each class.
    pub series: Vec<StorySeries>,
}

impl Story {
    /// A story of `classes` classes that nothing is known of yet.
    pub fn new(epoch: u32, classes: usize) -> Self {
        Self { epoch, rows: vec![StoryRow::default(); classes], ..Self::default() }
    }

    /// Adds the CFPS of an epoch.
    pub fn count(&mut self, epoch: u32, rows: &[ClassRow]) {
        self.counted = Some(epoch);
        for row in rows {
            if let Some(to) = self.rows.get_mut(row.class as usize) {
                to.cfps = known(row.cfps);
            }
        }
    }

    /// Adds the targets and radii that an epoch used.
    pub fn use_of(&mut self, rows: &[ClassRow]) {
        for row in rows {
            if let Some(to) = self.rows.get_mut(row.class as usize) {
                to.target = row.target_probability.and_then(known);
                to.epsilon = known(row.epsilon);
            }
        }
    }

    /// Adds the class series of the method in an epoch.
    pub fn adapt(&mut self, epoch: u32, rows: &[ClassRow], experiment: &Experiment) {
        self.adapted = Some(epoch);
        let of = |series| StorySeries::new(series, self.rows.len(), rows, experiment);
        self.series = experiment.series().filter_map(of).collect();
    }

    /// Adds what was measured after an epoch; `counts` are those of the evaluation attack.
    pub fn measure(&mut self, epoch: u32, rows: &[ClassRow], counts: Option<&Confusion>) {
        self.measured = Some(epoch);
        let counts = counts.filter(|counts| counts.classes() == self.rows.len());
        for row in rows {
            let class = row.class as usize;
            let Some(to) = self.rows.get_mut(class) else { continue };
            let images = counts.map(|counts| counts.of_class(class)).filter(|images| *images > 0);
            let rated = |value: f64| {
                let interval = images.map(|n| wilson((value * n as f64).round() as u64, n).into());
                known(value).map(|value| Rated { value, interval })
            };
            to.clean = rated(row.val_clean_accuracy);
            to.robust = rated(row.val_robust_accuracy);
            to.confused = counts.zip(images).and_then(|(counts, images)| {
                let others = (0..counts.classes()).filter(|other| *other != class);
                // Of equal ones the first.
                let most = others.rev().max_by_key(|other| counts.at(class, *other))?;
                let share = counts.at(class, most) as f64 / images as f64;
                (share > 0.0).then_some((most, share))
            });
        }
    }

    /// The class with the lowest and the one with the highest robust accuracy.
    pub fn extremes(&self) -> Option<(usize, usize)> {
        let robust = |class: &usize| self.rows[*class].robust.map(|robust| robust.value);
        let measured = || (0..self.rows.len()).filter(|class| robust(class).is_some());
        let by = |a: &usize, b: &usize| robust(a).unwrap_or(0.0).total_cmp(&robust(b).unwrap_or(0.0));
        Some((measured().min_by(by)?, measured().max_by(by)?))
    }
}

fn known(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// A value of a column as it stands beside its bar.
fn write(quantity: StoryQuantity, value: f64) -> String {
    match quantity {
        StoryQuantity::Cfps | StoryQuantity::Target => percent(value),
        StoryQuantity::Epsilon => format!("{}/255", trimmed(255.0 * value, 2)),
        StoryQuantity::Decimal => format!("{value:.3}"),
        StoryQuantity::Number => trimmed(value, 3),
    }
}

/// Draws a story: CFPS, target probability and radius as their distance from an even share and from the base epsilon, the
/// class series of the method, accuracies with intervals, and the most frequent mistake.
///
/// # Errors
/// [`FigureError::Empty`] without class names, [`FigureError::Length`] if the rows are not one for each of them.
pub fn story(story: &Story, context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "story";
    let classes = context.class_names.len();
    if classes == 0 {
        return Err(FigureError::Empty { figure: NAME, missing: "there are no classes" });
    }
    if story.rows.len() != classes {
        let (what, found) = ("the story".to_owned(), story.rows.len());
        return Err(FigureError::Length { figure: NAME, what, expected: classes, found });
    }
    let shown = Shown::highest(classes, |class| -story.rows[class].robust.map_or(f64::INFINITY, |robust| robust.value));
    let names = &shown.names(context);
    let columns = story.columns(context.base_epsilon);

    let pitch = (560.0 / shown.len() as f64).clamp(NAMED_PITCH.max(15.0), 24.0);
    let name_room = gutter(names, SMALL, 150.0);
    let left = MARGIN + name_room + 8.0;
    let places = columns.len() + 2;
    let mut canvas = Canvas::new(left + places as f64 * (ROOM + GAP) + MARGIN);
    let mut notes = vec![
        format!("CFPS of {}", named(&context.statistics, "training images")),
        format!("Robust: under {}; thin line: 95 % interval", named(&context.attack, "the evaluation attack")),
        "Bars of CFPS, targets and epsilon begin at an even share and at the base epsilon, those of weights at equal weights; \
         each column is zoomed to its values"
            .to_owned(),
    ];
    notes.extend(shown.note("with the lowest robust accuracy, lowest first"));
    let top = header(&mut canvas, "Who is mistaken for whom, and what follows", context, &notes) + 28.0;
    let bottom = top + pitch * shown.len() as f64;
    row_labels(&mut canvas, names, left - 8.0, top, pitch, name_room);
    let middle_of = |row: usize| top + (row as f64 + 0.5) * pitch;
    let rows = (&shown.classes[..], top, pitch);
    for (place, column) in columns.iter().enumerate() {
        draw_column(&mut canvas, column, left + place as f64 * (ROOM + GAP), rows);
    }
    let from = left + columns.len() as f64 * (ROOM + GAP);
    let after = story.measured.map_or_else(String::new, |epoch| format!(" after epoch {}", epoch + 1));
    canvas.text(from, top - 8.0, Style::new(LABEL).bold(), &format!("Accuracy{after}"));
    let (width, worst) = (ROOM - 44.0, story.extremes().map(|(worst, _)| worst));
    let x_of = |value: f64| from + width * value.clamp(0.0, 1.0);
    for tick in [0.0, 0.5, 1.0] {
        canvas.line((x_of(tick), top), (x_of(tick), bottom), Stroke::new(GRID, 1.0));
        let label = format!("{}%", trimmed(100.0 * tick, 0));
        canvas.text(x_of(tick), bottom + 14.0, Style::new(SMALL).fill(MUTED).middle(), &label);
    }
    for (row, class) in shown.classes.iter().enumerate() {
        let (what, middle) = (&story.rows[*class], middle_of(row));
        if let Some(clean) = what.clean {
            canvas.rect(from, middle - 0.32 * pitch, x_of(clean.value) - from, 0.64 * pitch, "#cfdce8");
        }
        if let Some(robust) = what.robust {
            let color = if worst == Some(*class) { VERMILLION } else { BLUE };
            canvas.rect(from, middle - 0.18 * pitch, x_of(robust.value) - from, 0.36 * pitch, color);
            if let Some([low, high]) = robust.interval {
                canvas.line((x_of(low), middle), (x_of(high), middle), Stroke::new(INK, 1.0));
            }
            let style = Style::new(SMALL).fill(MUTED);
            canvas.centered_text(from + width + 6.0, middle, style, &percent(robust.value));
        }
        if let Some((other, share)) = what.confused {
            let text = format!("{} {}", percent(share), context.label(other));
            let text = text::fit(&text, SMALL, Weight::Regular, ROOM);
            canvas.centered_text(from + ROOM + GAP, middle, Style::new(SMALL).fill(INK), &text);
        }
    }
    canvas.line((from, top), (from, bottom), Stroke::new(AXIS, 1.0));
    canvas.text(from + ROOM + GAP, top - 8.0, Style::new(LABEL).bold(), "Most often mistaken for");
    Ok(Figure {
        name: NAME,
        svg: canvas.finish(bottom + 22.0 + MARGIN - 6.0, "CFPS, targets, epsilon and accuracy by class"),
    })
}

/// Room for a column, and between two.
const ROOM: f64 = 150.0;
const GAP: f64 = 18.0;

/// A column of bars or points, with its title and the value that is marked.
fn draw_column(canvas: &mut Canvas, column: &StoryColumn, from: f64, (classes, top, pitch): (&[usize], f64, f64)) {
    let (width, bottom) = (ROOM - 52.0, top + pitch * classes.len() as f64);
    let title = text::fit(&column.title, LABEL, Weight::SemiBold, ROOM + GAP - 6.0);
    canvas.text(from, top - 8.0, Style::new(LABEL).bold(), &title);
    let x_of = |value: f64| from + width * column.scale.place(value);
    let color = match column.quantity {
        StoryQuantity::Cfps => "#9a9a9a",
        StoryQuantity::Target | StoryQuantity::Epsilon => BLUE,
        StoryQuantity::Decimal | StoryQuantity::Number => GREEN,
    };
    for (row, class) in classes.iter().enumerate() {
        let Some(value) = column.values[*class] else { continue };
        let (x, middle) = (x_of(value), top + (row as f64 + 0.5) * pitch);
        let y = middle - 0.32 * pitch;
        match column.scale.start() {
            Some(start) => {
                let start = from + width * start;
                canvas.rect(start.min(x), y, (x - start).abs().max(0.5), 0.64 * pitch, color);
            }
            None => {
                canvas.line((from, middle), (from + width, middle), Stroke::new(GRID, 1.0));
                canvas.rect(x - 2.5, middle - 0.24 * pitch, 5.0, 0.48 * pitch, color);
            }
        }
        if let Some(rule) = column.rule[*class] {
            canvas.line((x_of(rule), y - 1.0), (x_of(rule), y + 0.64 * pitch + 1.0), Stroke::new(INK, 1.6));
        }
        let style = Style::new(SMALL).fill(MUTED);
        canvas.centered_text(from + width + 6.0, middle, style, &write(column.quantity, value));
    }
    let style = Style::new(SMALL).fill(MUTED);
    match (column.scale.marked(), column.scale) {
        (Some(marked), _) => {
            let x = x_of(marked);
            canvas.line((x, top - 2.0), (x, bottom), Stroke::new(INK, 1.0));
            let word = column.mark.split(' ').next().unwrap_or_default();
            canvas.text(x, bottom + 14.0, style.middle(), &format!("{word} {}", write(column.quantity, marked)));
        }
        (None, StoryScale::Between { low, high }) => {
            canvas.text(from, bottom + 14.0, style, &write(column.quantity, low));
            canvas.text(from + width, bottom + 14.0, style.middle(), &write(column.quantity, high));
        }
        (None, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(class: u32, cfps: f64, robust: f64) -> ClassRow {
        ClassRow {
            epoch: 4,
            class,
            name: format!("c{class}"),
            epsilon: 0.03,
            target_probability: Some(0.5),
            cfps,
            train_robust_accuracy: robust,
            train_clean_accuracy: None,
            val_clean_accuracy: 0.8,
            val_robust_accuracy: robust,
            series: Vec::new(),
        }
    }

    fn example() -> Story {
        let mut counts = Confusion::new(3);
        counts.add_counts(&[6, 4, 0, 1, 8, 1, 0, 0, 0]);
        let mut story = Story::new(5, 3);
        let rows = [row(0, 0.2, 0.6), row(1, 0.8, 0.8), row(2, f64::NAN, f64::NAN), row(9, 0.1, 0.1)];
        story.count(4, &rows);
        story.use_of(&rows);
        story.measure(5, &rows, Some(&counts));
        story
    }

    #[test]
    fn a_row_says_what_is_known_of_its_class_and_nothing_else() {
        let story = example();
        assert_eq!((story.counted, story.epoch, story.measured), (Some(4), 5, Some(5)));
        let [first, second, third] = &story.rows[..] else { panic!() };
        assert_eq!((first.cfps, first.target, first.epsilon), (Some(0.2), Some(0.5), Some(0.03)));
        assert_eq!(first.robust, Some(Rated { value: 0.6, interval: Some(wilson(6, 10).into()) }));
        assert_eq!(first.confused, Some((1, 0.4)));
        // Two other classes with one image each: the first.
        assert_eq!(second.confused, Some((0, 0.1)));
        // Without images there is neither an accuracy nor a mistake.
        assert_eq!((third.cfps, third.robust, third.confused), (None, None, None));
        assert_eq!(third.clean, Some(Rated { value: 0.8, interval: None }));
        assert_eq!(story.extremes(), Some((0, 1)));
    }

    #[test]
    fn the_figure_names_epochs_attack_and_mistakes() {
        let context = Context {
            title: "t".into(),
            attack: "PGD-10".into(),
            train_attack: "PGD-7".into(),
            train_robust: "train robust, targeted",
            statistics: String::new(),
            frozen_after: None,
            class_names: ["cat", "dog", "ship"].map(str::to_owned).to_vec(),
            base_epsilon: 8.0 / 255.0,
        };
        let svg = story(&example(), &context).unwrap().svg;
        let mut experiment = Experiment::default();
        experiment.fairness.method = crate::config::MethodChoice::Wat;
        let weights = [(0, 0.5), (1, 1.5), (2, 2.5)];
        let weights = weights.map(|(class, weight)| {
            let series = vec![("weight".to_owned(), weight)];
            ClassRow { series, ..row(class, 0.3, 0.5) }
        });
        let mut with_weights = example();
        with_weights.adapt(5, &weights, &experiment);
        let weighted = story(&with_weights, &context).unwrap().svg;
        for text in ["CFPS, epoch 5", "Target, epoch 6", "Accuracy after epoch 6", "PGD-10", "40.0% dog", "even 33.3%"]
        {
            assert!(svg.contains(text), "{text}\n{svg}");
        }
        for text in ["Weight of the loss, epoch 6", "equal 1.500", "2.500"] {
            assert!(!svg.contains(text), "{text}");
            assert!(weighted.contains(text), "{text}\n{weighted}");
        }
        let two = Context { class_names: context.class_names[..2].to_vec(), ..context };
        assert!(matches!(story(&example(), &two), Err(FigureError::Length { expected: 2, found: 3, .. })));
    }
}
