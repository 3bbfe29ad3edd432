//! Which panels there are, and how they are arranged.

use egui::{Key, KeyboardShortcut, Modifiers};
use serde::{Deserialize, Serialize};

/// A panel of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PanelKind {
    /// The experiment, and the run's controls.
    Experiment,
    /// Curves, phase, rate.
    Training,
    /// CFPS, confusion, class-wise epsilon, targets.
    Fairness,
    /// Images of the current batch.
    Examples,
    /// One image, its attack step by step, its decision map.
    Inspector,
    /// Runs side by side.
    Compare,
    /// Failure signatures.
    Watch,
    /// Lessons and glossary.
    Learn,
    /// What happened.
    Log,
}

impl PanelKind {
    /// All, in the order of the menu.
    pub const ALL: [Self; 9] = [
        Self::Experiment,
        Self::Training,
        Self::Fairness,
        Self::Examples,
        Self::Inspector,
        Self::Compare,
        Self::Watch,
        Self::Learn,
        Self::Log,
    ];

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Experiment => "Experiment",
            Self::Training => "Training",
            Self::Fairness => "Fairness",
            Self::Examples => "Examples",
            Self::Inspector => "Inspector",
            Self::Compare => "Compare",
            Self::Watch => "Failure watch",
            Self::Learn => "Learn",
            Self::Log => "Log",
        }
    }

    /// What is in it.
    pub const fn tooltip(self) -> &'static str {
        match self {
            Self::Experiment => "Every setting of the run.",
            Self::Training => "Loss and accuracy, speed, remaining time, and where the time goes.",
            Self::Fairness => "Which classes suffer: CFPS, confusion under attack, epsilon and targets of each class.",
            Self::Examples => "Images of the current batch before and after the attack.",
            Self::Inspector => "One image: attack it step by step, and see the decisions around it.",
            Self::Compare => "Runs side by side on the same axes.",
            Self::Watch => "Known ways in which such a training goes wrong, named when they appear.",
            Self::Learn => "Short lessons, and what every term means.",
            Self::Log => "Everything that happened since the start.",
        }
    }

    /// Ctrl and its number.
    pub const fn shortcut(self) -> Option<KeyboardShortcut> {
        let key = match self {
            Self::Experiment => Key::Num1,
            Self::Training => Key::Num2,
            Self::Fairness => Key::Num3,
            Self::Examples => Key::Num4,
            Self::Inspector => Key::Num5,
            Self::Compare => Key::Num6,
            Self::Watch => Key::Num7,
            Self::Learn => Key::Num8,
            Self::Log => Key::Num9,
        };
        Some(KeyboardShortcut::new(Modifiers::COMMAND, key))
    }
}
