//! Matrices as colours with numbers where they fit, and the colour bar.

use egui::epaint::TextShape;
use egui::{
    Align2, Color32, ColorImage, EventFilter, FontId, Key, Mesh, Modifiers, Pos2, Rect, Sense, Shape, Stroke,
    StrokeKind, TextStyle, TextureHandle, TextureOptions, Ui, Vec2, pos2, vec2,
};

use super::elided;
use crate::app::{focus, theme};

/// The content of a [`matrix`]. Rows and columns are numbered from 0. Rows are classes, which are highlighted in all
/// panels while the pointer is on them.
pub struct Matrix<'a> {
    /// Accessible name.
    pub name: &'a str,
    /// Row names, on the left.
    pub rows: &'a [String],
    /// Column names, at the bottom.
    pub columns: &'a [String],
    /// Whether columns are classes, too.
    pub classes_in_columns: bool,
    /// Title of the columns, below their names.
    pub axis: &'a str,
    /// Colour of a cell.
    pub color: &'a dyn Fn(usize, usize) -> Color32,
    /// Text of a cell, with a decimal if the last argument says that the cell is wide.
    pub text: &'a dyn Fn(usize, usize, bool) -> String,
    /// Description of a cell.
    pub describe: &'a dyn Fn(usize, usize) -> String,
    /// A column that is framed.
    pub marked: Option<usize>,
    /// Changes whenever a colour does.
    pub key: u64,
    /// Minimum and maximum width and height of a cell, in points.
    pub cell: (Vec2, Vec2),
    /// The matrix scrolls if it is higher than this.
    pub height: f32,
}

/// State of a matrix between frames.
#[derive(Default)]
pub struct MatrixState {
    texture: Option<(u64, TextureHandle)>,
    cursor: (usize, usize),
}

/// Minimum size of a cell with a number.
const TEXT: Vec2 = vec2(24.0, 16.0);
/// Margin for the frames of cells at the edge.
const EDGE: f32 = 4.0;
/// Minimum width of a cell with a decimal.
const DECIMAL: f32 = 33.0;

/// Draws a matrix and returns the cell that was chosen in this frame by pointer or keyboard.
pub fn matrix(ui: &mut Ui, state: &mut MatrixState, what: &Matrix<'_>) -> Option<(usize, usize)> {
    let (rows, columns) = (what.rows.len(), what.columns.len());
    if rows == 0 || columns == 0 {
        return None;
    }
    let font = TextStyle::Small.resolve(ui.style());
    let width_of =
        |ui: &Ui, name: &str| ui.painter().layout_no_wrap(name.to_owned(), font.clone(), Color32::WHITE).size().x;
    let gutter =
        what.rows.iter().map(|name| width_of(ui, name)).fold(0.0, f32::max).min(0.3 * ui.available_width()) + 8.0;
    let widest = what.columns.iter().map(|name| width_of(ui, name)).fold(0.0, f32::max);
    let (least, most) = what.cell;
    let scroll = ui.spacing().scroll.allocated_width();
    let width = (ui.available_width() - gutter - scroll - EDGE) / columns as f32;
    let cell = vec2(width, (0.62 * width).max(least.y)).max(least).min(most);
    // Column names are upright if they fit, even if only some of them are shown, and slanted otherwise.
    let slanted = widest + 6.0 > cell.x && what.columns.iter().any(|name| name.parse::<u32>().is_err());
    let below = if slanted { widest.min(110.0) * 0.72 + 12.0 } else { 16.0 } + 16.0;
    let grid = vec2(cell.x * columns as f32, cell.y * rows as f32);
    let size = grid + vec2(gutter + if slanted { 10.0 } else { EDGE }, below + EDGE);
    let mut chosen = None;
    egui::ScrollArea::both()
        .id_salt(what.name)
        .max_height(what.height + below + EDGE)
        .min_scrolled_height(what.height + below + EDGE)
        .auto_shrink([false, true])
        .show_viewport(ui, |ui, view| {
            let (whole, _) = ui.allocate_exact_size(size, Sense::hover());
            // Cells start at whole pixels, so that all cells of a row look alike.
            let scale = ui.pixels_per_point();
            let corner = whole.min + vec2(gutter, EDGE);
            let area =
                Rect::from_min_size(pos2((corner.x * scale).round() / scale, (corner.y * scale).round() / scale), grid);
            // The visible area without the row and column names.
            let sight = Rect::from_min_max(
                whole.min + view.min.to_vec2().max(Vec2::ZERO) + vec2(gutter, 0.0),
                (whole.min + view.max.to_vec2()).min(whole.max) - vec2(0.0, below),
            );
            let layout = Layout { area, cell, rows, columns, sight };
            chosen = interact(ui, state, what, &layout);
            paint_cells(ui, state, what, &layout, &font);
            paint_names(ui, what, &layout, &font, (whole, gutter, below, slanted));
        });
    chosen
}

