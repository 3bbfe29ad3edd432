//! Run directories and studies for the comparison, read on separate threads because a directory may be on a slow disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::config::Experiment;
use crate::evaluate::FinalReport;
use crate::fairness::MANY_CLASSES;
use crate::study::{PlannedRun, Results, StudyFile, StudyReport, open_study};
use crate::train::{ClassRow, MetricsRow, RunDir, ValidationSetting};

/// Maximum number of examples shown side by side.
const EXAMPLES: usize = 24;
/// A larger example image was not written by a run.
const LARGEST_SIDE: u32 = 1024;
/// Limit for the file of an example, in bytes.
const LARGEST_PNG: u64 = 1 << 24;

/// The contents of a run directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The directory.
    pub path: PathBuf,
    /// Last component of the path.
    pub name: String,
    /// The experiment that was trained.
    pub experiment: Experiment,
    /// One row per epoch; if an epoch occurs several times, its last row.
    pub metrics: Vec<MetricsRow>,
    /// One row per epoch and class.
    pub classes: Vec<ClassRow>,
    /// Report on the test set; `None` if the run is not finished.
    pub report: Option<FinalReport>,
    /// The images of `examples/`.
    pub examples: Vec<Example>,
}

/// An image before and after the attack, as RGB bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Width and height.
    pub size: [usize; 2],
    /// Before the attack.
    pub original: Vec<u8>,
    /// After the attack.
    pub adversarial: Vec<u8>,
}

/// The numbers of a run that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The images and weights they were measured with, such as `test set, last weights`.
    pub part: String,
    /// The attack of the robust accuracies.
    pub attack: String,
    /// Number of images; `None` if unknown.
    pub images: Option<usize>,
    /// Accuracy without an attack.
    pub clean: f64,
    /// Clean accuracy of the worst class.
    pub clean_worst: f64,
    /// Accuracy under the attack.
    pub robust: f64,
    /// Robust accuracy of the worst class.
    pub robust_worst: f64,
    /// Robust accuracy of the worst tenth of the classes, if there are more than [`MANY_CLASSES`]; otherwise `None`.
    pub robust_worst_tenth: Option<f64>,
    /// Robust accuracy of the best class minus that of the worst.
    pub gap: f64,
    /// Name, clean accuracy and robust accuracy of each class; NaN for a class without test images.
    pub classes: Vec<(String, f64, f64)>,
}

impl Run {
    /// Reads a directory.
    ///
    /// # Errors
    /// A sentence that says what is missing or damaged.
    pub fn read(path: &Path) -> Result<Self, String> {
        let (directory, experiment) = RunDir::open(path).map_err(|error| error.to_string())?;
        let (metrics, mut classes) = directory.read_rows().map_err(|error| error.to_string())?;
        let mut by_epoch = std::collections::BTreeMap::new();
        for row in metrics {
            by_epoch.insert(row.epoch, row);
        }
        // A resumed run may have written an epoch twice; the later row counts.
        let mut seen = std::collections::HashSet::new();
        classes.reverse();
        classes.retain(|row| seen.insert((row.epoch, row.class)));
        classes.sort_by_key(|row| (row.epoch, row.class));
        Ok(Self {
            path: path.to_owned(),
            name: name_of(path),
            experiment,
            metrics: by_epoch.into_values().collect(),
            classes,
            report: read_report(&path.join("evaluation.json"))?,
            examples: read_examples(&path.join("examples"))?,
        })
    }

