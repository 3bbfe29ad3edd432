//! A small Markdown renderer for embedded texts: headings, paragraphs, emphasis, code, lists, quotes and links. A link
//! does nothing by itself; the renderer returns the one that was clicked. A paragraph of nothing but links becomes a
//! row of buttons. Code blocks are formulas; in them and in running text `_k` is a subscript.

use egui::text::{LayoutJob, TextFormat};
use egui::{Align, Color32, FontFamily, FontId, Ui};
use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};

use crate::app::theme;

/// Line width as a multiple of the font size: about 70 characters.
const MEASURE: f32 = 35.0;
/// Line spacing as a multiple of the font size.
const LEADING: f32 = 1.5;

/// A parsed text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Markdown {
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq)]
enum Block {
    Heading(u8, Vec<Span>),
    Paragraph(Vec<Span>),
    Formula(String),
    List(Option<u64>, Vec<Vec<Block>>),
    Quote(Vec<Block>),
}

/// A run of text with uniform formatting.
#[derive(Debug, Clone, PartialEq, Default)]
struct Span {
    text: String,
    strong: bool,
    emphasis: bool,
    code: bool,
    link: Option<String>,
}

impl Markdown {
    /// Parses a text. Every text is valid Markdown; unsupported elements (images, tables, HTML) are left out.
    pub fn parse(text: &str) -> Self {
        let mut events = Parser::new(text);
        Self { blocks: blocks(&mut events, None) }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The addresses of its links, in order.
    pub fn links(&self) -> Vec<&str> {
        fn of<'a>(blocks: &'a [Block], links: &mut Vec<&'a str>) {
            for block in blocks {
                match block {
                    Block::Heading(_, spans) | Block::Paragraph(spans) => {
                        links.extend(spans.iter().filter_map(|span| span.link.as_deref()));
                    }
                    Block::Formula(_) => {}
                    Block::List(_, items) => items.iter().for_each(|item| of(item, links)),
                    Block::Quote(inner) => of(inner, links),
                }
            }
        }
        let mut links = Vec::new();
        of(&self.blocks, &mut links);
        links
    }

    /// Draws it in text of `size` points over the available width; [`measure`] gives a readable one. Returns the link
    /// that was clicked; `tooltip` may explain a link.
    pub fn ui<'t>(&self, ui: &mut Ui, size: f32, tooltip: &dyn Fn(&str) -> Option<&'t str>) -> Option<&str> {
        ui.vertical(|ui| show(ui, &self.blocks, size, tooltip)).inner
    }
}

/// The readable width of a text of `size` points.
pub fn measure(size: f32) -> f32 {
    MEASURE * size
}

/// Font size of running text in a panel of this width: text for many readers at once is read from a distance.
pub fn reading_size(width: f32) -> f32 {
    match width {
        width if width < 480.0 => 15.0,
        width if width < 800.0 => 16.0,
        width if width < 1200.0 => 18.0,
        _ => 20.0,
    }
}

/// Reads blocks up to the end of the enclosing one.
fn blocks<'a>(events: &mut Parser<'a>, end: Option<TagEnd>) -> Vec<Block> {
    let (mut found, mut loose) = (Vec::new(), Vec::new());
    while let Some(event) = events.next() {
        let block = match event {
            Event::End(tag) if Some(tag) == end => break,
            Event::Start(Tag::Paragraph) => Block::Paragraph(spans(events, TagEnd::Paragraph)),
            Event::Start(Tag::Heading { level, .. }) => {
                Block::Heading(depth(level), spans(events, TagEnd::Heading(level)))
            }
            Event::Start(Tag::CodeBlock(_)) => {
                let spans = spans(events, TagEnd::CodeBlock);
                let text: String = spans.into_iter().map(|span| span.text).collect();
                Block::Formula(text.trim_end().to_owned())
            }
            Event::Start(Tag::List(first)) => Block::List(first, items(events, TagEnd::List(first.is_some()))),
            Event::Start(Tag::BlockQuote(kind)) => Block::Quote(blocks(events, Some(TagEnd::BlockQuote(kind)))),
            // Items of a tight list contain their text without a paragraph.
            Event::Text(text) => {
                push(&mut loose, Span { text: unbroken(&text), ..Span::default() });
                continue;
            }
            Event::Code(text) => {
                push(&mut loose, Span { text: text.into_string(), code: true, ..Span::default() });
                continue;
            }
            Event::SoftBreak | Event::HardBreak => {
                push(&mut loose, Span { text: " ".into(), ..Span::default() });
                continue;
            }
            Event::Start(tag @ (Tag::Strong | Tag::Emphasis | Tag::Link { .. })) => {
                inline(events, tag, &Span::default(), &mut loose);
                continue;
            }
            _ => continue,
        };
        if !loose.is_empty() {
            found.push(Block::Paragraph(std::mem::take(&mut loose)));
        }
        found.push(block);
    }
    if !loose.is_empty() {
        found.push(Block::Paragraph(loose));
    }
    found
}

