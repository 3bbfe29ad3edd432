//! The gallery: images of the current batch before and after the attack, with the network's predictions; or those that
//! were counted in a cell of a statistic.

mod card;
mod cell;
mod filter;
mod past;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use egui::{Rect, Ui, vec2};

use crate::app::context::{Action, Context, Panel};
use crate::app::pictures::subject_from_set;
use crate::app::widgets::picture::Textures;
use crate::app::widgets::{empty, strong, weak};
use crate::config::AttackConfig;
use crate::data::Dataset;
use crate::engine::Norm;
use crate::worker::{self, Counted, ExamplesWish, Request};

pub use cell::Cell;
pub use filter::Outcome;
use filter::{Filter, Row};

/// Minimum interval between sets of images: often enough to feel live, rarely enough to cost training little.
const EVERY: Duration = Duration::from_millis(500);
/// Below this height the controls scroll together with the images.
const ROOMY: f32 = 420.0;

/// See the [module](self).
#[derive(Debug)]
pub struct Examples {
    shown: Option<Arc<worker::Examples>>,
    /// The examples of an earlier epoch.
    past: past::Unpacked,
    /// The set that was drawn last.
    drawn: Option<Arc<worker::Examples>>,
    /// Counts the displayed sets; part of the keys of their textures.
    generation: u64,
    textures: Textures,
    frozen: bool,
    filter: Filter,
    /// Side of an image in points.
    side: f32,
    asked: Option<ExamplesWish>,
    /// The images of the run that received the last request; another run needs a new request.
    asked_of: Option<Arc<Dataset>>,
    /// A cell that is to be shown.
    wanted: Option<Cell>,
    /// The cell that is shown instead of the current batch.
    cell: Option<cell::Open>,
    /// Counts the cells that were asked for.
    cells: u64,
}

impl Default for Examples {
    fn default() -> Self {
        Self {
            shown: None,
            past: past::Unpacked::default(),
            drawn: None,
            generation: 0,
            textures: Textures::default(),
            frozen: false,
            filter: Filter::default(),
            side: 72.0,
            asked: None,
            asked_of: None,
            wanted: None,
            cell: None,
            cells: 0,
        }
    }
}

impl Panel for Examples {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        self.request_images(ui, context);
        self.open_cell(context);
        if self.cell.is_some() {
            return self.cell_ui(ui, context);
        }
        self.take(context);
        let set = match past::epoch_shown(context) {
            Some(epoch) => match self.past.of(context.run, epoch) {
                Some(set) => set,
                None => return past::nothing(ui, context, epoch),
            },
            None => match self.shown.clone() {
                Some(set) => set,
                None => {
                    return empty(
                        ui,
                        "No images yet",
                        "While a run trains, images of its current batch appear here: before the attack, the change, and after it.",
                    );
                }
            },
        };
        if self.drawn.as_ref().is_none_or(|drawn| !Arc::ptr_eq(drawn, &set)) {
            self.drawn = Some(Arc::clone(&set));
            self.renew();
        }
        if ui.available_height() < ROOMY {
            egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                self.controls(ui, context, &set);
                self.gallery(ui, context, &set);
            });
        } else {
            self.controls(ui, context, &set);
            egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| self.gallery(ui, context, &set));
        }
    }
}

impl Examples {
    /// Shows the images that were counted in a cell of a statistic.
    pub fn show_cell(&mut self, cell: Cell) {
        self.wanted = Some(cell);
    }

    /// Asks for the images of a cell that is to be shown, and takes those that the worker has attacked.
    fn open_cell(&mut self, context: &mut Context<'_>) {
        if let Some(wanted) = self.wanted.take() {
            self.cells += 1;
            self.cell = cell::Open::ask(wanted, self.cells, context);
            self.drawn = None;
            self.renew();
        }
        if self.cell.as_ref().is_some_and(|cell| !cell.belongs_to(context.run)) {
            self.cell = None;
            self.shown = None;
            self.drawn = None;
        }
        if self.cell.as_mut().is_some_and(|cell| cell.renew(context.run)) {
            self.renew();
        }
    }

