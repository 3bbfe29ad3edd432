//! Colours, fonts and spacing of both themes.
//!
//! Class colours and colour scales are distinguishable with every common form of colour vision; a number always
//! accompanies a colour.

use std::sync::Arc;

use egui::{Color32, FontData, FontDefinitions, FontFamily, FontId, TextStyle};

/// Semantic colours of the current theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    /// Accuracy on unperturbed images.
    pub clean: Color32,
    /// Accuracy under attack.
    pub robust: Color32,
    /// The worst class, and anything that needs attention.
    pub worst: Color32,
    /// The gap between best and worst class.
    pub gap: Color32,
    /// Loss and other neutral curves.
    pub neutral: Color32,
    /// Interactive elements: buttons, links, selections.
    pub accent: Color32,
    /// Success.
    pub good: Color32,
    /// Warning.
    pub warning: Color32,
    /// Error.
    pub error: Color32,
    /// Secondary text.
    pub weak: Color32,
    /// Lines of grids and frames.
    pub line: Color32,
    /// Background of cards within a panel.
    pub card: Color32,
}

const DARK: Palette = Palette {
    clean: Color32::from_rgb(0x56, 0xb4, 0xe9),
    robust: Color32::from_rgb(0xf0, 0xb4, 0x2d),
    worst: Color32::from_rgb(0xe8, 0x6a, 0x4a),
    gap: Color32::from_rgb(0xcc, 0x8e, 0xc0),
    neutral: Color32::from_rgb(0xc4, 0xc9, 0xd1),
    accent: Color32::from_rgb(0x4f, 0x9c, 0xf0),
    good: Color32::from_rgb(0x3d, 0xb8, 0x8b),
    warning: Color32::from_rgb(0xf0, 0xb4, 0x2d),
    error: Color32::from_rgb(0xf0, 0x6a, 0x5f),
    weak: Color32::from_rgb(0x9a, 0xa2, 0xae),
    line: Color32::from_rgb(0x3a, 0x40, 0x4a),
    card: Color32::from_rgb(0x22, 0x26, 0x2d),
};

const LIGHT: Palette = Palette {
    clean: Color32::from_rgb(0x00, 0x72, 0xb2),
    robust: Color32::from_rgb(0xb8, 0x76, 0x00),
    worst: Color32::from_rgb(0xc4, 0x42, 0x1a),
    gap: Color32::from_rgb(0x94, 0x4e, 0x85),
    neutral: Color32::from_rgb(0x4a, 0x52, 0x5e),
    accent: Color32::from_rgb(0x1a, 0x62, 0xc4),
    good: Color32::from_rgb(0x0b, 0x7a, 0x57),
    warning: Color32::from_rgb(0x96, 0x5c, 0x00),
    error: Color32::from_rgb(0xb9, 0x2c, 0x22),
    weak: Color32::from_rgb(0x5c, 0x65, 0x72),
    line: Color32::from_rgb(0xd3, 0xd8, 0xe0),
    card: Color32::from_rgb(0xff, 0xff, 0xff),
};

/// The colours of the theme of `ui`.
pub fn palette(ui: &egui::Ui) -> &'static Palette {
    if ui.visuals().dark_mode { &DARK } else { &LIGHT }
}

/// A colour for a class. With more than ten classes colours repeat, so a name must accompany it.
pub fn class_color(class: usize, dark: bool) -> Color32 {
    // Ten hues of different lightness, after Okabe and Ito and Tol, adjusted for contrast with both backgrounds.
    const DARK: [u32; 10] =
        [0x56b4e9, 0xe69f00, 0x2fbf95, 0xf0e442, 0xe2713f, 0xcc79a7, 0x9aa4f2, 0x9bd770, 0xd0a98f, 0xb9bec6];
    const LIGHT: [u32; 10] =
        [0x0072b2, 0xc07c00, 0x00805f, 0x8f8400, 0xc44a00, 0xa8467d, 0x4c50b8, 0x4a8a1c, 0x86572f, 0x5f6670];
    let [_, r, g, b] = (if dark { DARK } else { LIGHT })[class % 10].to_be_bytes();
    Color32::from_rgb(r, g, b)
}

/// Viridis, for `0..=1`: from low to high. NaN gives grey.
pub fn sequential(t: f64) -> Color32 {
    color(colorous::VIRIDIS, t)
}

