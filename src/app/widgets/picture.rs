//! Small images, enlarged without interpolation and kept on the GPU while they are shown.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use egui::{Color32, ColorImage, Rect, Response, Sense, TextureHandle, TextureOptions, Ui, Vec2, pos2};

use crate::app::theme;
use crate::data::ImageShape;

/// Number of textures that are kept although the last frame did not draw them.
const SPARE: usize = 256;

/// Textures by content key: each is uploaded once, not in every frame.
#[derive(Default)]
pub struct Textures {
    known: HashMap<u64, (u64, TextureHandle)>,
}

impl std::fmt::Debug for Textures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Textures").field("known", &self.known.len()).finish()
    }
}

impl Textures {
    /// The texture of `key`, created if necessary. The same key must always mean the same pixels.
    pub fn get(
        &mut self,
        context: &egui::Context,
        key: impl Hash,
        make: impl FnOnce() -> ColorImage,
    ) -> &TextureHandle {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let (key, now) = (hasher.finish(), context.cumulative_frame_nr());
        if self.known.len() > SPARE && !self.known.contains_key(&key) {
            self.known.retain(|_, (used, _)| *used + 1 >= now);
        }
        let load = || (now, context.load_texture(format!("picture {key:x}"), make(), TextureOptions::NEAREST));
        let entry = self.known.entry(key).or_insert_with(load);
        entry.0 = now;
        &entry.1
    }

    /// Drops all textures.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

/// A `C × H × W` image in `[0, 1]`, unchanged.
pub fn plain(values: &[f32], shape: ImageShape) -> ColorImage {
    // The cast saturates and maps NaN to 0.
    let byte = |v: f32| (v * 255.0).round() as u8;
    paint(values, shape, |v| Color32::from_gray(byte(v)), |[r, g, b]| Color32::from_rgb(byte(r), byte(g), byte(b)))
}

/// `magnification × (after − before)`, signed: grey images from blue (darker) through white to red (lighter), colour
/// images by channel on mid grey.
pub fn perturbation(before: &[f32], after: &[f32], shape: ImageShape, magnification: f32) -> ColorImage {
    let shown: Vec<f32> = before.iter().zip(after).map(|(b, a)| 0.5 + magnification * (a - b)).collect();
    let byte = |v: f32| (v * 255.0).round() as u8;
    let signed = |v: f32| theme::diverging(f64::from(v));
    paint(&shown, shape, signed, |[r, g, b]| Color32::from_rgb(byte(r), byte(g), byte(b)))
}

fn paint(
    values: &[f32],
    shape: ImageShape,
    grey: impl Fn(f32) -> Color32,
    colour: impl Fn([f32; 3]) -> Color32,
) -> ColorImage {
    let (size, plane) = ([shape.width, shape.height], shape.width * shape.height);
    if values.len() != shape.len() || shape.channels == 0 {
        return ColorImage::filled(size, Color32::GRAY);
    }
    let pixel = |i: usize| match shape.channels {
        3 => colour([values[i], values[plane + i], values[2 * plane + i]]),
        _ => grey(values[i]),
    };
    ColorImage::new(size, (0..plane).map(pixel).collect())
}

/// Draws a texture with its longer side `side` points long, with a name for screen readers.
pub fn show(ui: &mut Ui, texture: &TextureHandle, side: f32, name: &str) -> Response {
    let (rect, response) = ui.allocate_exact_size(fitted(texture, side), Sense::hover());
    let frame = theme::palette(ui).line;
    ui.painter().image(texture.id(), rect, Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0)), Color32::WHITE);
    ui.painter().rect_stroke(rect, 0, (1.0, frame), egui::StrokeKind::Outside);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, name));
    response
}

fn fitted(texture: &TextureHandle, side: f32) -> Vec2 {
    let size = texture.size_vec2();
    size * side / size.max_elem().max(1.0)
}