struct Layout {
    area: Rect,
    cell: Vec2,
    rows: usize,
    columns: usize,
    sight: Rect,
}

impl Layout {
    fn at(&self, pos: Pos2) -> Option<(usize, usize)> {
        let offset = (pos - self.area.min) / self.cell;
        let inside = self.area.contains(pos) && self.sight.contains(pos);
        inside.then(|| ((offset.y as usize).min(self.rows - 1), (offset.x as usize).min(self.columns - 1)))
    }

    fn rect(&self, row: usize, column: usize) -> Rect {
        Rect::from_min_size(self.area.min + vec2(column as f32, row as f32) * self.cell, self.cell)
    }
}

fn interact(ui: &mut Ui, state: &mut MatrixState, what: &Matrix<'_>, layout: &Layout) -> Option<(usize, usize)> {
    let response = ui.interact(layout.area, ui.scope_id().with(what.name), Sense::click());
    let last = (layout.rows - 1, layout.columns - 1);
    state.cursor = (state.cursor.0.min(last.0), state.cursor.1.min(last.1));
    if response.has_focus() {
        let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
        ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, filter));
        let pressed = |key| ui.input_mut(|input| input.count_and_consume_key(Modifiers::NONE, key));
        let (down, up) = (pressed(Key::ArrowDown), pressed(Key::ArrowUp));
        let (right, left) = (pressed(Key::ArrowRight), pressed(Key::ArrowLeft));
        let (row, column) = state.cursor;
        state.cursor = ((row + down).saturating_sub(up).min(last.0), (column + right).saturating_sub(left).min(last.1));
        if state.cursor != (row, column) {
            ui.scroll_to_rect(layout.rect(state.cursor.0, state.cursor.1), None);
        }
    }
    let pointed = response.hover_pos().and_then(|pos| layout.at(pos));
    let by_pointer = response.clicked_by(egui::PointerButton::Primary);
    if let (true, Some(cell)) = (by_pointer, pointed) {
        state.cursor = cell;
    }
    let (row, column) = state.cursor;
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(egui::accesskit::Role::Grid, ui.is_enabled(), what.name);
        info.current_text_value = Some((what.describe)(row, column));
        info
    });
    let clicked = response.clicked();
    if let Some((row, column)) = pointed {
        focus::highlight(ui, row);
        response.on_hover_text_at_pointer((what.describe)(row, column));
    }
    clicked.then_some(state.cursor)
}

fn paint_cells(ui: &Ui, state: &mut MatrixState, what: &Matrix<'_>, layout: &Layout, font: &FontId) {
    let (rows, columns) = (layout.rows, layout.columns);
    let stale =
        state.texture.as_ref().is_none_or(|(key, texture)| *key != what.key || texture.size() != [columns, rows]);
    if stale {
        let pixels =
            (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))).map(|(r, c)| (what.color)(r, c)).collect();
        let image = ColorImage::new([columns, rows], pixels);
        match &mut state.texture {
            Some((key, texture)) => {
                texture.set(image, TextureOptions::NEAREST);
                *key = what.key;
            }
            none => *none = Some((what.key, ui.ctx().load_texture(what.name, image, TextureOptions::NEAREST))),
        }
    }
    let painter = ui.painter();
    if let Some((_, texture)) = &state.texture {
        let whole = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
        painter.image(texture.id(), layout.area, whole, Color32::WHITE);
    }
    let palette = theme::palette(ui);
    if layout.cell.x >= TEXT.x && layout.cell.y >= TEXT.y {
        let visible = ui.clip_rect();
        for row in 0..rows {
            for column in 0..columns {
                let rect = layout.rect(row, column);
                if visible.intersects(rect) {
                    let color = theme::text_on((what.color)(row, column));
                    painter.text(
                        rect.center(),
                        Align2::CENTER_CENTER,
                        (what.text)(row, column, layout.cell.x >= DECIMAL),
                        font.clone(),
                        color,
                    );
                }
            }
        }
    }
    if let Some(class) = focus::highlighted(ui) {
        let along = |rect: Rect| {
            painter.rect_stroke(rect, 0, Stroke::new(3.0, palette.card), StrokeKind::Outside);
            painter.rect_stroke(rect, 0, Stroke::new(1.5, palette.accent), StrokeKind::Outside);
        };
        if class < rows {
            along(layout.rect(class, 0).union(layout.rect(class, columns - 1)));
        }
        if what.classes_in_columns && class < columns {
            along(layout.rect(0, class).union(layout.rect(rows - 1, class)));
        }
    }
    if let Some(column) = what.marked.filter(|column| *column < columns) {
        let rect = layout.rect(0, column).union(layout.rect(rows - 1, column));
        painter.rect_stroke(rect.expand(1.0), 1, Stroke::new(2.0, ui.visuals().text_color()), StrokeKind::Outside);
    }
    let focused = ui.memory(|memory| memory.has_focus(ui.scope_id().with(what.name)));
    if focused {
        let rect = layout.rect(state.cursor.0, state.cursor.1);
        painter.rect_stroke(rect.expand(1.0), 1, Stroke::new(2.0, Color32::WHITE), StrokeKind::Outside);
        painter.rect_stroke(rect.expand(3.0), 1, Stroke::new(2.0, palette.accent), StrokeKind::Outside);
    }
}

