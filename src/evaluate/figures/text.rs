//! The embedded font: measuring text, and shortening or wrapping it to a width.

use std::collections::HashMap;
use std::sync::LazyLock;

use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};

pub(super) const FAMILY: &str = "Fairtat Sans";
pub(super) static REGULAR: &[u8] = include_bytes!("../../../assets/fonts/FairtatSans-Regular.otf");
pub(super) static SEMI_BOLD: &[u8] = include_bytes!("../../../assets/fonts/FairtatSans-SemiBold.otf");

/// Weight of a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    SemiBold,
}

/// Advance widths by character at size 1.
struct Widths(HashMap<char, f32>);

impl Widths {
    /// An unreadable font leaves the table empty, and each character counts as one em.
    fn of(data: &[u8]) -> Self {
        let Ok(font) = FontRef::new(data) else { return Self(HashMap::new()) };
        let units = f32::from(font.metrics(Size::unscaled(), LocationRef::default()).units_per_em).max(1.0);
        let metrics = font.glyph_metrics(Size::unscaled(), LocationRef::default());
        let mappings = font
            .charmap()
            .mappings()
            .filter_map(|(code, glyph)| Some((char::from_u32(code)?, metrics.advance_width(glyph)? / units)));
        Self(mappings.collect())
    }
}

static WIDTHS: LazyLock<[Widths; 2]> = LazyLock::new(|| [Widths::of(REGULAR), Widths::of(SEMI_BOLD)]);

/// Whether the embedded font has glyphs for all of `text`; white space needs none.
pub(super) fn is_covered(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c.is_control() || WIDTHS[0].0.contains_key(&c))
}

/// Width of `text` in pixels, without kerning, which is rarely more than a pixel.
pub(super) fn width(text: &str, size: f64, weight: Weight) -> f64 {
    let table = &WIDTHS[usize::from(weight == Weight::SemiBold)].0;
    // Characters that the font lacks count as one em: the width of ideographs and emoji; others are narrower.
    text.chars().map(|c| f64::from(table.get(&c).copied().unwrap_or(1.0))).sum::<f64>() * size
}

/// `text` if it is no wider than `limit`, else its beginning and end around an ellipsis: names often differ only at
/// their end.
pub(super) fn fit(text: &str, size: f64, weight: Weight, limit: f64) -> String {
    if width(text, size, weight) <= limit {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    let candidate = |kept: usize| -> String {
        let head = kept.div_ceil(2);
        let tail = kept - head;
        let start: String = chars[..head].iter().collect();
        let end: String = chars[chars.len() - tail..].iter().collect();
        format!("{}…{}", start.trim_end(), end.trim_start())
    };
    // Widths grow with the number of characters kept, except for trimmed spaces: search downwards from an upper bound.
    let (mut low, mut high) = (0, chars.len().saturating_sub(1));
    while low < high {
        let middle = (low + high).div_ceil(2);
        if width(&candidate(middle), size, weight) <= limit {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    candidate(low)
}

/// `text` in lines no wider than `limit`, broken at spaces; a single word that is too wide is shortened.
pub(super) fn wrap(text: &str, size: f64, weight: Weight, limit: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = fit(word, size, weight, limit);
        match lines.last_mut() {
            Some(line)
                if width(line, size, weight) + width(" ", size, weight) + width(&word, size, weight) <= limit =>
            {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_what_the_figures_write() {
        assert!(is_covered("ABCxyz 0123456789 εελμ →←↑↓ ×±≤≥−∞ …·–—%°"));
        assert!(!is_covered("猫"));
    }

    #[test]
    fn widths_come_from_the_font() {
        assert!(width("W", 12.0, Weight::Regular) > 2.0 * width("i", 12.0, Weight::Regular));
        assert!(width("mean", 12.0, Weight::SemiBold) > width("mean", 12.0, Weight::Regular));
        assert!((width("ab", 10.0, Weight::Regular) * 2.0 - width("ab", 20.0, Weight::Regular)).abs() < 1e-9);
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        let name = "class_with_a_very_long_name_number_17";
        let short = fit(name, 11.0, Weight::Regular, 100.0);
        assert!(width(&short, 11.0, Weight::Regular) <= 100.0);
        assert!(short.starts_with("class") && short.ends_with("17") && short.contains('…'), "{short}");
        assert_eq!(fit("cat", 11.0, Weight::Regular, 100.0), "cat");
        assert_eq!(fit("a name", 11.0, Weight::Regular, 0.0), "…");
    }

    #[test]
    fn lines_are_no_wider_than_asked() {
        let text = "PGD-10, ε 8/255, step 2/255, 1 random start, seed 0, incomprehensibilities-without-a-space";
        let lines = wrap(text, 11.0, Weight::Regular, 120.0);
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|line| width(line, 11.0, Weight::Regular) <= 120.0));
        assert!(wrap("  ", 11.0, Weight::Regular, 120.0).is_empty());
    }
}