fn items(events: &mut Parser<'_>, end: TagEnd) -> Vec<Vec<Block>> {
    let mut items = Vec::new();
    while let Some(event) = events.next() {
        match event {
            Event::Start(Tag::Item) => items.push(blocks(events, Some(TagEnd::Item))),
            Event::End(tag) if tag == end => break,
            _ => {}
        }
    }
    items
}

/// Reads the text of a block.
fn spans(events: &mut Parser<'_>, end: TagEnd) -> Vec<Span> {
    let mut found = Vec::new();
    text_until(events, end, &Span::default(), &mut found);
    found
}

fn text_until(events: &mut Parser<'_>, end: TagEnd, like: &Span, found: &mut Vec<Span>) {
    while let Some(event) = events.next() {
        match event {
            Event::End(tag) if tag == end => break,
            Event::Text(text) => push(found, Span { text: unbroken(&text), ..like.clone() }),
            Event::Code(text) => push(found, Span { text: text.into_string(), code: true, ..like.clone() }),
            Event::SoftBreak | Event::HardBreak => push(found, Span { text: " ".into(), ..like.clone() }),
            Event::Start(tag) => inline(events, tag, like, found),
            _ => {}
        }
    }
}

fn inline(events: &mut Parser<'_>, tag: Tag<'_>, like: &Span, found: &mut Vec<Span>) {
    let end = tag.to_end();
    let like = match tag {
        Tag::Strong => Span { strong: true, ..like.clone() },
        Tag::Emphasis => Span { emphasis: true, ..like.clone() },
        Tag::Link { dest_url, .. } => Span { link: Some(dest_url.into_string()), ..like.clone() },
        _ => like.clone(),
    };
    text_until(events, end, &like, found);
}

/// The text with numbers and their signs kept on one line: `ε 8/255` and `50 %` do not break.
pub fn unbroken(text: &str) -> String {
    text.replace("ε ", "ε\u{a0}").replace(" %", "\u{a0}%").replace("± ", "±\u{a0}").replace(" ±", "\u{a0}±")
}

/// Adds a span, or extends the last one if the formatting is the same.
fn push(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last)
            if (last.strong, last.emphasis, last.code, &last.link)
                == (span.strong, span.emphasis, span.code, &span.link) =>
        {
            last.text.push_str(&span.text);
        }
        _ => spans.push(span),
    }
}

fn depth(level: HeadingLevel) -> u8 {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        _ => 3,
    }
}

type Tooltip<'f, 't> = &'f dyn Fn(&str) -> Option<&'t str>;