    /// The numbers on the test set with these weights, otherwise those of the last epoch on the validation split.
    pub fn summary(&self, weights: &str) -> Option<Summary> {
        if let Some((report, row)) = self.report.as_ref().and_then(|report| Some((report, report.of(weights)?))) {
            let known = |accuracy: &Option<f64>| accuracy.unwrap_or(f64::NAN);
            let classes = report.class_names.iter().zip(&row.clean_classes).zip(&row.robust_classes);
            return Some(Summary {
                part: format!("test set, {weights} weights"),
                attack: report.attack.clone(),
                images: Some(report.images),
                clean: row.clean,
                clean_worst: row.clean_worst,
                robust: row.robust,
                robust_worst: row.robust_worst,
                robust_worst_tenth: (report.class_names.len() > MANY_CLASSES).then_some(row.robust_worst_tenth),
                gap: row.robust_gap,
                classes: classes.map(|((name, clean), robust)| (name.clone(), known(clean), known(robust))).collect(),
            });
        }
        let row = self.metrics.last()?;
        let of_epoch = self.classes.iter().filter(|class| class.epoch == row.epoch);
        Some(Summary {
            part: format!("validation split, epoch {}", row.epoch + 1),
            attack: self.validation_attack(),
            images: None,
            clean: row.val_clean_accuracy,
            clean_worst: row.val_clean_worst,
            robust: row.val_robust_accuracy,
            robust_worst: row.val_robust_worst,
            robust_worst_tenth: row.val_robust_worst_tenth,
            gap: self.gap(row.epoch).unwrap_or(f64::NAN),
            classes: of_epoch
                .map(|class| (class.name.clone(), class.val_clean_accuracy, class.val_robust_accuracy))
                .collect(),
        })
    }

    /// The attack of the validation accuracies of the last epoch.
    pub fn validation_attack(&self) -> String {
        let last = self.metrics.last().map(|row| row.validation_attack(&self.experiment));
        last.unwrap_or_else(|| ValidationSetting::of(&self.experiment).to_string())
    }

    /// Robust accuracy of the best minus the worst class after an epoch, on the validation split under the evaluation
    /// attack.
    pub fn gap(&self, epoch: u32) -> Option<f64> {
        let robust = self.classes.iter().filter(|row| row.epoch == epoch).map(|row| row.val_robust_accuracy);
        let (low, high) =
            robust.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        (low <= high).then_some(high - low)
    }
}

/// The contents of a study's directory, and what its runs show so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// The directory.
    pub path: PathBuf,
    /// Last component of the path.
    pub name: String,
    /// The study.
    pub file: StudyFile,
    /// Its runs.
    pub plan: Vec<PlannedRun>,
    /// What became of them.
    pub results: Results,
    /// The comparison of those that are complete.
    pub report: StudyReport,
    /// The runs by cell and arm, both in the order of the study.
    pub groups: Vec<StudyGroup>,
}

/// The runs of an arm in a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyGroup {
    /// The values of the axes; empty without axes.
    pub cell: String,
    /// The arm.
    pub arm: String,
    /// Places of its runs in the plan.
    pub runs: Vec<usize>,
}

impl Study {
    /// Reads a directory, as `fairtat study report` does.
    ///
    /// # Errors
    /// A sentence that says what is missing or damaged.
    pub fn read(path: &Path) -> Result<Self, String> {
        let directories = [path.to_owned()];
        let (file, plan) = open_study(&directories).map_err(|error| error.to_string())?;
        let results = Results::read(&directories, &plan);
        let report = StudyReport::new(&file, &plan, &results);
        let groups = groups(&plan);
        Ok(Self { path: path.to_owned(), name: name_of(path), file, plan, results, report, groups })
    }

    /// The cells, in the order of the study.
    pub fn cells(&self) -> Vec<&str> {
        let mut cells: Vec<&str> = self.groups.iter().map(|group| group.cell.as_str()).collect();
        cells.dedup();
        cells
    }
}

fn groups(plan: &[PlannedRun]) -> Vec<StudyGroup> {
    // The plan has all cells and arms for the first seed, then for the next one.
    let mut groups: Vec<StudyGroup> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for (at, run) in plan.iter().enumerate() {
        let place = *places.entry((&run.cell, &run.arm)).or_insert_with(|| {
            groups.push(StudyGroup { cell: run.cell.clone(), arm: run.arm.clone(), runs: Vec::new() });
            groups.len() - 1
        });
        groups[place].runs.push(at);
    }
    groups
}

