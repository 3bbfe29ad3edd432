//! The images of `examples/` of each run: the original, and its adversarial version against each run's network.

use std::sync::Arc;

use egui::{ColorImage, TextureHandle, TextureOptions, Ui};

use super::{Shown, swatch};
use crate::app::runs::{Example, Run};
use crate::app::widgets::{strong, weak};

/// Side of an image on the screen.
const SIDE: f32 = 64.0;

/// Width for the name of a run.
const NAME: f32 = 104.0;

/// Textures of the displayed runs.
#[derive(Default)]
pub(super) struct Images {
    of: Vec<(Arc<Run>, Vec<[TextureHandle; 2]>)>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("runs", &self.of.len()).finish()
    }
}

impl Images {
    pub(super) fn ui(&mut self, ui: &mut Ui, shown: &[Shown]) {
        self.load(ui, shown);
        let count = shown.iter().map(|shown| shown.run.examples.len()).max().unwrap_or(0);
        if count == 0 {
            ui.label(weak(ui, "There are none: a run writes them when all of its epochs are done."));
            return;
        }
        let size = egui::vec2(SIDE, SIDE);
        egui::ScrollArea::horizontal().id_salt("images").auto_shrink([false, true]).show(ui, |ui| {
            egui::Grid::new("examples").spacing([6.0, 6.0]).show(ui, |ui| {
                // Runs on other images show their own originals.
                let own = |i: usize| i > 0 && !same_originals(&shown[0].run, &shown[i].run);
                for (i, shown) in shown.iter().enumerate() {
                    if shown.run.examples.is_empty() {
                        continue;
                    }
                    let textures = &self.of[i].1;
                    if i == 0 || own(i) {
                        ui.label(strong("original"));
                        for (n, [original, _]) in textures.iter().enumerate() {
                            ui.add(egui::Image::new((original.id(), size)).alt_text(format!("original {n}")));
                        }
                        ui.end_row();
                    }
                    ui.vertical(|ui| {
                        ui.set_width(NAME);
                        swatch(ui, shown.index);
                        ui.add(egui::Label::new(&shown.run.name).wrap());
                    });
                    for (n, [_, adversarial]) in textures.iter().enumerate() {
                        let name = format!("{}: adversarial {n}", shown.run.name);
                        let image = ui.add(egui::Image::new((adversarial.id(), size)).alt_text(name));
                        image.on_hover_text(changed(&shown.run.examples[n]));
                    }
                    ui.end_row();
                }
            });
        });
        ui.label(
            weak(
                ui,
                "Each run attacked its own network, with the targets and radii of its next epoch where it has them.",
            )
            .size(13.0),
        );
    }

    /// Creates the textures of new runs.
    fn load(&mut self, ui: &Ui, shown: &[Shown]) {
        let known =
            self.of.len() == shown.len() && self.of.iter().zip(shown).all(|(of, shown)| Arc::ptr_eq(&of.0, &shown.run));
        if known {
            return;
        }
        let texture = |name: &str, size: [usize; 2], rgb: &[u8]| {
            ui.ctx().load_texture(name, ColorImage::from_rgb(size, rgb), TextureOptions::NEAREST)
        };
        let textures = |example: &Example| {
            [
                texture("original", example.size, &example.original),
                texture("adversarial", example.size, &example.adversarial),
            ]
        };
        self.of =
            shown.iter().map(|shown| (shown.run.clone(), shown.run.examples.iter().map(textures).collect())).collect();
    }
}

fn same_originals(a: &Run, b: &Run) -> bool {
    a.examples.len() == b.examples.len() && a.examples.iter().zip(&b.examples).all(|(a, b)| a.original == b.original)
}

/// The distance between the two files of an example, in levels of 255.
fn changed(example: &Example) -> String {
    let differences = example.original.iter().zip(&example.adversarial).map(|(a, b)| a.abs_diff(*b));
    format!("largest change {}/255 of a value, after rounding to bytes", differences.max().unwrap_or(0))
}
