//! Which network is attacked if the scrubber shows another epoch, and the checkpoint of that epoch.

use std::path::{Path, PathBuf};

use egui::{Button, Ui};

use super::steps::after;
use crate::app::context::{Action, Context, OpenFor};
use crate::app::theme;
use crate::app::view::RunView;
use crate::model::State;
use crate::train::RunDir;
use crate::worker::Looked;

/// What the search for a checkpoint depends on: the run directory, the epoch, and the number of finished epochs, after each
/// of which `best` may be another one.
type Key = (PathBuf, u32, usize);

/// The checkpoint that was found last; files are looked at only when the key changes.
#[derive(Debug, Default)]
pub(super) struct Found(Option<(Key, Option<PathBuf>)>);

impl Found {
    fn of(&mut self, key: Key) -> Option<&Path> {
        if self.0.as_ref().is_none_or(|(known, _)| *known != key) {
            let found = checkpoint_of(&key.0, key.1);
            self.0 = Some((key, found));
        }
        self.0.as_ref().and_then(|(_, found)| found.as_deref())
    }
}

/// The checkpoint that was trained for exactly the epochs up to this one: `best`, `last`, or a best one of an earlier
/// comparison.
fn checkpoint_of(directory: &Path, epoch: u32) -> Option<PathBuf> {
    let directory = RunDir::at(directory);
    let recorded = |path: &Path| State::load_metadata(path).ok()?.get("epoch")?.parse::<u32>().ok();
    let current = ["best", "last"].map(|name| directory.checkpoint(name));
    let current = current.into_iter().find(|path| recorded(path) == Some(epoch));
    current.or_else(|| {
        let kept = directory.kept_bests().into_iter().find(|kept| kept.epoch == epoch);
        kept.map(|kept| directory.checkpoint(&kept.name))
    })
}

/// Epochs that the network that is attacked was trained for; `None` if unknown.
fn trained(run: &RunView) -> Option<f64> {
    match &run.info.as_ref()?.looked {
        Some(looked) => looked.position,
        None => run.position().map(|(position, _)| position),
    }
}