/// Names stay visible while the matrix scrolls.
fn paint_names(
    ui: &mut Ui,
    what: &Matrix<'_>,
    layout: &Layout,
    font: &FontId,
    (whole, gutter, below, slanted): (Rect, f32, f32, bool),
) {
    let palette = theme::palette(ui);
    let ink = ui.visuals().text_color();
    let highlighted = focus::highlighted(ui);
    let color_of = |class: usize| if highlighted == Some(class) { palette.accent } else { ink };
    let clip = ui.clip_rect();
    let line = ui.fonts_mut(|fonts| fonts.row_height(font));
    let (left, bottom) = (layout.sight.left() - gutter, layout.sight.bottom());
    // The focus frame may extend beyond the matrix.
    let side = Rect::from_min_max(pos2(left, whole.top()), pos2(left + gutter - 4.0, whole.bottom()));
    let foot = Rect::from_min_max(pos2(whole.left(), bottom + 4.0), whole.max);
    let painter = ui.painter().clone();
    if left > whole.left() {
        painter.rect_filled(side.expand2(vec2(4.0, 0.0)), 0, palette.card);
    }
    let step = (line / layout.cell.y).ceil().max(1.0) as usize;
    for (row, name) in what.rows.iter().enumerate().step_by(step) {
        let center = layout.rect(row, 0).center().y;
        if center < clip.top() - line || center > bottom {
            continue;
        }
        let galley = elided(ui, name, font.clone(), gutter - 8.0, color_of(row));
        painter.galley(pos2(left + gutter - 6.0 - galley.size().x, center - galley.size().y / 2.0), galley, ink);
    }
    if bottom < whole.bottom() - below {
        painter.rect_filled(foot.expand2(vec2(0.0, 4.0)), 0, palette.card);
    }
    let pitch = if slanted {
        line / 0.72
    } else {
        what.columns.iter().map(|name| 6.5 * name.chars().count() as f32).fold(0.0, f32::max) + 8.0
    };
    let step = nice_step((pitch / layout.cell.x).ceil().max(1.0) as usize);
    let shown = |column: usize| {
        if slanted {
            column.is_multiple_of(step)
        } else {
            (column == 0 && step > 2) || (column + 1).is_multiple_of(step)
        }
    };
    for (column, name) in what.columns.iter().enumerate().filter(|(column, _)| shown(*column)) {
        let x = layout.rect(0, column).center().x;
        if x < left + gutter - 8.0 || x > clip.right() + 8.0 {
            continue;
        }
        let ink = if what.classes_in_columns { color_of(column) } else { ink };
        if slanted {
            let galley = elided(ui, name, font.clone(), 106.0, ink);
            let at = pos2(x + 4.0, bottom + 3.0);
            let shape = TextShape::new(at - vec2(galley.size().x, 0.0), galley, ink);
            painter.add(shape.with_angle_and_anchor(-std::f32::consts::FRAC_PI_4, Align2::RIGHT_TOP));
        } else {
            painter.text(pos2(x, bottom + 3.0), Align2::CENTER_TOP, name, font.clone(), ink);
        }
    }
    let middle = layout.sight.intersect(layout.area).center().x;
    let at = pos2(middle, bottom + below);
    painter.text(at, Align2::CENTER_BOTTOM, what.axis, font.clone(), palette.weak);
    if what.classes_in_columns {
        let names = Rect::from_x_y_ranges(left + gutter..=layout.area.right(), bottom..=bottom + below - 16.0);
        point_at_column(ui, layout, names.intersect(clip));
    }
    if let Some(pos) = ui.ctx().pointer_hover_pos().filter(|pos| side.contains(*pos) && clip.contains(*pos)) {
        let row = ((pos.y - layout.area.top()) / layout.cell.y) as usize;
        if let Some(name) = what.rows.get(row).filter(|_| pos.y < bottom && pos.y >= layout.area.top()) {
            focus::highlight(ui, row);
            ui.interact(side, ui.scope_id().with((what.name, "rows")), Sense::HOVER).on_hover_text_at_pointer(name);
        }
    }
}

