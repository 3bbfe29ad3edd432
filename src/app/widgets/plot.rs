//! Plots over epochs: a grid whose labels have room however small the plot is, and curves that are seen from their first
//! point on.

use egui::Color32;
use egui_plot::{
    AxisHints, GridInput, GridMark, Line, LineStyle, Plot, PlotPoints, PlotUi, Points, uniform_grid_spacer,
};

/// Points per unit in which a plot tells its spacer how large it is.
const UNIT: f32 = 8.0;
/// Minimum distance of labels, in points: along the width, along the height.
const ROOM: [f32; 2] = [44.0, 20.0];

/// What the values of a plot are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Labels at 1, 2 or 5 times a power of ten.
    Linear,
    /// Values are exponents of ten; labels at whole ones.
    Decades,
}

/// A plot with labels at whole epochs, and at values as `scale` says; no more of them than have room.
pub fn over_epochs<'a>(name: &str, scale: Scale) -> Plot<'a> {
    let whole = |mark: GridMark| match mark.value.fract() == 0.0 && mark.value >= 0.0 {
        true => format!("{}", mark.value),
        false => String::new(),
    };
    // Labels are faint up to the end of this range.
    let [x, y] = ROOM.map(|room| egui::Rangef::new(0.9 * room - 2.0, 0.9 * room));
    Plot::new(name.to_owned())
        .custom_x_axes(vec![AxisHints::new_x().label_spacing(x)])
        .custom_y_axes(vec![AxisHints::new_y().label_spacing(y)])
        .grid_spacing(UNIT..=300.0)
        .x_grid_spacer(uniform_grid_spacer(|input| [round_step(wanted(input, 8.0, ROOM[0])).max(1.0); 3]))
        .x_axis_formatter(move |mark, _| whole(mark))
        .y_grid_spacer(uniform_grid_spacer(move |input| match scale {
            Scale::Linear => [round_step(wanted(input, 6.0, ROOM[1])); 3],
            Scale::Decades => [wanted(input, 6.0, ROOM[1]).ceil().max(1.0); 3],
        }))
}

/// Distance of grid lines: `parts` of them in the range, or as many as have `room`.
fn wanted(input: GridInput, parts: f64, room: f32) -> f64 {
    let range = (input.bounds.1 - input.bounds.0).abs();
    (range / parts).max(input.base_step_size * f64::from(room / UNIT))
}

/// The smallest of 1, 2, 5, 10, … times a power of ten that is at least `wanted`, which must be positive.
fn round_step(wanted: f64) -> f64 {
    let power = 10f64.powf(wanted.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|step| *step >= wanted * 0.96).unwrap_or(10.0 * power)
}

/// A grid label with as many decimals as distinguish it from its neighbours.
pub fn decimal(mark: GridMark) -> String {
    let digits = (-mark.step_size.max(1e-9).log10().floor()).max(0.0) as usize;
    format!("{:.digits$}", mark.value)
}

/// A curve of a plot.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    /// Its name, which the plot gives when it is pointed at.
    pub name: &'a str,
    /// Its colour.
    pub color: Color32,
    /// Its width in points.
    pub width: f32,
    /// Solid, dashed or dotted.
    pub style: LineStyle,
    /// Whether it answers to the pointer.
    pub hover: bool,
}

impl Curve<'_> {
    /// Draws it; a single point, of which a line shows nothing, becomes a dot.
    pub fn draw(&self, plot: &mut PlotUi<'_>, points: Vec<[f64; 2]>) {
        if let [_] = points[..] {
            let dot = Points::new(self.name, PlotPoints::from(points)).color(self.color);
            plot.points(dot.radius(self.width + 0.8).allow_hover(self.hover));
            return;
        }
        let line = Line::new(self.name, PlotPoints::from(points)).color(self.color);
        plot.line(line.width(self.width).style(self.style).allow_hover(self.hover));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (wanted, step) in
            [(1.0, 1.0), (1.5, 2.0), (2.05, 2.0), (3.0, 5.0), (7.0, 10.0), (0.012, 0.02), (130.0, 200.0)]
        {
            assert!((round_step(wanted) - step).abs() < 1e-12, "{wanted}: {}", round_step(wanted));
        }
    }

    /// The texts that a plot of 40 epochs, with values from 1e-7 to 0.1, paints within a size.
    fn painted(size: egui::Vec2, scale: Scale) -> Vec<String> {
        let mut harness =
            egui_kittest::Harness::builder().with_size(size + egui::vec2(40.0, 40.0)).build_ui(move |ui| {
                let plot = over_epochs("plot", scale).width(size.x).height(size.y);
                plot.y_axis_formatter(|mark, _| format!("y{}", mark.value)).show(ui, |plot| {
                    plot.line(Line::new("line", vec![[0.0, -7.0], [40.0, -1.0]]));
                });
            });
        harness.run();
        let text = |shape: &egui::epaint::ClippedShape| match &shape.shape {
            egui::Shape::Text(text) => Some(text.galley.text().to_owned()),
            _ => None,
        };
        harness.output().shapes.iter().filter_map(text).collect()
    }

    #[test]
    fn both_axes_have_labels_in_small_plots() {
        for (size, scale) in
            [([150.0, 90.0], Scale::Decades), ([150.0, 90.0], Scale::Linear), ([900.0, 300.0], Scale::Decades)]
        {
            let texts = painted(size.into(), scale);
            let (values, epochs): (Vec<_>, Vec<_>) = texts.iter().partition(|text| text.starts_with('y'));
            assert!((2..9).contains(&values.len()) && (2..12).contains(&epochs.len()), "{size:?} {scale:?} {texts:?}");
        }
    }

    #[test]
    fn labels_have_room_and_there_are_not_many() {
        // 40 epochs on 160 and on 1,600 points.
        let steps = [160.0, 1600.0].map(|width| {
            let input = GridInput { bounds: (0.0, 40.0), base_step_size: 40.0 / width * f64::from(UNIT) };
            round_step(wanted(input, 8.0, ROOM[0]))
        });
        assert_eq!(steps, [20.0, 5.0]);
    }
}
