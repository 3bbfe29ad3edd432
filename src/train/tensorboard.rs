//! Scalars for TensorBoard: `events.out.tfevents.*` files of a run directory.
//!
//! A record is `length: u64 | masked CRC of length: u32 | data | masked CRC of data: u32`, all little-endian, with
//! CRC-32C and `masked = rotate_right(crc, 15) + 0xa282ead8` (TensorFlow, `lib/io/record_writer.h`). The data is a
//! protocol buffer `Event` (`core/util/event.proto`):
//!
//! ```text
//! Event      { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log = 7 }
//! Summary    { repeated Value value = 1 }   Value { string tag = 1; float simple_value = 2 }
//! SessionLog { SessionStatus status = 1 }   SessionStatus { START = 1 }
//! ```
//!
//! Each start or resume of a run writes its own file. Its session log makes TensorBoard discard the records of an
//! interrupted earlier session from the resumed step on. If a crash truncates a record, the reader stops there and
//! still reads all earlier records and the other files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{ClassRow, MetricsRow};
use crate::fairness::DENSE_CLASSES;
use crate::files::FileError;

/// An event file that is being written.
#[derive(Debug)]
pub struct EventWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl EventWriter {
    /// Creates a new event file in `dir`, and `dir` if it does not exist. `first_step` is the first step that will be
    /// written: 0 for a new run, the first repeated epoch for a resumed one.
    ///
    /// # Errors
    /// Whatever the operating system refuses, with the file.
    pub fn create(dir: &Path, first_step: u64) -> Result<Self, FileError> {
        let now = since_epoch();
        let created = fs::create_dir_all(dir).and_then(|()| create_new(dir, now.as_secs()));
        let (file, path) = created.map_err(FileError::writing(dir))?;
        let mut writer = Self { file: BufWriter::new(file), path };
        let mut version = event(now, 0);
        put_bytes(&mut version, 3, b"brain.Event:2");
        writer.record(&version)?;
        let mut start = event(now, first_step);
        put_bytes(&mut start, 7, &[0x08, 0x01]);
        writer.record(&start)?;
        writer.flush()?;
        Ok(writer)
    }

    /// The file that is being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes scalars of one step.
    ///
    /// # Errors
    /// Whatever the operating system refuses, with the file.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), FileError> {
        let mut summary = Vec::new();
        for &(tag, value) in values {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            put_key(&mut entry, 2, FIXED_32);
            entry.extend((value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        let mut data = event(since_epoch(), step);
        put_bytes(&mut data, 5, &summary);
        self.record(&data)
    }

    /// Writes one scalar.
    ///
    /// # Errors
    /// Whatever the operating system refuses, with the file.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<(), FileError> {
        self.scalars(step, &[(tag, value)])
    }

    /// Writes an epoch's rows: the run's scalars, then those of each class as `class_MEASURE/NAME`, or beyond
    /// [`DENSE_CLASSES`] classes their lowest value, median and highest value. Then flushes.
    ///
    /// # Errors
    /// Whatever the operating system refuses, with the file.
    pub fn epoch(&mut self, row: &MetricsRow, classes: &[ClassRow]) -> Result<(), FileError> {
        let step = u64::from(row.epoch);
        let mut values = vec![
            ("train/learning_rate", row.lr),
            ("train/loss", row.train_loss),
            ("train/robust_accuracy", row.train_robust_accuracy),
            ("validation/clean_accuracy", row.val_clean_accuracy),
            ("validation/clean_worst_class", row.val_clean_worst),
            ("validation/robust_accuracy", row.val_robust_accuracy),
            ("validation/robust_worst_class", row.val_robust_worst),
            ("time/seconds_per_epoch", row.seconds),
        ];
        if let Some(accuracy) = row.train_clean_accuracy {
            values.push(("train/clean_accuracy", accuracy));
        }
        values.extend(row.val_robust_worst_tenth.map(|accuracy| ("validation/robust_worst_tenth", accuracy)));
        self.scalars(step, &values)?;
        let classes: Vec<&ClassRow> = classes.iter().filter(|class| class.epoch == row.epoch).collect();
        if classes.len() > DENSE_CLASSES {
            self.quantiles(step, &classes)?;
            return self.flush();
        }
        for class in classes {
            let values = class_values(class);
            // Measure first, then class: TensorBoard groups charts by the part before the first slash.
            let tag = |(measure, value)| (format!("class_{measure}/{}", class.name), value);
            let tags: Vec<(String, f64)> = values.into_iter().map(tag).collect();
            let values: Vec<(&str, f64)> = tags.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
            self.scalars(step, &values)?;
        }
        self.flush()
    }

    /// Writes the lowest value, the median and the highest value of each measure over these classes, as
    /// `class_MEASURE/lowest` and so on: TensorBoard cannot show thousands of curves.
    fn quantiles(&mut self, step: u64, classes: &[&ClassRow]) -> Result<(), FileError> {
        let mut measures: Vec<(&str, Vec<f64>)> = Vec::new();
        for (name, value) in classes.iter().flat_map(|class| class_values(class)) {
            match measures.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => measures.push((name, vec![value])),
            }
        }
        for (name, mut values) in measures {
            values.sort_by(f64::total_cmp);
            let places = [("lowest", 0), ("median", values.len() / 2), ("highest", values.len() - 1)];
            for (place, at) in places {
                self.scalar(step, &format!("class_{name}/{place}"), values[at])?;
            }
        }
        Ok(())
    }

