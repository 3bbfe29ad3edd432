//! NumPy's `.npz` archives: `.npy` arrays in a zip file, compressed as `numpy.savez_compressed` writes them.
//!
//! The array `NAME` is the member `NAME.npy`. Source: the documentation of `numpy.savez`, and PKWARE's `APPNOTE.TXT` for
//! the zip file (local headers, central directory, end record; all numbers little-endian).

use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use zip::{CompressionMethod, ZipArchive};

use super::npy::values_u64;
use super::reading::{MAX_PART_BYTES, read_file};
use super::{DataError, write_npy_u64};
use crate::memory;

const DEFLATE: u16 = 8;
/// The version of the format that a reader needs: 2.0, for compressed members.
const VERSION: u16 = 20;
/// 1 January 1980, the first date of the format: the same array gives the same bytes at any time.
const DATE: u16 = 0x0021;
/// No byte of a compressed member stands for more bytes than this.
const MAX_RATIO: u64 = 1032;

/// The bytes of a `.npz` file that holds one array of unsigned 64-bit integers. `numpy.load(FILE)["NAME"]` reads it.
///
/// The same values give the same bytes.
///
/// ```
/// let bytes = fairtat::data::write_npz_u64("counts", &[1000, 1000], &vec![0; 1_000_000])?;
/// assert!(bytes.len() < 20_000);
/// # Ok::<(), fairtat::data::DataError>(())
/// ```
///
/// # Errors
/// Returns [`DataError::Inconsistent`] if the number of `values` does not match `shape`, or if they take 4 GiB or more.
pub fn write_npz_u64(name: &str, shape: &[usize], values: &[u64]) -> Result<Vec<u8>, DataError> {
    let array = write_npy_u64(shape, values)?;
    archive(&format!("{name}.npy"), &array).map_err(|error| DataError::Inconsistent {
        name: "npz".into(),
        what: format!("an array of shape {shape:?} cannot be compressed: {error}"),
    })
}

fn archive(name: &str, member: &[u8]) -> io::Result<Vec<u8>> {
    let length = |n: usize| {
        u32::try_from(n).map_err(|_| io::Error::other("4 GiB or more, which the format of the file cannot describe"))
    };
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(member)?;
    let compressed = encoder.finish()?;
    let mut crc = Crc::new();
    crc.update(member);

    // What the local header and the central directory say about the member.
    let mut common = Vec::new();
    for number in [VERSION, 0, DEFLATE, 0, DATE] {
        common.extend(number.to_le_bytes());
    }
    for number in [crc.sum(), length(compressed.len())?, length(member.len())?] {
        common.extend(number.to_le_bytes());
    }
    let name_bytes = u16::try_from(name.len()).map_err(|_| io::Error::other("its name is too long"))?;
    common.extend(name_bytes.to_le_bytes());
    common.extend(0u16.to_le_bytes());

    let mut file = b"PK\x03\x04".to_vec();
    file.extend(&common);
    file.extend(name.as_bytes());
    file.extend(&compressed);
    let directory = length(file.len())?;
    file.extend(b"PK\x01\x02");
    file.extend(VERSION.to_le_bytes());
    file.extend(&common);
    // Comment, disk, attributes (2 and 4 bytes), offset of the local header: all 0.
    file.extend([0; 14]);
    file.extend(name.as_bytes());
    let directory_bytes = length(file.len())? - directory;
    file.extend(b"PK\x05\x06");
    for number in [0u16, 0, 1, 1] {
        file.extend(number.to_le_bytes());
    }
    file.extend(directory_bytes.to_le_bytes());
    file.extend(directory.to_le_bytes());
    file.extend(0u16.to_le_bytes());
    Ok(file)
}

/// Shape and values of the array `name` of non-negative integers in a `.npz` file, compressed or not.
///
/// # Errors
/// Returns an error if the file is unreadable, damaged or without this array, if the array is of another type or has
/// negative values, or if it does not fit the memory of this machine.
pub fn read_npz_u64(path: &Path, name: &str) -> Result<(Vec<usize>, Vec<u64>), DataError> {
    let bytes = read_file(path, MAX_PART_BYTES)?;
    let member = member(&bytes, &format!("{name}.npy")).map_err(|what| DataError::format(path, what))?;
    values_u64(path, &member)
}

