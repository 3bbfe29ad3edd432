//! The radius of each class: bars that follow the run and can be held by hand.

use egui::{
    Button, Color32, CursorIcon, DragValue, Pos2, Rect, Sense, Shape, Stroke, TextStyle, Ui, WidgetInfo,
    accesskit::Role, pos2, vec2,
};

use super::{round_above, row};
use crate::app::context::{Action, Context};
use crate::app::focus;
use crate::app::theme::{self, Palette};
use crate::app::view::{RunView, Status};
use crate::app::widgets::{self, drawn, elided, export_menu, mark_key, name_room, rows, section, table, weak};
use crate::evaluate::figures;
use crate::worker::{EpochRecord, Hold, Request};

/// Minimum interval between two requests while a bar is dragged; the last value is always sent.
const EVERY_SECS: f64 = 0.25;
/// A hold that the worker has not confirmed after this many batches is no longer shown.
const PATIENCE: u32 = 3;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Epsilon {
    linked: bool,
    drag: Option<Drag>,
    asked: Option<Asked>,
}

/// A drag in progress.
#[derive(Debug)]
struct Drag {
    class: usize,
    /// Radii and holds at its start.
    from: (Vec<f64>, Vec<Hold>),
    value: f64,
    /// The axis does not change during the drag.
    maximum: f64,
    sent_at: f64,
}

/// A request that the worker has not confirmed yet.
#[derive(Debug)]
struct Asked {
    holds: Vec<Hold>,
    /// The holds before the request.
    before: Vec<Hold>,
    /// Batches received since without a confirmation.
    batches: u32,
    seen: f64,
}

/// The holds after setting the radius of `class` to `value`. With `linked`, classes that are not locked change by the
/// same factor.
pub(super) fn moved(from: (&[f64], &[Hold]), class: usize, value: f64, linked: bool) -> Vec<Hold> {
    let (radii, holds) = from;
    let factor = value / radii[class];
    let of = |k: usize| match holds[k] {
        hold if k == class => Hold { epsilon: Some(value), ..hold },
        hold if linked && !hold.locked && factor.is_finite() => {
            Hold { epsilon: Some((radii[k] * factor).min(1.0)), ..hold }
        }
        hold => hold,
    };
    (0..holds.len()).map(of).collect()
}

