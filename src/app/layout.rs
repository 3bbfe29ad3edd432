//! The panels and how they are arranged.

use egui::{Key, KeyboardShortcut, Modifiers};
use serde::{Deserialize, Serialize};

/// A panel of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PanelKind {
    /// The experiment, and the run's controls.
    Experiment,
    /// Each class, from its mistakes to what came of them.
    Story,
    /// Curves, phase, rate.
    Training,
    /// CFPS, confusion, class-wise epsilon, targets.
    Fairness,
    /// Images of the current batch.
    Examples,
    /// One image, its attack step by step, its decision map.
    Inspector,
    /// Checkpoints under many attacks.
    Evaluate,
    /// Several runs compared.
    Compare,
    /// Failure signatures.
    Watch,
    /// Lessons and glossary.
    Learn,
    /// Log of events.
    Log,
}

impl PanelKind {
    /// All panels, in the order of the menu.
    pub const ALL: [Self; 11] = [
        Self::Experiment,
        Self::Story,
        Self::Training,
        Self::Fairness,
        Self::Examples,
        Self::Inspector,
        Self::Evaluate,
        Self::Compare,
        Self::Watch,
        Self::Learn,
        Self::Log,
    ];

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Experiment => "Experiment",
            Self::Story => "Story",
            Self::Training => "Training",
            Self::Fairness => "Fairness",
            Self::Examples => "Examples",
            Self::Inspector => "Inspector",
            Self::Evaluate => "Evaluate",
            Self::Compare => "Compare",
            Self::Watch => "Failure watch",
            Self::Learn => "Learn",
            Self::Log => "Log",
        }
    }

    /// What it shows.
    pub const fn tooltip(self) -> &'static str {
        match self {
            Self::Experiment => "Every setting of the run.",
            Self::Story => {
                "Each class: the mistakes that land on it, what the method does about them, what came of it."
            }
            Self::Training => "Loss and accuracy, speed, remaining time, and where the time goes.",
            Self::Fairness => "Which classes suffer: CFPS, confusion under attack, epsilon and targets of each class.",
            Self::Examples => "Images of the current batch before and after the attack.",
            Self::Inspector => "One image: attack it step by step, and see the decisions around it.",
            Self::Evaluate => "Trained networks under many attacks, AutoAttack among them, with a report.",
            Self::Compare => "Runs side by side on the same axes.",
            Self::Watch => "Known ways in which this kind of training goes wrong, named when they appear.",
            Self::Learn => "Short lessons, and what every term means.",
            Self::Log => "Everything that happened since the start.",
        }
    }

    /// Ctrl and its number; a letter for the tenth, as Ctrl+0 is the normal size.
    pub const fn shortcut(self) -> Option<KeyboardShortcut> {
        let key = match self {
            Self::Experiment => Key::Num1,
            Self::Story => Key::T,
            Self::Training => Key::Num2,
            Self::Fairness => Key::Num3,
            Self::Examples => Key::Num4,
            Self::Inspector => Key::Num5,
            Self::Evaluate => Key::E,
            Self::Compare => Key::Num6,
            Self::Watch => Key::Num7,
            Self::Learn => Key::Num8,
            Self::Log => Key::Num9,
        };
        Some(KeyboardShortcut::new(Modifiers::COMMAND, key))
    }
}

/// How the panels are arranged: chosen by the size of the window until the user moves a panel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layout {
    /// The tree of tiles.
    tree: egui_tiles::Tree<PanelKind>,
    /// The automatic arrangement; `None` once the user has changed it.
    arrangement: Option<Arrangement>,
    /// The layout to restore when a lesson is left.
    #[serde(default)]
    before: Option<Box<Layout>>,
}

/// The automatic arrangements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Arrangement {
    /// One panel at a time: a projector at double zoom.
    Single,
    /// The experiment beside one other panel: a small laptop.
    Beside,
    /// The experiment beside two panels, one above the other.
    Full,
    /// The text of a lesson beside the panels that it is about.
    Lesson,
}

