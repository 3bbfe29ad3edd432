//! Creates exports from what a panel shows.

use crate::app::context::Export;
use crate::app::view::RunView;
use crate::evaluate::figure_context;
use crate::evaluate::figures::{Context, Figure, FigureError};
use crate::worker::EpochRecord;

/// A figure of all epochs of this run with its numbers; `None` if there is nothing to draw.
pub fn drawn(
    run: &RunView,
    draw: impl FnOnce(&Context) -> Result<Figure, FigureError>,
    csv: impl FnOnce() -> String,
) -> Option<Export> {
    drawn_of(run, run.epochs.last(), draw, csv)
}

/// A figure of one epoch of this run.
pub fn drawn_of(
    run: &RunView,
    record: Option<&EpochRecord>,
    draw: impl FnOnce(&Context) -> Result<Figure, FigureError>,
    csv: impl FnOnce() -> String,
) -> Option<Export> {
    let experiment = run.experiment.as_ref()?;
    let mut context = figure_context(experiment, run.class_names());
    if let Some(record) = record {
        // The numbers may have been measured before a change of the attack.
        context.attack = record.metrics.validation_attack(experiment);
    }
    context.title = title(run, &context.title);
    let figure = draw(&context).ok()?;
    Some(Export { name: file_name(run, figure.name), svg: figure.svg, csv: csv() })
}

/// The title of a figure, with the run directory.
pub fn title(run: &RunView, title: &str) -> String {
    match run.directory_name() {
        Some(directory) if title.is_empty() => directory,
        Some(directory) => format!("{title}, {directory}"),
        None => title.to_owned(),
    }
}

/// A file name, without an extension, that begins with the run directory.
pub fn file_name(run: &RunView, name: &str) -> String {
    run.directory_name().map_or_else(|| name.to_owned(), |directory| format!("{directory}-{name}"))
}