/// Says which network is attacked if it is not that of the epoch that the scrubber shows, and offers the checkpoint of that
/// epoch.
pub(super) fn note(ui: &mut Ui, context: &mut Context<'_>, found: &mut Found) {
    let run = context.run;
    let looked = run.info.as_ref().and_then(|info| info.looked.as_ref());
    // While the newest epoch of a run is followed, its network is the one that is meant.
    let follows = context.focus.is_live() && looked.is_none();
    let Some(record) = context.focus.record(run).filter(|_| !follows) else { return };
    let (epoch, network) = (record.metrics.epoch, trained(run));
    if network == Some(f64::from(epoch) + 1.0) {
        return;
    }
    let attacked = network.map_or_else(|| "open network, whose epoch is unknown".to_owned(), after);
    let text = format!("This attacks the {attacked}, not that of epoch {}.", epoch + 1);
    ui.colored_label(theme::palette(ui).warning, text);
    let directory = match looked {
        Some(looked) => Looked::run_directory(&looked.file),
        None => run.directory().map(PathBuf::as_path),
    };
    let path = directory.and_then(|directory| found.of((directory.to_path_buf(), epoch, run.epochs.len())));
    let Some(path) = path.map(Path::to_path_buf) else {
        if directory.is_some() {
            ui.label(crate::app::widgets::weak(ui, "There is no checkpoint of that epoch.").small());
        }
        return;
    };
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let button = Button::new(format!("Open checkpoint {name} of epoch {}", epoch + 1));
    let button = ui.add_enabled(!run.status.is_live(), button);
    let button = button
        .on_hover_text(format!("Attack the network in {}", path.display()))
        .on_disabled_hover_text("A run is under way; its checkpoints can be opened when it has ended.");
    if button.clicked() {
        context.ask(Action::Opened(OpenFor::Checkpoint, path));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use egui_kittest::Harness;
    use egui_kittest::kittest::Queryable;

    use super::super::Inspector;
    use super::*;
    use crate::app::sample;
    use crate::app::testing::{Stage, harness, shoot};
    use crate::worker::{Phase, Update};

    /// A run directory with checkpoints of epochs 3 (best), 18 (last) and 7 (best of an earlier comparison).
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join("checkpoints").join(name);
        std::fs::create_dir_all(directory.path().join("checkpoints")).unwrap();
        for (name, epoch) in [("best", 2), ("last", 17), ("best-until-epoch-0009", 6)] {
            let facts = BTreeMap::from([("epoch".to_owned(), epoch.to_string())]);
            State::default().save(&path(&format!("{name}.safetensors")), &facts).unwrap();
        }
        let kept = r#"{ "epoch": 6, "until_epoch": 9, "attack": "PGD-10" }"#;
        std::fs::write(path("best-until-epoch-0009.json"), kept).unwrap();
        directory
    }

    #[test]
    fn a_checkpoint_is_found_by_the_epoch_that_it_records() {
        let directory = directory();
        let found = |epoch| {
            let path = checkpoint_of(directory.path(), epoch)?;
            Some(path.file_name()?.to_string_lossy().into_owned())
        };
        let names = [2, 17, 6, 5].map(found);
        let wanted = [Some("best"), Some("last"), Some("best-until-epoch-0009"), None];
        assert_eq!(names, wanted.map(|name| name.map(|name| format!("{name}.safetensors"))));
        assert_eq!(checkpoint_of(&directory.path().join("nothing"), 2), None);
    }

    fn window<'a>(path: &Path) -> Harness<'a, Stage<Inspector>> {
        let mut run = sample::run();
        run.info.as_mut().unwrap().directory = Some(path.to_path_buf());
        let mut window = harness(Stage::new(Inspector::default(), run), [1100.0, 900.0], 1.0, true);
        window.run_steps(4);
        window
    }

    #[test]
    fn another_epoch_than_that_of_the_network_is_named_and_its_checkpoint_offered() {
        let directory = directory();
        let mut window = window(directory.path());
        assert!(window.query_by_label_contains("This attacks the").is_none());
        window.state_mut().focus.epoch = Some(4);
        window.run_steps(4);
        window.get_by_label("This attacks the network in epoch 19, at 50 % of it, not that of epoch 5.");
        window.get_by_label("There is no checkpoint of that epoch.");
        window.state_mut().focus.epoch = Some(2);
        window.run_steps(4);
        shoot(&mut window, "inspector-other-epoch");
        // The run is under way.
        let name = "Open checkpoint best of epoch 3";
        window.get_by_label(name).click();
        window.run_steps(4);
        let opened = |window: &Harness<'_, Stage<Inspector>>| {
            window.state().actions.iter().find_map(|action| match action {
                Action::Opened(OpenFor::Checkpoint, path) => Some(path.clone()),
                _ => None,
            })
        };
        assert_eq!(opened(&window), None);
        window.state_mut().run.apply(Update::Phase(Phase::Idle), Instant::now());
        window.run_steps(4);
        window.get_by_label(name).click();
        window.run_steps(4);
        assert_eq!(opened(&window), Some(directory.path().join("checkpoints/best.safetensors")));
    }

    #[test]
    fn a_checkpoint_that_is_open_has_its_epoch_too() {
        let directory = directory();
        let mut window = window(directory.path());
        let file = directory.path().join("checkpoints/best.safetensors");
        let info = window.state_mut().run.info.as_mut().unwrap();
        (info.directory, info.looked) = (None, Some(Looked { file, position: Some(3.0) }));
        window.state_mut().focus.epoch = Some(2);
        window.run_steps(4);
        assert!(window.query_by_label_contains("This attacks the").is_none());
        window.state_mut().focus.epoch = Some(6);
        window.run_steps(4);
        window.get_by_label("This attacks the network after 3 epochs, not that of epoch 7.");
        window.get_by_label("Open checkpoint best-until-epoch-0009 of epoch 7");
        // The newest epoch is not that of the network, either.
        window.state_mut().focus.epoch = None;
        window.run_steps(4);
        window.get_by_label("This attacks the network after 3 epochs, not that of epoch 18.");
    }
}
