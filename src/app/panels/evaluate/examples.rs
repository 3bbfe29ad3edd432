//! A few images that fell to an attack.

use std::sync::Arc;

use egui::{RichText, Slider, Ui, vec2};

use super::export;
use crate::app::context::Context;
use crate::app::theme;
use crate::app::widgets::picture::{self, Textures};
use crate::app::widgets::{export_menu, strong, weak};
use crate::data::ImageShape;
use crate::evaluate::robustness::Fallen;
use crate::worker::evaluation::{FallenImages, FinishedEvaluation};

/// Side of an image in points.
const SIDE: f32 = 72.0;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Examples {
    /// The attack, by its place in the plan.
    entry: usize,
    textures: Textures,
    /// The images that the textures are of.
    of: Option<Arc<FallenImages>>,
}

impl Examples {
    /// Starts anew with the first attack.
    pub(super) fn forget(&mut self) {
        self.entry = 0;
    }

    pub(super) fn ui(
        &mut self,
        ui: &mut Ui,
        context: &mut Context<'_>,
        finished: &FinishedEvaluation,
        fallen: &[Option<Arc<FallenImages>>],
    ) {
        let rows = &finished.evaluation.rows;
        let known: Vec<&Arc<FallenImages>> = fallen.iter().flatten().collect();
        let Some(first) = known.first() else {
            ui.label(strong("Adversarial examples"));
            let text = if context.evaluation.is_running() { "They are being collected." } else { "No image fell." };
            ui.label(weak(ui, text));
            return;
        };
        let shown = Arc::clone(known.iter().find(|images| images.entry == self.entry).unwrap_or(first));
        self.entry = shown.entry;
        if self.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, &shown)) {
            self.textures.clear();
            self.of = Some(Arc::clone(&shown));
        }
        ui.horizontal_wrapped(|ui| {
            ui.label(strong("Adversarial examples"));
            if let Some(row) = rows.get(shown.entry) {
                export_menu(ui, context, "adversarial examples", || {
                    export::examples(finished, row, shown.shape, &shown.images)
                });
            }
            let label = ui.label("Perturbation");
            ui.spacing_mut().slider_width = 80.0;
            ui.add(
                Slider::new(&mut context.settings.magnification, 1.0..=50.0)
                    .logarithmic(true)
                    .max_decimals(0)
                    .prefix("×"),
            )
            .labelled_by(label.id)
            .on_hover_text("Factor by which the displayed change is magnified; ×1 is the change itself.");
        });
        ui.horizontal_wrapped(|ui| {
            ui.label("fell to");
            for images in known {
                let Some(row) = rows.get(images.entry) else { continue };
                ui.selectable_value(&mut self.entry, images.entry, row.entry.title())
                    .on_hover_text(row.entry.attack.to_string());
            }
        });
        let names = finished.evaluation.class_names();
        let magnification = context.settings.magnification;
        let image = |ui: &mut Ui, index: usize, image: &Fallen| {
            card(ui, &mut self.textures, (index, image), shown.shape, names, magnification);
        };
        let mut image = image;
        let gap = ui.spacing().item_spacing.x;
        let columns = ((ui.available_width() + gap) / (WIDTH + gap)).floor().max(1.0) as usize;
        for (line, images) in shown.images.chunks(columns).enumerate() {
            ui.horizontal(|ui| {
                for (place, one) in images.iter().enumerate() {
                    image(ui, line * columns + place, one);
                }
            });
        }
    }
}

/// Space between the images of a card.
const BETWEEN: f32 = 4.0;
/// Width of a card.
const WIDTH: f32 = 3.0 * SIDE + 2.0 * BETWEEN;

/// The image before, the change, and after; its class, and what it is taken for.
fn card(
    ui: &mut Ui,
    textures: &mut Textures,
    (index, image): (usize, &Fallen),
    shape: ImageShape,
    names: &[String],
    magnification: f32,
) {
    let palette = theme::palette(ui);
    let dark = ui.visuals().dark_mode;
    let name = |class: u32| names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
    let about = format!("Test image {}: {}, predicted {}", image.number, name(image.label), name(image.prediction));
    ui.allocate_ui(vec2(WIDTH, SIDE + 26.0), |ui| {
        ui.vertical(|ui| {
            ui.set_width(WIDTH);
            ui.spacing_mut().item_spacing = vec2(BETWEEN, 2.0);
            ui.horizontal(|ui| {
                for (place, what) in ["original", "perturbation", "adversarial"].into_iter().enumerate() {
                    // Only the perturbation depends on the magnification.
                    let factor = if place == 1 { magnification } else { 1.0 };
                    let texture = textures.get(ui.ctx(), (index, place, factor.to_bits()), || match place {
                        0 => picture::plain(&image.clean, shape),
                        1 => picture::perturbation(&image.clean, &image.adversarial, shape, factor),
                        _ => picture::plain(&image.adversarial, shape),
                    });
                    let response = picture::show(ui, texture, SIDE, &format!("{about}: {what}"));
                    picture::explain_pixel(&response, shape, &image.clean, &image.adversarial);
                }
            });
            ui.horizontal(|ui| {
                let small = |text: String| RichText::new(text).size(12.0);
                ui.label(small("●".into()).color(theme::class_color(image.label as usize, dark)));
                ui.label(small(name(image.label)));
                ui.label(small("→".into()).color(palette.weak));
                ui.label(small("●".into()).color(theme::class_color(image.prediction as usize, dark)));
                ui.label(strong(name(image.prediction)).size(12.0));
            })
            .response
            .on_hover_text(&about);
        });
    });
}
