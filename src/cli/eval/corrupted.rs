//! Accuracy under common corruptions, on the command line.

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};

use super::super::{Stopped, Usage, interrupt, progress};
use super::arguments::Part;
use super::{EvalArgs, Subject};
use crate::data::corruptions::{PublishedSet, Severity};
use crate::evaluate::robustness::{Corrupted, CorruptedImages, check_fits, corrupted};
use crate::train::limited;

/// The published files that the arguments name, checked before anything is computed.
pub(super) fn published(arguments: &EvalArgs, subject: &Subject) -> Result<Option<PublishedSet>> {
    let Some(directory) = &arguments.corruptions_dir else { return Ok(None) };
    if arguments.part != Part::Test {
        return Err(
            Usage("--corruptions-dir: the published images are those of the test set; use --part test".into()).into()
        );
    }
    let (names, corruptions) = (subject.set.class_names(), arguments.corruptions());
    let set = PublishedSet::open(directory, names, &corruptions)?;
    check_fits(subject.engine.network(), &directory.display().to_string(), set.shape(), names.len())?;
    if let Some(corruption) = corruptions.first() {
        let images = limited(set.load(*corruption, Severity::ALL[0], None)?, arguments.limit)?;
        if images.labels() != subject.set.labels() {
            bail!(
                "{}: its labels are not those of the test images of '{}': it was made from other images, or in another order",
                directory.display(),
                subject.stored.experiment.data.dataset
            );
        }
    }
    Ok(Some(set))
}

/// Measures what the arguments ask for; `None` if that is nothing.
pub(super) fn corrupted_accuracy(
    arguments: &EvalArgs,
    subject: &mut Subject,
    published: Option<PublishedSet>,
) -> Result<Option<Corrupted>> {
    let corruptions = arguments.corruptions();
    if corruptions.is_empty() {
        return Ok(None);
    }
    let set = subject.set.clone();
    let images = published.map_or(CorruptedImages::Generated(&set), CorruptedImages::Published);
    let stop = interrupt::stops("after this batch");
    let bar = progress::images(set.len() * 5 * corruptions.len(), "corruptions");
    let batch_size = arguments.stored.batch_size(&subject.stored.experiment);
    let (seed, limit) = (arguments.seed, arguments.limit);
    let engine = subject.engine.as_mut();
    let found = corrupted(engine, &images, &corruptions, seed, limit, batch_size, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        !stop.load(Ordering::SeqCst)
    })?;
    bar.finish_and_clear();
    match found {
        Some(found) => Ok(Some(found)),
        None => bail!(Stopped("Stopped before the corruptions were done".into())),
    }
}

/// The table for the terminal.
pub(super) fn text(corrupted: &Corrupted) -> String {
    let all = corrupted.corruptions();
    let width = all.iter().map(|corruption| corruption.title().chars().count()).max().unwrap_or(0).max(12);
    let cells = |values: &[f64]| values.iter().map(|v| format!("{:6.1}", 100.0 * v)).collect::<Vec<_>>().join("");
    let mut text = format!("Accuracy in % under corruptions ({}):\n\n", corrupted.source);
    text += &format!("{:<width$}     1     2     3     4     5  mean  worst class\n", "severity");
    for corruption in all {
        let severities = corrupted.severities(corruption);
        let mean = corrupted.mean(corruption);
        let classes = corrupted.classes(corruption);
        let worst = corrupted.worst_of(&classes);
        let worst = worst.map_or(String::new(), |(name, v)| format!("{name}, {:.1}", 100.0 * v));
        text += &format!("{:<width$}{}{}  {worst}\n", corruption.title(), cells(&severities), cells(&[mean]));
    }
    text += "\n";
    for mean in corrupted.means() {
        let (class, worst) = &mean.worst_class;
        text += &format!(
            "mean over {}: {:.1} %; worst class: {class}, {:.1} %{}\n",
            mean.name,
            100.0 * mean.accuracy,
            100.0 * worst,
            mean.worst_tenth
                .map_or(String::new(), |tenth| format!("; worst 10 % of the classes: {:.1} %", 100.0 * tenth))
        );
    }
    text
}
