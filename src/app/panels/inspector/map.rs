//! The decision map: a plane through the image, coloured by the predicted class.

use std::sync::Arc;

use egui::{
    Color32, ColorImage, ComboBox, DragValue, FontId, Grid, Pos2, Rect, Role, Sense, Shape, Stroke, Ui, WidgetInfo,
    pos2, vec2,
};

use super::attack::distance;
use super::export;
use crate::app::context::Context;
use crate::app::theme;
use crate::app::widgets::picture::Textures;
use crate::app::widgets::{epsilon, export_menu, percent, strong, weak};
use crate::attack::norm_name;
use crate::engine::Norm;
use crate::units::Epsilon;
use crate::worker::{DecisionMap, Direction, InspectionAttack, MapJob, Subject};

/// Longest side of the map in points.
const LARGEST: f32 = 460.0;

/// The settings of the map; the attack defines the radius of the ball.
#[derive(Debug)]
pub(super) struct MapForm {
    pub(super) axes: [Direction; 2],
    /// Half of the side length, in levels of 255; `None` for twice the radius of the attack.
    pub(super) extent: Option<f64>,
    pub(super) resolution: usize,
    textures: Textures,
}

impl Default for MapForm {
    fn default() -> Self {
        // Any two directions may show a single class, even of an image that the attack moves across a border.
        let axes = [Direction::Attack, Direction::Rival];
        Self { axes, extent: None, resolution: 33, textures: Textures::default() }
    }
}

impl MapForm {
    /// Drops the textures of the last answer.
    pub(super) fn renew(&mut self) {
        self.textures.clear();
    }

    /// Points the axes to existing classes.
    pub(super) fn choose_axes(&mut self, classes: usize) {
        let count = classes.max(1) as u32;
        for (i, axis) in self.axes.iter_mut().enumerate() {
            if matches!(axis, Direction::Class(class) if *class >= count) {
                *axis = Direction::Random(1 + i as u64);
            }
        }
    }

    pub(super) fn job(&self, id: u64, subject: Subject, attack: InspectionAttack) -> MapJob {
        let extent = self.extent.map(|extent| Epsilon::levels(extent.max(0.25)));
        MapJob { id, subject, axes: self.axes, extent, resolution: self.resolution, attack }
    }

    pub(super) fn controls(&mut self, ui: &mut Ui, names: &[String], attack: &InspectionAttack) {
        ui.spacing_mut().slider_width = (ui.available_width() - 200.0).clamp(60.0, 180.0);
        Grid::new("map").num_columns(2).spacing([8.0, 4.0]).show(ui, |ui| {
            for (i, name) in ["Axis right", "Axis up"].into_iter().enumerate() {
                ui.label(name).on_hover_text(
                    "Along the change by the attack, along the gradient that leads towards a class, or along a random \
                     direction. The runner-up is the target of the attack, or the most likely other class after it. The \
                     second axis is made orthogonal to the first; 1/255 along an axis changes no value by more than one \
                     level.",
                );
                ui.horizontal(|ui| axis(ui, name, &mut self.axes[i], names));
                ui.end_row();
            }
            ui.label("Extent").on_hover_text("Half of the side of the plane.");
            ui.horizontal(|ui| {
                let mut follows = self.extent.is_none();
                if ui.checkbox(&mut follows, "2 ε").on_hover_text("Twice the radius of the attack").changed() {
                    let radius = 2.0 * 255.0 * attack.epsilon.exact();
                    self.extent = (!follows).then_some(if attack.norm == Norm::L2 { 24.0 } else { radius.max(0.25) });
                }
            });
            ui.end_row();
            if let Some(extent) = &mut self.extent {
                distance(ui, "Half of the side", extent, 128.0, "Half of the side of the plane.");
                *extent = extent.max(0.25);
            }
            ui.label("Points").on_hover_text("Points along a side. More take longer, and training waits meanwhile.");
            ui.horizontal(|ui| {
                for resolution in [33, 65, 97] {
                    ui.selectable_value(&mut self.resolution, resolution, format!("{resolution}²"));
                }
            });
            ui.end_row();
        });
    }