/// Whether a directory is that of a study.
pub fn holds_study(path: &Path) -> bool {
    path.join("study.toml").is_file()
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn read_report(path: &Path) -> Result<Option<FinalReport>, String> {
    if !path.exists() {
        return Ok(None);
    }
    let fail = |what: String| format!("{}: {what}", path.display());
    let text = crate::files::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map(Some).map_err(|error| fail(error.to_string()))
}

/// The pairs `NN-original.png`, `NN-adversarial.png`, up to the first missing one.
fn read_examples(directory: &Path) -> Result<Vec<Example>, String> {
    let mut examples = Vec::new();
    for i in 0..EXAMPLES {
        let path = |part: &str| directory.join(format!("{i:02}-{part}.png"));
        if !path("original").exists() {
            break;
        }
        let (size, original) = read_png(&path("original"))?;
        let (other, adversarial) = read_png(&path("adversarial"))?;
        if size != other {
            return Err(format!(
                "{}: expected {size:?} pixels like its original, found {other:?}",
                path("adversarial").display()
            ));
        }
        examples.push(Example { size, original, adversarial });
    }
    Ok(examples)
}

fn read_png(path: &Path) -> Result<([usize; 2], Vec<u8>), String> {
    let fail = |what: String| format!("{}: {what}", path.display());
    let bytes = crate::files::read_up_to(path, LARGEST_PNG).map_err(|error| error.to_string())?;
    let reader = image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(|error| fail(error.to_string()))?;
    let mut limits = image::Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LARGEST_SIDE), Some(LARGEST_SIDE));
    reader.limits(limits);
    let image = reader.decode().map_err(|error| fail(error.to_string()))?.into_rgb8();
    Ok(([image.width() as usize, image.height() as usize], image.into_raw()))
}

/// A field in which runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Section and field.
    pub field: String,
    /// Its value in each run; `–` if it is not set.
    pub values: Vec<String>,
}

