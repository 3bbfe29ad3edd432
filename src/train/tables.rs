//! The tables of a run, `metrics.csv` and `classes.csv`, and their rows in its log.
//!
//! `log.jsonl` holds the rows of each epoch as well. Where a table was truncated, deleted or damaged, its rows come from
//! there.

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;
use csv::StringRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::run_dir::{LOG, RunDir, RunDirError};
use super::{ClassRow, MetricsRow};
use crate::config::MethodChoice;
use crate::fairness::DENSE_CLASSES;
use crate::files::{self, FileError};
use crate::packed;

const METRICS: &str = "metrics.csv";
const CLASSES: &str = "classes.csv";

/// The rows of `metrics.csv` and `classes.csv`.
pub type Rows = (Vec<MetricsRow>, Vec<ClassRow>);

/// What could be read of a table.
struct Read<T> {
    rows: Vec<T>,
    /// Lines below the header, readable or not.
    lines: usize,
    /// The first line that could not be read, and why.
    damage: Option<String>,
}

impl<T: DeserializeOwned> Read<T> {
    /// Reads a table; `complete` adds to a row what is not part of its type, from the column names and the values.
    fn new(bytes: &[u8], complete: impl Fn(&mut T, &StringRecord, &StringRecord)) -> Self {
        let mut read = Self { rows: Vec::new(), lines: 0, damage: None };
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader.headers().cloned().unwrap_or_default();
        for record in reader.records() {
            read.lines += 1;
            let row = record.and_then(|record| {
                let mut row = record.deserialize(Some(&header))?;
                complete(&mut row, &header, &record);
                Ok(row)
            });
            match row {
                Ok(row) => read.rows.push(row),
                Err(error) => drop(read.damage.get_or_insert(error.to_string())),
            }
        }
        // A number that is cut off still is a number.
        if read.damage.is_none() && !bytes.is_empty() && !bytes.ends_with(b"\n") {
            read.rows.pop();
            read.damage = Some("its last line is cut off".into());
        }
        read
    }
}

fn read_metrics(bytes: &[u8]) -> Read<MetricsRow> {
    Read::new(bytes, |_, _, _| ())
}

fn read_classes(bytes: &[u8]) -> Read<ClassRow> {
    let known = MethodChoice::value_variants().iter().flat_map(|method| method.about().series);
    let known: Vec<&str> = known.map(|series| series.name).collect();
    Read::new(bytes, |row: &mut ClassRow, header, record| {
        for (column, value) in header.iter().zip(record).filter(|(column, _)| known.contains(column)) {
            if let Ok(value) = value.parse() {
                row.series.push((column.to_owned(), value));
            }
        }
    })
}

/// The rows of each epoch in the order of classes. If an epoch was written twice, the later rows count.
fn by_epoch(rows: Vec<ClassRow>) -> BTreeMap<u32, Vec<ClassRow>> {
    let rows: BTreeMap<_, _> = rows.into_iter().map(|row| ((row.epoch, row.class), row)).collect();
    let mut epochs = BTreeMap::<_, Vec<_>>::new();
    rows.into_values().for_each(|row| epochs.entry(row.epoch).or_default().push(row));
    epochs
}

fn to_csv<T: Serialize>(rows: &[T]) -> Result<Vec<u8>, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row)).map_err(|e| e.to_string())?;
    writer.into_inner().map_err(|e| e.to_string())
}

/// A table with more columns; `value` is that of a row in the column with this name.
fn with_columns(table: &[u8], columns: &[&str], value: impl Fn(usize, &str) -> Option<f64>) -> Result<Vec<u8>, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(table);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (i, record) in reader.records().enumerate() {
        let mut record = record.map_err(|e| e.to_string())?;
        for column in columns {
            match i.checked_sub(1).map(|row| value(row, column)) {
                None => record.push_field(column),
                Some(Some(value)) => record.push_field(&value.to_string()),
                Some(None) => record.push_field(""),
            }
        }
        writer.write_record(&record).map_err(|e| e.to_string())?;
    }
    writer.into_inner().map_err(|e| e.to_string())
}