    /// Draws the newest answer, with a mark at a step of the attack. Returns the step that was chosen.
    pub(super) fn ui(
        &mut self,
        ui: &mut Ui,
        context: &mut Context<'_>,
        map: &Arc<DecisionMap>,
        step: Option<usize>,
    ) -> Option<usize> {
        let n = map.job.resolution;
        if n == 0 || map.predictions.len() != n * n || map.confidence.len() != n * n {
            return None;
        }
        let mut chosen = None;
        let names = context.run.class_names().to_vec();
        let classes = names.len().max(2);
        let dark = ui.visuals().dark_mode;
        let wide = ui.available_width() > 440.0;
        let legend = if wide { 150.0 } else { 0.0 };
        // The whole map must be visible, also in a low panel.
        let room = (ui.available_width() - legend - 34.0).min(ui.clip_rect().height() - 90.0);
        let side = room.clamp(120.0, LARGEST);
        ui.horizontal_top(|ui| {
            ui.vertical(|ui| {
                let texture = self.textures.get(ui.ctx(), (map.job.id, dark), || colours(map, classes, dark));
                let texture = texture.id();
                chosen = draw(ui, map, texture, side, &names, step);
            });
            if wide {
                ui.vertical(|ui| shares(ui, map, &names));
            }
        });
        if !wide {
            ui.horizontal_wrapped(|ui| shares(ui, map, &names));
        }
        let attack = &map.job.attack;
        let (radius, norm) = (epsilon(attack.epsilon.exact()), norm_name(attack.norm));
        let on_the_plane = match map.axes[0] {
            Direction::Attack => "; its end lies on the plane",
            _ => "",
        };
        ui.label(weak(
            ui,
            format!(
                "Outline: where the plane cuts the {norm} ball of radius {radius}. Line: the attack, projected onto the \
                 plane{on_the_plane}. Paler: less certain."
            ),
        ));
        ui.horizontal(|ui| {
            let (map, names) = (Arc::clone(map), names);
            let (position, run) = (map.position, context.run);
            export_menu(ui, context, "decision map", || export::map(&map, step, run, &names));
            if let Some(position) = position {
                ui.label(weak(ui, super::steps::after(position)));
            }
        });
        chosen
    }
}

fn axis(ui: &mut Ui, name: &str, direction: &mut Direction, names: &[String]) {
    let text = describe(*direction, names);
    let response = ComboBox::from_id_salt(name)
        .selected_text(&text)
        .width(if matches!(direction, Direction::Random(_)) { 70.0 } else { 140.0 })
        .truncate()
        .show_ui(ui, |ui| {
            let seed = match direction {
                Direction::Random(seed) => *seed,
                _ => 1 + u64::from(name.ends_with("up")),
            };
            for choice in [Direction::Attack, Direction::Rival, Direction::Random(seed)] {
                ui.selectable_value(direction, choice, describe(choice, names));
            }
            for (class, name) in names.iter().enumerate() {
                ui.selectable_value(direction, Direction::Class(class as u32), format!("towards {name}"));
            }
        })
        .response;
    let text = format!("{name}: {text}");
    response.widget_info(|| WidgetInfo::labeled(Role::ComboBox, true, &text));
    if let Direction::Random(seed) = direction {
        let label = ui.label("seed");
        ui.add(DragValue::new(seed).range(0..=9999)).labelled_by(label.id);
    }
}

/// Description of the direction of an axis.
pub(super) fn describe(direction: Direction, names: &[String]) -> String {
    match direction {
        Direction::Attack => "the attack".into(),
        Direction::Rival => "towards runner-up".into(),
        Direction::Class(class) => {
            let name = names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
            format!("towards {name}")
        }
        Direction::Random(_) => "random".into(),
    }
}

/// The class colours, blended with the background the less certain the network is.
fn colours(map: &DecisionMap, classes: usize, dark: bool) -> ColorImage {
    let ground = if dark { Color32::from_rgb(0x22, 0x26, 0x2d) } else { Color32::WHITE };
    let floor = 1.0 / classes as f32;
    let point = |(class, confidence): (&u32, &f32)| {
        let sure = ((confidence - floor) / (1.0 - floor)).clamp(0.0, 1.0);
        ground.lerp_to_gamma(theme::class_color(*class as usize, dark), 0.3 + 0.7 * sure)
    };
    let n = map.job.resolution;
    ColorImage::new([n, n], map.predictions.iter().zip(&map.confidence).map(point).collect())
}

