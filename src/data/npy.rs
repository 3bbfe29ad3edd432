//! NumPy's `.npy` arrays of integers, and of floats in `[0, 1]` as bytes: header, values, and a writer.
//!
//! `\x93NUMPY`, version, header length (2 bytes in version 1, 4 in versions 2 and 3, little-endian), a Python
//! dictionary with `descr`, `fortran_order` and `shape`, then the values. Source: NumPy Enhancement Proposal 1.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::DataError;
use super::reading::{MAX_PART_BYTES, describe_start, fill, open};

/// What to do with an `.npz` file.
pub(super) const UNPACK: &str = "unpack it, as with `unzip FILE.npz`, into train_images.npy, train_labels.npy, \
                                 test_images.npy and test_labels.npy";

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy rejects longer headers, too.
const MAX_HEADER_BYTES: usize = 10_000;

/// The content of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    /// NumPy's name of the type without the byte order: `u1`, `i8`, `f4`, …
    kind: String,
    big_endian: bool,
    shape: Vec<usize>,
    /// Byte offset of the values.
    offset: u64,
}

impl Header {
    /// Bytes of one value: the digits after the letter, checked by [`parse_header`].
    fn value_bytes(&self) -> usize {
        self.kind[1..].parse().unwrap_or(1)
    }

    /// Number of values of the array; `None` if they exceed [`MAX_PART_BYTES`].
    fn values(&self) -> Option<u64> {
        // An empty axis must not hide that the others are too large.
        let product =
            |least: usize| self.shape.iter().try_fold(1u64, |n, size| n.checked_mul((*size).max(least) as u64));
        let bytes = product(1)?.checked_mul(self.value_bytes() as u64)?;
        product(0).filter(|_| bytes <= MAX_PART_BYTES)
    }

    /// Values of non-negative integers from their little-endian bytes.
    fn to_u64(&self, path: &Path, bytes: &[u8]) -> Result<Vec<u64>, DataError> {
        let width = self.value_bytes();
        let signed = self.kind.starts_with('i');
        bytes
            .chunks_exact(width)
            .enumerate()
            .map(|(i, value)| {
                if signed && value[width - 1] & 0x80 != 0 {
                    let byte = self.offset as usize + i * width;
                    let what = format!("value {i} at byte {byte} is negative, expected 0 or more");
                    return Err(DataError::format(path, what));
                }
                Ok(value.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
            })
            .collect()
    }
}

/// An open `.npy` file whose length matches its header.
#[derive(Debug)]
pub(super) struct NpyFile {
    path: PathBuf,
    file: File,
    header: Header,
}

impl NpyFile {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let (mut file, length) = open(path)?;
        let header = read_header(path, &mut file, length)?;
        Ok(Self { path: path.to_path_buf(), file, header })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    pub(super) fn is_u8(&self) -> bool {
        self.header.kind == "u1"
    }

    /// NumPy's name of the type, for messages.
    pub(super) fn kind(&self) -> &str {
        &self.header.kind
    }

    pub(super) fn is_float(&self) -> bool {
        self.header.kind.starts_with('f')
    }

