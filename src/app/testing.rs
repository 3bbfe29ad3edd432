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
    ready: bool,
}

impl<P: Panel> Stage<P> {
    pub(in crate::app) fn new(panel: P, run: RunView) -> Self {
        let (form, settings, glossary, evaluation, focus) = Default::default();
        Self { panel, run, evaluation, focus, form, settings, glossary, actions: Vec::new(), ready: false }
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

/// Writes what the harness shows to `$SHOTS/NAME.png` for viewing; does nothing if `SHOTS` is not set.
pub(in crate::app) fn shoot<S>(harness: &mut Harness<'_, S>, name: &str) {
    if let Some(directory) = std::env::var_os("SHOTS") {
        let directory = std::path::PathBuf::from(directory);
        std::fs::create_dir_all(&directory).unwrap();
        harness.render().unwrap().save(directory.join(format!("{name}.png"))).unwrap();
    }
}
