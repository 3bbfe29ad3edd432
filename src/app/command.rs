//! Everything the window can be told to do: one enum behind menus, keys and the palette.

use std::time::Duration;

use egui::{Key, KeyboardShortcut, Modifiers};

use super::layout::PanelKind;
use crate::worker::Speed;

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Start the run that the form describes.
    Start,
    /// Pause or resume; starts a run if there is none.
    PlayPause,
    /// Train on one batch, then wait.
    OneBatch,
    /// Take one step of the attack, then wait.
    OneAttackStep,
    /// Show every attack step, slowly, or train at full speed again.
    SlowMotion,
    /// Choose how fast the run goes.
    Speed(SpeedChoice),
    /// Stop and write a checkpoint.
    StopAndSave,
    /// Stop and write nothing.
    StopWithoutSaving,
    /// Choose a run directory and resume it.
    Resume,
    /// Resume the run that was stopped.
    ResumeThis,
    /// Load a checkpoint for inspection.
    OpenCheckpoint,
    /// Load an experiment file into the form.
    OpenExperiment,
    /// Save the form as an experiment file.
    SaveExperiment,
    /// Copy the command line that reruns the form's experiment.
    CopyAsCommand,
    /// Undo the last change of the form.
    Undo,
    /// Redo the change that was undone last.
    Redo,
    /// Open an image in the inspector.
    OpenImage,
    /// Take the image on the clipboard into the inspector.
    PasteImage,
    /// Add a run directory to the comparison.
    AddToComparison,
    /// Choose a checkpoint and evaluate it.
    Evaluate,
    /// Cancel the evaluation.
    CancelEvaluation,
    /// Bring a panel to the front.
    Show(PanelKind),
    /// Restore the arrangement of the first start.
    ResetLayout,
    /// Choose a command by typing its name.
    Palette,
    /// Show lessons and glossary.
    Help,
    /// Full screen on or off.
    FullScreen,
    /// Larger text and controls.
    ZoomIn,
    /// Smaller text and controls.
    ZoomOut,
    /// The default size.
    ZoomReset,
    /// Light colours.
    ThemeLight,
    /// Dark colours.
    ThemeDark,
    /// The system's light or dark theme.
    ThemeSystem,
    /// Close the window.
    Quit,
}

/// The speeds that are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpeedChoice {
    /// Full speed.
    Full,
    /// One epoch a second, or slower if it takes longer.
    Epoch,
    /// One batch a second.
    Batch,
    /// One step of the attack a second.
    Step,
}

impl SpeedChoice {
    /// All, fastest first.
    pub const ALL: [Self; 4] = [Self::Full, Self::Epoch, Self::Batch, Self::Step];

    /// As the worker is told.
    pub const fn speed(self) -> Speed {
        const SECOND: Duration = Duration::from_secs(1);
        match self {
            Self::Full => Speed::Full,
            Self::Epoch => Speed::Epoch(SECOND),
            Self::Batch => Speed::Batch(SECOND),
            Self::Step => Speed::Step(SECOND),
        }
    }

    /// Its name on the button.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Full => "Full speed",
            Self::Epoch => "1 epoch/s",
            Self::Batch => "1 batch/s",
            Self::Step => "1 attack step/s",
        }
    }
}

/// A menu of the menu bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Menu {
    /// Files.
    File,
    /// The form's history.
    Edit,
    /// The run.
    Run,
    /// Panels and colours.
    View,
    /// Lessons.
    Help,
}

impl Menu {
    /// All, from left to right.
    pub const ALL: [Self; 5] = [Self::File, Self::Edit, Self::Run, Self::View, Self::Help];

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::File => "File",
            Self::Edit => "Edit",
            Self::Run => "Run",
            Self::View => "View",
            Self::Help => "Help",
        }
    }
}

const NONE: Modifiers = Modifiers::NONE;
const COMMAND: Modifiers = Modifiers::COMMAND;
const SHIFT: Modifiers = Modifiers::COMMAND.plus(Modifiers::SHIFT);

impl Command {
    /// All commands, in the order of the menus.
    pub fn all() -> impl Iterator<Item = Self> {
        use Command::{
            AddToComparison, CancelEvaluation, CopyAsCommand, Evaluate, FullScreen, Help, OneAttackStep, OneBatch,
            OpenCheckpoint, OpenExperiment, OpenImage, Palette, PasteImage, PlayPause, Quit, Redo, ResetLayout, Resume,
            ResumeThis, SaveExperiment, Show, SlowMotion, Start, StopAndSave, StopWithoutSaving, ThemeDark, ThemeLight,
            ThemeSystem, Undo, ZoomIn, ZoomOut, ZoomReset,
        };
        let fixed = [
            OpenExperiment,
            SaveExperiment,
            Resume,
            OpenCheckpoint,
            OpenImage,
            PasteImage,
            AddToComparison,
            Evaluate,
            Quit,
            Undo,
            Redo,
            CopyAsCommand,
            Start,
            PlayPause,
            OneBatch,
            OneAttackStep,
            SlowMotion,
            StopAndSave,
            StopWithoutSaving,
            ResumeThis,
            CancelEvaluation,
            ThemeSystem,
            ThemeLight,
            ThemeDark,
            ZoomIn,
            ZoomOut,
            ZoomReset,
            FullScreen,
            ResetLayout,
            Palette,
            Help,
        ];
        fixed.into_iter().chain(SpeedChoice::ALL.map(Self::Speed)).chain(PanelKind::ALL.map(Show))
    }