impl Arrangement {
    fn of(size: egui::Vec2, lesson: bool) -> Self {
        match size {
            size if size.x < 820.0 => Self::Single,
            _ if lesson => Self::Lesson,
            size if size.y < 780.0 || size.x < 1200.0 => Self::Beside,
            _ => Self::Full,
        }
    }

    fn tree(self) -> egui_tiles::Tree<PanelKind> {
        use PanelKind::{
            Compare, Evaluate, Examples, Experiment, Fairness, Inspector, Learn, Log, Story, Training, Watch,
        };
        let mut tiles = egui_tiles::Tiles::default();
        let tabs = |tiles: &mut egui_tiles::Tiles<PanelKind>, kinds: &[PanelKind]| {
            let children: Vec<_> = kinds.iter().map(|kind| tiles.insert_pane(*kind)).collect();
            let first = children[0];
            let mut tabs = egui_tiles::Tabs::new(children);
            tabs.set_active(first);
            tiles.insert_container(tabs)
        };
        let root = match self {
            Self::Single => tabs(
                &mut tiles,
                &[Experiment, Story, Training, Fairness, Examples, Inspector, Evaluate, Compare, Watch, Learn, Log],
            ),
            Self::Beside => {
                let left = tabs(&mut tiles, &[Experiment]);
                let right = tabs(
                    &mut tiles,
                    &[Story, Training, Fairness, Examples, Inspector, Evaluate, Compare, Watch, Learn, Log],
                );
                let linear = egui_tiles::Linear::new_binary(egui_tiles::LinearDir::Horizontal, [left, right], 0.36);
                tiles.insert_container(linear)
            }
            Self::Lesson => {
                let left = tabs(&mut tiles, &[Learn]);
                let right = tabs(
                    &mut tiles,
                    &[Experiment, Story, Training, Fairness, Examples, Inspector, Evaluate, Compare, Watch, Log],
                );
                let linear = egui_tiles::Linear::new_binary(egui_tiles::LinearDir::Horizontal, [left, right], 0.4);
                tiles.insert_container(linear)
            }
            Self::Full => {
                let left = tabs(&mut tiles, &[Experiment]);
                let top = tabs(&mut tiles, &[Story, Training, Fairness, Evaluate, Compare, Learn]);
                let bottom = tabs(&mut tiles, &[Examples, Inspector, Watch, Log]);
                let right = egui_tiles::Linear::new_binary(egui_tiles::LinearDir::Vertical, [top, bottom], 0.58);
                let right = tiles.insert_container(right);
                let linear = egui_tiles::Linear::new_binary(egui_tiles::LinearDir::Horizontal, [left, right], 0.26);
                tiles.insert_container(linear)
            }
        };
        egui_tiles::Tree::new(egui::Id::unique("panels"), root, tiles)
    }
}

impl Default for Layout {
    fn default() -> Self {
        let arrangement = Arrangement::Beside;
        Self { tree: arrangement.tree(), arrangement: Some(arrangement), before: None }
    }
}

impl Layout {
    /// Validates a layout that was read from a file: every panel must occur exactly once.
    pub fn is_whole(&self) -> bool {
        let shown = |kind: &PanelKind| self.tree.tiles.tiles().filter(|tile| is(tile, *kind)).count() == 1;
        let panes = self.tree.tiles.tiles().filter(|tile| matches!(tile, egui_tiles::Tile::Pane(_))).count();
        self.tree.root().is_some() && panes == PanelKind::ALL.len() && PanelKind::ALL.iter().all(shown)
    }

    /// Discards the arrangement; the next frame chooses one by the window's size.
    pub fn reset(&mut self) {
        *self = Self { before: self.before.take(), ..Self::default() };
    }

    /// Arranges the panels for a lesson, with its text beside them.
    pub fn begin_lesson(&mut self) {
        if self.before.is_none() {
            let before = std::mem::take(self);
            self.before = Some(Box::new(before));
        }
        self.arrangement = Some(Arrangement::Full);
    }

    /// Restores the arrangement from before the lesson.
    pub fn end_lesson(&mut self) {
        if let Some(before) = self.before.take() {
            *self = *before;
        }
    }

