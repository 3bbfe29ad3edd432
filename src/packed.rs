//! Bytes within JSON: the zlib stream of the bytes, in base64.
//!
//! In Python: `zlib.decompress(base64.b64decode(text))`.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// No compressed byte stands for more bytes than this.
const MAX_RATIO: u64 = 1032;

/// The text of these bytes; the same bytes give the same text.
///
/// # Errors
/// None that a machine with memory can cause.
pub(crate) fn pack(bytes: &[u8]) -> io::Result<String> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(STANDARD.encode(encoder.finish()?))
}

/// As [`pack`], of the little-endian bytes of 64-bit words.
///
/// # Errors
/// As [`pack`].
pub(crate) fn pack_words(words: impl Iterator<Item = u64>) -> io::Result<String> {
    pack(&words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())
}

/// The bytes of a text of [`pack`]. At most `most` bytes are unpacked, and never more than the text can hold.
///
/// # Errors
/// What is wrong with the text, or that it holds more.
pub(crate) fn unpack(text: &str, most: u64) -> Result<Vec<u8>, String> {
    let packed = STANDARD.decode(text).map_err(|error| format!("not base64: {error}"))?;
    let most = most.min((packed.len() as u64).saturating_mul(MAX_RATIO));
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to notice that there are more.
    let mut stream = ZlibDecoder::new(packed.as_slice()).take(most + 1);
    stream.read_to_end(&mut bytes).map_err(|error| format!("not compressed by zlib: {error}"))?;
    if bytes.len() as u64 > most { Err(format!("it holds more than {most} bytes")) } else { Ok(bytes) }
}

/// As [`unpack`], for `count` 64-bit words.
///
/// # Errors
/// As [`unpack`], or if there are fewer or more of them.
pub(crate) fn unpack_words(text: &str, count: u64) -> Result<Vec<u64>, String> {
    let expected = count.checked_mul(8).ok_or("more numbers than any machine can hold")?;
    let bytes = unpack(text, expected)?;
    if bytes.len() as u64 != expected {
        return Err(format!("expected {count} numbers of 8 bytes, found {} bytes", bytes.len()));
    }
    Ok(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_hold_their_bytes_and_damaged_ones_are_refused() {
        let words: Vec<u64> = (0..1000).map(|i| i * i * (i % 3)).collect();
        let text = pack_words(words.iter().copied()).unwrap();
        assert_eq!(text, pack_words(words.iter().copied()).unwrap());
        assert_eq!(unpack_words(&text, 1000).unwrap(), words);
        assert_eq!(unpack(&pack(b"").unwrap(), 0).unwrap(), b"");
        for (found, expected) in [
            (unpack_words(&text, 999), "holds more than 7992 bytes"),
            (unpack_words(&text, 1001), "expected 1001 numbers of 8 bytes, found 8000 bytes"),
            (unpack_words(&text, u64::MAX), "more numbers than any machine"),
            (unpack_words("?", 1), "not base64"),
            (unpack_words("AAAA", 1), "not compressed by zlib"),
            (unpack_words(&text[..text.len() / 8 * 4], 1000), ""),
        ] {
            let error = found.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let found = unpack_words(std::str::from_utf8(&changed).unwrap(), 1000);
            assert!(found.is_err() || found.as_ref() == Ok(&words), "byte {at}");
        }
    }

    /// A kilobyte of zeros that stands for a megabyte is not unpacked beyond what it should hold.
    #[test]
    fn a_bomb_is_not_unpacked() {
        let text = pack(&vec![0; 1 << 20]).unwrap();
        assert!(text.len() < 2000);
        assert_eq!(unpack(&text, 1000).unwrap_err(), "it holds more than 1000 bytes");
    }
}
