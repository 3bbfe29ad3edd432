//! A canvas that writes well-formed SVG: shapes and text with coordinates in CSS pixels.

use std::fmt::Write;

use super::text::{self, Weight};

/// Font families in order of preference: the embedded one first, then families of similar width.
pub(super) const FONT_FAMILY: &str =
    "'Fairtat Sans', Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif";

/// Colour of the page.
pub(super) const GROUND: &str = "#ffffff";
pub(super) const INK: &str = "#1a1a1a";
pub(super) const MUTED: &str = "#636363";
pub(super) const AXIS: &str = "#8c8c8c";
pub(super) const GRID: &str = "#e9e9e9";
pub(super) const MISSING: &str = "#ececec";

/// Horizontal anchor of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Style of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style<'a> {
    pub(super) size: f64,
    pub(super) weight: Weight,
    pub(super) fill: &'a str,
    pub(super) anchor: Anchor,
}

impl<'a> Style<'a> {
    pub(super) const fn new(size: f64) -> Self {
        Self { size, weight: Weight::Regular, fill: INK, anchor: Anchor::Start }
    }

    pub(super) const fn fill(self, fill: &'a str) -> Self {
        Self { fill, ..self }
    }

    pub(super) const fn bold(self) -> Self {
        Self { weight: Weight::SemiBold, ..self }
    }

    pub(super) const fn middle(self) -> Self {
        Self { anchor: Anchor::Middle, ..self }
    }

    pub(super) const fn end(self) -> Self {
        Self { anchor: Anchor::End, ..self }
    }

    /// Distance from the vertical middle of capitals and digits down to the baseline.
    pub(super) fn drop(&self) -> f64 {
        0.364 * self.size
    }
}

/// Style of a line; an empty `dash` is a solid line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stroke<'a> {
    pub(super) color: &'a str,
    pub(super) width: f64,
    pub(super) dash: &'a str,
}

impl<'a> Stroke<'a> {
    pub(super) const fn new(color: &'a str, width: f64) -> Self {
        Self { color, width, dash: "" }
    }

    pub(super) const fn dashed(self, dash: &'a str) -> Self {
        Self { dash, ..self }
    }
}

/// An SVG under construction. Later shapes are drawn over earlier ones.
#[derive(Debug)]
pub(super) struct Canvas {
    width: f64,
    body: String,
}

impl Canvas {
    pub(super) fn new(width: f64) -> Self {
        Self { width: width.ceil(), body: String::new() }
    }