fn show<'a>(ui: &mut Ui, blocks: &'a [Block], size: f32, tooltip: Tooltip<'_, '_>) -> Option<&'a str> {
    let mut clicked = None;
    let palette = theme::palette(ui);
    for (i, block) in blocks.iter().enumerate() {
        if i > 0 {
            ui.add_space(size * 0.45);
        }
        match block {
            Block::Heading(level, spans) => {
                let size = size * [1.5, 1.25, 1.05][usize::from(*level).clamp(1, 3) - 1];
                let text: String = spans.iter().map(|span| span.text.as_str()).collect();
                ui.label(egui::RichText::new(text).size(size).family(theme::strong_family()));
            }
            Block::Paragraph(spans) if is_buttons(spans) => {
                ui.horizontal_wrapped(|ui| {
                    outlined(ui);
                    for span in spans {
                        let Some(link) = &span.link else { continue };
                        let text = egui::RichText::new(&span.text).size(size * 0.95).color(palette.accent);
                        let button = ui.add(egui::Button::new(text).corner_radius(5));
                        if explained(button, tooltip(link)).clicked() {
                            clicked = Some(link.as_str());
                        }
                    }
                });
            }
            Block::Paragraph(spans) => clicked = paragraph(ui, spans, size, tooltip).or(clicked),
            Block::Formula(text) => {
                egui::Frame::new()
                    .fill(ui.visuals().faint_bg_color)
                    .corner_radius(5)
                    .inner_margin(egui::Margin::symmetric(12, 8))
                    .show(ui, |ui| ui.label(formula(text, size, ui.visuals().text_color())));
            }
            Block::List(first, items) => {
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        ui.add_space(size * 0.2);
                    }
                    let mark = first.map_or_else(|| "•".to_owned(), |first| format!("{}.", first + i as u64));
                    ui.horizontal_top(|ui| {
                        ui.spacing_mut().item_spacing.x = size * 0.5;
                        ui.add_space(size * 0.3);
                        ui.label(
                            egui::RichText::new(mark).size(size).line_height(Some(size * LEADING)).color(palette.weak),
                        );
                        ui.vertical(|ui| clicked = show(ui, item, size, tooltip).or(clicked));
                    });
                }
            }
            Block::Quote(inner) => {
                let frame = egui::Frame::new().inner_margin(egui::Margin { left: 14, ..egui::Margin::ZERO });
                let rect = frame.show(ui, |ui| clicked = show(ui, inner, size, tooltip).or(clicked)).response.rect;
                let x = rect.left() + 3.0;
                ui.painter().vline(x, rect.y_range(), egui::Stroke::new(3.0, palette.line));
            }
        }
    }
    clicked
}

/// From here on, buttons have an outline in the accent colour, and the same size whether pointed at or not.
pub fn outlined(ui: &mut Ui) {
    let accent = theme::palette(ui).accent;
    let widgets = &mut ui.visuals_mut().widgets;
    for look in [&mut widgets.inactive, &mut widgets.hovered, &mut widgets.active] {
        (look.bg_stroke, look.expansion) = (egui::Stroke::new(1.0, accent), 0.0);
    }
}

fn is_buttons(spans: &[Span]) -> bool {
    spans.iter().any(|span| span.link.is_some())
        && spans.iter().all(|span| span.link.is_some() || span.text.trim().is_empty())
}

fn explained(response: egui::Response, tooltip: Option<&str>) -> egui::Response {
    match tooltip {
        Some(tooltip) => response.on_hover_text(tooltip),
        None => response,
    }
}

fn paragraph<'a>(ui: &mut Ui, spans: &'a [Span], size: f32, tooltip: Tooltip<'_, '_>) -> Option<&'a str> {
    let mut clicked = None;
    let color = ui.visuals().text_color();
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = egui::vec2(0.0, 0.0);
        ui.spacing_mut().interact_size.y = size * LEADING;
        let mut job = LayoutJob::default();
        for span in spans {
            if let Some(link) = &span.link {
                if !job.text.is_empty() {
                    ui.label(std::mem::take(&mut job));
                }
                let text = egui::RichText::new(&span.text).size(size).line_height(Some(size * LEADING));
                if explained(ui.link(text), tooltip(link)).clicked() {
                    clicked = Some(link.as_str());
                }
            } else {
                append(&mut job, span, size, color, ui.visuals().code_bg_color);
            }
        }
        if !job.text.is_empty() {
            ui.label(job);
        }
    });
    clicked
}

fn append(job: &mut LayoutJob, span: &Span, size: f32, color: Color32, ground: Color32) {
    let family = match (span.code, span.strong) {
        (true, _) => FontFamily::Monospace,
        (_, true) => theme::strong_family(),
        _ => FontFamily::Proportional,
    };
    let like = TextFormat {
        italics: span.emphasis,
        background: if span.code { ground } else { Color32::TRANSPARENT },
        line_height: Some(size * LEADING),
        ..TextFormat::simple(FontId::new(if span.code { size * 0.92 } else { size }, family), color)
    };
    if span.code {
        job.append(&span.text, 0.0, like);
    } else {
        append_text(job, &span.text, size, &like);
    }
}

/// Text with its subscripts lowered and smaller.
fn append_text(job: &mut LayoutJob, text: &str, size: f32, like: &TextFormat) {
    for (piece, lowered) in subscripts(text) {
        let mut format = like.clone();
        if lowered {
            format.font_id.size = size * 0.72;
            format.line_height = None;
            format.valign = Align::BOTTOM;
        }
        job.append(piece, 0.0, format);
    }
}

