//! How confusion counts are stored as JSON: every count for few classes, compressed for many.

use serde::{Deserialize, Serialize};

use super::Confusion;
use crate::{memory, packed};

/// More classes than this have files that do not grow with the square of their number: confusion counts are compressed,
/// and figures and tables for people show some classes instead of all. It is beyond CIFAR-100, and a table of these
/// counts is 131 kB as `.npy`.
pub const DENSE_CLASSES: usize = 128;

/// `{"classes": K, "counts": [...]}` up to [`DENSE_CLASSES`] classes, otherwise `{"classes": K, "compressed": "..."}`: in
/// base64 the zlib stream ([`packed`]) of `K × K` 64-bit integers, little-endian, a row for each true class. In Python:
/// `numpy.frombuffer(zlib.decompress(base64.b64decode(text)), "<u8").reshape(K, K)`.
#[derive(Serialize, Deserialize)]
struct Stored {
    classes: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counts: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compressed: Option<String>,
}

impl Serialize for Confusion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let classes = self.classes();
        let stored = if classes <= DENSE_CLASSES {
            Stored { classes, counts: Some(self.counts().to_vec()), compressed: None }
        } else {
            let compressed = packed::pack_words(self.counts().iter().copied()).map_err(serde::ser::Error::custom)?;
            Stored { classes, counts: None, compressed: Some(compressed) }
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Confusion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let Stored { classes, counts, compressed } = Stored::deserialize(deserializer)?;
        let counts = match (counts, compressed) {
            (Some(counts), None) => counts,
            (None, Some(text)) => expand(classes, &text).map_err(D::Error::custom)?,
            _ => return Err(D::Error::custom("expected either 'counts' or 'compressed'")),
        };
        Ok(Self::of(classes, counts))
    }
}

fn expand(classes: usize, text: &str) -> Result<Vec<u64>, String> {
    let cells = (classes as u128).saturating_pow(2);
    let needed = cells.saturating_mul(8);
    memory::check(needed, || format!("counts of {classes} classes need"), "use another copy of the file")
        .map_err(|error| error.to_string())?;
    packed::unpack_words(text, cells as u64).map_err(|what| format!("the counts of {classes} classes: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(classes: usize) -> Confusion {
        let mut found = Confusion::new(classes);
        for i in 0..5 * classes {
            found.add((i % classes) as u32, (i * i % classes) as u32);
        }
        found
    }

    #[test]
    fn few_classes_are_stored_as_numbers_and_many_compressed() {
        let text = serde_json::to_string(&counts(2)).unwrap();
        assert_eq!(text, r#"{"classes":2,"counts":[5,0,0,5]}"#);
        for classes in [1, 2, 100, DENSE_CLASSES, DENSE_CLASSES + 1, 1000] {
            let found = counts(classes);
            let text = serde_json::to_string(&found).unwrap();
            assert_eq!(text.contains("compressed"), classes > DENSE_CLASSES, "{classes} classes");
            assert_eq!(serde_json::from_str::<Confusion>(&text).unwrap(), found, "{classes} classes");
        }
        let text = serde_json::to_string(&counts(1000)).unwrap();
        assert!(text.len() < 60_000, "{} bytes", text.len());
        // A million different counts are the worst case.
        let full = Confusion::from_counts((0..250_000).map(|i| i * 7919 % 1009).collect()).unwrap();
        let text = serde_json::to_string(&full).unwrap();
        assert!(text.len() < 4 * 250_000, "{} bytes", text.len());
        assert_eq!(serde_json::from_str::<Confusion>(&text).unwrap(), full);
    }

    /// Files of earlier versions hold every count, whatever the number of classes.
    #[test]
    fn files_of_earlier_versions_hold_every_count() {
        let old = |found: &Confusion| serde_json::json!({ "classes": found.classes(), "counts": found.counts() });
        for classes in [2, 200] {
            let found = counts(classes);
            assert_eq!(serde_json::from_value::<Confusion>(old(&found)).unwrap(), found);
        }
    }

    #[test]
    fn damaged_counts_are_refused_before_they_are_allocated() {
        let text = |classes: u64, counts: &str| format!(r#"{{"classes":{classes},"compressed":"{counts}"}}"#);
        let whole = packed::pack_words(std::iter::repeat_n(1, 200 * 200)).unwrap();
        for (json, expected) in [
            (text(200, "?"), "the counts of 200 classes: not base64"),
            (text(201, &whole), "expected 40401 numbers of 8 bytes, found 320000 bytes"),
            (text(199, &whole), "holds more than 316808 bytes"),
            (text(u64::MAX, &whole), "need at least"),
            (r#"{"classes":2}"#.into(), "either 'counts' or 'compressed'"),
        ] {
            let error = serde_json::from_str::<Confusion>(&json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json:.60}: {error}");
        }
    }
}