/// The rows, with the column of the worst tenth of the classes if a row has it.
fn metrics_to_csv(rows: &[MetricsRow]) -> Result<Vec<u8>, String> {
    let common: Vec<MetricsRow> =
        rows.iter().map(|row| MetricsRow { val_robust_worst_tenth: None, ..row.clone() }).collect();
    let table = to_csv(&common)?;
    if rows.iter().all(|row| row.val_robust_worst_tenth.is_none()) {
        return Ok(table);
    }
    with_columns(&table, &["val_robust_worst_tenth"], |row, _| rows[row].val_robust_worst_tenth)
}

/// The rows, with the columns of every method that the run used after the common ones.
fn classes_to_csv(rows: &[ClassRow]) -> Result<Vec<u8>, String> {
    let mut series: Vec<&str> = Vec::new();
    for (column, _) in rows.iter().flat_map(|row| &row.series) {
        if !series.contains(&column.as_str()) {
            series.push(column);
        }
    }
    let table = to_csv(rows)?;
    if series.is_empty() {
        return Ok(table);
    }
    let value =
        |row: usize, column: &str| rows[row].series.iter().find(|(name, _)| name == column).map(|found| found.1);
    with_columns(&table, &series, value)
}

/// Both tables by epoch.
#[derive(Default)]
pub(super) struct Tables {
    metrics: BTreeMap<u32, MetricsRow>,
    classes: BTreeMap<u32, Vec<ClassRow>>,
    /// Epochs whose rows are not those of the table but those of the log, of each table.
    rebuilt: [Vec<u32>; 2],
    /// The first damage of a table that the log does not make up for.
    damage: Option<RunDirError>,
}

impl Tables {
    /// The number of epochs that are known to be completed.
    pub(super) fn epochs(&self) -> u32 {
        self.metrics.last_key_value().map_or(0, |(epoch, _)| epoch + 1)
    }

    fn into_rows(self) -> Rows {
        (self.metrics.into_values().collect(), self.classes.into_values().flatten().collect())
    }
}

/// `epochs 1, 3 to 5`, counted from 1.
fn listed(epochs: &[u32]) -> String {
    let mut ranges: Vec<[u32; 2]> = Vec::new();
    for epoch in epochs.iter().map(|epoch| epoch + 1) {
        match ranges.last_mut() {
            Some([_, last]) if *last + 1 == epoch => *last = epoch,
            _ => ranges.push([epoch; 2]),
        }
    }
    let range = |[first, last]: &[u32; 2]| if first == last { first.to_string() } else { format!("{first} to {last}") };
    let ranges: Vec<String> = ranges.iter().map(range).collect();
    format!("{} {}", if epochs.len() == 1 { "epoch" } else { "epochs" }, ranges.join(", "))
}

impl RunDir {
    /// Checks a file like `metrics.csv` or, if `classes`, like `classes.csv`, under any name.
    pub(crate) fn check_rows(path: &Path, classes: bool) -> Result<(), RunDirError> {
        let bytes = files::read(path)?;
        let damage = if classes { read_classes(&bytes).damage } else { read_metrics(&bytes).damage };
        damage.map_or(Ok(()), |what| Err(RunDirError::Format { path: path.into(), what }))
    }