/// Draws the map; returns the step of the attack that was clicked.
fn draw(
    ui: &mut Ui,
    map: &DecisionMap,
    texture: egui::TextureId,
    side: f32,
    names: &[String],
    step: Option<usize>,
) -> Option<usize> {
    let palette = theme::palette(ui);
    let (whole, response) = ui.allocate_exact_size(vec2(side + 26.0, side + 38.0), Sense::click());
    let rect = Rect::from_min_size(whole.min + vec2(24.0, 0.0), vec2(side, side));
    let mut label = format!("Decision map of {}", map.job.subject.name);
    if let Some((step, last)) = step.zip(map.path.len().checked_sub(1)) {
        label += &format!(", at step {step} of {last}");
    }
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &label));
    let painter = ui.painter();
    painter.image(texture, rect, Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0)), Color32::WHITE);
    painter.rect_stroke(rect, 0, (1.0, palette.line), egui::StrokeKind::Outside);
    let extent = map.extent;
    // Points are at the centres of their squares, so the outermost ones are half a square inside.
    let inset = 1.0 - 1.0 / map.job.resolution as f64;
    let place = |a: f64, b: f64| {
        let across = |v: f64| (v / extent * inset) as f32 * side / 2.0;
        rect.center() + vec2(across(a), -across(b))
    };
    let clipped = painter.with_clip_rect(rect.intersect(painter.clip_rect()));
    let corners: Vec<Pos2> = map.ball.iter().map(|[a, b]| place(*a, *b)).collect();
    if corners.len() > 2 {
        for (width, color) in [(4.0, Color32::from_white_alpha(200)), (2.0, Color32::BLACK)] {
            clipped.add(Shape::closed_line(corners.clone(), Stroke::new(width, color)));
        }
    }
    painter.circle(rect.center(), 4.5, Color32::BLACK, (1.5, Color32::WHITE));
    let steps: Vec<Pos2> = map.path.iter().map(|[a, b]| place(*a, *b)).collect();
    for (width, color) in [(4.0, Color32::from_white_alpha(200)), (1.6, Color32::BLACK)] {
        clipped.add(Shape::line(steps.clone(), Stroke::new(width, color)));
    }
    for at in &steps {
        clipped.circle(*at, 2.6, Color32::BLACK, (1.0, Color32::WHITE));
    }
    if let Some(at) = step.and_then(|step| steps.get(step)) {
        clipped.circle(*at, 6.0, palette.accent, (2.0, Color32::WHITE));
    }
    let small = FontId::proportional(11.0);
    let levels = format!("{}/255", (extent * 25500.0).round() / 100.0);
    let below = rect.bottom() + 9.0;
    painter.text(
        pos2(rect.left(), below),
        egui::Align2::LEFT_CENTER,
        format!("−{levels}"),
        small.clone(),
        palette.weak,
    );
    painter.text(pos2(rect.center().x, below), egui::Align2::CENTER_CENTER, "0", small.clone(), palette.weak);
    painter.text(pos2(rect.right(), below), egui::Align2::RIGHT_CENTER, format!("+{levels}"), small, palette.weak);
    let [right, up] = map.axes.map(|axis| format!("{} →", describe(axis, names)));
    let (font, ink) = (FontId::proportional(12.5), ui.visuals().text_color());
    painter.text(pos2(rect.center().x, rect.bottom() + 26.0), egui::Align2::CENTER_CENTER, right, font.clone(), ink);
    let galley = painter.layout_no_wrap(up, font, ink);
    let start = pos2(whole.left() + 2.0, rect.center().y + galley.size().x / 2.0);
    painter.add(egui::epaint::TextShape::new(start, galley, ink).with_angle(-std::f32::consts::FRAC_PI_2));
    let chosen = response.interact_pointer_pos().filter(|_| response.clicked()).and_then(|at| nearest(&steps, at));
    if let Some(text) = response.hover_pos().and_then(|at| at_point(map, rect, at, names)) {
        response.on_hover_text_at_pointer(text);
    }
    chosen
}

/// The step whose mark is nearest to a point, the last of those at the same place.
fn nearest(steps: &[Pos2], at: Pos2) -> Option<usize> {
    let near = steps.iter().enumerate().rev().map(|(step, mark)| (step, mark.distance(at)));
    near.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, distance)| *distance < 24.0).map(|(step, _)| step)
}