/// The fields in which the experiments differ, in the order of the file.
pub fn differences(experiments: &[&Experiment]) -> Vec<Difference> {
    let tables: Vec<toml::Table> =
        experiments.iter().map(|experiment| toml::from_str(&experiment.to_toml()).unwrap_or_default()).collect();
    let mut fields: Vec<(String, String)> = Vec::new();
    for table in &tables {
        for (section, values) in table {
            for name in values.as_table().into_iter().flat_map(toml::Table::keys) {
                let field = (section.clone(), name.clone());
                if !fields.contains(&field) {
                    fields.push(field);
                }
            }
        }
    }
    let value = |table: &toml::Table, (section, name): &(String, String)| {
        let value = table.get(section).and_then(|section| section.get(name));
        value.map_or_else(|| "–".to_owned(), |value| value.to_string().trim_matches('"').to_owned())
    };
    let all = fields.iter().map(|field| Difference {
        field: format!("{}.{}", field.0, field.1),
        values: tables.iter().map(|table| value(table, field)).collect(),
    });
    all.filter(|difference| difference.values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

/// State of a directory.
#[derive(Debug, Clone)]
pub enum Entry {
    /// It is being read.
    Reading,
    /// It is a run.
    Ready(Arc<Run>),
    /// It is a study.
    Study(Arc<Study>),
    /// It could not be read; the reason.
    Failed(String),
}

/// All runs and studies read so far. Separate threads read the files; [`Self::poll`] collects their results.
#[derive(Debug)]
pub struct Library {
    entries: HashMap<PathBuf, Entry>,
    found: Option<Vec<PathBuf>>,
    scanning: bool,
    sender: Sender<Found>,
    receiver: Receiver<Found>,
}

#[derive(Debug)]
enum Found {
    Directory(PathBuf, Entry),
    Directories(Vec<PathBuf>),
}

impl Default for Library {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { entries: HashMap::new(), found: None, scanning: false, sender, receiver }
    }
}

impl Library {
    /// Collects new results. Returns whether there were any.
    pub fn poll(&mut self) -> bool {
        let mut any = false;
        while let Ok(found) = self.receiver.try_recv() {
            any = true;
            match found {
                Found::Directory(path, entry) => drop(self.entries.insert(path, entry)),
                Found::Directories(found) => self.found = Some(found),
            }
        }
        any
    }

    /// The state of a directory. The first call for a directory starts reading it; `wake` is called when that is done.
    pub fn get(&mut self, path: &Path, wake: impl FnOnce() + Send + 'static) -> Entry {
        if let Some(entry) = self.entries.get(path) {
            return entry.clone();
        }
        self.entries.insert(path.to_owned(), Entry::Reading);
        let (sender, path) = (self.sender.clone(), path.to_owned());
        std::thread::spawn(move || {
            let entry = match holds_study(&path) {
                true => Study::read(&path).map(|study| Entry::Study(Arc::new(study))),
                false => Run::read(&path).map(|run| Entry::Ready(Arc::new(run))),
            };
            // If the window is closed by now, nothing receives the result.
            let _ = sender.send(Found::Directory(path, entry.unwrap_or_else(Entry::Failed)));
            wake();
        });
        Entry::Reading
    }

    /// Drops a directory, so that the next request reads it again.
    pub fn forget(&mut self, path: &Path) {
        self.entries.remove(path);
    }

    /// The runs and studies below `directories`, newest first; `None` while the search is running.
    pub fn below(&mut self, directories: &[&Path], wake: impl FnOnce() + Send + 'static) -> Option<&[PathBuf]> {
        if !self.scanning {
            self.scanning = true;
            let sender = self.sender.clone();
            let directories: Vec<PathBuf> = directories.iter().map(|path| (*path).to_owned()).collect();
            std::thread::spawn(move || {
                let _ = sender.send(Found::Directories(run_directories(&directories)));
                wake();
            });
        }
        self.found.as_deref()
    }

    /// Drops the lists of run directories, so that the next request searches again.
    pub fn rescan(&mut self) {
        self.scanning = false;
    }
}

/// Directories that hold a run or a study, one or two levels below `directories`; newest first. The runs of a study are
/// not listed.
fn run_directories(directories: &[PathBuf]) -> Vec<PathBuf> {
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let is_listed = |path: &PathBuf| holds_study(path) || path.join("config.toml").is_file();
    let mut found = Vec::new();
    for path in directories.iter().flat_map(|directory| below(directory)) {
        if is_listed(&path) {
            found.push(path);
        } else {
            found.extend(below(&path).into_iter().filter(is_listed));
        }
    }
    let changed = |path: &PathBuf| {
        let file = path.join(if holds_study(path) { "study.toml" } else { "config.toml" });
        file.metadata().and_then(|data| data.modified()).ok()
    };
    found.sort_by_key(|path| std::cmp::Reverse((changed(path), path.clone())));
    found
}

#[cfg(test)]
pub(in crate::app) mod testing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MethodChoice;

    #[test]
    fn a_run_is_read_with_all_its_parts() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let experiment = testing::write(&path, MethodChoice::FairTat, 6, Some(0.5));
        let run = Run::read(&path).unwrap();
        assert_eq!((run.name.as_str(), &run.experiment), ("a", &experiment));
        assert_eq!((run.metrics.len(), run.classes.len(), run.examples.len()), (6, 60, 2));
        assert_eq!(run.examples[0].size, [32, 32]);
        assert_ne!(run.examples[0].original, run.examples[0].adversarial);
        let test = run.summary("last").unwrap();
        assert_eq!((test.part.as_str(), test.robust, test.images), ("test set, last weights", 0.5, Some(10_000)));
        assert!(test.attack.starts_with("PGD-20"));
        // For weights that the report does not include, the summary falls back to the validation split.
        let validation = run.summary("fawa").unwrap();
        assert_eq!(validation.part, "validation split, epoch 6");
        assert!(validation.attack.starts_with("PGD-10"));
        let robust: Vec<f64> = validation.classes.iter().map(|class| class.2).collect();
        let spread = robust.iter().copied().fold(0.0, f64::max) - robust.iter().copied().fold(1.0, f64::min);
        assert!((validation.gap - spread).abs() < 1e-12);
    }

    #[test]
    fn damage_is_named() {
        let place = tempfile::tempdir().unwrap();
        assert!(Run::read(&place.path().join("nothing")).unwrap_err().contains("holds no run"));
        let path = place.path().join("a");
        testing::write(&path, MethodChoice::At, 3, Some(0.5));
        std::fs::write(path.join("evaluation.json"), "{").unwrap();
        assert!(Run::read(&path).unwrap_err().contains("evaluation.json"));
        std::fs::remove_file(path.join("evaluation.json")).unwrap();
        std::fs::write(path.join("examples/01-adversarial.png"), "no picture").unwrap();
        assert!(Run::read(&path).unwrap_err().contains("01-adversarial.png"));
        std::fs::write(path.join("metrics.csv"), "epoch,lr\n1,x\n").unwrap();
        assert!(Run::read(&path).unwrap_err().contains("metrics.csv"));
        std::fs::write(path.join("config.toml"), "[attack]\nepsilonn = 1\n").unwrap();
        assert!(Run::read(&path).unwrap_err().contains("did you mean 'epsilon'"));
    }

    /// Every file of a run that somebody else may have made.
    #[cfg(unix)]
    #[test]
    fn pipes_in_a_run_directory_are_named_and_never_waited_for() {
        let files = ["config.toml", "metrics.csv", "classes.csv", "evaluation.json", "examples/00-original.png"];
        for name in files {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("a");
            testing::write(&path, MethodChoice::At, 2, Some(0.5));
            let pipe = path.join(name);
            std::fs::remove_file(&pipe).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let (sender, receiver) = channel();
            std::thread::spawn(move || {
                let _ = sender.send(Run::read(&path));
            });
            let read = receiver.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
            // A table that is not there is that of a run without epochs.
            match read {
                Ok(run) => {
                    assert!(name.ends_with(".csv") && (run.metrics.is_empty() || run.classes.is_empty()), "{name}");
                }
                Err(error) => assert!(error.contains("it is a pipe, expected a regular file"), "{name}: {error}"),
            }
            assert!(run_directories(&[place.path().to_owned()]).len() == usize::from(name != "config.toml"));
        }
    }

    #[test]
    fn only_what_differs_is_listed() {
        let a = Experiment::default();
        let mut b = a.clone();
        b.fairness.method = MethodChoice::At;
        b.data.limit = Some(100);
        let found = differences(&[&a, &b]);
        let found: Vec<(&str, Vec<&str>)> =
            found.iter().map(|d| (d.field.as_str(), d.values.iter().map(String::as_str).collect())).collect();
        assert_eq!(found, [("fairness.method", vec!["fair-tat", "at"]), ("data.limit", vec!["–", "100"])]);
        assert!(differences(&[&a, &a]).is_empty());
    }

    #[test]
    fn the_library_reads_in_the_background_and_finds_runs() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("study/one");
        testing::write(&path, MethodChoice::At, 2, None);
        let mut library = Library::default();
        let wait = |library: &mut Library| {
            let (sender, receiver) = channel();
            library.get(&path, move || sender.send(()).unwrap());
            receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
            assert!(library.poll());
        };
        wait(&mut library);
        assert!(matches!(library.get(&path, || unreachable!()), Entry::Ready(run) if run.metrics.len() == 2));
        library.forget(&path);
        std::fs::remove_file(path.join("config.toml")).unwrap();
        wait(&mut library);
        assert!(matches!(library.get(&path, || unreachable!()), Entry::Failed(what) if what.contains("holds no run")));
        testing::write(&path.with_file_name("two"), MethodChoice::At, 1, None);
        let below = |path: &Path| run_directories(&[path.to_owned()]);
        assert_eq!(below(place.path()), [path.with_file_name("two")]);
        assert!(below(&place.path().join("nowhere")).is_empty());
        // A study stands for its runs.
        std::fs::write(place.path().join("study/study.toml"), "").unwrap();
        assert_eq!(below(place.path()), [place.path().join("study")]);
    }
}