    /// Flushes the buffer to the operating system, so that TensorBoard sees the records.
    ///
    /// # Errors
    /// Whatever the operating system refuses, with the file.
    pub fn flush(&mut self) -> Result<(), FileError> {
        self.file.flush().map_err(FileError::writing(&self.path))
    }

    fn record(&mut self, data: &[u8]) -> Result<(), FileError> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        for part in [&length[..], &masked(crc32c(&length)).to_le_bytes(), data, &masked(crc32c(data)).to_le_bytes()] {
            record.extend_from_slice(part);
        }
        self.file.write_all(&record).map_err(FileError::writing(&self.path))
    }
}

/// The measures of a class.
fn class_values(class: &ClassRow) -> Vec<(&str, f64)> {
    let mut values = vec![
        ("epsilon", class.epsilon),
        ("cfps", class.cfps),
        ("train_robust_accuracy", class.train_robust_accuracy),
        ("validation_clean_accuracy", class.val_clean_accuracy),
        ("validation_robust_accuracy", class.val_robust_accuracy),
    ];
    values.extend(class.target_probability.map(|probability| ("target_probability", probability)));
    values.extend(class.series.iter().map(|(name, value)| (name.as_str(), *value)));
    values
}

/// Creates a file under a name that no earlier session used: seconds alone are too coarse for a run that is resumed at
/// once. TensorBoard reads files in the order of their names, so the serial number follows the time.
fn create_new(dir: &Path, seconds: u64) -> io::Result<(File, PathBuf)> {
    let mut number = 0;
    loop {
        let path = dir.join(format!("events.out.tfevents.{seconds:010}.fairtat.{number:04}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

// Protocol buffer wire types.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

/// An `Event` with its time and step.
fn event(time: Duration, step: u64) -> Vec<u8> {
    let mut data = Vec::new();
    put_key(&mut data, 1, FIXED_64);
    data.extend(time.as_secs_f64().to_le_bytes());
    put_key(&mut data, 2, VARINT);
    put_varint(&mut data, step);
    data
}

fn put_key(data: &mut Vec<u8>, field: u8, wire_type: u8) {
    data.push(field << 3 | wire_type);
}

fn put_varint(data: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        data.push(value as u8 | 0x80);
        value >>= 7;
    }
    data.push(value as u8);
}

fn put_bytes(data: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_key(data, field, LENGTH_DELIMITED);
    put_varint(data, bytes.len() as u64);
    data.extend(bytes);
}

/// CRC-32C (Castagnoli, polynomial 0x1edc6f41, reflected).
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// TensorFlow's masked CRC: rotated and offset, because a CRC of data that contains CRCs would be weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::write(&taken, "").unwrap();
        let error = EventWriter::create(&taken, 0).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}: {}", taken.display(), error.cause()));
        #[cfg(target_os = "linux")]
        {
            let file = BufWriter::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
            let mut writer = EventWriter { file, path: "run/events".into() };
            let error = writer.scalar(0, "loss", 1.0).and_then(|()| writer.flush()).unwrap_err();
            assert!(error.to_string().starts_with("cannot write run/events: "), "{error}");
        }
    }

    /// One field of a message: number and content, for the wire types used here.
    #[derive(Debug, PartialEq)]
    enum Field<'a> {
        Varint(u64),
        Fixed64([u8; 8]),
        Bytes(&'a [u8]),
        Fixed32([u8; 4]),
    }

    fn varint(data: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn fields(mut data: &[u8]) -> Vec<(u64, Field<'_>)> {
        let mut fields = Vec::new();
        while !data.is_empty() {
            let key = varint(&mut data);
            let mut take = |count: usize| {
                let (head, tail) = data.split_at(count);
                data = tail;
                head
            };
            let field = match key & 7 {
                1 => Field::Fixed64(take(8).try_into().unwrap()),
                5 => Field::Fixed32(take(4).try_into().unwrap()),
                2 => {
                    let length = varint(&mut data);
                    let (head, tail) = data.split_at(length as usize);
                    data = tail;
                    Field::Bytes(head)
                }
                _ => Field::Varint(varint(&mut data)),
            };
            fields.push((key >> 3, field));
        }
        fields
    }

    fn records(mut data: &[u8]) -> Vec<&[u8]> {
        let mut records = Vec::new();
        while !data.is_empty() {
            let length = u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
            assert_eq!(u32::from_le_bytes(data[8..12].try_into().unwrap()), masked(crc32c(&data[..8])));
            let body = &data[12..12 + length];
            let crc = u32::from_le_bytes(data[12 + length..16 + length].try_into().unwrap());
            assert_eq!(crc, masked(crc32c(body)));
            records.push(body);
            data = &data[16 + length..];
        }
        records
    }

    #[test]
    fn crc_has_the_published_values() {
        // RFC 3720, B.4, and the check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn a_file_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&dir.path().join("events"), 300).unwrap();
        writer.scalars(300, &[("accuracy/robust", 0.25), ("loss", f64::NAN)]).unwrap();
        writer.flush().unwrap();
        let bytes = fs::read(writer.path()).unwrap();
        let records = records(&bytes);
        assert_eq!(records.len(), 3);

        let version = fields(records[0]);
        assert!(version.contains(&(3, Field::Bytes(b"brain.Event:2"))));
        let Field::Fixed64(time) = version[0].1 else { panic!("{version:?}") };
        assert!(f64::from_le_bytes(time) > 1.6e9);

        let start = fields(records[1]);
        assert_eq!(start[1..], [(2, Field::Varint(300)), (7, Field::Bytes(&[8, 1]))]);

        let event = fields(records[2]);
        assert_eq!(event[1], (2, Field::Varint(300)));
        let (5, Field::Bytes(summary)) = event[2] else { panic!("{event:?}") };
        let values: Vec<_> = fields(summary)
            .into_iter()
            .map(|(number, field)| {
                let (1, Field::Bytes(value)) = (number, field) else { panic!("not a value") };
                fields(value)
            })
            .collect();
        assert_eq!(values[0], [(1, Field::Bytes(b"accuracy/robust")), (2, Field::Fixed32(0.25f32.to_le_bytes()))]);
        let (2, Field::Fixed32(bits)) = values[1][1] else { panic!("{values:?}") };
        assert!(f32::from_le_bytes(bits).is_nan());
    }

    /// TensorBoard gets three curves of each measure instead of one for each of many classes.
    #[test]
    fn many_classes_are_summarised() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 0).unwrap();
        let class = |class: u32| ClassRow {
            epoch: 0,
            class,
            name: format!("class {class}"),
            epsilon: f64::from(class),
            target_probability: None,
            cfps: 0.0,
            train_robust_accuracy: 0.0,
            train_clean_accuracy: None,
            val_clean_accuracy: 0.0,
            val_robust_accuracy: 0.0,
            series: vec![("weight".into(), 1.0)],
        };
        let rows: Vec<ClassRow> = (0..1001).map(class).collect();
        writer.quantiles(0, &rows.iter().collect::<Vec<_>>()).unwrap();
        writer.flush().unwrap();
        let bytes = fs::read(writer.path()).unwrap();
        assert!(bytes.len() < 3_000, "{} bytes", bytes.len());
        for (place, value) in [("lowest", 0.0f32), ("median", 500.0), ("highest", 1000.0)] {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, format!("class_epsilon/{place}").as_bytes());
            put_key(&mut entry, 2, FIXED_32);
            entry.extend(value.to_le_bytes());
            assert!(bytes.windows(entry.len()).any(|part| part == entry), "{place}");
        }
        assert!(bytes.windows(19).any(|part| part == b"class_weight/median"));
    }

    #[test]
    fn a_resumed_run_gets_a_later_file() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> =
            (0..3).map(|step| EventWriter::create(dir.path(), step).unwrap().path().to_owned()).collect();
        let mut sorted = names.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn an_epoch_writes_its_classes_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let row = MetricsRow {
            epoch: 2,
            lr: 0.1,
            train_loss: 1.5,
            train_clean_accuracy: None,
            train_robust_accuracy: 0.4,
            val_clean_accuracy: 0.8,
            val_clean_worst: 0.6,
            val_robust_accuracy: 0.3,
            val_robust_worst: 0.1,
            seconds: 9.0,
            seconds_attack: 8.0,
            seconds_update: 0.5,
            seconds_statistics: 0.1,
            val_attack: String::new(),
            val_without_gradient: None,
            method: String::new(),
            val_robust_worst_tenth: None,
        };
        let class = |epoch, name: &str| ClassRow {
            epoch,
            class: 0,
            name: name.to_owned(),
            epsilon: 0.03,
            target_probability: Some(0.1),
            cfps: 0.1,
            train_robust_accuracy: 0.4,
            train_clean_accuracy: None,
            val_clean_accuracy: 0.8,
            val_robust_accuracy: 0.3,
            series: vec![("beta".into(), 0.7)],
        };
        let mut writer = EventWriter::create(dir.path(), 0).unwrap();
        writer.epoch(&row, &[class(1, "old"), class(2, "猫")]).unwrap();
        let bytes = fs::read(writer.path()).unwrap();
        let contains = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert_eq!(records(&bytes).len(), 4);
        assert!(contains("validation/robust_worst_class") && contains("class_cfps/猫"));
        assert!(!contains("/old") && !contains("train/clean_accuracy"));
    }
}