    /// Drops the textures of other images.
    fn renew(&mut self) {
        self.generation += 1;
        self.textures.clear();
    }

    fn cell_ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        let Some(cell) = &self.cell else { return };
        let (asked, images) = (cell.cell, cell.images.clone());
        let part = asked.of;
        if cell.heading(ui, context) {
            context.request(Request::Cell(None));
            (self.cell, self.shown, self.drawn) = (None, None, None);
            return;
        }
        if let Some(epoch) = past::epoch_shown(context).filter(|epoch| *epoch != asked.epoch) {
            ui.horizontal_wrapped(|ui| {
                ui.label(format!("These are not of epoch {}, which the scrubber shows.", epoch + 1));
                if ui.button(format!("Show those of epoch {}", epoch + 1)).clicked() {
                    self.wanted = Some(Cell { epoch, ..asked });
                }
            });
        }
        ui.horizontal_wrapped(|ui| self.sliders(ui, context));
        ui.separator();
        let Some(images) = images else { return };
        egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            let rows = Row::all(&images.images);
            self.cards(ui, context, &images.images, part, &rows);
        });
    }

    /// Called when the panel is no longer drawn: the run can stop sending images.
    pub fn hidden(&mut self, context: &mut Context<'_>) {
        if self.asked.take().is_some() {
            context.request(Request::Examples(None));
        }
    }

    /// Requests as many images as fit, if that number has changed.
    fn request_images(&mut self, ui: &Ui, context: &mut Context<'_>) {
        let now = context.run.info.as_ref().map(|info| &info.train);
        let same = match (now, &self.asked_of) {
            (Some(now), Some(asked)) => Arc::ptr_eq(now, asked),
            (now, asked) => now.is_none() && asked.is_none(),
        };
        let wish = (!self.frozen && now.is_some()).then(|| {
            let size = ui.available_size().max(vec2(1.0, 1.0));
            let fitting = self.columns(size.x) * (size.y / card::size(self.side).y).ceil() as usize;
            // In powers of two, so that dragging a border does not send a request for every change.
            ExamplesWish { count: fitting.next_power_of_two().clamp(16, 64), every: EVERY }
        });
        if wish != self.asked || !same {
            self.asked_of = now.cloned();
            if wish.is_some() || self.asked.is_some() {
                context.request(Request::Examples(wish));
            }
            self.asked = wish;
        }
    }

    /// Displays the newest images, unless the display is frozen.
    fn take(&mut self, context: &Context<'_>) {
        let Some(newest) = &context.run.examples else { return };
        let new = self.shown.as_ref().is_none_or(|shown| !Arc::ptr_eq(shown, newest));
        if new && !(self.frozen && self.shown.is_some()) {
            self.shown = Some(Arc::clone(newest));
        }
    }

    fn controls(&mut self, ui: &mut Ui, context: &mut Context<'_>, set: &worker::Examples) {
        let rows = Row::all(set);
        ui.horizontal_wrapped(|ui| {
            ui.label(strong(format!("Epoch {}, batch {}", set.epoch + 1, set.batch + 1)));
            let (step, steps) = set.step;
            let text = match filter::over(set) {
                true => format!("after {steps} attack steps"),
                false => format!("attack step {step} of {steps}"),
            };
            ui.label(text);
            let past = past::epoch_shown(context).and_then(|epoch| context.run.past.of(epoch));
            let attack = past.map(|past| &past.attack);
            let attack = attack.or(context.run.experiment.as_ref().map(|experiment| &experiment.attack));
            if let Some(attack) = attack {
                ui.label(weak(ui, training_attack(attack, set.targets.is_some())));
            }
            if let Some(past) = past {
                past::rounded(ui, past);
            }
        });
        self.filter.ui(ui, context.run.class_names(), &rows, set.targets.is_some(), filter::over(set));
        ui.horizontal_wrapped(|ui| {
            let shown = rows.iter().filter(|row| self.filter.admits(row)).count();
            if context.focus.is_live() {
                ui.checkbox(&mut self.frozen, "Freeze").on_hover_text(
                    "Keep these images while looking; the run goes on. Released, the newest images appear again.",
                );
            }
            ui.label(format!("{shown} of {} shown", rows.len()));
            ui.add_space(if is_narrow(ui) { 0.0 } else { 8.0 });
            self.sliders(ui, context);
        });
        ui.separator();
    }

    /// The sliders for perturbation and size.
    fn sliders(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        ui.spacing_mut().slider_width = if is_narrow(ui) { 40.0 } else { 90.0 };
        let label = ui.label("Perturbation");
        ui.add(
            egui::Slider::new(&mut context.settings.magnification, 1.0..=50.0)
                .logarithmic(true)
                .max_decimals(0)
                .prefix("×"),
        )
        .labelled_by(label.id)
        .on_hover_text("Factor by which the displayed change is magnified; ×1 is the change itself.");
        let label = ui.label("Size");
        ui.add(egui::Slider::new(&mut self.side, 40.0..=160.0).show_value(false))
            .labelled_by(label.id)
            .on_hover_text("Size of the images.");
    }

    /// The number of columns that comes closest to the chosen image size; the cards then fill the width.
    fn columns(&self, width: f32) -> usize {
        let card = card::size(self.side).x + card::GAP;
        (((width + card::GAP) / card).round() as usize).max(1)
    }

    fn gallery(&mut self, ui: &mut Ui, context: &mut Context<'_>, set: &worker::Examples) {
        let rows: Vec<Row> = Row::all(set).into_iter().filter(|row| self.filter.admits(row)).collect();
        if rows.is_empty() {
            let hope = if context.focus.is_live() { " The next batches may bring some." } else { "" };
            ui.label(format!("None of these images is one of those.{hope}"));
            if ui.button("Show all").clicked() {
                self.filter = Filter::default();
            }
            return;
        }
        self.cards(ui, context, set, Counted::Training, &rows);
    }

    /// The images of a part of the data set; each opens in the inspector.
    fn cards(&mut self, ui: &mut Ui, context: &mut Context<'_>, set: &worker::Examples, part: Counted, rows: &[Row]) {
        let width = ui.available_width();
        let columns = self.columns(width);
        let pitch = ((width + card::GAP) / columns as f32).min(600.0);
        let card = card::size((pitch - card::GAP - card::FRAME) / 3.0);
        let pitch = vec2(pitch, card.y + card::GAP);
        let lines = rows.len().div_ceil(columns);
        let (area, _) = ui.allocate_exact_size(vec2(width, lines as f32 * pitch.y), egui::Sense::hover());
        let mut chosen = None;
        for (i, row) in rows.iter().enumerate() {
            let corner = vec2((i % columns) as f32 * pitch.x, (i / columns) as f32 * pitch.y);
            let rect = Rect::from_min_size(area.min + corner, card);
            // One extra row, so that keyboard navigation can reach it.
            if !ui.is_rect_visible(rect.expand(pitch.y)) {
                continue;
            }
            let card = card::Card {
                set,
                part,
                row,
                names: context.run.class_names(),
                generation: self.generation,
                magnification: context.settings.magnification.round(),
            };
            let response = card.ui(ui, rect, &mut self.textures);
            if response.gained_focus() {
                response.scroll_to_me(None);
            }
            if response.clicked() {
                chosen = Some(set.ids[row.index]);
            }
        }
        if let (Some(id), Some(info)) = (chosen, &context.run.info)
            && let Some(subject) = subject_from_set(part.name(), part.set(info), id as usize)
        {
            context.ask(Action::Inspect(subject));
        }
    }
}

/// Whether the panel is too narrow for long sliders.
fn is_narrow(ui: &Ui) -> bool {
    ui.max_rect().width() < 560.0
}

/// The training attack in one line; the radius differs between classes and is shown at each image.
fn training_attack(attack: &AttackConfig, targeted: bool) -> String {
    let norm = match attack.norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    };
    let targeted = if targeted { "targeted " } else { "" };
    let start = if attack.random_start { "random start" } else { "no random start" };
    format!("under {targeted}PGD-{}, {norm}, step {}, {start}", attack.steps, attack.step_size)
}
