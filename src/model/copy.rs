//! Copies of checkpoint files in which a few arrays are replaced.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, View};

use super::checksum;
use super::state::{Array, ModelError, State};
use crate::files::{self, write_atomic};

impl State {
    /// Copies the safetensors file `source` to `path`, atomically, with the values of these arrays and with `metadata`
    /// as the metadata of this program, with a new checksum. Everything else is copied, also what [`State::load`] skips: counters of batches
    /// and the metadata of other programs.
    ///
    /// # Errors
    /// [`ModelError::File`] if a file cannot be read or written. [`ModelError::Format`] if `source` is not a safetensors
    /// file, is damaged, or does not hold each of these arrays as `f32` and in the same shape.
    pub fn save_into_copy(
        &self,
        source: &Path,
        path: &Path,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), ModelError> {
        let fail = |what: String| ModelError::Format { path: source.into(), what };
        let bytes = files::read(source)?;
        let unreadable = |error| fail(format!("not a whole safetensors file ({error}); found {} bytes", bytes.len()));
        let file = SafeTensors::deserialize(&bytes).map_err(unreadable)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
        checksum::verify(&file, &checksum::metadata(&header).map_err(fail)?).map_err(fail)?;
        for (name, array) in &self.0 {
            match file.tensor(name) {
                Ok(found) if found.dtype() == Dtype::F32 && found.shape() == array.shape => {}
                Ok(found) => {
                    let (dtype, shape) = (found.dtype(), found.shape());
                    return Err(fail(format!("'{name}' is {dtype:?} {shape:?}, expected F32 {:?}", array.shape)));
                }
                Err(_) => return Err(fail(format!("'{name}' is missing"))),
            }
        }
        let mut texts = header.metadata().clone().unwrap_or_default();
        let arrays = file.tensors().into_iter().map(|(name, found)| {
            let (dtype, shape) = (found.dtype(), found.shape().to_vec());
            let data = match self.0.get(&name) {
                Some(Array { data, .. }) => Cow::Owned(data.iter().flat_map(|value| value.to_le_bytes()).collect()),
                None => Cow::Borrowed(found.data()),
            };
            (name, Bytes { dtype, shape, data })
        });
        let arrays: BTreeMap<String, Bytes<'_>> = arrays.collect();
        checksum::seal(&mut texts, metadata, arrays.iter().map(|(name, array)| (name.as_str(), array)))
            .map_err(|error| fail(error.to_string()))?;
        let copy = safetensors::serialize(arrays, Some(texts)).map_err(|error| fail(error.to_string()))?;
        Ok(write_atomic(path, &copy)?)
    }
}

/// An array of any type as it is stored in a file.
struct Bytes<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Cow<'a, [u8]>,
}

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::SHA256;
    use super::*;

    fn array(values: &[f32]) -> Array {
        Array { shape: vec![values.len()], data: values.to_vec() }
    }

    #[test]
    fn a_copy_of_an_own_file_is_the_file_that_save_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (source, copy, saved) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
        let metadata: BTreeMap<_, _> = [("experiment", "x"), ("epoch", "3")].map(|(k, v)| (k.into(), v.into())).into();
        let old = State([("a".into(), array(&[1.0, 2.0])), ("b".into(), array(&[f32::MIN_POSITIVE, -0.0]))].into());
        old.save(&source, &metadata).unwrap();
        State::default().save_into_copy(&source, &copy, &metadata).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(&source).unwrap());
        let a = array(&[5.0, 6.0]);
        State([("a".into(), a.clone())].into()).save_into_copy(&source, &copy, &metadata).unwrap();
        State([("a".into(), a), ("b".into(), old.0["b"].clone())].into()).save(&saved, &metadata).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(&saved).unwrap());
        let (found, mut facts) = State::load(&source).unwrap();
        let sum = facts.remove(SHA256).unwrap();
        assert_eq!((found, &facts), (old, &metadata));
        // The checksum that an old file records is never that of the copy.
        facts.insert(SHA256.into(), sum.clone());
        let b = State([("b".into(), array(&[5.0, 6.0]))].into());
        b.save_into_copy(&source, &copy, &facts).unwrap();
        assert_ne!(State::load(&copy).unwrap().1[SHA256], sum);
        let mut damaged = std::fs::read(&source).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&source, damaged).unwrap();
        let error = b.save_into_copy(&source, &copy, &metadata).unwrap_err().to_string();
        assert!(error.contains("the file is damaged"), "{error}");
    }

    #[test]
    fn what_other_programs_wrote_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (source, copy) = (dir.path().join("a"), dir.path().join("b"));
        let counter = Bytes { dtype: Dtype::I64, shape: vec![], data: Cow::Owned(7i64.to_le_bytes().to_vec()) };
        let weight =
            |value: f32| Bytes { dtype: Dtype::F32, shape: vec![1], data: value.to_le_bytes().to_vec().into() };
        let header = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let foreign =
            [("module.bn.num_batches_tracked", counter), ("module.a", weight(1.0)), ("module.b", weight(2.0))];
        std::fs::write(&source, safetensors::serialize(foreign, Some(header)).unwrap()).unwrap();

        let metadata = BTreeMap::from([("post".to_owned(), "x".to_owned())]);
        let state = State([("module.a".into(), array(&[4.0]))].into());
        state.save_into_copy(&source, &copy, &metadata).unwrap();
        let bytes = std::fs::read(&copy).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("module.bn.num_batches_tracked").unwrap().data(), 7i64.to_le_bytes());
        assert_eq!(file.tensor("module.a").unwrap().data(), 4f32.to_le_bytes());
        assert_eq!(file.tensor("module.b").unwrap().data(), 2f32.to_le_bytes());
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        assert_eq!(State::load(&copy).unwrap().1["post"], "x");

        let refused = |state: State| state.save_into_copy(&source, &copy, &metadata).unwrap_err().to_string();
        assert!(refused(State([("a".into(), array(&[1.0]))].into())).contains("'a' is missing"));
        let message = refused(State([("module.a".into(), array(&[1.0, 2.0]))].into()));
        assert!(message.contains("'module.a' is F32 [1], expected F32 [2]"), "{message}");
        assert_eq!(std::fs::read(&copy).unwrap(), bytes);
        std::fs::write(&source, b"text").unwrap();
        assert!(refused(State::default()).contains("not a whole safetensors file"));
    }
}