    /// The bytes of the entries `first..first + count` along the first axis, little-endian.
    pub(super) fn read_rows(&mut self, first: usize, count: usize) -> Result<Vec<u8>, DataError> {
        let row_bytes = self.header.shape.iter().skip(1).product::<usize>() * self.header.value_bytes();
        let mut bytes = vec![0; count * row_bytes];
        self.file
            .seek(SeekFrom::Start(self.header.offset + (first * row_bytes) as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(DataError::reading(&self.path))?;
        if self.header.big_endian {
            bytes.chunks_exact_mut(self.header.value_bytes()).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }

    /// The same entries of an array of floats in `[0, 1]`, as bytes: `round(255 · v)`.
    pub(super) fn read_unit_rows(&mut self, first: usize, count: usize) -> Result<Vec<u8>, DataError> {
        /// Rows that are converted at a time: the floats need not all be in memory.
        const ROWS: usize = 256;
        let mut bytes = Vec::new();
        for from in (0..count).step_by(ROWS) {
            let values = self.read_rows(first + from, ROWS.min(count - from))?;
            let narrow = |v: &[u8]| f64::from(f32::from_le_bytes([v[0], v[1], v[2], v[3]]));
            let values: Vec<f64> = match self.header.value_bytes() {
                4 => values.chunks_exact(4).map(narrow).collect(),
                _ => values.as_chunks().0.iter().map(|v| f64::from_le_bytes(*v)).collect(),
            };
            for value in values {
                if !(0.0..=1.0).contains(&value) {
                    return Err(DataError::format(&self.path, not_unit(value)));
                }
                bytes.push((255.0 * value).round() as u8);
            }
        }
        Ok(bytes)
    }

    /// All values of an array of non-negative integers.
    pub(super) fn read_u64(&mut self) -> Result<Vec<u64>, DataError> {
        if self.is_float() {
            let what = format!("type '{}', expected integers; save it with .astype('int64')", self.header.kind);
            return Err(DataError::format(&self.path, what));
        }
        let rows = self.header.shape.first().copied().unwrap_or(0);
        let bytes = self.read_rows(0, rows)?;
        self.header.to_u64(&self.path, &bytes)
    }
}

/// Why a float is not the value of a pixel.
fn not_unit(value: f64) -> String {
    let found = format!("holds {value}, expected floats from 0 to 1 or unsigned bytes");
    let remedy = match value {
        v if v > 1.0 && v <= 255.0 => "if they go to 255, save them with .round().astype('uint8')",
        v if v.is_finite() => {
            "if mean and standard deviation were taken out, multiply and add them first: fairtat does \
                               this itself, see --normalize"
        }
        _ => "remove the images with values that are not finite",
    };
    format!("{found}; {remedy}")
}

/// Reads the header from the start of a stream of `length` bytes and checks it against that length.
fn read_header(path: &Path, stream: &mut impl Read, length: u64) -> Result<Header, DataError> {
    let fail = |what: String| Err(DataError::format(path, what));
    let mut start = [0; 12];
    let found = fill(stream, &mut start[..10]).map_err(DataError::reading(path))?;
    if start.starts_with(b"PK") {
        return fail(format!("is an archive of .npy files (.npz); {UNPACK}"));
    }
    if found < 10 || start[..6] != MAGIC[..] {
        let told = describe_start(&start[..found], stream);
        return fail(format!("expected a .npy file, which starts with 93 4e 55 4d 50 59 (\"\\x93NUMPY\"); {told}"));
    }
    let (prefix, header_bytes) = match start[6] {
        1 => (10, usize::from(u16::from_le_bytes([start[8], start[9]]))),
        2 | 3 => {
            if fill(stream, &mut start[10..]).map_err(DataError::reading(path))? < 2 {
                return fail("ends at byte 10 to 11, within the length of its header".into());
            }
            (12, u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize)
        }
        version => return fail(format!("byte 6: version {version} of the npy format, expected 1, 2 or 3")),
    };
    if header_bytes > MAX_HEADER_BYTES {
        return fail(format!("byte 8: a header of {header_bytes} bytes, expected at most {MAX_HEADER_BYTES}"));
    }
    let mut text = vec![0; header_bytes];
    let found = fill(stream, &mut text).map_err(DataError::reading(path))?;
    if found < header_bytes {
        return fail(format!(
            "ends at byte {}, expected {header_bytes} bytes of header from byte {prefix}",
            prefix + found
        ));
    }
    let header = match std::str::from_utf8(&text).map_err(|_| "is not text".to_owned()).and_then(parse_header) {
        Ok((kind, big_endian, shape)) => Header { kind, big_endian, shape, offset: (prefix + header_bytes) as u64 },
        Err(what) => return fail(format!("header from byte {prefix}: {what}")),
    };
    let Some(values) = header.values() else {
        return fail(format!("the header declares {:?} values, expected at most {MAX_PART_BYTES} bytes", header.shape));
    };
    let (expected, found) = (values * header.value_bytes() as u64, length.saturating_sub(header.offset));
    if expected != found {
        return fail(format!(
            "shape {:?} of {} needs {expected} bytes from byte {}, found {found}",
            header.shape, header.kind, header.offset
        ));
    }
    Ok(header)
}

/// Type, whether it is big-endian, and shape from the dictionary, or a description of what is wrong with it.
fn parse_header(text: &str) -> Result<(String, bool, Vec<usize>), String> {
    let mut rest = text.trim();
    let (mut kind, mut fortran, mut shape) = (None, None, None);
    let syntax = |at: &str| {
        let near: String = at.chars().take(20).collect();
        format!("expected {{'descr': '…', 'fortran_order': …, 'shape': (…)}}, found '{near}'")
    };
    rest = rest.strip_prefix('{').ok_or_else(|| syntax(rest))?.trim_start();
    while !rest.starts_with('}') {
        let (key, after) = quoted(rest).ok_or_else(|| syntax(rest))?;
        let value = after.trim_start().strip_prefix(':').ok_or_else(|| syntax(after))?.trim_start();
        rest = match key {
            "descr" => {
                let (descr, after) = quoted(value).ok_or(
                    "a structured type, expected integers; save the field with the values alone: array['NAME']",
                )?;
                kind = Some(kind_of(descr)?);
                after
            }
            "fortran_order" => {
                let known = [("False", false), ("True", true)];
                let found = known.iter().find_map(|(word, order)| Some((*order, value.strip_prefix(word)?)));
                let (order, after) = found.ok_or_else(|| syntax(value))?;
                fortran = Some(order);
                after
            }
            "shape" => {
                let inner = value.strip_prefix('(').ok_or_else(|| syntax(value))?;
                let (sizes, after) = inner.split_once(')').ok_or_else(|| syntax(value))?;
                let sizes = sizes.split(',').map(|s| s.trim().trim_end_matches('L')).filter(|s| !s.is_empty());
                let sizes: Result<Vec<usize>, _> = sizes.map(str::parse).collect();
                shape = Some(sizes.map_err(|e| format!("shape ({inner}: {e}"))?);
                after
            }
            _ => return Err(format!("unknown key '{key}'")),
        };
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err(syntax(rest)),
        }
    }
    match (kind, fortran, shape) {
        // A scalar has no axis to read along.
        (_, _, Some(shape)) if shape.is_empty() => Err("a single value, expected an array".into()),
        (Some(_), Some(true), Some(_)) => {
            Err("values in Fortran order, expected C order; save it with numpy.ascontiguousarray".into())
        }
        (Some((kind, big_endian)), Some(false), Some(shape)) => Ok((kind, big_endian, shape)),
        _ => Err("expected the keys descr, fortran_order and shape".into()),
    }
}

/// A Python string at the start of `text`, and the rest of `text`.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// The name of a type without its byte order, and whether that is big-endian.
fn kind_of(descr: &str) -> Result<(String, bool), String> {
    let kind = descr.trim_start_matches(['<', '>', '|', '=']);
    let remedy = match kind.chars().next() {
        _ if ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"].contains(&kind) => {
            return Ok((kind.into(), descr.starts_with('>') && !kind.ends_with('1')));
        }
        Some('O') => {
            "an array of Python objects; arrays of equal shape become one array of numbers with numpy.stack(list(array))"
        }
        Some('b') => "save it with .astype('uint8')",
        Some('f') => "save it with .astype('float32')",
        Some('U' | 'S' | 'a') => {
            "an array of texts; names, labels = numpy.unique(array, return_inverse=True) numbers them, and class_names.txt \
             takes the names"
        }
        _ => "save it with .astype('uint8') for images, .astype('int64') for labels",
    };
    Err(format!("type '{descr}', expected integers: 'u1' for images, any of 'u1' to '<i8' for labels; {remedy}"))
}

/// Shape and values of a `.npy` file of non-negative integers.
///
/// # Errors
/// Returns an error if the file is unreadable or of another format or type, if its length does not match the header, or
/// if a value is negative.
pub fn read_npy_u64(path: &Path) -> Result<(Vec<usize>, Vec<u64>), DataError> {
    let mut file = NpyFile::open(path)?;
    let values = file.read_u64()?;
    Ok((file.header.shape, values))
}

/// Shape and values of the bytes of a `.npy` file of non-negative integers, which `path` holds in an archive.
///
/// # Errors
/// As [`read_npy_u64`].
pub(super) fn values_u64(path: &Path, bytes: &[u8]) -> Result<(Vec<usize>, Vec<u64>), DataError> {
    let header = read_header(path, &mut &*bytes, bytes.len() as u64)?;
    if header.kind.starts_with('f') {
        return Err(DataError::format(path, format!("type '{}', expected integers", header.kind)));
    }
    let mut values = bytes.get(header.offset as usize..).unwrap_or_default().to_vec();
    if header.big_endian {
        values.chunks_exact_mut(header.value_bytes()).for_each(<[u8]>::reverse);
    }
    let values = header.to_u64(path, &values)?;
    Ok((header.shape, values))
}

/// The bytes of a `.npy` file (version 1) of unsigned 64-bit integers.
///
/// ```
/// let bytes = fairtat::data::write_npy_u64(&[2, 2], &[5, 0, 1, 4])?;
/// assert_eq!(bytes.len(), 128 + 4 * 8);
/// # Ok::<(), fairtat::data::DataError>(())
/// ```
///
/// # Errors
/// Returns [`DataError::Inconsistent`] if the number of `values` does not match `shape`.
pub fn write_npy_u64(shape: &[usize], values: &[u64]) -> Result<Vec<u8>, DataError> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    write_npy("<u8", 8, shape, &bytes)
}

/// The bytes of a `.npy` file (version 1) of values of numpy's type `descr`, such as `<f4`, each of `size` bytes in
/// little-endian order.
///
/// # Errors
/// Returns [`DataError::Inconsistent`] if the number of bytes does not match `shape`.
pub(crate) fn write_npy(descr: &str, size: usize, shape: &[usize], values: &[u8]) -> Result<Vec<u8>, DataError> {
    if shape.iter().try_fold(size, |n, size| n.checked_mul(*size)) != Some(values.len()) {
        let what = format!("an array of shape {shape:?} cannot be made of {} values", values.len() / size.max(1));
        return Err(DataError::Inconsistent { name: "npy".into(), what });
    }
    let sizes = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    // A Python tuple of one element needs its comma.
    let sizes = if shape.len() == 1 { sizes + "," } else { sizes };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The values start at a multiple of 64 bytes; the header is padded with spaces and ends with a line feed.
    let end = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64);
    header.extend(std::iter::repeat_n(' ', end - MAGIC.len() - 4 - header.len() - 1));
    header.push('\n');
    let mut bytes = Vec::with_capacity(end + values.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(values);
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A version 1 file with the given dictionary and values.
    pub(in super::super) fn npy(dictionary: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((dictionary.len() as u16).to_le_bytes());
        bytes.extend(dictionary.as_bytes());
        bytes.extend(values);
        bytes
    }

    pub(in super::super) fn array(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
        let sizes: String = shape.iter().map(|s| format!("{s},")).collect();
        npy(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}\n"), values)
    }

    fn read(bytes: &[u8]) -> Result<(Vec<usize>, Vec<u64>), DataError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        std::fs::write(&path, bytes).unwrap();
        read_npy_u64(&path)
    }