impl Epsilon {
    /// Shows the card.
    pub(super) fn show(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        let run = context.run;
        let names = run.class_names();
        self.listen(run);
        let base = run.experiment.as_ref().map_or(0.0, |experiment| experiment.attack.epsilon.exact());
        // An earlier epoch: what it used, without holds, which belong to the running one.
        let earlier = if context.focus.is_live() { None } else { context.focus.record(run) };
        let (rule, holds, radii) = match earlier {
            Some(epoch) => {
                let used: Vec<f64> = (0..names.len()).map(|k| of_epoch(epoch, k).unwrap_or(base)).collect();
                (used.clone(), vec![Hold::default(); names.len()], used)
            }
            None => {
                let (rule, holds) = (rule(run, base), self.holds(run));
                let radii = self.radii(run, &holds, &rule, base);
                (rule, holds, radii)
            }
        };
        let reason = match earlier {
            Some(epoch) => Some(format!("Used in epoch {}; radii are changed live.", epoch.metrics.epoch + 1)),
            None => unavailable(run).map(str::to_owned),
        };
        let mut wanted: Option<Vec<Hold>> = None;
        let explanation = context.glossary.tooltip("class-epsilon");
        let controls = |ui: &mut Ui| {
            export_menu(ui, context, "epsilon", || {
                let csv = || csv(names, &radii, &rule, &holds);
                drawn(run, |figure| figures::class_epsilon(&radii, &rule, figure), csv)
            });
        };
        section(ui, "Epsilon of each class", explanation, controls, |ui| {
            ui.horizontal_wrapped(|ui| {
                let link = ui.add_enabled(reason.is_none(), Button::selectable(self.linked, "Link"));
                let link = link.on_hover_text("Changing one class scales all that are not locked by the same factor");
                link.widget_info(|| {
                    WidgetInfo::selected(Role::Button, reason.is_none(), self.linked, "Link all classes")
                });
                if link.clicked() {
                    self.linked = !self.linked;
                }
                let held = holds.iter().any(|hold| hold.epsilon.is_some());
                let all = ui.add_enabled(reason.is_none() && held, Button::new("Give all back to the rule"));
                if all.on_hover_text("Ends all holds").clicked() {
                    wanted = Some(vec![Hold::default(); holds.len()]);
                }
                mark_key(ui, ui.visuals().text_color(), "what the rule says");
                mark_key(ui, theme::palette(ui).weak, &format!("base ε {}", widgets::epsilon(base)));
            });
            if let Some(reason) = &reason {
                ui.label(weak(ui, reason));
            }
            let highest = radii.iter().chain(&rule).copied().chain([2.0 * base]).fold(0.0, f64::max);
            let maximum = self.drag.as_ref().map_or(round_above(highest * 255.0) / 255.0, |drag| drag.maximum);
            let font = TextStyle::Body.resolve(ui.style());
            let room = name_room(ui, names, &font);
            let chart =
                Chart { names, radii: &radii, rule: &rule, holds: &holds, base, maximum, room, live: reason.is_none() };
            let mut held = false;
            rows(ui, "epsilon", 29.0, names.len(), |ui, class| {
                ui.push_id(class, |ui| {
                    let found = chart.row(ui, class);
                    if let Some(value) = found.value {
                        self.begin(class, value, &chart);
                    }
                    held |= found.dragging;
                    wanted = found.holds.or(wanted.take());
                });
            });
            chart.axis(ui);
            if let Some(drag) = &mut self.drag {
                let moved = moved((&drag.from.0, &drag.from.1), drag.class, drag.value, self.linked);
                let now = ui.input(|input| input.time);
                if !held || now - drag.sent_at >= EVERY_SECS {
                    drag.sent_at = now;
                    wanted = Some(moved);
                }
            }
            if !held {
                self.drag = None;
            }
            let text = "Drag a bar's end or type a value to hold a radius; it is in force from the next batch, until it is \
                        given back to the rule.";
            ui.label(weak(ui, text).small());
        });
        if let Some(holds) = wanted {
            context.ask(Action::Worker(Request::Epsilon(holds.clone())));
            let seen = run.now().map_or(0.0, |now| now.position());
            self.asked = Some(Asked { holds, before: run.holds.clone(), batches: 0, seen });
        }
    }

    /// Drops the request once the worker has confirmed it, or will not do so any more.
    fn listen(&mut self, run: &RunView) {
        let Some(asked) = &mut self.asked else { return };
        let position = run.now().map_or(0.0, |now| now.position());
        if position > asked.seen {
            asked.seen = position;
            asked.batches += 1;
        }
        let answered = run.holds != asked.before || run.holds == asked.holds;
        if answered || asked.batches > PATIENCE || !run.status.is_live() {
            self.asked = None;
        }
    }

    fn begin(&mut self, class: usize, value: f64, chart: &Chart<'_>) {
        match &mut self.drag {
            Some(drag) if drag.class == class => drag.value = value,
            _ => {
                let from = (chart.radii.to_vec(), chart.holds.to_vec());
                self.drag = Some(Drag { class, from, value, maximum: chart.maximum, sent_at: f64::NEG_INFINITY });
            }
        }
    }

    /// The current holds, including an unconfirmed request.
    fn holds(&self, run: &RunView) -> Vec<Hold> {
        let classes = run.class_names().len();
        let holds = match (&self.drag, &self.asked) {
            (Some(drag), _) if drag.from.1.len() == classes => {
                moved((&drag.from.0, &drag.from.1), drag.class, drag.value, self.linked)
            }
            (_, Some(asked)) if asked.holds.len() == classes => asked.holds.clone(),
            _ => run.holds.clone(),
        };
        if holds.len() == classes { holds } else { vec![Hold::default(); classes] }
    }