/// Shows the values under the pointer: before and after an attack and their difference, in levels of 255.
pub fn explain_pixel(response: &Response, shape: ImageShape, before: &[f32], after: &[f32]) {
    let Some((column, row)) = response.hover_pos().and_then(|at| pixel_at(response.rect, shape, at)) else { return };
    response.clone().on_hover_ui_at_pointer(|ui| {
        ui.label(super::strong(format!("Column {column}, row {row}")));
        egui::Grid::new("pixel").num_columns(4).spacing([12.0, 2.0]).show(ui, |ui| {
            for heading in ["", "before", "after", "change (of 255)"] {
                ui.label(super::weak(ui, heading));
            }
            ui.end_row();
            for (name, [before, after]) in values_at(shape, before, after, column, row) {
                ui.label(name);
                for text in [format!("{before:.0}"), format!("{after:.1}"), format!("{:+.1}", after - before)] {
                    ui.monospace(text);
                }
                ui.end_row();
            }
        });
    });
}

/// Column and row of the pixel at a point of the picture.
fn pixel_at(rect: Rect, shape: ImageShape, at: egui::Pos2) -> Option<(usize, usize)> {
    let part = (at - rect.min) / rect.size();
    let index = |part: f32, count: usize| (0.0..1.0).contains(&part).then_some((part * count as f32) as usize);
    Some((index(part.x, shape.width)?, index(part.y, shape.height)?))
}

/// Name of each channel with its value before and after, in levels of 255.
fn values_at(
    shape: ImageShape,
    before: &[f32],
    after: &[f32],
    column: usize,
    row: usize,
) -> Vec<(&'static str, [f32; 2])> {
    let names: &[&str] = if shape.channels == 3 { &["red", "green", "blue"] } else { &["grey"] };
    let value = |(channel, name): (usize, &&'static str)| {
        let at = (channel * shape.height + row) * shape.width + column;
        Some((*name, [255.0 * before.get(at)?, 255.0 * after.get(at)?]))
    };
    names.iter().enumerate().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_pixel_is_the_middle_of_the_scale() {
        let grey = ImageShape::new(1, 1, 3);
        let shown = perturbation(&[0.5; 3], &[0.5, 0.52, 0.48], grey, 10.0);
        assert_eq!(shown.pixels[0], theme::diverging(0.5));
        assert!(shown.pixels[1].r() > shown.pixels[1].b(), "lighter is red");
        assert!(shown.pixels[2].b() > shown.pixels[2].r(), "darker is blue");
        let colour = perturbation(&[0.0; 3], &[0.0, 0.02, 0.2], ImageShape::new(3, 1, 1), 10.0);
        assert_eq!(colour.pixels, [Color32::from_rgb(128, 179, 255)]);
    }

    #[test]
    fn planes_become_pixels() {
        let image = plain(&[1.0, 0.0, 0.0, 1.0, 0.0, f32::NAN], ImageShape::new(3, 1, 2));
        assert_eq!(image.pixels, [Color32::from_rgb(255, 0, 0), Color32::from_rgb(0, 255, 0)]);
    }

    #[test]
    fn the_pixel_under_the_pointer_is_named() {
        let rect = Rect::from_min_size(pos2(10.0, 20.0), egui::vec2(80.0, 40.0));
        let shape = ImageShape::new(3, 4, 8);
        assert_eq!(pixel_at(rect, shape, pos2(10.0, 20.0)), Some((0, 0)));
        assert_eq!(pixel_at(rect, shape, pos2(89.0, 35.0)), Some((7, 1)));
        assert_eq!(pixel_at(rect, shape, pos2(91.0, 35.0)), None);
        let (before, after) = (vec![0.0; 96], (0..96).map(|i| i as f32 / 255.0).collect::<Vec<f32>>());
        let values = values_at(shape, &before, &after, 7, 1);
        let levels: Vec<_> = values.iter().map(|(name, [_, after])| (*name, after.round() as usize)).collect();
        assert_eq!(levels, [("red", 15), ("green", 47), ("blue", 79)]);
    }

    #[test]
    fn a_texture_is_made_once() {
        let context = egui::Context::default();
        let mut textures = Textures::default();
        let mut made = 0;
        for key in [1, 1, 2, 1] {
            textures.get(&context, key, || {
                made += 1;
                plain(&[0.0], ImageShape::new(1, 1, 1))
            });
        }
        assert_eq!(made, 2);
    }
}
