//! The facts of an epoch, and their sentence.

use super::rows::levels as epsilon;
use crate::app::focus::Focus;
use crate::app::view::RunView;
use crate::app::widgets::{percent, table};
use crate::evaluate::figure_context;
use crate::evaluate::figures::{Rated, Story};

/// What is known of each class. While the newest epoch is followed, targets and radii are those of the epoch under way;
/// those of an earlier epoch are shown with what was measured after it. Class series are known at the end of an epoch.
pub(super) fn facts(run: &RunView, focus: Focus) -> Story {
    let classes = run.class_names().len();
    let record = focus.record(run);
    let live = run.now().filter(|_| focus.is_live() && run.status.is_live());
    let epoch = match (live, record) {
        (Some(now), _) => now.epoch,
        (None, Some(record)) => record.metrics.epoch,
        (None, None) => 0,
    };
    let mut story = Story::new(epoch, classes);
    let context = run.experiment.as_ref().map(|experiment| figure_context(experiment, run.class_names()));
    let frozen = context.and_then(|context| context.frozen_after);
    let origin = epoch.checked_sub(1).map(|before| frozen.map_or(before, |frozen| frozen.min(before)));
    if let Some(counted) = run.epochs.iter().find(|record| Some(record.metrics.epoch) == origin) {
        story.count(counted.metrics.epoch, &counted.classes);
    }
    if let Some(record) = record {
        if record.metrics.epoch == epoch {
            story.use_of(&record.classes);
        }
        story.measure(record.metrics.epoch, &record.classes, record.validation.as_ref());
        if let Some(experiment) = run.experiment.as_deref() {
            story.adapt(record.metrics.epoch, &record.classes, experiment);
        }
    }
    if let Some(now) = live {
        for (class, row) in story.rows.iter_mut().enumerate() {
            row.target = now.targets.as_ref().and_then(|targets| targets.get(class)).copied();
            let held = run.holds.get(class).and_then(|hold| hold.epsilon);
            row.epsilon = held.or(now.epsilon.get(class).copied());
            row.rule = now.rule.get(class).copied();
        }
    }
    story
}

/// `[12.1, 18.9] %`.
pub(super) fn interval([low, high]: [f64; 2]) -> String {
    format!("[{:.1}, {:.1}] %", 100.0 * low, 100.0 * high)
}

/// An accuracy with its interval.
pub(super) fn rated(rated: Rated) -> String {
    let interval = rated.interval.map_or(String::new(), |ends| format!(" {}", interval(ends)));
    format!("{}{interval}", percent(rated.value))
}

/// From the mistakes to what the method does about them; `None` before mistakes were counted.
pub(super) fn sentence(run: &RunView, facts: &Story) -> Option<String> {
    let names = run.class_names();
    let counted = facts.counted?;
    let largest = |value: &dyn Fn(usize) -> Option<f64>, sign: f64| {
        let known = (0..names.len()).filter_map(|class| Some((class, value(class)?)));
        known.max_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1)))
    };
    let (attractor, share) = largest(&|class| facts.rows[class].cfps, 1.0)?;
    let mut text = format!(
        "In epoch {}, {} of all mistakes under attack landed on {} ({:.1} × an even share).",
        counted + 1,
        percent(share),
        names[attractor],
        share * names.len() as f64
    );
    if let Some(target) = facts.rows[attractor].target {
        let (epoch, times) = (facts.epoch + 1, target * names.len() as f64);
        let even = 1.0 / names.len() as f64;
        let adapted = facts.rows.iter().filter_map(|row| row.target).any(|share| (share - even).abs() > 1e-6);
        text += &match adapted {
            true => format!(" So epoch {epoch} attacks towards it {times:.2} × as often as an even draw would."),
            false => format!(" Epoch {epoch} attacks towards all classes equally often."),
        };
    }
    let base = run.experiment.as_ref().map(|experiment| experiment.attack.epsilon.exact())?;
    let small = largest(&|class| facts.rows[class].epsilon, -1.0)?;
    let large = largest(&|class| facts.rows[class].epsilon, 1.0)?;
    if large.1 - small.1 > 1e-9 {
        text += &format!(
            " Epsilon goes from {} for {} to {} for {}; the base is {}.",
            epsilon(small.1),
            names[small.0],
            epsilon(large.1),
            names[large.0],
            epsilon(base)
        );
    }
    Some(text)
}

/// The rows as CSV; epochs as in files, from 0.
pub(super) fn csv(names: &[String], facts: &Story) -> String {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let index = |epoch: Option<u32>| epoch.map_or(String::new(), |epoch| epoch.to_string());
    let mut header = vec![
        "class",
        "name",
        "counted_epoch",
        "cfps",
        "epoch",
        "target_probability",
        "epsilon",
        "measured_epoch",
        "val_clean_accuracy",
        "val_robust_accuracy",
        "val_robust_low",
        "val_robust_high",
        "mistaken_for",
        "mistaken_share",
    ];
    if !facts.series.is_empty() {
        header.push("series_epoch");
        header.extend(facts.series.iter().map(|series| series.name));
    }
    let rows = facts.rows.iter().enumerate().map(|(class, row)| {
        let ends = row.robust.and_then(|robust| robust.interval);
        let mut cells = vec![
            class.to_string(),
            names[class].clone(),
            index(facts.counted),
            number(row.cfps),
            facts.epoch.to_string(),
            number(row.target),
            number(row.epsilon),
            index(facts.measured),
            number(row.clean.map(|clean| clean.value)),
            number(row.robust.map(|robust| robust.value)),
            number(ends.map(|ends| ends[0])),
            number(ends.map(|ends| ends[1])),
            row.confused.map_or(String::new(), |(other, _)| names[other].clone()),
            number(row.confused.map(|(_, share)| share)),
        ];
        if !facts.series.is_empty() {
            cells.push(index(facts.adapted));
            cells.extend(facts.series.iter().map(|series| number(series.values[class])));
        }
        cells
    });
    table(&header, rows)
}