    /// The radius of each class: the held one, otherwise the one in force.
    fn radii(&self, run: &RunView, holds: &[Hold], rule: &[f64], base: f64) -> Vec<f64> {
        let force = run.now().map(|now| &now.epsilon[..]).filter(|epsilon| epsilon.len() == holds.len());
        let of = |k: usize| match (holds[k].epsilon, force) {
            (Some(held), _) => held,
            // Just released: the batch under way still uses the radius that was held.
            (None, _) if self.asked.is_some() => rule[k],
            (None, Some(force)) => force[k],
            (None, None) => last(run, k).unwrap_or(base),
        };
        (0..holds.len()).map(of).collect()
    }
}

/// The radius of a class in the last finished epoch.
fn last(run: &RunView, class: usize) -> Option<f64> {
    of_epoch(run.epochs.last()?, class)
}

/// The radius of a class in an epoch.
fn of_epoch(epoch: &EpochRecord, class: usize) -> Option<f64> {
    row(epoch, class).map(|row| row.epsilon).filter(|epsilon| epsilon.is_finite())
}

/// The radii by the method's rule.
fn rule(run: &RunView, base: f64) -> Vec<f64> {
    let classes = run.class_names().len();
    match run.now().filter(|now| now.rule.len() == classes) {
        Some(now) => now.rule.to_vec(),
        None => (0..classes).map(|k| last(run, k).unwrap_or(base)).collect(),
    }
}

/// The reason why radii cannot be changed; `None` if they can.
fn unavailable(run: &RunView) -> Option<&'static str> {
    match run.status {
        Status::Running | Status::Paused => None,
        Status::Opening => Some("The run is being opened; radii can be changed when it trains."),
        Status::Looking => {
            Some("A checkpoint is open for inspection: nothing trains, so there is no radius to change.")
        }
        Status::Empty | Status::Over => Some("No run is training. Start or resume one to change radii."),
    }
}

/// Data shared by all rows.
struct Chart<'a> {
    names: &'a [String],
    radii: &'a [f64],
    rule: &'a [f64],
    holds: &'a [Hold],
    base: f64,
    maximum: f64,
    room: f32,
    live: bool,
}

/// The user's actions in a row.
#[derive(Default)]
struct Found {
    value: Option<f64>,
    dragging: bool,
    holds: Option<Vec<Hold>>,
}

/// Widths of the elements to the right of a bar: value, decimal, lock, reset to the rule.
const ASIDE: [f32; 4] = [76.0, 46.0, 30.0, 44.0];

