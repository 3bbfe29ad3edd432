//! Adversarial examples as a grid of images: original, perturbation, adversarial, and the predictions of the network.

use super::axes::{GREEN, LABEL, MARGIN, SMALL, VERMILLION, header, k255, named, some};
use super::classes::is_fraction;
use super::svg::{AXIS, Canvas, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError, RenderError, raster};

/// An image before and after the attack.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Pixels in `[0, 1]`, `C × H × W`.
    pub original: Vec<f32>,
    /// The adversarial image, likewise.
    pub adversarial: Vec<f32>,
    /// Channels: one is shown in grey, three in colour.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// True class.
    pub label: usize,
    /// Class that a targeted attack aimed at.
    pub target: Option<usize>,
    /// Prediction for the adversarial image.
    pub prediction: usize,
    /// Prediction for the original, if known.
    pub clean_prediction: Option<usize>,
    /// Radius of the attack on this image.
    pub epsilon: f64,
}

/// Longest side of an image in the figure.
const SIDE: f64 = 80.0;
const COLUMN_GAP: f64 = 10.0;
const LINE: f64 = 15.0;

/// A grid of adversarial examples: original, perturbation (signed, magnified, on mid grey), adversarial; below them
/// label → target → prediction. Bands of six to ten columns.
///
/// Examples with targets are labelled with the training attack, others with the evaluation attack.
///
/// # Errors
/// [`FigureError::Empty`] without examples, [`FigureError::Length`] when pixels and size do not agree.
pub fn adversarial_examples(examples: &[Example], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "examples";
    some(NAME, examples, "no examples")?;
    for (index, example) in examples.iter().enumerate() {
        check(NAME, index, example)?;
    }
    let largest = examples.iter().flat_map(deltas).filter(|d| d.is_finite()).fold(0.0, |a: f32, d| a.max(d.abs()));
    let factor = magnification(largest);
    let columns = columns(examples.len());
    let side = examples.iter().map(shown).fold((0.0, 0.0), |a: (f64, f64), b| (a.0.max(b.0), a.1.max(b.1)));
    let pitch = side.0.max(56.0) + COLUMN_GAP;

    let targeted = examples.iter().any(|example| example.target.is_some());
    let mistaken = |example: &Example| example.clean_prediction.is_some_and(|class| class != example.label);
    let clean_row = examples.iter().any(mistaken);
    let mut titles = vec!["label"];
    if targeted {
        titles.push("→ target");
    }
    titles.push("→ prediction");
    if clean_row {
        titles.push("clean prediction");
    }
    titles.push("ε");
    let perturbation = format!("× {factor}");
    let image_titles: [&[&str]; 3] = [&["original"], &["perturbation", &perturbation], &["adversarial"]];
    let head = titles.iter().chain(image_titles.iter().copied().flatten());
    let gutter = head.map(|title| text::width(title, LABEL, Weight::Regular)).fold(0.0, f64::max).ceil();

    let left = MARGIN + gutter + 12.0;
    let mut canvas = Canvas::new((left + columns as f64 * pitch - COLUMN_GAP + MARGIN).max(440.0));
    let attack = if targeted {
        named(&context.train_attack, "the training attack")
    } else {
        named(&context.attack, "the evaluation attack")
    };
    let attack = format!("Attack: {attack}");
    let magnified = format!("Perturbation: {factor} × (adversarial − original) on mid grey");
    let mut top = header(&mut canvas, "Adversarial examples", context, &[attack, magnified]) + 10.0;
    for band in examples.chunks(columns) {
        for (row, lines) in image_titles.iter().enumerate() {
            let middle = top + row as f64 * (side.1 + 6.0) + side.1 / 2.0;
            for (line, title) in lines.iter().enumerate() {
                let y = middle + (line as f64 - (lines.len() - 1) as f64 / 2.0) * LINE;
                canvas.centered_text(left - 12.0, y, Style::new(LABEL).end(), title);
            }
        }
        let table = top + 3.0 * (side.1 + 6.0) + 12.0;
        for (row, title) in titles.iter().enumerate() {
            canvas.text(left - 12.0, table + row as f64 * LINE, Style::new(LABEL).fill(MUTED).end(), title);
        }
        for (column, example) in band.iter().enumerate() {
            let x = left + column as f64 * pitch;
            let room = pitch - COLUMN_GAP;
            let (width, height) = shown(example);
            // Aligned to whole pixels of the PNG, so that all squares have the same size.
            let offset = (room - width).max(0.0).floor() / 2.0;
            for (row, pixels) in pictures(example, factor).iter().enumerate() {
                let y = top + row as f64 * (side.1 + 6.0);
                let channels = if example.channels >= 3 { 3 } else { 1 };
                let png = raster::encode(pixels, example.width as u32, example.height as u32, channels)
                    .map_err(|source| FigureError::Render { figure: NAME, source: RenderError::Encode(source) })?;
                canvas.pixels(x + offset, y, width, height, &png);
                canvas.frame(x + offset - 0.25, y - 0.25, width + 0.5, height + 0.5, Stroke::new(AXIS, 0.5));
            }
            let mut lines = vec![(Some(example.label), INK)];
            let verdict = lines.len() + usize::from(targeted);
            if targeted {
                lines.push((example.target, INK));
            }
            lines
                .push((Some(example.prediction), if example.prediction == example.label { GREEN } else { VERMILLION }));
            if clean_row {
                lines.push((example.clean_prediction, if mistaken(example) { VERMILLION } else { MUTED }));
            }
            let center = x + room / 2.0;
            for (row, &(class, color)) in lines.iter().enumerate() {
                let style = Style::new(SMALL).fill(color).middle();
                let style = if row == verdict { style.bold() } else { style };
                let name = class.map_or("–".to_owned(), |class| context.label(class));
                let name = text::fit(&name, style.size, style.weight, pitch - 4.0);
                canvas.text(center, table + row as f64 * LINE, style, &name);
            }
            let epsilon = if is_fraction(&example.epsilon) { k255(example.epsilon) } else { "–".to_owned() };
            let y = table + lines.len() as f64 * LINE;
            canvas.text(center, y, Style::new(SMALL).fill(MUTED).middle(), &epsilon);
        }
        top = table + titles.len() as f64 * LINE + 10.0;
    }
    Ok(Figure { name: NAME, svg: canvas.finish(top - 16.0 + MARGIN - 6.0, "Adversarial examples") })
}

