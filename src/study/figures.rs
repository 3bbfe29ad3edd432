//! The figures of a study's report.

use std::path::Path;

use super::StudyReport;
use super::report::{ArmReport, CellReport};
use crate::evaluate::figures::{Figure, FigureError, PairedPanel, ScatterGroup, class_scatter, paired_seeds};
use crate::files::{FileError, write_atomic};

/// Draws the figures of a report into `directory`, as SVG and PNG, and returns their names: for each cell the arms paired
/// by seed, and CFPS against the success of targeted attacks where that was measured.
///
/// # Errors
/// If a figure cannot be rendered or written.
pub fn figures(report: &StudyReport, directory: &Path) -> Result<Vec<String>, FigureError> {
    let mut names = Vec::new();
    for (at, cell) in report.cells.iter().enumerate() {
        let number = if report.cells.len() > 1 { format!("-{}", at + 1) } else { String::new() };
        let mut save = |name: &str, figure: Result<Figure, FigureError>| match figure {
            Ok(figure) => {
                let name = format!("{name}{number}");
                std::fs::create_dir_all(directory).map_err(FileError::writing(directory))?;
                write_atomic(&directory.join(format!("{name}.svg")), figure.svg.as_bytes())?;
                write_atomic(&directory.join(format!("{name}.png")), &figure.png()?)?;
                names.push(name);
                Ok(())
            }
            Err(FigureError::Empty { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        save("paired", paired_figure(report, cell, &["clean", "robust", "robust worst class"]))?;
        save("cfps-towards", scatter(report, cell, "towards"))?;
        save("cfps-from", scatter(report, cell, "from"))?;
    }
    Ok(names)
}

fn title(report: &StudyReport, cell: &CellReport) -> String {
    if cell.cell.is_empty() { report.title.clone() } else { format!("{}: {}", report.title, cell.cell) }
}

/// The arms of a cell paired by seed, a panel for each of the quantities with these names.
///
/// # Errors
/// [`FigureError::Empty`] if no arm has one of them.
pub fn paired_figure(report: &StudyReport, cell: &CellReport, quantities: &[&str]) -> Result<Figure, FigureError> {
    let seeds = cell.seeds();
    let panel = |name: &&str| {
        let row = |seed: &u64| cell.arms.iter().map(|arm| arm.quantity(name)?.of_seed(*seed)).collect();
        PairedPanel { name: format!("{name}, {} weights", report.weights), values: seeds.iter().map(row).collect() }
    };
    let arms: Vec<String> = cell.arms.iter().map(|arm| arm.arm.clone()).collect();
    let notes = [cell.subject.clone(), format!("Robust: under {}", cell.attack)];
    let panels: Vec<PairedPanel> = quantities.iter().map(panel).collect();
    paired_seeds(&title(report, cell), &notes, &arms, &seeds, &panels)
}

fn scatter(report: &StudyReport, cell: &CellReport, with: &str) -> Result<Figure, FigureError> {
    let group = |arm: &ArmReport| {
        let found = arm.vulnerability.as_ref()?;
        let success = if with == "towards" { &found.towards } else { &found.from };
        let point = |(k, name): (usize, &String)| Some((name.clone(), found.cfps[k]?, success[k]?));
        let points = cell.class_names.iter().enumerate().filter_map(point).collect();
        let coefficient = |kind: &str, sign: &str| {
            let found = found.correlations.iter().find(|found| found.with == with && found.kind == kind)?;
            let p = found
                .p
                .map_or(String::new(), |p| if p < 0.001 { " (p < 0.001)".into() } else { format!(" (p {p:.3})") });
            Some(format!("{sign} {:.2}{p}", found.value?))
        };
        let parts = [coefficient("pearson", "r"), coefficient("spearman", "ρ")].into_iter().flatten();
        let name = std::iter::once(arm.arm.clone()).chain(parts).collect::<Vec<_>>().join(", ");
        Some(ScatterGroup { name, points })
    };
    let groups: Vec<ScatterGroup> = cell.arms.iter().filter_map(group).collect();
    let what = match with {
        "towards" => "Success of attacks towards the class",
        _ => "Success of attacks on images of the class",
    };
    let notes =
        [cell.subject.clone(), format!("CFPS: share of the mistakes under {} that land on the class", cell.attack)];
    class_scatter(&title(report, cell), &notes, ["CFPS", what], &groups)
}