    /// Rewrites `metrics.csv` and `classes.csv`.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_rows(&self, metrics: &[MetricsRow], classes: &[ClassRow]) -> Result<(), RunDirError> {
        let fail = |name: &str| {
            let path = self.path.join(name);
            |what| RunDirError::Format { path, what }
        };
        self.write(METRICS, &metrics_to_csv(metrics).map_err(fail(METRICS))?)?;
        self.write(CLASSES, &classes_to_csv(classes).map_err(fail(CLASSES))?)
    }

    /// Adds the rows of an epoch to the log: `classes` is its part of `classes.csv`, beyond [`DENSE_CLASSES`] classes
    /// compressed, as `classes_compressed` ([`packed`]).
    pub(super) fn log_epoch(&self, row: &MetricsRow, classes: &[ClassRow]) -> Result<(), RunDirError> {
        let table =
            classes_to_csv(classes).map_err(|what| RunDirError::Format { path: self.path.join(CLASSES), what })?;
        if classes.len() <= DENSE_CLASSES {
            return self.log(&json!({ "event": "epoch", "row": row, "classes": String::from_utf8_lossy(&table) }));
        }
        let packed = packed::pack(&table).map_err(FileError::writing(self.path.join(LOG)))?;
        self.log(&json!({ "event": "epoch", "row": row, "classes_compressed": packed }))
    }

    /// The rows of both tables, in the order of epochs; rows that a table lacks come from the log. Empty if there are none
    /// yet.
    ///
    /// # Errors
    /// [`RunDirError::Format`] with line and column if a row cannot be read and is not in the log either.
    pub fn read_rows(&self) -> Result<Rows, RunDirError> {
        let mut tables = self.tables();
        match tables.damage.take() {
            Some(damage) => Err(damage),
            None => Ok(tables.into_rows()),
        }
    }

    /// The rows of the first `epochs` epochs of `classes` classes, to continue a run. Tables that had to be rebuilt from
    /// the log are written again. Also says what was rebuilt and what is missing.
    pub(super) fn continue_rows(&self, epochs: u32, classes: usize) -> Result<(Rows, Vec<String>), RunDirError> {
        let mut tables = self.tables();
        tables.metrics.retain(|epoch, _| *epoch < epochs);
        tables.classes.retain(|epoch, rows| *epoch < epochs && rows.len() == classes);
        let mut notes = Vec::new();
        let mut rewrite = false;
        for (i, name) in [METRICS, CLASSES].into_iter().enumerate() {
            let path = self.path.join(name);
            tables.rebuilt[i].retain(|epoch| *epoch < epochs);
            if !tables.rebuilt[i].is_empty() {
                rewrite = true;
                let list = listed(&tables.rebuilt[i]);
                notes.push(format!("{} was incomplete or damaged: {list} rebuilt from log.jsonl", path.display()));
            }
            let known = |epoch: &u32| {
                if i == 0 { tables.metrics.contains_key(epoch) } else { tables.classes.contains_key(epoch) }
            };
            let missing: Vec<u32> = (0..epochs).filter(|epoch| !known(epoch)).collect();
            if !missing.is_empty() {
                let list = listed(&missing);
                notes.push(format!(
                    "{} lacks {list}, and log.jsonl does not hold what is missing: tables and curves go on without it",
                    path.display()
                ));
            }
        }
        let (metrics, classes) = tables.into_rows();
        if rewrite {
            self.write_rows(&metrics, &classes)?;
        }
        Ok(((metrics, classes), notes))
    }

    pub(super) fn tables(&self) -> Tables {
        let (metrics, classes) = (read_metrics(&self.bytes(METRICS)), read_classes(&self.bytes(CLASSES)));
        let mut tables = Tables {
            metrics: metrics.rows.into_iter().map(|row| (row.epoch, row)).collect(),
            classes: by_epoch(classes.rows),
            ..Tables::default()
        };
        for (epoch, (row, of_classes)) in self.logged_epochs() {
            if tables.metrics.get(&epoch) != Some(&row) {
                tables.rebuilt[0].push(epoch);
                tables.metrics.insert(epoch, row);
            }
            if !of_classes.is_empty() && tables.classes.get(&epoch) != Some(&of_classes) {
                tables.rebuilt[1].push(epoch);
                tables.classes.insert(epoch, of_classes);
            }
        }
        let found = [tables.metrics.len(), tables.classes.values().map(Vec::len).sum()];
        for ((name, found), (lines, damage)) in [METRICS, CLASSES]
            .into_iter()
            .zip(found)
            .zip([(metrics.lines, metrics.damage), (classes.lines, classes.damage)])
        {
            if let Some(what) = damage.filter(|_| found < lines) {
                tables.damage.get_or_insert(RunDirError::Format { path: self.path.join(name), what });
            }
        }
        tables
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        // A table that cannot be read is as good as none: it is rebuilt, or its epochs are missed.
        files::read(&self.path.join(name)).unwrap_or_default()
    }

    /// The rows in the log. A run that continued from an earlier checkpoint has overwritten what came after it.
    fn logged_epochs(&self) -> BTreeMap<u32, (MetricsRow, Vec<ClassRow>)> {
        let mut epochs = BTreeMap::new();
        for mut line in self.logged("epoch") {
            let Ok(row) = serde_json::from_value::<MetricsRow>(line["row"].take()) else { continue };
            let unpacked = line["classes_compressed"].as_str().and_then(|text| packed::unpack(text, u64::MAX - 1).ok());
            let table = unpacked.as_deref().unwrap_or_else(|| line["classes"].as_str().unwrap_or_default().as_bytes());
            let classes = read_classes(table);
            let whole = classes.damage.is_none();
            let classes = by_epoch(classes.rows).remove(&row.epoch).filter(|_| whole);
            epochs.split_off(&row.epoch);
            epochs.insert(row.epoch, (row, classes.unwrap_or_default()));
        }
        epochs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Experiment;

    fn row(epoch: u32) -> MetricsRow {
        MetricsRow {
            epoch,
            lr: 0.1 / 3.0,
            train_loss: 2.25 / 7.0,
            train_clean_accuracy: None,
            train_robust_accuracy: f64::from(epoch) / 7.0,
            val_clean_accuracy: 1.0,
            val_clean_worst: 0.5,
            val_robust_accuracy: 1e-7,
            val_robust_worst: 0.0,
            seconds: 1.5,
            seconds_attack: 1.0,
            seconds_update: 0.25,
            seconds_statistics: 0.125,
            val_attack: "PGD-10, L∞, \"x\"".into(),
            val_without_gradient: Some(3),
            method: "wat".into(),
            val_robust_worst_tenth: None,
        }
    }

    fn classes(epoch: u32) -> Vec<ClassRow> {
        let series = MethodChoice::Wat.about().series[0].name;
        let class = |class: u32| ClassRow {
            epoch,
            class,
            name: format!("class, {class}"),
            epsilon: 8.0 / 255.0,
            target_probability: Some(f64::from(epoch + class) / 9.0),
            cfps: 0.5,
            train_robust_accuracy: 1.0 / 3.0,
            train_clean_accuracy: None,
            val_clean_accuracy: 0.75,
            val_robust_accuracy: 0.123_456_789,
            series: vec![(series.to_owned(), f64::from(epoch) / 11.0)],
        };
        (0..2).map(class).collect()
    }

    /// A run with `epochs` epochs in its tables and its log.
    fn run(path: &std::path::Path, epochs: u32) -> RunDir {
        let run = RunDir::create(path, &Experiment::default()).unwrap();
        write(&run, epochs);
        (0..epochs).for_each(|epoch| run.log_epoch(&row(epoch), &classes(epoch)).unwrap());
        run
    }

    fn write(run: &RunDir, epochs: u32) {
        let (metrics, classes): (Vec<_>, Vec<_>) = (0..epochs).map(|epoch| (row(epoch), classes(epoch))).unzip();
        run.write_rows(&metrics, &classes.concat()).unwrap();
    }

    /// Every prefix of both tables, and none at all: the rows are those of the log, and the files are written again.
    #[test]
    fn tables_that_are_cut_off_anywhere_come_back_from_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path(), 3);
        let whole = run.read_rows().unwrap();
        assert_eq!(whole, ((0..3).map(row).collect(), (0..3).flat_map(classes).collect()));
        for name in [METRICS, CLASSES] {
            let path = dir.path().join(name);
            let bytes = std::fs::read(&path).unwrap();
            for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
                std::fs::write(&path, &bytes[..length]).unwrap();
                assert_eq!(run.read_rows().unwrap(), whole, "{name}, {length} bytes");
                let ((metrics, classes), notes) = run.continue_rows(3, 2).unwrap();
                assert_eq!((metrics, classes), whole);
                assert!(notes.len() == 1 && notes[0].contains(name) && notes[0].contains("rebuilt"), "{notes:?}");
                assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name} after {length} bytes");
            }
            std::fs::remove_file(&path).unwrap();
            let (_, notes) = run.continue_rows(3, 2).unwrap();
            assert!(
                notes[0].ends_with(&format!("{name} was incomplete or damaged: epochs 1 to 3 rebuilt from log.jsonl"))
            );
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            // A flipped digit, too.
            let changed = String::from_utf8(bytes.clone()).unwrap().replacen("0.5", "0.6", 1);
            std::fs::write(&path, changed).unwrap();
            assert_eq!(run.read_rows().unwrap(), whole);
            std::fs::write(&path, bytes).unwrap();
        }
        assert_eq!(run.continue_rows(3, 2).unwrap().1, [""; 0]);
    }

    /// Logs of earlier versions hold the rows of `metrics.csv` only, and a log may be damaged as well.
    #[test]
    fn what_is_missing_everywhere_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path(), 4);
        let log = dir.path().join(super::super::run_dir::LOG);
        let lines = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        let metrics = std::fs::read(dir.path().join(METRICS)).unwrap();
        std::fs::write(&log, format!("{}\n{}\n{}", lines[0], &lines[1][..40], lines[3])).unwrap();
        std::fs::write(dir.path().join(METRICS), "").unwrap();
        let ((rows, _), notes) = run.continue_rows(4, 2).unwrap();
        assert_eq!(rows, [row(0), row(3)]);
        assert!(notes[0].contains("epochs 1, 4 rebuilt") && notes[1].contains("lacks epochs 2 to 3, and"), "{notes:?}");
        // Without a log: the whole rows of a table that is cut off within a number, which is not one of them.
        std::fs::remove_file(&log).unwrap();
        std::fs::write(dir.path().join(METRICS), &metrics[..metrics.len() - 2]).unwrap();
        let error = run.read_rows().unwrap_err().to_string();
        assert!(error.contains("metrics.csv: its last line is cut off"), "{error}");
        let ((rows, _), notes) = run.continue_rows(4, 2).unwrap();
        assert_eq!(rows.len(), 3);
        assert!(notes.len() == 1 && notes[0].contains("metrics.csv lacks epoch 4, and"), "{notes:?}");
        // Classes of which some are missing are not drawn as if they were all.
        let table = std::fs::read_to_string(dir.path().join(CLASSES)).unwrap();
        let all_but_one: Vec<&str> = table.lines().enumerate().filter(|(i, _)| *i != 3).map(|(_, line)| line).collect();
        std::fs::write(dir.path().join(CLASSES), format!("{}\n", all_but_one.join("\n"))).unwrap();
        let ((_, rows), notes) = run.continue_rows(3, 2).unwrap();
        assert_eq!(rows, [classes(0), classes(2)].concat());
        assert!(notes[0].contains("classes.csv lacks epoch 2, and"), "{notes:?}");
    }

    #[test]
    fn an_epoch_that_was_trained_again_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path(), 3);
        // Continued from a checkpoint after the first epoch: what came after it is void.
        let again = MetricsRow { seconds: 99.0, ..row(1) };
        run.write_rows(&[row(0), again.clone()], &[classes(0), classes(1)].concat()).unwrap();
        run.log_epoch(&again, &classes(1)).unwrap();
        assert_eq!(run.read_rows().unwrap().0, [row(0), again]);
        assert_eq!(run.tables().epochs(), 2);
    }

    /// Of many classes the log holds compressed rows, and they come back as well.
    #[test]
    fn rows_of_many_classes_are_compressed_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), &Experiment::default()).unwrap();
        let of = |count: u32| {
            (0..count)
                .map(|class| ClassRow { class, name: format!("class {class}"), ..classes(0)[0].clone() })
                .collect()
        };
        let (few, many): (Vec<ClassRow>, Vec<ClassRow>) = (of(100), of(1000));
        run.log_epoch(&row(0), &few).unwrap();
        assert!(run.logged("epoch")[0]["classes"].is_string());
        run.log_epoch(&row(1), &many.iter().map(|row| ClassRow { epoch: 1, ..row.clone() }).collect::<Vec<_>>())
            .unwrap();
        let line = run.logged("epoch")[1].to_string();
        assert!(line.len() < 40_000 && line.contains("classes_compressed"), "{} bytes", line.len());
        let (_, found) = run.read_rows().unwrap();
        assert_eq!(found.len(), 1100);
        assert_eq!(found[..100], few);
        assert_eq!(found[1099], ClassRow { epoch: 1, ..many[999].clone() });
    }

    /// Rows of an earlier version lack the worst tenth: the column is there if any row has it, and only then.
    #[test]
    fn the_worst_tenth_is_a_column_where_it_was_measured() {
        let with = |epoch, tenth| MetricsRow { val_robust_worst_tenth: tenth, ..row(epoch) };
        for rows in [
            vec![with(0, None), with(1, None)],
            vec![with(0, Some(0.125)), with(1, Some(1.0 / 3.0))],
            vec![with(0, None), with(1, Some(0.25))],
            vec![with(0, Some(0.25)), with(1, None)],
        ] {
            let table = metrics_to_csv(&rows).unwrap();
            let measured = rows.iter().any(|row| row.val_robust_worst_tenth.is_some());
            let text = String::from_utf8(table.clone()).unwrap();
            assert_eq!(text.contains("val_robust_worst_tenth"), measured, "{text}");
            let found = read_metrics(&table);
            assert_eq!((found.rows, found.damage), (rows, None));
        }
    }
}