    /// Its name in menus and the palette.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Start => "Start run",
            Self::PlayPause => "Play or pause",
            Self::OneBatch => "Train on one batch",
            Self::OneAttackStep => "Take one attack step",
            Self::SlowMotion => "Slow motion",
            Self::Speed(choice) => match choice {
                SpeedChoice::Full => "Speed: full",
                SpeedChoice::Epoch => "Speed: one epoch a second",
                SpeedChoice::Batch => "Speed: one batch a second",
                SpeedChoice::Step => "Speed: one attack step a second",
            },
            Self::StopAndSave => "Stop and save",
            Self::StopWithoutSaving => "Stop without saving",
            Self::Resume => "Resume a run…",
            Self::ResumeThis => "Resume this run",
            Self::OpenCheckpoint => "Open a checkpoint…",
            Self::OpenExperiment => "Open experiment…",
            Self::SaveExperiment => "Save experiment…",
            Self::CopyAsCommand => "Copy as command",
            Self::Undo => "Undo",
            Self::Redo => "Redo",
            Self::OpenImage => "Open an image…",
            Self::PasteImage => "Paste an image",
            Self::AddToComparison => "Add a run to compare…",
            Self::Evaluate => "Evaluate a checkpoint…",
            Self::CancelEvaluation => "Cancel the evaluation",
            Self::Show(kind) => kind.title(),
            Self::ResetLayout => "Reset layout",
            Self::Palette => "Command palette",
            Self::Help => "Lessons and glossary",
            Self::FullScreen => "Full screen",
            Self::ZoomIn => "Zoom in",
            Self::ZoomOut => "Zoom out",
            Self::ZoomReset => "Normal size",
            Self::ThemeLight => "Light theme",
            Self::ThemeDark => "Dark theme",
            Self::ThemeSystem => "System theme",
            Self::Quit => "Quit",
        }
    }

    /// What it does, in one sentence.
    pub const fn tooltip(self) -> &'static str {
        match self {
            Self::Start => "Start the run that the experiment panel describes, in a new directory below runs/.",
            Self::PlayPause => "Pause after the current batch, or resume. If there is no run, start one.",
            Self::OneBatch => "Attack and train on one batch, then wait.",
            Self::OneAttackStep => {
                "Move the images of the current batch by one attack step, then wait. After the last step the network is \
                 updated."
            }
            Self::SlowMotion => "Show every attack step for a second; again for full speed.",
            Self::Speed(choice) => match choice {
                SpeedChoice::Full => "Train as fast as the machine can.",
                SpeedChoice::Epoch => "Wait after each epoch, so that it takes a second at least.",
                SpeedChoice::Batch => "Wait after each batch, so that it takes a second at least.",
                SpeedChoice::Step => "Show every attack step for a second.",
            },
            Self::StopAndSave => "End the run with a checkpoint, so that it can be resumed from there.",
            Self::StopWithoutSaving => "End the run and write nothing more; earlier checkpoints stay.",
            Self::Resume => "Choose a run directory and resume from its last checkpoint.",
            Self::ResumeThis => "Continue the run that was stopped, from its last checkpoint.",
            Self::OpenCheckpoint => "Load trained weights for inspecting images, without training.",
            Self::OpenExperiment => "Read an experiment (TOML) into the experiment panel.",
            Self::SaveExperiment => "Write the experiment panel's values as TOML; `fairtat train --config` runs it.",
            Self::CopyAsCommand => "Copy the command line that runs this experiment again.",
            Self::Undo => "Undo the last change of the experiment.",
            Self::Redo => "Redo the change that was undone last.",
            Self::OpenImage => "Choose a PNG or JPEG and open it in the inspector.",
            Self::PasteImage => "Open the image on the clipboard in the inspector.",
            Self::AddToComparison => "Choose a run directory to show beside others.",
            Self::Evaluate => {
                "Choose trained weights to attack with AutoAttack and others, beside a run if there is one."
            }
            Self::CancelEvaluation => "Stop the attacks; what is finished is kept, and the evaluation can be resumed.",
            Self::Show(kind) => kind.tooltip(),
            Self::ResetLayout => "Arrange the panels as at the first start.",
            Self::Palette => "Find any command by typing a part of its name.",
            Self::Help => "Short lessons, and what every term means.",
            Self::FullScreen => "Fill the screen, or go back to a window.",
            Self::ZoomIn => "Larger text and controls.",
            Self::ZoomOut => "Smaller text and controls.",
            Self::ZoomReset => "Text and controls in their default size.",
            Self::ThemeLight => "Dark text on a light background.",
            Self::ThemeDark => "Light text on a dark background.",
            Self::ThemeSystem => "Light or dark, following the system.",
            Self::Quit => "Close the window. If a run is under way, you are asked whether to save it.",
        }
    }

    /// The menu that lists it.
    pub const fn menu(self) -> Menu {
        match self {
            Self::OpenExperiment
            | Self::SaveExperiment
            | Self::Resume
            | Self::OpenCheckpoint
            | Self::OpenImage
            | Self::PasteImage
            | Self::AddToComparison
            | Self::Evaluate
            | Self::Quit => Menu::File,
            Self::Undo | Self::Redo | Self::CopyAsCommand => Menu::Edit,
            Self::Start
            | Self::PlayPause
            | Self::OneBatch
            | Self::OneAttackStep
            | Self::SlowMotion
            | Self::Speed(_)
            | Self::StopAndSave
            | Self::StopWithoutSaving
            | Self::ResumeThis
            | Self::CancelEvaluation => Menu::Run,
            Self::Palette | Self::Help => Menu::Help,
            _ => Menu::View,
        }
    }

    /// All shortcuts, those with more modifiers first: a pressed combination also matches the same key with fewer, and
    /// the first match takes it. Some commands have a second one.
    pub fn shortcuts() -> Vec<(Self, KeyboardShortcut)> {
        let second = [(Self::Redo, KeyboardShortcut::new(COMMAND, Key::Y))];
        let mut all: Vec<_> = Self::all().filter_map(|command| Some((command, command.shortcut()?))).collect();
        all.extend(second);
        let modifiers = |keys: &KeyboardShortcut| {
            let keys = keys.modifiers;
            [keys.command, keys.shift, keys.alt].into_iter().filter(|pressed| *pressed).count()
        };
        all.sort_by_key(|(_, keys)| std::cmp::Reverse(modifiers(keys)));
        all
    }

    /// Whether a line separates it from the command before it in its menu.
    pub const fn begins_group(self) -> bool {
        matches!(
            self,
            Self::Resume
                | Self::OpenImage
                | Self::AddToComparison
                | Self::Quit
                | Self::CopyAsCommand
                | Self::OneBatch
                | Self::StopAndSave
                | Self::CancelEvaluation
                | Self::ZoomIn
                | Self::FullScreen
                | Self::Show(PanelKind::Experiment)
        )
    }

    /// Its keyboard shortcut.
    pub const fn shortcut(self) -> Option<KeyboardShortcut> {
        let (modifiers, key) = match self {
            Self::PlayPause => (NONE, Key::Space),
            Self::OneBatch => (NONE, Key::Period),
            Self::OneAttackStep => (NONE, Key::Comma),
            Self::SlowMotion => (NONE, Key::M),
            Self::Start => (COMMAND, Key::Enter),
            Self::StopAndSave => (COMMAND, Key::Period),
            Self::OpenExperiment => (COMMAND, Key::O),
            Self::SaveExperiment => (COMMAND, Key::S),
            Self::Resume => (SHIFT, Key::R),
            Self::OpenImage => (COMMAND, Key::I),
            Self::PasteImage => (SHIFT, Key::V),
            Self::CopyAsCommand => (SHIFT, Key::C),
            Self::Undo => (COMMAND, Key::Z),
            Self::Redo => (SHIFT, Key::Z),
            Self::Palette => (COMMAND, Key::P),
            Self::Help => (NONE, Key::F1),
            Self::FullScreen => (NONE, Key::F11),
            Self::ZoomIn => (COMMAND, Key::Plus),
            Self::ZoomOut => (COMMAND, Key::Minus),
            Self::ZoomReset => (COMMAND, Key::Num0),
            Self::Quit => (COMMAND, Key::Q),
            Self::Show(kind) => return kind.shortcut(),
            _ => return None,
        };
        Some(KeyboardShortcut::new(modifiers, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Presses the keys of every shortcut and takes the first command that matches, as the window does.
    #[test]
    fn every_shortcut_runs_its_own_command() {
        for (command, keys) in Command::shortcuts() {
            let context = egui::Context::default();
            let mut modifiers = keys.modifiers;
            modifiers.ctrl |= modifiers.command;
            let key =
                egui::Event::Key { key: keys.logical_key, physical_key: None, pressed: true, repeat: false, modifiers };
            let input = egui::RawInput { events: vec![key], ..egui::RawInput::default() };
            let mut found = Vec::new();
            let _ = context.run_ui(input, |ui| {
                for (command, keys) in Command::shortcuts() {
                    if ui.ctx().input_mut(|input| input.consume_shortcut(&keys)) {
                        found.push(command);
                    }
                }
            });
            assert_eq!(found, [command], "{keys:?}");
        }
    }

    #[test]
    fn no_menu_begins_with_a_line_and_long_ones_have_some() {
        for menu in Menu::ALL {
            let commands: Vec<Command> = Command::all().filter(|command| command.menu() == menu).collect();
            assert!(!commands[0].begins_group(), "{menu:?}");
            let longest = commands.split(|command| command.begins_group()).map(<[_]>::len).max().unwrap();
            assert!(longest <= 10, "{menu:?}: {longest} commands without a line");
        }
    }
}
