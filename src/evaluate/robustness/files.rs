//! The files of a report: Markdown, JSON, CSV, RobustBench's JSON, one array of verdicts for each attack.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Corrupted, Evaluation, RobustnessError, Role, Row, Suite, TargetCount};
use crate::attack::{AttackKind, Cost, Report, describe_worst_class};
use crate::data::{ImageShape, write_npy as npy};
use crate::engine::Norm;
use crate::evaluate::figures::{
    self, AttackBar, BarKind, Context, CurveAxis, CurvePoint, Figure, FigureError, RobustnessCurve,
};
use crate::fairness::{DENSE_CLASSES, MANY_CLASSES};
use crate::files::{FileError, write_atomic};

/// What was evaluated, and how: without it a number means nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Described {
    /// Program and version.
    pub program: String,
    /// The file of the network.
    pub checkpoint: String,
    /// Its SHA-256.
    pub checkpoint_sha256: String,
    /// SHA-256 of the network as it runs: layers, normalisation and weights ([`super::network_sha256`]).
    pub network_sha256: String,
    /// Architecture of the network.
    pub architecture: String,
    /// Method that trained it, if known.
    pub method: Option<String>,
    /// Data set.
    pub dataset: String,
    /// Part of it: `test`, `validation` or `train`, with the limit if only some images were used.
    pub part: String,
    /// Engine and device.
    pub engine: String,
    /// Shape of the ball.
    pub norm: Norm,
    /// Radius, such as `8/255`.
    pub epsilon: String,
    /// Seed of all attacks.
    pub seed: u64,
    /// The command that computes the report again.
    pub command: String,
}

/// One attack in `report.json`.
#[derive(Debug, Serialize)]
struct AttackRow<'a> {
    name: &'a str,
    suite: Option<Suite>,
    role: Role,
    attacked: u64,
    broken: u64,
    seconds: f64,
    cost: Cost,
    #[serde(skip_serializing_if = "Option::is_none")]
    targets: Option<TargetCount>,
    #[serde(flatten)]
    report: Report,
}

#[derive(Debug, Serialize)]
struct SuiteRow {
    name: &'static str,
    title: &'static str,
    seconds: f64,
    #[serde(flatten)]
    report: Report,
}

/// `report.json`.
#[derive(Debug, Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    described: &'a Described,
    images: usize,
    results: Vec<AttackRow<'a>>,
    suites: Vec<SuiteRow>,
    worst_case: Option<Report>,
    warnings: Vec<&'a String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corruptions: Option<serde_json::Value>,
}

/// Number of classes that `report.md` shows of more than [`DENSE_CLASSES`].
const WORST_SHOWN: usize = 40;

/// RobustBench's description of a model (its directory `model_info`).
#[derive(Debug, Serialize)]
struct RobustBench {
    link: &'static str,
    name: String,
    authors: &'static str,
    additional_data: bool,
    number_forward_passes: u32,
    dataset: String,
    venue: &'static str,
    architecture: String,
    eps: String,
    clean_acc: String,
    reported: String,
    autoattack_acc: String,
}

/// A `.npy` file of the project's arrays.
///
/// # Errors
/// If it cannot be written.
pub fn write_npy(path: &Path, descr: &str, size: usize, shape: &[usize], bytes: &[u8]) -> Result<(), RobustnessError> {
    let state = |what: String| RobustnessError::State { path: path.into(), what };
    let bytes = npy(descr, size, shape, bytes).map_err(|error| state(error.to_string()))?;
    Ok(write_atomic(path, &bytes)?)
}

/// A `.npy` file of images in `[0, 1]`, `N × C × H × W`, as exact `f32`.
pub(super) struct ImageFile {
    path: PathBuf,
    shape: [usize; 4],
}

impl ImageFile {
    pub(super) fn create(directory: &Path, name: &str, shape: ImageShape, images: usize) -> Result<Self, FileError> {
        let path = directory.join(format!("{name}.npy"));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(FileError::writing(parent))?;
        }
        Ok(Self { path, shape: [images, shape.channels, shape.height, shape.width] })
    }

    pub(super) fn write_all(&self, images: &[f32]) -> Result<(), RobustnessError> {
        write_npy(&self.path, "<f4", 4, &self.shape, bytemuck::cast_slice(images))
    }
}