    #[test]
    fn written_arrays_are_read_back() {
        for (shape, values) in [(vec![2, 3], vec![0, 1, 2, u64::MAX, 4, 5]), (vec![0], vec![]), (vec![1], vec![7])] {
            let bytes = write_npy_u64(&shape, &values).unwrap();
            assert_eq!((bytes.len() - values.len() * 8) % 64, 0);
            assert_eq!(read(&bytes).unwrap(), (shape, values));
        }
        assert!(write_npy_u64(&[2, 2], &[1]).unwrap_err().to_string().contains("[2, 2]"));
    }

    /// The bytes that NumPy 2.4 writes for `numpy.save(f, numpy.array([[1, 2]], dtype='u8'))`.
    #[test]
    fn writes_the_bytes_that_numpy_writes() {
        let header = format!("{:<117}\n", "{'descr': '<u8', 'fortran_order': False, 'shape': (1, 2), }");
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend(header.as_bytes());
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(write_npy_u64(&[1, 2], &[1, 2]).unwrap(), expected);
    }

    #[test]
    fn every_integer_type_and_header_version_is_read() {
        for (descr, bytes) in [
            ("|u1", vec![1, 200]),
            ("|i1", vec![1, 100]),
            ("<u2", vec![1, 0, 200, 0]),
            ("<i4", vec![1, 0, 0, 0, 200, 0, 0, 0]),
            ("<i8", vec![1, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0]),
            (">u1", vec![1, 200]),
            (">i2", vec![0, 1, 0, 200]),
            (">u8", vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 200]),
        ] {
            let last = if descr == "|i1" { 100 } else { 200 };
            assert_eq!(read(&array(descr, &[2], &bytes)).unwrap(), (vec![2], vec![1, last]), "{descr}");
        }
        let dictionary = "{\"shape\": (2L, 1), 'fortran_order':False,'descr':'|u1'}";
        let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
        bytes.extend((dictionary.len() as u32).to_le_bytes());
        bytes.extend(dictionary.as_bytes());
        bytes.extend([3, 4]);
        assert_eq!(read(&bytes).unwrap(), (vec![2, 1], vec![3, 4]));
    }

    #[test]
    fn damaged_and_foreign_files_are_rejected() {
        let dictionary = |inner: &str| npy(&format!("{{{inner}}}"), &[0; 4]);
        for (bytes, expected) in [
            (array("|u1", &[4], &[0; 3]), "shape [4] of u1 needs 4 bytes from byte"),
            (array("|u1", &[4], &[0; 5]), "found 5"),
            (array("<i2", &[2], &[0, 0, 255, 255]), "value 1 at byte"),
            (array(">i2", &[2], &[0, 0, 255, 255]), "value 1 at byte"),
            (array("<f4", &[1], &[0; 4]), "type 'f4', expected integers; save it with .astype('int64')"),
            (array("<f2", &[1], &[0; 2]), "type '<f2', expected integers"),
            (array("|O", &[1], &[0; 4]), "numpy.stack(list(array))"),
            (array("|b1", &[1], &[0]), ".astype('uint8')"),
            (array("<U3", &[1], &[0; 12]), "numpy.unique(array, return_inverse=True)"),
            (array("<c8", &[1], &[0; 8]), "type '<c8'"),
            (array("|u1", &[usize::MAX, usize::MAX], &[]), "expected at most"),
            (array("<u8", &[1 << 40], &[]), "expected at most"),
            (array("|u1", &[0, usize::MAX, 3], &[]), "expected at most"),
            (array("|u1", &[], &[0]), "a single value"),
            (dictionary("'descr': '|u1', 'fortran_order': True, 'shape': (2, 2)"), "Fortran order"),
            (
                dictionary("'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,)"),
                "a structured type, expected integers; save the field",
            ),
            (dictionary("'descr': '|u1', 'shape': (4,)"), "expected the keys"),
            (dictionary("'descr': '|u1', 'fortran_order': False, 'shape': (-4,)"), "shape (-4"),
            (dictionary("'other': 1"), "unknown key 'other'"),
            (dictionary("'descr' '|u1'"), "found ' '|u1'}'"),
            (b"\x93NUMPY\x04\x00\x00\x00".to_vec(), "byte 6: version 4"),
            (b"\x93NUMPY\x01\x00\xff\xff".to_vec(), "a header of 65535 bytes"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "a header of 4294967295 bytes"),
            (b"\x93NUMPY\x01\x00\x20\x00{".to_vec(), "ends at byte 11"),
            (b"\x93NUMPY\x02\x00\x20\x00".to_vec(), "within the length of its header"),
            (b"PK\x03\x04".to_vec(), "is an archive of .npy files (.npz); unpack it"),
            (b"<!doctype html><p>".to_vec(), "HTML page"),
            (Vec::new(), "it is empty"),
        ] {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.contains("a.npy: ") && message.contains(expected), "{message}\nexpected: {expected}");
        }
    }

    #[test]
    fn floats_from_0_to_1_become_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let read = |bytes: Vec<u8>, shape: &[usize], descr: &str| {
            std::fs::write(&path, array(descr, shape, &bytes)).unwrap();
            let mut file = NpyFile::open(&path).unwrap();
            file.read_unit_rows(0, shape[0]).map_err(|error| error.to_string())
        };
        // Every byte comes back from its float, and rows are read in several parts.
        let bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
        let unit = |v: &u8| f32::from(*v) / 255.0;
        let little: Vec<u8> = bytes.iter().flat_map(|v| unit(v).to_le_bytes()).collect();
        assert_eq!(read(little, &[600], "<f4").unwrap(), bytes);
        let big: Vec<u8> = bytes.iter().flat_map(|v| f64::from(unit(v)).to_be_bytes()).collect();
        assert_eq!(read(big, &[300, 2], ">f8").unwrap(), bytes);
        for (value, expected) in [
            (1.5, "holds 1.5, expected floats from 0 to 1 or unsigned bytes; if they go to 255"),
            (-0.25, "holds -0.25"),
            (-0.25, "mean and standard deviation"),
            (f32::NAN, "not finite"),
        ] {
            let message = read([0.5, value].iter().flat_map(|v| v.to_le_bytes()).collect(), &[2], "<f4").unwrap_err();
            assert!(message.contains("a.npy") && message.contains(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            text in "[{}(),:'a-z0-9<|>FTL ]{0,60}",
        ) {
            let length = bytes.len() as u64;
            let _ = read_header(Path::new("f"), &mut &bytes[..], length);
            for version in 1..=3 {
                let versioned = [&MAGIC[..], &[version, 0], &bytes[..]].concat();
                let _ = read_header(Path::new("f"), &mut &versioned[..], versioned.len() as u64);
            }
            let file = npy(&text, &bytes);
            let _ = read_header(Path::new("f"), &mut &file[..], file.len() as u64);
            if let Ok(header) = read_header(Path::new("f"), &mut &array("|u1", &[bytes.len()], &bytes)[..], 0) {
                prop_assert!(header.shape == [0]);
            }
        }
    }
}
