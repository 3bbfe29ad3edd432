//! Icons of the run's controls, drawn so that they look the same on every system.

use egui::{Color32, Painter, Rect, Response, Sense, Shape, Stroke, Ui, Vec2, pos2, vec2};

/// An icon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icon {
    /// A triangle.
    Play,
    /// Two bars.
    Pause,
    /// A triangle against a bar: one batch.
    Step,
    /// A dot that moves in a ring: one attack step within its ball.
    AttackStep,
    /// Dots that get closer together on a slope: slow motion.
    Slow,
    /// A square: stop and save.
    Stop,
    /// A cross: stop without saving.
    Discard,
    /// Three lines.
    Menu,
}

impl Icon {
    fn paint(self, painter: &Painter, rect: Rect, color: Color32) {
        let at = |x: f32, y: f32| pos2(rect.left() + x * rect.width(), rect.top() + y * rect.height());
        let fill = |points: Vec<egui::Pos2>| Shape::convex_polygon(points, color, Stroke::NONE);
        let bar = |x0: f32, y0: f32, x1: f32, y1: f32| {
            Shape::rect_filled(Rect::from_min_max(at(x0, y0), at(x1, y1)), 1.0, color)
        };
        let line = Stroke::new(1.8, color);
        match self {
            Self::Play => {
                painter.add(fill(vec![at(0.2, 0.08), at(0.92, 0.5), at(0.2, 0.92)]));
            }
            Self::Pause => {
                painter.add(bar(0.16, 0.1, 0.4, 0.9));
                painter.add(bar(0.6, 0.1, 0.84, 0.9));
            }
            Self::Step => {
                painter.add(fill(vec![at(0.1, 0.1), at(0.68, 0.5), at(0.1, 0.9)]));
                painter.add(bar(0.74, 0.1, 0.92, 0.9));
            }
            Self::AttackStep => {
                painter.circle_stroke(at(0.5, 0.5), 0.42 * rect.width(), Stroke::new(1.4, color));
                painter.circle_filled(at(0.3, 0.68), 0.1 * rect.width(), color);
                painter.arrow(at(0.34, 0.64), vec2(0.36, -0.32) * rect.width(), line);
            }
            Self::Slow => {
                for (x, y) in [(0.1, 0.2), (0.44, 0.44), (0.66, 0.64), (0.82, 0.82)] {
                    painter.circle_filled(at(x, y), 0.09 * rect.width(), color);
                }
                painter.add(bar(0.02, 0.93, 0.98, 1.0));
            }
            Self::Stop => {
                painter.add(bar(0.14, 0.14, 0.86, 0.86));
            }
            Self::Discard => {
                painter.line_segment([at(0.16, 0.16), at(0.84, 0.84)], line);
                painter.line_segment([at(0.84, 0.16), at(0.16, 0.84)], line);
            }
            Self::Menu => {
                for y in [0.15, 0.45, 0.75] {
                    painter.add(bar(0.05, y, 0.95, y + 0.1));
                }
            }
        }
    }
}

/// The appearance of an [`icon_button`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// A fill colour for the primary action; `None` for the default.
    pub fill: Option<Color32>,
    /// Whether it is switched on.
    pub selected: bool,
}

/// A button with an icon. `words` is its accessible name, and its text if there is `room`: all words that may ever stand there.
/// The button is as wide as the longest of them, so that nothing moves when they change.
pub fn icon_button(ui: &mut Ui, icon: Icon, words: &str, room: Option<&[&str]>, look: Look) -> Response {
    const SIGN: f32 = 13.0;
    let padding = ui.spacing().button_padding;
    let laid_out = |words: &str| {
        let font = egui::TextStyle::Button.resolve(ui.style());
        ui.painter().layout_no_wrap(words.to_owned(), font, Color32::PLACEHOLDER)
    };
    let galley = room.map(|_| laid_out(words));
    let longest = room.into_iter().flatten().map(|words| laid_out(words).size().x).fold(0.0, f32::max);
    let text = galley.as_ref().map_or(Vec2::ZERO, |galley| galley.size().max(vec2(longest, 0.0)) + vec2(6.0, 0.0));
    let size = vec2(SIGN + text.x, SIGN.max(text.y)) + 2.0 * padding;
    let (rect, response) = ui.allocate_at_least(vec2(size.x, size.y.max(ui.spacing().interact_size.y)), Sense::click());
    let enabled = ui.is_enabled();
    // Only what is switched on is a switch to a screen reader.
    response.widget_info(|| match look.selected {
        true => egui::WidgetInfo::selected(egui::Role::Button, enabled, true, words),
        false => egui::WidgetInfo::labeled(egui::Role::Button, enabled, words),
    });
    if ui.is_rect_visible(rect) {
        let visuals = ui.style().interact_selectable(&response, look.selected);
        let (ground, color) = match look.fill.filter(|_| enabled) {
            Some(fill) if response.hovered() => (fill.gamma_multiply(0.85), crate::app::theme::text_on(fill)),
            Some(fill) => (fill, crate::app::theme::text_on(fill)),
            None => (visuals.weak_bg_fill, visuals.text_color()),
        };
        let painter = ui.painter();
        painter.rect(
            rect.expand(visuals.expansion),
            visuals.corner_radius,
            ground,
            visuals.bg_stroke,
            egui::StrokeKind::Inside,
        );
        let sign =
            Rect::from_center_size(pos2(rect.left() + padding.x + SIGN / 2.0, rect.center().y), Vec2::splat(SIGN));
        icon.paint(painter, sign, color);
        if let Some(galley) = galley {
            let at = pos2(sign.right() + 6.0, rect.center().y - galley.size().y / 2.0);
            painter.galley(at, galley, color);
        }
    }
    response
}
