//! Distinguishes web pages from data files: log-in and error pages often come with status 200.

/// Number of bytes at the start that are examined.
pub(super) const SNIFF: usize = 512;

/// Whether `head`, the first bytes of a file, begins like an HTML page.
pub(super) fn looks_like_page(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    [b"<!doctype html".as_slice(), b"<html"]
        .iter()
        .any(|tag| head.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)))
}

#[cfg(test)]
mod tests {
    use super::looks_like_page;

    #[test]
    fn pages_are_distinguished_from_data() {
        for page in ["<!DOCTYPE html><html>", "\n\t <HTML lang=en>", "\u{feff}<!doctype HTML>"] {
            assert!(looks_like_page(page.as_bytes()), "{page}");
        }
        for data in [b"\x1f\x8b\x08\x00".as_slice(), b"", b"<htm", b"CIFAR-10-C/<html>"] {
            assert!(!looks_like_page(data));
        }
    }
}