    /// Brings a panel to the front.
    pub fn show(&mut self, kind: PanelKind) {
        if let Some(id) = self.tree.tiles.find_pane(&kind) {
            self.tree.set_visible(id, true);
        }
        self.tree.make_active(|_, tile| is(tile, kind));
    }

    /// Hides these panels and shows all others.
    pub fn hide(&mut self, hidden: &[PanelKind]) {
        for kind in PanelKind::ALL {
            if let Some(id) = self.tree.tiles.find_pane(&kind) {
                self.tree.set_visible(id, !hidden.contains(&kind));
            }
        }
    }

    /// The panels that are currently visible.
    pub fn visible(&self) -> Vec<PanelKind> {
        let panes = self.tree.active_tiles().into_iter().filter_map(|id| self.tree.tiles.get_pane(&id).copied());
        panes.collect()
    }

    /// Draws all visible panels; `draw` draws one of them.
    pub fn ui(&mut self, ui: &mut egui::Ui, hidden: &[PanelKind], draw: &mut dyn FnMut(PanelKind, &mut egui::Ui)) {
        let fitting = Arrangement::of(ui.available_size(), self.before.is_some());
        if self.arrangement.is_some_and(|now| now != fitting) {
            let front = self.visible();
            self.tree = fitting.tree();
            self.arrangement = Some(fitting);
            self.hide(hidden);
            front.into_iter().filter(|kind| *kind != PanelKind::Experiment).for_each(|kind| self.show(kind));
        }
        let mut behavior = Behavior { draw, moved: false };
        self.tree.ui(&mut behavior, ui);
        if behavior.moved {
            self.arrangement = None;
        }
    }
}

fn is(tile: &egui_tiles::Tile<PanelKind>, kind: PanelKind) -> bool {
    matches!(tile, egui_tiles::Tile::Pane(pane) if *pane == kind)
}

struct Behavior<'a> {
    draw: &'a mut dyn FnMut(PanelKind, &mut egui::Ui),
    moved: bool,
}

impl egui_tiles::Behavior<PanelKind> for Behavior<'_> {
    fn pane_ui(
        &mut self,
        ui: &mut egui::Ui,
        _tile: egui_tiles::TileId,
        kind: &mut PanelKind,
    ) -> egui_tiles::UiResponse {
        ui.painter().rect_filled(ui.max_rect(), 0.0, ui.visuals().panel_fill);
        egui::Frame::new().inner_margin(8).show(ui, |ui| (self.draw)(*kind, ui));
        egui_tiles::UiResponse::None
    }

    fn tab_title_for_pane(&mut self, kind: &PanelKind) -> egui::WidgetText {
        kind.title().into()
    }

    fn simplification_options(&self) -> egui_tiles::SimplificationOptions {
        // A single panel keeps its tab, because the tab is the handle for moving it.
        egui_tiles::SimplificationOptions { all_panes_must_have_tabs: true, ..Default::default() }
    }

    fn tab_bar_height(&self, _style: &egui::Style) -> f32 {
        28.0
    }

    fn gap_width(&self, _style: &egui::Style) -> f32 {
        4.0
    }

    fn tab_bar_color(&self, visuals: &egui::Visuals) -> egui::Color32 {
        visuals.faint_bg_color
    }

    fn on_edit(&mut self, action: egui_tiles::EditAction) {
        self.moved |= matches!(action, egui_tiles::EditAction::TileResized | egui_tiles::EditAction::TileDropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arrangement_has_every_panel_and_survives_a_file() {
        for arrangement in [Arrangement::Single, Arrangement::Beside, Arrangement::Full, Arrangement::Lesson] {
            let mut layout = Layout { tree: arrangement.tree(), ..Layout::default() };
            assert!(layout.is_whole(), "{arrangement:?}");
            layout.show(PanelKind::Log);
            let text = serde_json::to_string(&layout).unwrap();
            let read: Layout = serde_json::from_str(&text).unwrap();
            assert!(read.is_whole());
        }
        let mut broken = Layout::default();
        let id = broken.tree.tiles.find_pane(&PanelKind::Watch).unwrap();
        broken.tree.remove_recursively(id);
        assert!(!broken.is_whole());
    }
}
