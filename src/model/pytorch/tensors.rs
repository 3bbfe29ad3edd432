//! Arrays as they lie in a file: storage, offset and strides, and their conversion to `f32`.

use std::ops::Range;

use super::pickle::{Id, Pickle, Value, printable};

/// Type of the numbers in a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// `f32`.
    F32,
    /// `f64`.
    F64,
    /// Anything else, with its size in bytes and its name.
    Other(usize, &'static str),
}

impl Dtype {
    /// The class of a storage in `torch`.
    fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            "LongStorage" => Self::Other(8, "int64"),
            "IntStorage" => Self::Other(4, "int32"),
            "ShortStorage" => Self::Other(2, "int16"),
            "CharStorage" => Self::Other(1, "int8"),
            "ByteStorage" => Self::Other(1, "uint8"),
            "BoolStorage" => Self::Other(1, "bool"),
            "ComplexFloatStorage" => Self::Other(8, "complex64"),
            "ComplexDoubleStorage" => Self::Other(16, "complex128"),
            "QInt8Storage" => Self::Other(1, "qint8"),
            "QUInt8Storage" => Self::Other(1, "quint8"),
            "QInt32Storage" => Self::Other(4, "qint32"),
            _ => return None,
        })
    }

    /// Bytes of one number.
    pub(super) const fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(size, _) => size,
        }
    }

    /// One number from [`Self::size`] bytes; `None` if it is not a floating point number.
    fn value(self, bytes: &[u8]) -> Option<f32> {
        match self {
            Self::F16 => bytes.first_chunk().map(|b| half(u16::from_le_bytes(*b))),
            Self::BF16 => bytes.first_chunk().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)),
            Self::F32 => bytes.first_chunk().map(|b| f32::from_le_bytes(*b)),
            Self::F64 => bytes.first_chunk().map(|b| f64::from_le_bytes(*b) as f32),
            Self::Other(..) => None,
        }
    }
}

/// IEEE 754 half precision, exactly.
fn half(bits: u16) -> f32 {
    let (sign, exponent, mantissa) = (u32::from(bits >> 15) << 31, (bits >> 10) & 0x1f, u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Subnormal: mantissa · 2^-24.
        0 => (mantissa as f32 / 16_777_216.0).to_bits(),
        31 => 0x7f80_0000 | (mantissa << 13),
        _ => ((u32::from(exponent) + 112) << 23) | (mantissa << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// Bytes of the file with the numbers of one or several arrays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// Where in the file.
    pub(super) range: Range<usize>,
    /// CRC-32 of these bytes, if the file records it.
    pub(super) crc: Option<u32>,
}

/// An array in a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    /// Type of its numbers.
    pub(super) dtype: Dtype,
    /// Its dimensions.
    pub(super) shape: Vec<usize>,
    /// Distance of neighbours in each dimension, in numbers.
    pub(super) strides: Vec<usize>,
    /// The first number in the storage.
    pub(super) offset: usize,
    /// Its numbers.
    pub(super) storage: Storage,
}

impl Tensor {
    /// How many numbers it has. `None` if the file claims more than can be counted.
    pub(super) fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))
    }

    /// Checks that all its numbers lie in its storage.
    ///
    /// # Errors
    /// Returns the numbers that it needs and those that there are.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.shape.len() != self.strides.len() {
            return Err(format!("has {} dimensions, but {} strides", self.shape.len(), self.strides.len()));
        }
        let stored = self.storage.range.len() / self.dtype.size();
        let length = self.len().ok_or_else(|| format!("claims the shape {:?}", self.shape))?;
        if length == 0 {
            return Ok(());
        }
        let last = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |last, (size, stride)| last.checked_add((size - 1).checked_mul(*stride)?));
        match last {
            Some(last) if last < stored => Ok(()),
            _ => Err(format!(
                "of shape {:?} with strides {:?} from number {} on does not lie within its storage of {stored} numbers",
                self.shape, self.strides, self.offset
            )),
        }
    }

    /// Its numbers in row-major order. Allocates as much as the shape says, which the caller has compared with what it
    /// expects.
    ///
    /// # Errors
    /// Returns the type if the numbers are not floating point, and as [`Self::check`].
    pub(super) fn values(&self, file: &[u8]) -> Result<Vec<f32>, String> {
        self.check()?;
        if let Dtype::Other(_, name) = self.dtype {
            return Err(format!("holds {name}, expected a floating point type"));
        }
        let (size, bytes) = (self.dtype.size(), file.get(self.storage.range.clone()).unwrap_or_default());
        let number = |at: usize| bytes.get(at * size..).and_then(|bytes| self.dtype.value(bytes)).unwrap_or(f32::NAN);
        let length = self.len().unwrap_or(0);
        let mut values = Vec::with_capacity(length);
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        while values.len() < length {
            values.push(number(at));
            // The next index in row-major order: the last dimension first.
            for dimension in (0..index.len()).rev() {
                index[dimension] += 1;
                at += self.strides[dimension];
                if index[dimension] < self.shape[dimension] {
                    break;
                }
                at -= self.strides[dimension] * self.shape[dimension];
                index[dimension] = 0;
            }
        }
        Ok(values)
    }
}

