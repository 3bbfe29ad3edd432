//! Creates exports from what a panel shows.

use crate::app::context::Export;
use crate::app::view::RunView;
use crate::evaluate::figure_context;
use crate::evaluate::figures::{Context, Figure, FigureError};

/// A figure of this run with its numbers; `None` if there is nothing to draw.
pub fn drawn(
    run: &RunView,
    draw: impl FnOnce(&Context) -> Result<Figure, FigureError>,
    csv: impl FnOnce() -> String,
) -> Option<Export> {
    let experiment = run.experiment.as_ref()?;
    let mut context = figure_context(experiment, run.class_names());
    if let Some(last) = run.epochs.last() {
        // Right after a change, the numbers were not measured under the experiment's current attack.
        context.attack = last.metrics.validation_attack(experiment);
    }
    let figure = draw(&context).ok()?;
    let directory = run.directory().and_then(|directory| directory.file_name());
    let name = match directory {
        Some(directory) => format!("{}-{}", directory.to_string_lossy(), figure.name),
        None => figure.name.to_owned(),
    };
    Some(Export { name, svg: figure.svg, csv: csv() })
}