/// The content of a member of an archive.
fn member(bytes: &[u8], name: &str) -> Result<Vec<u8>, String> {
    let damaged = |error: &dyn std::fmt::Display| format!("expected a whole .npz file, but {error}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    let found = (0..archive.len())
        .find(|i| archive.by_index_raw(*i).is_ok_and(|member| member.name().is_ok_and(|found| found.as_ref() == name)));
    let index = found.ok_or_else(|| format!("expected an array in '{name}', found none of this name"))?;
    let mut entry = archive.by_index_raw(index).map_err(|error| damaged(&error))?;
    let (size, packed, sum) = (entry.size(), entry.compressed_size(), entry.crc32());
    let (method, encrypted) = (entry.compression(), entry.encrypted());
    let stored = method == CompressionMethod::Stored;
    if encrypted || !(stored || method == CompressionMethod::DEFLATE) {
        return Err(format!("'{name}' is {method:?} or encrypted, expected what numpy.savez_compressed writes"));
    }
    if size > packed.saturating_mul(MAX_RATIO) || size > MAX_PART_BYTES {
        return Err(format!("'{name}' says that its {packed} bytes hold {size}, which they cannot"));
    }
    memory::check(u128::from(size), || format!("'{name}' needs"), "use another copy of the file")
        .map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    // One byte more than promised is enough to notice that there are more.
    let read = if stored {
        entry.by_ref().take(size + 1).read_to_end(&mut content)
    } else {
        DeflateDecoder::new(entry.by_ref()).take(size + 1).read_to_end(&mut content)
    };
    read.map_err(|error| format!("'{name}' is damaged: {error}"))?;
    let mut crc = Crc::new();
    crc.update(&content);
    if content.len() as u64 != size || crc.sum() != sum {
        return Err(format!(
            "'{name}' is damaged: expected {size} bytes with the check sum {sum:08x}, found {} with {:08x}",
            content.len(),
            crc.sum()
        ));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by numpy 2.4: `numpy.savez(f, counts=[[1, 2], [3, 4]])` and `savez_compressed`, of `u1`.
    const OF_NUMPY: [(&str, &[u8]); 2] = [
        ("stored", include_bytes!("../../fuzz/corpus/npz/good-stored.npz")),
        ("compressed", include_bytes!("../../fuzz/corpus/npz/good-compressed.npz")),
    ];

    #[test]
    fn arrays_come_back_from_compressed_archives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counts.npz");
        for shape in [vec![3, 3], vec![200, 200], vec![5]] {
            let count: usize = shape.iter().product();
            let values: Vec<u64> = (0..count as u64).map(|i| if i % 7 == 0 { (i * i * i) << 20 } else { 0 }).collect();
            let bytes = write_npz_u64("counts", &shape, &values).unwrap();
            assert_eq!(bytes, write_npz_u64("counts", &shape, &values).unwrap());
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read_npz_u64(&path, "counts").unwrap(), (shape, values));
            // Another reader agrees on the members.
            let mut archive = ZipArchive::new(Cursor::new(&bytes)).unwrap();
            let entry = archive.by_index_raw(0).unwrap();
            assert_eq!(
                (entry.name().unwrap().as_ref(), entry.compression()),
                ("counts.npy", CompressionMethod::DEFLATE)
            );
            assert_eq!(entry.size() as usize, 128 + 8 * count);
        }
        assert!(write_npz_u64("counts", &[2, 2], &[1; 3]).is_err());
    }

    #[test]
    fn archives_of_numpy_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in OF_NUMPY {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read_npz_u64(&path, "counts").unwrap(), (vec![2, 2], vec![1, 2, 3, 4]), "{name}");
            let error = read_npz_u64(&path, "other").unwrap_err().to_string();
            assert!(error.contains("expected an array in 'other.npy', found none"), "{error}");
        }
    }

    /// Every cut and every flipped bit is refused or changes nothing.
    #[test]
    fn a_damaged_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counts.npz");
        let values: Vec<u64> = (0..16).collect();
        let whole = write_npz_u64("counts", &[4, 4], &values).unwrap();
        for at in 0..whole.len() {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(read_npz_u64(&path, "counts").is_err(), "{at} bytes");
            for bit in [0, 7] {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                std::fs::write(&path, changed).unwrap();
                if let Ok(found) = read_npz_u64(&path, "counts") {
                    assert_eq!(found, (vec![4, 4], values.clone()), "bit {bit} of byte {at}");
                }
            }
        }
    }

    /// A member that promises more than its bytes can hold is refused before it is unpacked.
    #[test]
    fn what_cannot_be_in_an_archive_is_not_allocated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counts.npz");
        let mut bytes = write_npz_u64("counts", &[4, 4], &[0; 16]).unwrap();
        let directory = bytes.windows(4).position(|part| part == b"PK\x01\x02").unwrap();
        for header in [0, directory + 2] {
            bytes[header + 22..][..4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
        }
        std::fs::write(&path, bytes).unwrap();
        let error = read_npz_u64(&path, "counts").unwrap_err().to_string();
        assert!(error.contains("which they cannot"), "{error}");
    }
}
