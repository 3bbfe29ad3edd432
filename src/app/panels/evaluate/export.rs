//! Figures and numbers of an evaluation.

use std::fmt::Write;
use std::path::Path;

use crate::app::context::Export;
use crate::app::evaluation::short_name;
use crate::data::ImageShape;
use crate::evaluate::figures::{Example, adversarial_examples};
use crate::evaluate::robustness::{Fallen, ReportFiles, Row};
use crate::worker::evaluation::FinishedEvaluation;

/// A file name that begins with the run and weights that were evaluated.
fn name(finished: &FinishedEvaluation, figure: &str) -> String {
    let checkpoint = short_name(Path::new(&finished.described.checkpoint));
    format!("{}-{figure}", checkpoint.replace(['/', '\\'], "-"))
}

fn files(finished: &FinishedEvaluation) -> ReportFiles<'_> {
    ReportFiles { evaluation: &finished.evaluation, described: &finished.described, corrupted: None }
}

/// A bar for each attack, and the numbers of all classes.
pub(super) fn bars(finished: &FinishedEvaluation) -> Option<Export> {
    let files = files(finished);
    let figure = files.bars_figure().ok()??;
    Some(Export { name: name(finished, figure.name), svg: figure.svg, csv: String::from_utf8(files.csv()).ok()? })
}

/// The adversarial images that are shown of one attack.
pub(super) fn examples(
    finished: &FinishedEvaluation,
    row: &Row,
    shape: ImageShape,
    images: &[Fallen],
) -> Option<Export> {
    let attack = &row.entry.attack;
    let example = |image: &Fallen| Example {
        original: image.clean.clone(),
        adversarial: image.adversarial.clone(),
        channels: shape.channels,
        height: shape.height,
        width: shape.width,
        label: image.label as usize,
        target: None,
        prediction: image.prediction as usize,
        clean_prediction: Some(image.label as usize),
        epsilon: attack.epsilon.exact(),
    };
    let all: Vec<Example> = images.iter().map(example).collect();
    let figure = adversarial_examples(&all, &files(finished).context(attack.to_string())).ok()?;
    let mut csv = String::from("image,label,prediction,linf\n");
    let names = finished.evaluation.class_names();
    for image in images {
        let changes = image.clean.iter().zip(&image.adversarial).map(|(before, after)| (after - before).abs());
        let name =
            |class: u32| names.get(class as usize).map_or_else(|| class.to_string(), |name| name.replace(',', ";"));
        // Writing to a string cannot fail.
        let _ = writeln!(
            csv,
            "{},{},{},{}",
            image.number,
            name(image.label),
            name(image.prediction),
            changes.fold(0.0, f32::max)
        );
    }
    Some(Export { name: name(finished, &format!("adversarial-{}", row.entry.name)), svg: figure.svg, csv })
}