/// Class, confidence and offset of the point under the pointer.
fn at_point(map: &DecisionMap, rect: Rect, at: Pos2, names: &[String]) -> Option<String> {
    let n = map.job.resolution;
    let part = (at - rect.min) / rect.size();
    let index = |part: f32| (0.0..1.0).contains(&part).then_some((part * n as f32) as usize);
    let (column, row) = (index(part.x)?, index(part.y)?);
    let (class, confidence) = (map.predictions.get(row * n + column)?, map.confidence.get(row * n + column)?);
    let name = names.get(*class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
    let levels = |index: usize| match n {
        1 => 0.0,
        _ => 255.0 * map.extent * (2.0 * index as f64 / (n - 1) as f64 - 1.0),
    };
    let (right, up) = (levels(column), -levels(row));
    Some(format!("{name}, {}\n{right:+.1}/255 right, {up:+.1}/255 up", percent(f64::from(*confidence))))
}

/// The classes that occur with their share of the plane, most frequent first.
fn shares(ui: &mut Ui, map: &DecisionMap, names: &[String]) {
    let mut counts = std::collections::BTreeMap::new();
    for class in &map.predictions {
        *counts.entry(*class).or_insert(0usize) += 1;
    }
    let mut shares: Vec<(u32, usize)> = counts.into_iter().collect();
    shares.sort_by_key(|(class, count)| (std::cmp::Reverse(*count), *class));
    ui.label(strong("Predicted"));
    for (class, count) in shares {
        let color = theme::class_color(class as usize, ui.visuals().dark_mode);
        let name = names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
        let share = percent(count as f64 / map.predictions.len() as f64);
        let (font, ink) = (egui::TextStyle::Body.resolve(ui.style()), ui.visuals().text_color());
        let mut job = egui::text::LayoutJob::default();
        for (text, color) in [("● ", color), (&name, ink), (&format!("  {share}"), theme::palette(ui).weak)] {
            job.append(text, 0.0, egui::TextFormat::simple(font.clone(), color));
        }
        // Several in a line break only between them.
        ui.add(egui::Label::new(job).extend());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;

    #[test]
    fn a_click_chooses_the_nearest_step() {
        let steps = [pos2(0.0, 0.0), pos2(30.0, 0.0), pos2(60.0, 10.0)];
        assert_eq!(nearest(&steps, pos2(50.0, 8.0)), Some(2));
        assert_eq!(nearest(&steps, pos2(200.0, 8.0)), None);
        assert_eq!(nearest(&[steps[0], steps[1], steps[0]], pos2(1.0, 0.0)), Some(2));
        assert_eq!(nearest(&[], pos2(0.0, 0.0)), None);
    }

    #[test]
    fn the_point_under_the_pointer_is_named_with_its_offset() {
        let shape = ImageShape::new(1, 1, 1);
        let subject = Subject { name: "x".into(), shape, pixels: vec![0].into(), label: None };
        let axes = [Direction::Random(1), Direction::Random(2)];
        let attack = super::super::AttackForm::default().attack();
        let job = MapJob { id: 1, subject, axes, extent: None, resolution: 3, attack };
        let map = DecisionMap {
            job,
            predictions: vec![0, 0, 1, 0, 0, 0, 0, 0, 0],
            confidence: vec![0.5, 0.5, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
            axes,
            extent: 10.0 / 255.0,
            ball: Vec::new(),
            path: Vec::new(),
            position: None,
        };
        let rect = Rect::from_min_size(pos2(10.0, 10.0), vec2(90.0, 90.0));
        let names = ["cat", "dog"].map(str::to_owned);
        let text = at_point(&map, rect, pos2(95.0, 12.0), &names).unwrap();
        assert_eq!(text, "dog, 90.0 %\n+10.0/255 right, +10.0/255 up");
        assert!(at_point(&map, rect, pos2(55.0, 55.0), &names).unwrap().contains("+0.0/255 right, -0.0/255 up"));
        assert_eq!(at_point(&map, rect, pos2(101.0, 12.0), &names), None);
        let sure = colours(&map, 2, true);
        assert_eq!(sure.pixels.len(), 9);
        assert_ne!(sure.pixels[0], sure.pixels[2]);
    }
}