impl Chart<'_> {
    fn span(&self, ui: &Ui, left: f32, width: f32) -> (f32, f32) {
        let many = if self.names.len() > 20 { ui.spacing().scroll.allocated_width() } else { 0.0 };
        (left + self.room, (left + width - ASIDE.iter().sum::<f32>() - 12.0 - many).max(left + self.room + 24.0))
    }

    fn row(&self, ui: &mut Ui, class: usize) -> Found {
        let mut found = Found::default();
        let palette = theme::palette(ui);
        let font = TextStyle::Body.resolve(ui.style());
        let (name, value, hold) = (&self.names[class], self.radii[class], self.holds[class]);
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 29.0), Sense::HOVER);
        let (from, to) = self.span(ui, rect.left(), rect.width());
        let galley = elided(ui, name, font, self.room - 8.0, ui.visuals().text_color());
        let at = pos2(rect.left(), rect.center().y - galley.size().y / 2.0);
        ui.painter().galley(at, galley, ui.visuals().text_color());
        let label = Rect::from_min_max(rect.min, pos2(from, rect.max.y));
        ui.interact(label, ui.scope_id().with("name"), Sense::HOVER).on_hover_text(name);

        focus::row(ui, rect, class);
        self.bar(ui, class, (from, to), rect, palette);
        self.handle(ui, class, (from, to), rect, &mut found);

        let mut left = to + 12.0;
        let mut place = |width: f32| {
            let place = Rect::from_min_size(pos2(left, rect.top() + 2.0), vec2(width - 4.0, 25.0));
            left += width;
            place
        };
        let [value_place, decimal_place, lock_place, back_place] = ASIDE.map(&mut place);
        ui.add_enabled_ui(self.live, |ui| {
            let mut levels = value * 255.0;
            let drag = DragValue::new(&mut levels).range(0.0..=255.0).speed(0.05).max_decimals(2).suffix("/255");
            let drag =
                ui.put(value_place, drag.update_while_editing(false)).accessible_name(format!("Epsilon of {name}"));
            if drag.changed() {
                found.value = Some(levels / 255.0);
            }
            found.dragging |= drag.dragged();
            let small = TextStyle::Small.resolve(ui.style());
            let text = format!("{value:.4}");
            ui.painter().text(decimal_place.left_center(), egui::Align2::LEFT_CENTER, text, small, palette.weak);

            let lock = ui.put(lock_place, Button::selectable(hold.locked, "").small());
            let color = if self.live { ui.visuals().text_color() } else { ui.visuals().weak_text_color() };
            padlock(ui, lock.rect.center(), hold.locked, color);
            let lock = lock.on_hover_text(if hold.locked {
                format!("{name} keeps its radius when linked classes change. Click to let it change with them.")
            } else {
                format!("Keep the radius of {name} when linked classes change")
            });
            lock.widget_info(|| WidgetInfo::selected(Role::Button, self.live, hold.locked, format!("Lock {name}")));
            if lock.clicked() {
                found.holds = Some(self.with(class, Hold { epsilon: Some(value), locked: !hold.locked }));
            }
            let held = hold.epsilon.is_some();
            let back = ui.add_enabled_ui(held, |ui| ui.put(back_place, Button::new("rule").small())).inner;
            let back =
                back.on_hover_text(format!("Give {name} back to the rule: {}", widgets::epsilon(self.rule[class])));
            let back = back.accessible_name(format!("Give {name} back to the rule"));
            if back.clicked() {
                found.holds = Some(self.with(class, Hold::default()));
            }
        });
        found
    }

    fn with(&self, class: usize, hold: Hold) -> Vec<Hold> {
        let mut holds = self.holds.to_vec();
        holds[class] = hold;
        holds
    }

    fn bar(&self, ui: &mut Ui, class: usize, (from, to): (f32, f32), rect: Rect, palette: &Palette) {
        let x_of = |value: f64| from + (to - from) * (value / self.maximum).clamp(0.0, 1.0) as f32;
        let (value, hold) = (self.radii[class], self.holds[class]);
        let band = rect.shrink2(vec2(0.0, 6.0)).y_range();
        let color = if hold.epsilon.is_some() { palette.accent } else { palette.accent.gamma_multiply(0.55) };
        let painter = ui.painter();
        painter.rect_filled(Rect::from_x_y_ranges(from..=to, band), 2, ui.visuals().faint_bg_color);
        painter.rect_filled(Rect::from_x_y_ranges(from..=x_of(value), band), 2, color);
        let base = x_of(self.base);
        painter.line_segment([pos2(base, rect.top()), pos2(base, rect.bottom())], Stroke::new(1.0, palette.weak));
        let rule = x_of(self.rule[class]);
        let ink = ui.visuals().text_color();
        painter.line_segment([pos2(rule, rect.top() + 4.0), pos2(rule, rect.bottom() - 4.0)], Stroke::new(2.0, ink));
    }

    /// The draggable end of a bar.
    fn handle(&self, ui: &mut Ui, class: usize, (from, to): (f32, f32), rect: Rect, found: &mut Found) {
        let (name, value) = (&self.names[class], self.radii[class]);
        let x = from + (to - from) * (value / self.maximum).clamp(0.0, 1.0) as f32;
        let area = Rect::from_x_y_ranges(x - 7.0..=x + 7.0, rect.y_range());
        let sense = if self.live { Sense::DRAG } else { Sense::HOVER };
        let handle = ui.interact(area, ui.scope_id().with("handle"), sense);
        let held = if self.holds[class].epsilon.is_some() { "held by hand" } else { "by the rule" };
        let text = format!("{name}: {}, {held}; rule {}", widgets::epsilon(value), widgets::epsilon(self.rule[class]));
        handle.widget_info(|| WidgetInfo::labeled(Role::Label, self.live, format!("Bar of {text}")));
        found.dragging |= handle.dragged();
        if let Some(pos) = handle.interact_pointer_pos().filter(|_| handle.dragged()) {
            let share = f64::from((pos.x - from) / (to - from)).clamp(0.0, 1.0);
            // Hundredths of a level are finer than a pixel of the bar.
            found.value = Some((share * self.maximum * 25_500.0).round() / 25_500.0);
        }
        if self.live {
            let active = handle.hovered() || handle.dragged();
            let color = if active { ui.visuals().text_color() } else { theme::palette(ui).accent };
            let grip = Rect::from_center_size(pos2(x, rect.center().y), vec2(if active { 6.0 } else { 4.0 }, 21.0));
            ui.painter().rect_filled(grip, 2, color);
            handle.on_hover_cursor(CursorIcon::ResizeHorizontal).on_hover_text(text);
        } else {
            handle.on_hover_text(text);
        }
    }

    fn axis(&self, ui: &mut Ui) {
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 14.0), Sense::HOVER);
        let (from, to) = self.span(ui, rect.left(), rect.width());
        let (font, weak) = (TextStyle::Small.resolve(ui.style()), theme::palette(ui).weak);
        for step in 0..=4 {
            let levels = self.maximum * 255.0 * f64::from(step) / 4.0;
            let x = from + (to - from) * step as f32 / 4.0;
            let text = format!("{}", (levels * 100.0).round() / 100.0);
            let text = if step == 4 { format!("{text}/255") } else { text };
            ui.painter().text(pos2(x, rect.top()), egui::Align2::CENTER_TOP, text, font.clone(), weak);
        }
    }
}