/// Reads back the images of an attack, which [`ImageFile`] has written.
pub(super) fn read_images(directory: &Path, name: &str) -> Result<Vec<f32>, RobustnessError> {
    let path = directory.join("adversarial").join(format!("{name}.npy"));
    let bytes = crate::files::read(&path)?;
    // The header has a length of its own; the values are the rest.
    let header = bytes.get(8..10).map_or(0, |b| 10 + usize::from(u16::from_le_bytes([b[0], b[1]])));
    let values = bytes.get(header..).unwrap_or_default();
    Ok(values.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// The files of a report.
#[derive(Debug, Clone, Copy)]
pub struct ReportFiles<'a> {
    /// The result.
    pub evaluation: &'a Evaluation,
    /// What was evaluated.
    pub described: &'a Described,
    /// Accuracy under corruptions, if measured.
    pub corrupted: Option<&'a Corrupted>,
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn within(value: f64, [low, high]: [f64; 2]) -> String {
    format!("{:.1} [{:.1}, {:.1}]", 100.0 * value, 100.0 * low, 100.0 * high)
}

impl ReportFiles<'_> {
    /// Writes `report.md`, `report.json`, `report.csv`, `robustbench.json` if AutoAttack has run, and in `flags/` one
    /// array of `u8` for each attack, each suite and the worst case: 1 where the image is still classified correctly.
    /// `labels.npy` has the classes. Then removes the records of the evaluation.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), RobustnessError> {
        self.write_files(directory)?;
        Ok(super::finish(directory)?)
    }

    /// As [`Self::write`], but keeps the records of the evaluation, so that it can be repeated at once.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_files(&self, directory: &Path) -> Result<(), RobustnessError> {
        super::sweep(directory);
        let flags = directory.join("flags");
        std::fs::create_dir_all(&flags).map_err(FileError::writing(&flags))?;
        let evaluation = self.evaluation;
        let n = evaluation.labels().len();
        let write_flags = |name: &str, predictions: &[u32]| {
            write_npy(&flags.join(format!("{name}.npy")), "|u1", 1, &[n], &evaluation.flags(predictions))
        };
        for row in &evaluation.rows {
            write_flags(&row.entry.name, &row.predictions)?;
        }
        for (suite, row) in evaluation.suites() {
            write_flags(suite.name(), &row.predictions)?;
        }
        if evaluation.has_attacks() {
            write_flags("worst-case", &evaluation.worst_case())?;
        }
        let labels: Vec<u8> = evaluation.labels().iter().flat_map(|label| i64::from(*label).to_le_bytes()).collect();
        write_npy(&directory.join("labels.npy"), "<i8", 8, &[n], &labels)?;
        self.figures(directory)?;
        if let Some(entry) = self.robustbench() {
            write_atomic(&directory.join("robustbench.json"), &json(&entry))?;
        }
        write_atomic(&directory.join("report.csv"), &self.csv())?;
        write_atomic(&directory.join("report.json"), &class_json(&self.json(), evaluation.class_names().len()))?;
        Ok(write_atomic(&directory.join("report.md"), self.markdown().as_bytes())?)
    }

    /// What the figures of this evaluation have in common; `attack` is what they are measured under.
    pub fn context(&self, attack: String) -> Context {
        let d = self.described;
        Context {
            title: format!(
                "{} on {}, {}, {}",
                d.method.as_deref().unwrap_or("Network"),
                d.dataset,
                d.part,
                d.architecture
            ),
            attack,
            train_attack: String::new(),
            train_robust: "train robust",
            statistics: String::new(),
            frozen_after: None,
            class_names: self.evaluation.class_names().to_vec(),
            base_epsilon: 0.0,
        }
    }

    /// A bar for each attack, and one for the worst case; `None` without an attack.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn bars_figure(&self) -> Result<Option<Figure>, FigureError> {
        let bars = self.bars();
        if bars.len() <= 1 {
            return Ok(None);
        }
        let ball = format!("{}, ε {}", crate::attack::norm_name(self.described.norm), self.described.epsilon);
        figures::attack_bars(&bars, &self.context(ball)).map(Some)
    }

    /// Draws the bars of all attacks, and the curves.
    fn figures(&self, directory: &Path) -> Result<(), RobustnessError> {
        let evaluation = self.evaluation;
        let norm = crate::attack::norm_name(self.described.norm);
        if let Some(corrupted) = self.corrupted {
            corrupted.write(directory, &self.context("no attack; common corruptions".into()))?;
        }
        if let Some(bars) = self.bars_figure()? {
            bars.save(directory)?;
        }
        for (role, axis) in [(Role::EpsilonSweep, CurveAxis::Epsilon), (Role::StepsSweep, CurveAxis::Steps)] {
            let rows: Vec<&Row> = evaluation.rows.iter().filter(|row| row.entry.role == role).collect();
            let Some(first) = rows.first() else { continue };
            let point = |row: &&Row| {
                let report = evaluation.report(row);
                CurvePoint {
                    x: match axis {
                        CurveAxis::Epsilon => row.entry.attack.epsilon.exact(),
                        CurveAxis::Steps => f64::from(row.entry.attack.steps),
                    },
                    accuracy: report.accuracy,
                    interval: report.interval,
                    worst: report.worst_class_accuracy,
                    classes: report.classes.iter().map(|class| class.accuracy.unwrap_or(f64::NAN)).collect(),
                }
            };
            let points: Vec<CurvePoint> = rows.iter().map(point).collect();
            let attack = &first.entry.attack;
            let title = attack.kind.title();
            let attack = match axis {
                CurveAxis::Epsilon if attack.steps > 1 => format!("{title}, {norm}, {} steps", attack.steps),
                CurveAxis::Epsilon => format!("{title}, {norm}"),
                CurveAxis::Steps => format!("{title}, {norm}, ε {}", attack.epsilon),
            };
            let curve = RobustnessCurve { axis, attack: &attack, points: &points };
            figures::robustness_curve(&curve, &self.context(attack.clone()))?.save(directory)?;
        }
        Ok(())
    }

    /// A bar for each attack, and one for the worst case.
    fn bars(&self) -> Vec<AttackBar> {
        let evaluation = self.evaluation;
        let bar = |name: String, group: Option<String>, kind, report: &Report| AttackBar {
            name,
            group,
            kind,
            accuracy: report.accuracy,
            interval: report.interval,
            worst: report.worst_class_accuracy,
            worst_class: report.worst_class.clone(),
        };
        let mut bars = Vec::new();
        for row in &evaluation.rows {
            let kind = match (row.entry.role, row.entry.attack.kind) {
                (Role::EpsilonSweep | Role::StepsSweep, _) => continue,
                (Role::Control, _) => BarKind::Control,
                (Role::Attack, AttackKind::Clean) => BarKind::Clean,
                (Role::Attack, _) => BarKind::Attack,
            };
            let group = row.entry.suite.map(|suite| suite.name().to_owned());
            bars.push(bar(row.entry.title(), group, kind, &evaluation.report(row)));
        }
        if let Some(worst) = self.worst_case() {
            bars.push(bar("worst case".into(), None, BarKind::Total, &worst));
        }
        bars
    }

    /// `report.json` as a value, for `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.json()).unwrap_or_default()
    }

    fn json(&self) -> Json<'_> {
        let evaluation = self.evaluation;
        let row = |row| {
            let report = evaluation.report(row);
            AttackRow {
                name: &row.entry.name,
                suite: row.entry.suite,
                role: row.entry.role,
                attacked: row.attacked,
                broken: evaluation.fallen(row).len() as u64,
                seconds: row.seconds,
                cost: row.cost,
                targets: row.targets,
                report,
            }
        };
        let suite = |(suite, row): (Suite, &Row)| SuiteRow {
            name: suite.name(),
            title: suite.title(),
            seconds: evaluation.seconds_of(suite),
            report: evaluation.report_of(suite.title(), &row.predictions),
        };
        Json {
            described: self.described,
            images: evaluation.labels().len(),
            results: evaluation.rows.iter().map(row).collect(),
            suites: evaluation.suites().into_iter().map(suite).collect(),
            worst_case: self.worst_case(),
            warnings: self.warnings(),
            corruptions: self.corrupted.map(Corrupted::to_json),
        }
    }

    fn warnings(&self) -> Vec<&String> {
        self.evaluation.attack_warnings.iter().chain(&self.evaluation.warnings).collect()
    }

    fn worst_case(&self) -> Option<Report> {
        let evaluation = self.evaluation;
        evaluation.has_attacks().then(|| evaluation.report_of("worst case over all attacks", &evaluation.worst_case()))
    }

    fn robustbench(&self) -> Option<RobustBench> {
        let evaluation = self.evaluation;
        let (_, row) = evaluation.suites().into_iter().find(|(suite, _)| *suite == Suite::AutoAttack)?;
        let clean = evaluation.rows.iter().find(|row| row.entry.attack.kind == AttackKind::Clean)?;
        // Its tables are about whole test sets.
        if self.described.part != "test" {
            return None;
        }
        let hundredths = |row| format!("{:.2}", 100.0 * evaluation.accuracy(row));
        let d = self.described;
        Some(RobustBench {
            link: "",
            name: format!("{} on {}, {}", d.method.as_deref().unwrap_or("unknown method"), d.dataset, d.architecture),
            authors: "",
            additional_data: false,
            number_forward_passes: 1,
            dataset: d.dataset.clone(),
            venue: "",
            architecture: d.architecture.clone(),
            eps: match d.norm {
                Norm::Linf => d.epsilon.clone(),
                Norm::L2 => row.entry.attack.epsilon.exact().to_string(),
            },
            clean_acc: hundredths(clean),
            reported: hundredths(row),
            autoattack_acc: hundredths(row),
        })
    }

    /// `report.csv`: accuracy and interval under each attack, a line for all images and one for each class.
    pub fn csv(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        let mut write = |name: &str, report: &Report| {
            let mut line = |class: &str, accuracy: Option<f64>, [low, high]: [f64; 2], images: u64| {
                let accuracy = accuracy.map(|accuracy| accuracy.to_string()).unwrap_or_default();
                let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
                let _ = writeln!(
                    lines,
                    "{name},{},{},{accuracy},{low},{high},{images}",
                    quoted(&report.attack),
                    quoted(class)
                );
            };
            line("", Some(report.accuracy), report.interval, report.images);
            for class in &report.classes {
                line(&class.name, class.accuracy, class.interval, class.images);
            }
        };
        for row in &self.evaluation.rows {
            write(&row.entry.name, &self.evaluation.report(row));
        }
        for (suite, row) in self.evaluation.suites() {
            write(suite.name(), &self.evaluation.report_of(suite.title(), &row.predictions));
        }
        if let Some(worst) = self.worst_case() {
            write("worst-case", &worst);
        }
        let mut bytes = b"name,attack,class,accuracy,low,high,images\n".to_vec();
        bytes.extend(lines);
        bytes
    }

    /// The report for people.
    pub fn markdown(&self) -> String {
        let (evaluation, d) = (self.evaluation, self.described);
        let n = evaluation.labels().len();
        let mut text = format!("# Robustness of {}\n\n", escaped(&d.checkpoint));
        let method = d.method.as_deref().unwrap_or("unknown");
        let norm = crate::attack::norm_name(d.norm);
        let _ = write!(
            text,
            "| | |\n|---|---|\n| network | {}, trained by {method} |\n| checkpoint | `{}`, SHA-256 `{}` |\n| images | {n}, \
             {} of {} |\n| ball | {norm}, ε {} |\n| seed | {} |\n| computed by | {}, {} |\n\n",
            d.architecture,
            d.checkpoint,
            d.checkpoint_sha256,
            d.part,
            d.dataset,
            d.epsilon,
            d.seed,
            d.program,
            d.engine,
        );
        if let Some(worst) = self.worst_case() {
            let class = describe_worst_class(
                &worst.worst_class,
                worst.worst_class_accuracy,
                worst.worst_class_interval,
                &worst.worst_class_ties,
            );
            let tenth = worst.shown_worst_tenth();
            let tenth =
                tenth.map_or(String::new(), |tenth| format!(" Worst 10 % of the classes: {} %.", percent(tenth)));
            let _ = write!(
                text,
                "**Robust accuracy {} %**: the images that withstand every attack below. Worst class: {}.{tenth}\n\n",
                within(worst.accuracy, worst.interval),
                escaped(&class)
            );
        }
        text += "In brackets: 95 % intervals (Wilson) for other images of the same kind.\n\n";
        self.attacks_table(&mut text);
        if self.bars().len() > 1 {
            text += "\n![Accuracy under each attack](figures/attacks.png)\n";
        }
        self.curves(&mut text);
        self.classes_table(&mut text);
        if let Some(corrupted) = self.corrupted {
            let _ = write!(text, "\n{}", corrupted.markdown());
        }
        text += "\n## Checks\n\n";
        let warnings = self.warnings();
        if warnings.is_empty() {
            text += "Nothing speaks against these numbers: ";
            text += &super::signals::checked(evaluation).join("; ");
            text += ".\n";
        }
        for warning in warnings {
            let _ = writeln!(text, "* **Warning:** {warning}.");
        }
        let reports = d.command.contains(" --report ") || d.command.contains(" --report=");
        let force = if reports && !d.command.contains(" --force") { " --force" } else { "" };
        let _ = write!(text, "\n## Again\n\n```\n{}{force}\n```\n", d.command);
        text
    }

    fn attacks_table(&self, text: &mut String) {
        let (tenth, rule) = self.tenth_column();
        let _ = write!(
            text,
            "## Attacks\n\n| attack | accuracy % | worst class % |{tenth} gap | attacked | broken | passes of an image | \
             seconds |\n|---|---|---|{rule}---|---|---|---|---|\n"
        );
        let suites = self.evaluation.suites();
        let is_point = |row: &&Row| matches!(row.entry.role, Role::EpsilonSweep | Role::StepsSweep);
        for row in self.evaluation.rows.iter().filter(|row| !is_point(row)) {
            let report = self.evaluation.report(row);
            let indent = if row.entry.suite.is_some() { "↳ " } else { "" };
            let control = if row.entry.role == Role::Control { " (control)" } else { "" };
            let passes = (row.cost.forward + row.cost.gradient) as f64 / row.attacked.max(1) as f64;
            let _ = writeln!(
                text,
                "| {indent}{}{control} | {} | {}, {} |{} {} | {} | {} | {passes:.0} | {:.1} |",
                report.attack,
                within(report.accuracy, report.interval),
                escaped(&report.worst_class),
                within(report.worst_class_accuracy, report.worst_class_interval),
                tenth_cell(&report),
                percent(report.gap),
                row.attacked,
                self.evaluation.fallen(row).len(),
                row.seconds,
            );
            if let Some(TargetCount { hit, images }) = row.targets {
                let share = crate::fairness::ratio(hit, images);
                let _ = writeln!(
                    text,
                    "| ↳ reached its target | {} | |{} | {images} | {hit} | | |",
                    within(share, crate::fairness::wilson(hit, images).into()),
                    if tenth.is_empty() { "" } else { " |" }
                );
            }
            if let Some((suite, _)) = suites.iter().find(|(_, last)| last.entry.name == row.entry.name) {
                let report = self.evaluation.report_of(suite.title(), &row.predictions);
                self.total(text, &report, self.evaluation.seconds_of(*suite));
            }
        }
        if let Some(worst) = self.worst_case() {
            let seconds = self.evaluation.rows.iter().map(|row| row.seconds).sum();
            self.total(text, &worst, seconds);
        }
    }

    /// A table for each curve.
    fn curves(&self, text: &mut String) {
        for (role, title, x, figure) in [
            (Role::EpsilonSweep, "Over the radius", "ε", "security-curve"),
            (Role::StepsSweep, "Over the number of steps", "steps", "steps-curve"),
        ] {
            let points: Vec<&Row> = self.evaluation.rows.iter().filter(|row| row.entry.role == role).collect();
            let Some(first) = points.first() else { continue };
            let (tenth, rule) = self.tenth_column();
            let _ = write!(
                text,
                "\n## {title}\n\n![{title}](figures/{figure}.png)\n\n{}.\n\n| {x} | accuracy % | worst class % |{tenth}\n\
                 |---|---|---|{rule}\n",
                first.entry.attack.kind.title()
            );
            for row in points {
                let report = self.evaluation.report(row);
                let attack = &row.entry.attack;
                let at = if role == Role::EpsilonSweep { attack.epsilon.to_string() } else { attack.steps.to_string() };
                let worst = within(report.worst_class_accuracy, report.worst_class_interval);
                let mean = within(report.accuracy, report.interval);
                let tenth = tenth_cell(&report);
                let _ = writeln!(text, "| {at} | {mean} | {}, {worst} |{tenth}", escaped(&report.worst_class));
            }
        }
    }

    /// Head and rule of the column of the worst tenth of the classes; empty without it.
    fn tenth_column(&self) -> (&'static str, &'static str) {
        let many = self.evaluation.class_names().len() > MANY_CLASSES;
        if many { (" worst 10 % of classes |", "---|") } else { ("", "") }
    }

    fn total(&self, text: &mut String, report: &Report, seconds: f64) {
        let _ = writeln!(
            text,
            "| **{}** | **{}** | {}, {} |{} {} | {} | | | {seconds:.1} |",
            report.attack,
            within(report.accuracy, report.interval),
            escaped(&report.worst_class),
            within(report.worst_class_accuracy, report.worst_class_interval),
            tenth_cell(report),
            percent(report.gap),
            report.images,
        );
    }

    fn classes_table(&self, text: &mut String) {
        let evaluation = self.evaluation;
        let mut columns: Vec<(String, Report)> = Vec::new();
        for row in evaluation.rows.iter().filter(|row| row.entry.role == Role::Attack && row.entry.suite.is_none()) {
            columns.push((row.entry.attack.kind.title().into(), evaluation.report(row)));
        }
        for (suite, row) in evaluation.suites() {
            columns.push((suite.name().into(), evaluation.report_of(suite.title(), &row.predictions)));
        }
        columns.extend(self.worst_case().map(|worst| ("worst case".into(), worst)));
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let _ = write!(
            text,
            "\n## Classes\n\n| class | images | {} |\n|---|---|{}\n",
            names.join(" | "),
            "---|".repeat(names.len())
        );
        let (Some((_, first)), Some((name, last))) = (columns.first(), columns.last()) else { return };
        let all = first.classes.len();
        let shown = if all > DENSE_CLASSES { last.worst_classes(WORST_SHOWN) } else { (0..all).collect() };
        for (k, class) in shown.iter().map(|k| (*k, &first.classes[*k])) {
            let cells: Vec<String> = columns
                .iter()
                .map(|(_, report)| &report.classes[k])
                .map(|class| class.accuracy.map_or_else(|| "n/a".into(), |accuracy| within(accuracy, class.interval)))
                .collect();
            let _ = writeln!(text, "| {} | {} | {} |", escaped(&class.name), class.images, cells.join(" | "));
        }
        if shown.len() < all {
            let count = shown.len();
            let _ = write!(text, "\nShown are the {count} worst of {all} classes by `{name}`; `report.csv` has all.\n");
        }
    }
}

/// The cell of the worst tenth of the classes; empty without that column.
fn tenth_cell(report: &Report) -> String {
    report.shown_worst_tenth().map_or(String::new(), |tenth| format!(" {} |", percent(tenth)))
}

/// A text that Markdown shows as it is, in tables too.
pub(super) fn escaped(text: &str) -> String {
    let special = |c| matches!(c, '|' | '*' | '_' | '`' | '<' | '\\' | '[');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A value with entries for each of `classes` classes, indented up to [`DENSE_CLASSES`] of them.
fn class_json(value: &impl Serialize, classes: usize) -> Vec<u8> {
    if classes <= DENSE_CLASSES {
        return json(value);
    }
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