/// Blue through white to red, for `0..=1`: 0.5 is no difference.
pub fn diverging(t: f64) -> Color32 {
    color(colorous::RED_BLUE, 1.0 - t)
}

fn color(scale: colorous::Gradient, t: f64) -> Color32 {
    if !t.is_finite() {
        return Color32::GRAY;
    }
    let c = scale.eval_continuous(t.clamp(0.0, 1.0));
    Color32::from_rgb(c.r, c.g, c.b)
}

/// Black or white, whichever is readable on `ground`.
pub fn text_on(ground: Color32) -> Color32 {
    let linear = |v: u8| (f32::from(v) / 255.0).powf(2.2);
    let luminance = 0.2126 * linear(ground.r()) + 0.7152 * linear(ground.g()) + 0.0722 * linear(ground.b());
    if luminance > 0.2 { Color32::from_rgb(0x12, 0x14, 0x18) } else { Color32::WHITE }
}

/// Text in a bolder weight.
pub fn strong_family() -> FontFamily {
    FontFamily::Name("strong".into())
}

/// Sets up fonts, spacing and the visuals of both themes. Called once per context.
pub fn install(context: &egui::Context) {
    let mut fonts = FontDefinitions::default();
    for (name, bytes) in [
        ("sans", &include_bytes!("../../assets/fonts/FairtatSans-Regular.otf")[..]),
        ("sans-strong", &include_bytes!("../../assets/fonts/FairtatSans-SemiBold.otf")[..]),
    ] {
        fonts.font_data.insert(name.to_owned(), Arc::new(FontData::from_static(bytes)));
    }
    let fallback = fonts.families.get(&FontFamily::Proportional).cloned().unwrap_or_default();
    // Hack has the mathematical symbols of formulas that the other fonts lack.
    let last = ["Hack".to_owned()];
    let with = |first: &str| {
        [first.to_owned()].into_iter().chain(fallback.iter().cloned()).chain(last.iter().cloned()).collect::<Vec<_>>()
    };
    fonts.families.insert(FontFamily::Proportional, with("sans"));
    fonts.families.insert(strong_family(), with("sans-strong"));
    context.set_fonts(fonts);
    context.all_styles_mut(|style| {
        style.text_styles = [
            (TextStyle::Small, FontId::new(11.5, FontFamily::Proportional)),
            (TextStyle::Body, FontId::new(14.0, FontFamily::Proportional)),
            (TextStyle::Button, FontId::new(14.0, FontFamily::Proportional)),
            (TextStyle::Heading, FontId::new(17.0, strong_family())),
            (TextStyle::Monospace, FontId::new(13.0, FontFamily::Monospace)),
        ]
        .into();
        style.spacing.item_spacing = egui::vec2(8.0, 6.0);
        style.spacing.button_padding = egui::vec2(8.0, 4.0);
        style.spacing.interact_size.y = 24.0;
        style.spacing.scroll = egui::style::ScrollStyle::solid();
    });
    for (theme, palette, ground, faint, text) in [
        (egui::Theme::Dark, &DARK, [0x18, 0x1b, 0x20], [0x1e, 0x22, 0x28], [0xe2, 0xe6, 0xec]),
        (egui::Theme::Light, &LIGHT, [0xf5, 0xf6, 0xf8], [0xec, 0xee, 0xf2], [0x1c, 0x21, 0x29]),
    ] {
        let rgb = |[r, g, b]: [u8; 3]| Color32::from_rgb(r, g, b);
        context.style_mut_of(theme, |style| {
            let v = &mut style.visuals;
            v.panel_fill = rgb(ground);
            v.window_fill = palette.card;
            v.faint_bg_color = rgb(faint);
            v.extreme_bg_color = if v.dark_mode { rgb([0x12, 0x14, 0x18]) } else { Color32::WHITE };
            v.hyperlink_color = palette.accent;
            v.warn_fg_color = palette.warning;
            v.error_fg_color = palette.error;
            v.selection.bg_fill = palette.accent.gamma_multiply(if v.dark_mode { 0.45 } else { 0.3 });
            v.selection.stroke.color = rgb(text);
            v.widgets.noninteractive.fg_stroke.color = rgb(text);
            v.widgets.noninteractive.bg_stroke.color = palette.line;
            v.widgets.inactive.fg_stroke.color = rgb(text);
        });
    }
}