/// An open or closed padlock; the embedded fonts lack this symbol.
fn padlock(ui: &Ui, center: Pos2, closed: bool, color: Color32) {
    let body = Rect::from_center_size(center + vec2(0.0, 3.0), vec2(10.0, 7.5));
    let hinge = if closed { 0.0 } else { 5.0 };
    let arc = (0..=8).map(|i| {
        let angle = std::f32::consts::PI * (1.0 + i as f32 / 8.0);
        pos2(center.x + hinge + 3.0 * angle.cos(), body.top() - 2.0 + 3.5 * angle.sin())
    });
    let right = if closed { body.top() } else { body.top() - 1.0 };
    let shackle = std::iter::once(pos2(center.x + hinge - 3.0, body.top()))
        .chain(arc)
        .chain([pos2(center.x + hinge + 3.0, right)])
        .collect();
    ui.painter().add(Shape::line(shackle, Stroke::new(1.5, color)));
    ui.painter().rect_filled(body, 1.5, color);
}

fn csv(names: &[String], radii: &[f64], rule: &[f64], holds: &[Hold]) -> String {
    let rows = names.iter().enumerate().map(|(k, name)| {
        let held = holds[k].epsilon.is_some().to_string();
        [k.to_string(), name.clone(), radii[k].to_string(), rule[k].to_string(), held, holds[k].locked.to_string()]
    });
    table(&["class", "name", "epsilon", "rule", "held", "locked"], rows)
}