/// Highlights the class whose column name is under the pointer.
fn point_at_column(ui: &Ui, layout: &Layout, foot: Rect) {
    let pos = ui.ctx().pointer_hover_pos().filter(|pos| foot.contains(*pos) && ui.rect_contains_pointer(foot));
    if let Some(pos) = pos {
        let column = ((pos.x - layout.area.left()) / layout.cell.x).floor();
        if column >= 0.0 && (column as usize) < layout.columns {
            focus::highlight(ui, column as usize);
        }
    }
}

/// The smallest of 1, 2, 5, 10, … that is at least `least`.
fn nice_step(least: usize) -> usize {
    let mut power = 1;
    loop {
        for factor in [1, 2, 5] {
            if factor * power >= least {
                return factor * power;
            }
        }
        power *= 10;
    }
}

/// The colour bar of a matrix: colours from `range.0` to `range.1` with numbers below, and one value marked.
pub fn color_bar(
    ui: &mut Ui,
    color: &dyn Fn(f64) -> Color32,
    range: (f64, f64),
    write: &dyn Fn(f64) -> String,
    mark: Option<(f64, &str)>,
) {
    const STEPS: usize = 48;
    let font = TextStyle::Small.resolve(ui.style());
    let palette = theme::palette(ui);
    let width = ui.available_width().min(340.0);
    let (rect, _) = ui.allocate_exact_size(vec2(width, 30.0), Sense::hover());
    let bar = Rect::from_min_size(rect.min + vec2(18.0, 0.0), vec2(width - 40.0, 11.0));
    let x_of = |t: f64| bar.left() + bar.width() * t as f32;
    let mut mesh = Mesh::default();
    for i in 0..=STEPS {
        let t = i as f64 / STEPS as f64;
        let color = color(range.0 + t * (range.1 - range.0));
        mesh.colored_vertex(pos2(x_of(t), bar.top()), color);
        mesh.colored_vertex(pos2(x_of(t), bar.bottom()), color);
    }
    for i in 0..STEPS as u32 {
        let v = 2 * i;
        mesh.add_triangle(v, v + 1, v + 2);
        mesh.add_triangle(v + 1, v + 3, v + 2);
    }
    let painter = ui.painter();
    painter.add(Shape::mesh(mesh));
    painter.rect_stroke(bar, 0, Stroke::new(1.0, palette.line), StrokeKind::Outside);
    let within = |value: f64| (value - range.0) / (range.1 - range.0);
    let mark = mark.filter(|(value, _)| (0.0..=1.0).contains(&within(*value)));
    for i in 0..=4 {
        let t = f64::from(i) / 4.0;
        let x = x_of(t);
        painter.line_segment([pos2(x, bar.bottom()), pos2(x, bar.bottom() + 3.0)], Stroke::new(1.0, palette.weak));
        let text = write(range.0 + t * (range.1 - range.0));
        painter.text(pos2(x, bar.bottom() + 4.0), Align2::CENTER_TOP, text, font.clone(), palette.weak);
    }
    if let Some((value, what)) = mark {
        let x = x_of(within(value));
        let line = Rect::from_center_size(pos2(x, bar.center().y), vec2(8.0, bar.height() + 4.0));
        painter.line_segment([line.center_top(), line.center_bottom()], Stroke::new(2.0, ui.visuals().text_color()));
        ui.interact(line, ui.scope_id().with(("mark", what)), Sense::HOVER).on_hover_text(what);
    }
}