    pub(super) fn width(&self) -> f64 {
        self.width
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{fill}\"/>",
            number(x),
            number(y),
            number(width.max(0.0)),
            number(height.max(0.0))
        ));
    }

    /// A cell of a heatmap, without anti-aliasing, so that there is no seam between neighbours.
    pub(super) fn cell(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        self.push(format_args!(
            "<rect class=\"cell\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{fill}\" shape-rendering=\"crispEdges\"/>",
            number(x),
            number(y),
            number(width),
            number(height)
        ));
    }

    pub(super) fn frame(&mut self, x: f64, y: f64, width: f64, height: f64, stroke: Stroke<'_>) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\"{}/>",
            number(x),
            number(y),
            number(width),
            number(height),
            attributes(stroke)
        ));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke<'_>) {
        self.push(format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"{}/>",
            number(from.0),
            number(from.1),
            number(to.0),
            number(to.1),
            attributes(stroke)
        ));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], stroke: Stroke<'_>) {
        let mut list = String::new();
        for &(x, y) in points {
            let _ = write!(list, "{},{} ", number(x), number(y));
        }
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke-linejoin=\"round\" stroke-linecap=\"round\"{}/>",
            list.trim_end(),
            attributes(stroke)
        ));
    }

    /// A filled area without an outline.
    pub(super) fn polygon(&mut self, points: &[(f64, f64)], fill: &str) {
        let mut list = String::new();
        for &(x, y) in points {
            let _ = write!(list, "{},{} ", number(x), number(y));
        }
        self.push(format_args!("<polygon points=\"{}\" fill=\"{fill}\"/>", list.trim_end()));
    }

    pub(super) fn dot(&mut self, center: (f64, f64), radius: f64, fill: &str) {
        self.push(format_args!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{fill}\"/>",
            number(center.0),
            number(center.1),
            number(radius)
        ));
    }

    /// Text with its baseline at `y`. Characters that XML forbids are replaced.
    pub(super) fn text(&mut self, x: f64, y: f64, style: Style<'_>, text: &str) {
        self.rotated_text(x, y, 0.0, style, text);
    }

    /// Text whose capitals and digits are vertically centred on `y`.
    pub(super) fn centered_text(&mut self, x: f64, y: f64, style: Style<'_>, text: &str) {
        self.rotated_text(x, y + style.drop(), 0.0, style, text);
    }

    /// Text on a ground in the colour of the page, so that what is below it does not cross it. The style is aligned at its
    /// start.
    pub(super) fn text_on_ground(&mut self, x: f64, y: f64, style: Style<'_>, text: &str) {
        let width = text::width(text, style.size, style.weight);
        self.rect(x - 2.0, y - 0.82 * style.size - 1.0, width + 4.0, 1.08 * style.size + 2.0, GROUND);
        self.text(x, y, style, text);
    }

    /// Text rotated clockwise by `degrees` about its anchor.
    pub(super) fn rotated_text(&mut self, x: f64, y: f64, degrees: f64, style: Style<'_>, text: &str) {
        if text.is_empty() {
            return;
        }
        let anchor = match style.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let weight = match style.weight {
            Weight::Regular => "",
            Weight::SemiBold => " font-weight=\"600\"",
        };
        let turn = if degrees == 0.0 {
            String::new()
        } else {
            format!(" transform=\"rotate({} {} {})\"", number(degrees), number(x), number(y))
        };
        self.push(format_args!(
            "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\"{weight}{anchor}{turn}>{}</text>",
            number(x),
            number(y),
            number(style.size),
            style.fill,
            escape(text)
        ));
    }

    /// A raster image that is enlarged without smoothing.
    pub(super) fn pixels(&mut self, x: f64, y: f64, width: f64, height: f64, png: &[u8]) {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(png);
        self.push(format_args!(
            "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
             image-rendering=\"optimizeSpeed\" style=\"image-rendering:pixelated\" \
             xlink:href=\"data:image/png;base64,{data}\"/>",
            number(x),
            number(y),
            number(width),
            number(height)
        ));
    }

    /// A vertical gradient through `colors`, the first at the bottom.
    pub(super) fn gradient(&mut self, id: &str, x: f64, y: f64, width: f64, height: f64, colors: &[String]) {
        let last = colors.len().saturating_sub(1).max(1) as f64;
        let mut stops = String::new();
        for (index, color) in colors.iter().enumerate() {
            let _ = write!(stops, "<stop offset=\"{}\" stop-color=\"{color}\"/>", number(index as f64 / last));
        }
        self.push(format_args!(
            "<defs><linearGradient id=\"{id}\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">{stops}</linearGradient></defs>"
        ));
        self.rect(x, y, width, height, &format!("url(#{id})"));
    }

    /// The finished document with this height, and with `title` for screen readers and tooltips.
    pub(super) fn finish(self, height: f64, title: &str) -> String {
        let (width, height) = (number(self.width), number(height.ceil()));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"{width}\" \
             height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"{FONT_FAMILY}\">\n\
             <title>{}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"{GROUND}\"/>\n{}</svg>\n",
            escape(title),
            self.body
        )
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(element);
        self.body.push('\n');
    }

    /// A wrapped paragraph with its first baseline at `y`; returns the baseline after the last line.
    pub(super) fn paragraph(&mut self, x: f64, mut y: f64, width: f64, style: Style<'_>, paragraph: &str) -> f64 {
        for line in text::wrap(paragraph, style.size, style.weight, width) {
            self.text(x, y, style, &line);
            y += (style.size * 1.32).round();
        }
        y
    }
}

fn attributes(stroke: Stroke<'_>) -> String {
    let dash = if stroke.dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{}\"", stroke.dash) };
    format!(" stroke=\"{}\" stroke-width=\"{}\"{dash}", stroke.color, number(stroke.width))
}

/// A coordinate rounded to hundredths of a pixel. Values that are not finite would make the document invalid and become
/// 0; figures leave such values out beforehand.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_owned();
    }
    let rounded = (value * 100.0).round() / 100.0;
    // Adding zero turns −0 into 0.
    format!("{}", rounded + 0.0)
}

/// Escapes text for XML character data and attributes, on one line; characters that XML 1.0 forbids become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_finite() {
        assert_eq!(number(1.0), "1");
        assert_eq!(number(1.234_56), "1.23");
        assert_eq!(number(-0.001), "0");
        assert_eq!(number(f64::NAN), "0");
        assert_eq!(number(f64::INFINITY), "0");
    }

    #[test]
    fn any_string_becomes_character_data() {
        assert_eq!(escape("<b>&\"'</b>"), "&lt;b&gt;&amp;&quot;&#39;&lt;/b&gt;");
        assert_eq!(escape("a\u{0}b\u{1b}c\nd\u{ffff}"), "a\u{fffd}b\u{fffd}c d\u{fffd}");
        assert_eq!(escape("猫 кот 🐈"), "猫 кот 🐈");
    }
}
