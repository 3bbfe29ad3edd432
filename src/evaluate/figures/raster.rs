//! PNG: small images inside an SVG, and rendering an SVG to pixels.

use std::sync::{Arc, LazyLock};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageError};
use resvg::{tiny_skia, usvg};

use super::system_fonts::{SystemFonts, embedded};
use super::text;

/// Why an SVG cannot be rendered as a PNG.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The SVG is not valid.
    #[error("the SVG is not valid: {0}")]
    Svg(#[from] usvg::Error),
    /// Not enough memory for this number of pixels.
    #[error("{width} × {height} pixels are too many to draw")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The PNG encoder failed.
    #[error("cannot encode the PNG: {0}")]
    Encode(#[from] ImageError),
}

/// Pixels of an image for the canvas, `channels` (1 grey, 3 colour) interleaved.
pub(super) fn encode(pixels: &[u8], width: u32, height: u32, channels: usize) -> Result<Vec<u8>, ImageError> {
    let color = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut png = Vec::new();
    PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive)
        .write_image(pixels, width, height, color)?;
    Ok(png)
}

fn options(fonts: &Arc<fontdb::Database>) -> usvg::Options<'static> {
    usvg::Options { font_family: text::FAMILY.to_owned(), fontdb: Arc::clone(fonts), ..usvg::Options::default() }
}

/// Draws `svg` at `scale` device pixels per unit on a white background.
pub(super) fn render(svg: &str, scale: f32) -> Result<Vec<u8>, RenderError> {
    // Only names from users can contain characters that the embedded font lacks. Without them, every machine renders
    // the same pixels.
    let tree = if text::is_covered(svg) {
        usvg::Tree::from_str(svg, &options(&EMBEDDED))?
    } else {
        let fonts = SystemFonts::installed();
        let mut options = options(fonts.database());
        options.font_resolver.select_fallback =
            Box::new(|character, except, _: &mut Arc<fontdb::Database>| fonts.face(character, except));
        usvg::Tree::from_str(svg, &options)?
    };
    let (width, height) = ((tree.size().width() * scale).ceil() as u32, (tree.size().height() * scale).ceil() as u32);
    let mut pixmap = tiny_skia::Pixmap::new(width, height).ok_or(RenderError::TooLarge { width, height })?;
    pixmap.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    let rgb: Vec<u8> = pixmap.data().chunks_exact(4).flat_map(|rgba| [rgba[0], rgba[1], rgba[2]]).collect();
    Ok(encode(&rgb, width, height, 3)?)
}

static EMBEDDED: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| Arc::new(embedded()));
