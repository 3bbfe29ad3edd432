//! A single panel in a window, for tests.

use egui_kittest::Harness;

use super::context::{Action, Context, Panel};
use super::evaluation::EvaluationView;
use super::focus::{self, Focus};
use super::form::Form;
use super::glossary::Glossary;
use super::settings::Settings;
use super::view::RunView;

/// A panel and everything it needs; its requested actions accumulate in `actions`.
pub(in crate::app) struct Stage<P> {
    pub(in crate::app) panel: P,
    pub(in crate::app) run: RunView,
    pub(in crate::app) evaluation: EvaluationView,
    pub(in crate::app) focus: Focus,
    pub(in crate::app) form: Form,
    pub(in crate::app) settings: Settings,
    pub(in crate::app) glossary: Glossary,
    pub(in crate::app) actions: Vec<Action>,
    /// A class that the pointer is on in another panel.
    pub(in crate::app) pointed: Option<usize>,
    ready: bool,
}

impl<P: Panel> Stage<P> {
    pub(in crate::app) fn new(panel: P, run: RunView) -> Self {
        let (form, settings, glossary, evaluation, focus) = Default::default();
        let (actions, pointed, ready) = (Vec::new(), None, false);
        Self { panel, run, evaluation, focus, form, settings, glossary, actions, pointed, ready }
    }

    /// Draws the panel as the window would.
    pub(in crate::app) fn ui(&mut self, ui: &mut egui::Ui) {
        if !self.ready {
            super::theme::install(ui.ctx());
            self.ready = true;
            // Fonts are available from the next frame on.
            ui.ctx().request_repaint();
            return;
        }
        focus::begin_frame(ui.ctx());
        if let Some(class) = self.pointed {
            focus::highlight(ui, class);
        }
        let Self { panel, run, evaluation, focus, form, settings, glossary, actions, .. } = self;
        let mut context = Context { run, evaluation, focus, form, settings, glossary, actions };
        egui::Frame::central_panel(ui.style()).show(ui, |ui| panel.ui(ui, &mut context));
        focus::end_frame(ui.ctx());
    }
}

/// A harness for a stage; `size` in points.
pub(in crate::app) fn harness<'a, P: Panel + 'a>(
    stage: Stage<P>,
    size: [f32; 2],
    scale: f32,
    dark: bool,
) -> Harness<'a, Stage<P>> {
    Harness::builder()
        .with_size(size)
        .with_pixels_per_point(scale)
        .with_theme(if dark { egui::Theme::Dark } else { egui::Theme::Light })
        .wgpu()
        .build_ui_state(|ui, stage: &mut Stage<P>| stage.ui(ui), stage)
}

/// Whether a rectangle (points, at scale 1) is drawn in another way while the pointer is on a class in another panel.
pub(in crate::app) fn is_highlighted<P: Panel>(
    harness: &mut Harness<'_, Stage<P>>,
    rect: egui::Rect,
    class: usize,
) -> bool {
    let mut picture = |pointed| {
        harness.state_mut().pointed = pointed;
        harness.run_steps(3);
        let (x, y) = (rect.left().max(0.0) as u32, rect.top().max(0.0) as u32);
        let whole = harness.render().unwrap();
        image::imageops::crop_imm(&whole, x, y, rect.width() as u32, rect.height() as u32).to_image()
    };
    let (with, without) = (picture(Some(class)), picture(None));
    with != without
}

/// Writes what the harness shows to `$SHOTS/NAME.png` for viewing; does nothing if `SHOTS` is not set.
pub(in crate::app) fn shoot<S>(harness: &mut Harness<'_, S>, name: &str) {
    if let Some(directory) = std::env::var_os("SHOTS") {
        let directory = std::path::PathBuf::from(directory);
        std::fs::create_dir_all(&directory).unwrap();
        harness.render().unwrap().save(directory.join(format!("{name}.png"))).unwrap();
    }
}