/// A formula, with `_k` as a subscript.
pub fn formula(text: &str, size: f32, color: Color32) -> LayoutJob {
    let mut job = LayoutJob::default();
    let like = TextFormat {
        line_height: Some(size * LEADING),
        ..TextFormat::simple(FontId::new(size, FontFamily::Proportional), color)
    };
    append_text(&mut job, text, size, &like);
    job
}

/// Splits a text; the flag marks subscripts: a single letter, digit or `∞` after an underscore, at the end of a word.
fn subscripts(text: &str) -> Vec<(&str, bool)> {
    let (mut pieces, mut begin) = (Vec::new(), 0);
    let letters: Vec<(usize, char)> = text.char_indices().collect();
    for window in 1..letters.len().saturating_sub(1) {
        let ((at, mark), (sub, letter)) = (letters[window], letters[window + 1]);
        let before = letters[window - 1].1;
        let ends = letters.get(window + 2).is_none_or(|(_, next)| !next.is_alphanumeric() && *next != '_');
        if mark == '_'
            && !before.is_whitespace()
            && before != '_'
            && (letter.is_alphanumeric() || letter == '∞')
            && ends
        {
            let end = sub + letter.len_utf8();
            pieces.push((&text[begin..at], false));
            pieces.push((&text[sub..end], true));
            begin = end;
        }
    }
    pieces.push((&text[begin..], false));
    pieces.retain(|(piece, _)| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use egui_kittest::Harness;
    use egui_kittest::kittest::Queryable;

    use super::*;

    #[test]
    fn blocks_and_spans() {
        let text = "# A\n\nOne **two** *three* `four`\nfive [six](do:start).\n\n- a\n- b [c](term:x)\n\n> q\n\n```\nε_k = 1\n```\n";
        let markdown = Markdown::parse(text);
        assert_eq!(markdown.blocks.len(), 5, "{markdown:?}");
        let Block::Paragraph(spans) = &markdown.blocks[1] else { panic!("{markdown:?}") };
        let plain: Vec<&str> = spans.iter().map(|span| span.text.as_str()).collect();
        assert_eq!(plain, ["One ", "two", " ", "three", " ", "four", " five ", "six", "."]);
        assert!(spans[1].strong && spans[3].emphasis && spans[5].code);
        assert!(matches!(&markdown.blocks[2], Block::List(None, items) if items.len() == 2));
        assert!(matches!(&markdown.blocks[4], Block::Formula(text) if text == "ε_k = 1"));
        assert_eq!(markdown.links(), ["do:start", "term:x"]);
        assert!(Markdown::parse("").is_empty());
    }

    #[test]
    fn subscripts_are_single_letters_at_the_end_of_a_word() {
        assert_eq!(subscripts("ε_k = y_i"), [("ε", false), ("k", true), (" = y", false), ("i", true)]);
        assert_eq!(
            subscripts("‖d‖_∞ ≤ d_0)"),
            [("‖d‖", false), ("∞", true), (" ≤ d", false), ("0", true), (")", false)]
        );
        assert_eq!(subscripts("step_size _k a__b"), [("step_size _k a__b", false)]);
    }

    #[test]
    fn links_give_back_where_they_lead() {
        struct HarnessState {
            markdown: Markdown,
            clicked: Vec<String>,
            ready: bool,
        }
        let markdown = Markdown::parse("Read [of epsilon](term:epsilon) here.\n\n[Start](do:start) [Show](show:log)\n");
        let state = HarnessState { markdown, clicked: Vec::new(), ready: false };
        let mut harness = Harness::builder().with_size([400.0, 200.0]).build_ui_state(
            |ui, state: &mut HarnessState| {
                if !state.ready {
                    theme::install(ui.ctx());
                    state.ready = true;
                    ui.ctx().request_repaint();
                    return;
                }
                let clicked = state.markdown.ui(ui, 15.0, &|_| None).map(str::to_owned);
                state.clicked.extend(clicked);
            },
            state,
        );
        harness.run();
        for label in ["of epsilon", "Start", "Show"] {
            harness.get_by_label(label).click();
            harness.run();
        }
        assert_eq!(harness.state().clicked, ["term:epsilon", "do:start", "show:log"]);
    }
}