/// Strides of an array without gaps, in row-major order.
pub(super) fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension].saturating_mul(shape[dimension]);
    }
    strides
}

/// Finds the storage with a name.
pub(super) type Storages<'s> = dyn Fn(&str) -> Option<Storage> + 's;

/// Functions that rebuild a tensor or a parameter.
const REBUILD: [(&str, &str); 6] = [
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch._tensor", "_rebuild_from_type_v2"),
];

/// Whether a value is a tensor.
pub(super) fn is_tensor(pickle: &Pickle<'_>, id: Id) -> bool {
    pickle.call(id).is_some_and(|(function, _)| REBUILD.contains(&function))
}

/// The tensor that a value describes.
///
/// # Errors
/// Returns what is wrong with it, to be put after its name.
pub(super) fn tensor(pickle: &Pickle<'_>, mut id: Id, storages: &Storages<'_>) -> Result<Tensor, String> {
    // A parameter of a subclass is a tensor in two wrappings.
    for _ in 0..4 {
        let Some(((_, function), arguments)) = pickle.call(id) else { break };
        match (function, arguments) {
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => id = *data,
            // function, type, arguments, state
            ("_rebuild_from_type_v2", [inner, _, arguments, ..]) => {
                let (Some((_, name)), Some(arguments)) = (pickle.class(*inner), pickle.tuple(*arguments)) else {
                    break;
                };
                match (name, arguments) {
                    ("_rebuild_tensor" | "_rebuild_tensor_v2", _) => return rebuild(pickle, arguments, storages),
                    ("_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => id = *data,
                    _ => break,
                }
            }
            ("_rebuild_tensor" | "_rebuild_tensor_v2", _) => return rebuild(pickle, arguments, storages),
            ("_rebuild_tensor_v3", [.., dtype, _metadata]) => {
                let name = pickle.class(*dtype).map_or("of an unknown type", |(_, name)| name);
                return Err(format!("holds {name}, expected float16, bfloat16, float32 or float64"));
            }
            _ => break,
        }
    }
    Err("is built in an unknown way; save the model's state_dict() with torch.save".into())
}

/// `torch._utils._rebuild_tensor(storage, offset, size, stride, …)`.
fn rebuild(pickle: &Pickle<'_>, arguments: &[Id], storages: &Storages<'_>) -> Result<Tensor, String> {
    let damaged = |what: &str| format!("is damaged: its {what} cannot be read");
    let [external, offset, size, stride, ..] = *arguments else { return Err(damaged("description")) };
    let counts = |id: Id| pickle.tuple(id)?.iter().map(|id| pickle.count(*id)).collect::<Option<Vec<usize>>>();
    let (dtype, key, view) = storage_of(pickle, external)?;
    let storage = storages(key).ok_or_else(|| {
        format!("refers to storage '{}', which the file does not have; fetch the file again", printable(key))
    })?;
    let offset = pickle.count(offset).and_then(|offset| offset.checked_add(view)).ok_or_else(|| damaged("offset"))?;
    let shape = counts(size).ok_or_else(|| damaged("shape"))?;
    let strides = counts(stride).ok_or_else(|| damaged("stride"))?;
    Ok(Tensor { dtype, shape, strides, offset, storage })
}

/// Type and name of a storage from `('storage', class, key, device, numel[, view])`, and the offset of a view
/// `(key, offset, numel)`, which PyTorch wrote before version 0.4.
pub(super) fn storage_of<'a>(pickle: &Pickle<'a>, external: Id) -> Result<(Dtype, &'a str, usize), String> {
    let damaged = || "is damaged: its storage cannot be read".to_owned();
    let Value::External(description) = pickle.get(external) else { return Err(damaged()) };
    let [tag, class, key, _, _, rest @ ..] = pickle.tuple(*description).ok_or_else(damaged)? else {
        return Err(damaged());
    };
    if pickle.text(*tag) != Some("storage") {
        return Err(damaged());
    }
    let (_, class) = pickle.class(*class).ok_or_else(damaged)?;
    let dtype = Dtype::of_storage(class).ok_or_else(|| format!("holds a {}", printable(class)))?;
    let view = match rest.first().and_then(|view| pickle.tuple(*view)) {
        Some([_, offset, ..]) => pickle.count(*offset).ok_or_else(damaged)?,
        _ => 0,
    };
    Ok((dtype, pickle.text(*key).ok_or_else(damaged)?, view))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor as Reference};

    use super::*;

    #[test]
    fn every_half_is_what_candle_reads() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (dtype, candle) in [(Dtype::F16, DType::F16), (Dtype::BF16, DType::BF16)] {
            let reference = Reference::from_raw_buffer(&bytes, candle, &[65536], &Device::Cpu).unwrap();
            let reference: Vec<f32> = reference.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
            for (bits, expected) in (0..=u16::MAX).zip(reference) {
                let found = dtype.value(&bits.to_le_bytes()).unwrap();
                assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#x}");
            }
        }
        assert_eq!(Dtype::F64.value(&1e300f64.to_le_bytes()), Some(f32::INFINITY));
    }

    fn tensor(shape: &[usize], strides: &[usize], offset: usize, numbers: usize) -> Tensor {
        let storage = Storage { range: 2..2 + 4 * numbers, crc: None };
        Tensor { dtype: Dtype::F32, shape: shape.to_vec(), strides: strides.to_vec(), offset, storage }
    }

    #[test]
    fn strides_and_offsets() {
        let file: Vec<u8> = [0u8; 2].into_iter().chain((0..12).flat_map(|i| (i as f32).to_le_bytes())).collect();
        let values = |t: Tensor| t.values(&file).unwrap();
        assert_eq!(contiguous(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(values(tensor(&[2, 3], &[3, 1], 0, 12)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(values(tensor(&[3, 2], &[1, 3], 1, 12)), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(values(tensor(&[2, 2, 2], &[1, 6, 2], 0, 12)), [0.0, 2.0, 6.0, 8.0, 1.0, 3.0, 7.0, 9.0]);
        assert_eq!(values(tensor(&[], &[], 11, 12)), [11.0]);
        assert_eq!(values(tensor(&[2, 2], &[0, 1], 0, 12)), [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(values(tensor(&[0, 5], &[5, 1], 0, 0)), [0.0; 0]);
    }

    #[test]
    fn arrays_beyond_their_storage_are_refused() {
        for (shape, strides, offset) in [
            (&[13][..], &[1][..], 0),
            (&[12], &[1], 1),
            (&[2, 2], &[11, 1], 0),
            (&[usize::MAX], &[1], 0),
            (&[usize::MAX, 2], &[1, 1], 0),
            (&[2], &[usize::MAX], 5),
            (&[1], &[1], usize::MAX),
            (&[2], &[1, 1], 0),
        ] {
            assert!(tensor(shape, strides, offset, 12).check().is_err(), "{shape:?} {strides:?} {offset}");
        }
        let error = tensor(&[13], &[1], 0, 12).check().unwrap_err();
        assert!(error.contains("[13]") && error.contains("12 numbers"), "{error}");
    }
}