fn check(figure: &'static str, index: usize, example: &Example) -> Result<(), FigureError> {
    let size = example.channels.checked_mul(example.height).and_then(|size| size.checked_mul(example.width));
    let expected = size.filter(|&size| size > 0 && example.height <= 4096 && example.width <= 4096);
    let (channels, height, width) = (example.channels, example.height, example.width);
    for (which, pixels) in [("original", &example.original), ("adversarial", &example.adversarial)] {
        if expected != Some(pixels.len()) {
            let what = format!("{which} image {index} of {channels} × {height} × {width}");
            return Err(FigureError::Length { figure, what, expected: expected.unwrap_or(0), found: pixels.len() });
        }
    }
    Ok(())
}

/// Columns of a band: all examples if there are at most ten, else the number from six to ten that leaves the fewest
/// places empty.
fn columns(examples: usize) -> usize {
    if examples <= 10 {
        return examples.max(1);
    }
    (6..=10).rev().min_by_key(|&columns| (columns - examples % columns) % columns).unwrap_or(10)
}

/// Width and height in the figure. The longest side is as close to [`SIDE`] as whole PNG pixels allow.
fn shown(example: &Example) -> (f64, f64) {
    let longest = example.width.max(example.height) as f64;
    let scale = (2.0 * SIDE / longest).floor() / 2.0;
    let scale = if scale > 0.0 { scale } else { SIDE / longest };
    (example.width as f64 * scale, example.height as f64 * scale)
}

fn deltas(example: &Example) -> impl Iterator<Item = f32> + '_ {
    example.adversarial.iter().zip(&example.original).map(|(adversarial, original)| adversarial - original)
}

/// The largest round factor that keeps the perturbation within half of the range.
fn magnification(largest: f32) -> u32 {
    let limit = if largest > 0.0 { 0.5 / largest } else { 1.0 };
    [100, 50, 40, 30, 25, 20, 15, 10, 8, 6, 5, 4, 3, 2].into_iter().find(|&f| f as f32 <= limit * 1.02).unwrap_or(1)
}

/// Original, perturbation and adversarial as interleaved bytes.
fn pictures(example: &Example, factor: u32) -> [Vec<u8>; 3] {
    let plane = example.height * example.width;
    let shown = if example.channels >= 3 { 3 } else { 1 };
    let interleave = |value: &dyn Fn(usize) -> f32| -> Vec<u8> {
        let order = (0..plane).flat_map(|pixel| (0..shown).map(move |channel| channel * plane + pixel));
        // The cast saturates and maps NaN to 0.
        order.map(|index| (value(index) * 255.0).round() as u8).collect()
    };
    let difference = |index: usize| example.adversarial[index] - example.original[index];
    [
        interleave(&|index| example.original[index]),
        interleave(&|index| 0.5 + factor as f32 * difference(index)),
        interleave(&|index| example.adversarial[index]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_six_to_ten_wide() {
        assert_eq!([1, 7, 10, 12, 14, 16, 20, 24].map(columns), [1, 7, 10, 6, 7, 8, 10, 8]);
    }

    #[test]
    fn the_factor_fills_the_range_without_leaving_it() {
        assert_eq!(magnification(8.0 / 255.0), 15);
        assert_eq!(magnification(0.3), 1);
        assert_eq!(magnification(0.0), 1);
        assert_eq!(magnification(1e-6), 100);
    }

    #[test]
    fn a_perturbation_lies_on_mid_grey() {
        let example = Example {
            original: vec![0.5, 0.5, 0.0],
            adversarial: vec![0.5, 0.51, f32::NAN],
            channels: 1,
            height: 1,
            width: 3,
            label: 0,
            target: None,
            prediction: 0,
            clean_prediction: None,
            epsilon: 0.01,
        };
        let [original, perturbation, adversarial] = pictures(&example, 10);
        assert_eq!(original, [128, 128, 0]);
        assert_eq!(perturbation, [128, 153, 0]);
        assert_eq!(adversarial, [128, 130, 0]);
    }
}
