//! The initial weights of a run that fine-tunes ([`ModelConfig::init`](crate::config::ModelConfig)).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{StoredError, StoredNetwork, TrainError, methods};
use crate::config::{ConfigError, Experiment};
use crate::files;
use crate::model::pytorch::{Normalisation, Options};
use crate::model::{ModelError, Network, State};

/// The source of the initial weights: `init.json` in the run directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitialRecord {
    /// The file.
    pub file: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Title of the method that it was trained with, if the file records it.
    pub method: Option<String>,
    /// Epochs that it was trained for, if the file records them.
    pub epochs: Option<f64>,
}

/// Weights from a file, with the record of their source.
#[derive(Debug, Clone)]
pub(super) struct InitialWeights {
    pub(super) state: State,
    pub(super) record: InitialRecord,
    /// What was assumed about the file, or cannot be checked.
    pub(super) notes: Vec<String>,
}

impl InitialWeights {
    /// Checks that the weights fit the network of the run, before an engine is opened for it.
    ///
    /// # Errors
    /// [`StoredError::Engine`] with the file and what does not fit.
    pub(super) fn check(&self, network: &Network) -> Result<(), StoredError> {
        let misfit = |source: ModelError| StoredError::Engine { path: self.record.file.clone(), source: source.into() };
        self.state.check(network).map_err(misfit)
    }

    /// The initial weights that an experiment names, for the network of the run. `None` if it draws random ones. A file
    /// of another program must not normalise images otherwise than the run; if it does not say, the run decides.
    ///
    /// # Errors
    /// If the file cannot be read, or if the method needs one and the experiment names none.
    pub(super) fn of(experiment: &Experiment, network: &Network) -> Result<Option<Self>, TrainError> {
        let Some(path) = &experiment.model.init else {
            // Needs do not depend on the number of classes.
            if methods::build(experiment, 2).needs().trained_network {
                let what = format!(
                    "{} fine-tunes a robust network; name one with --init (in the window “Start from”), such as the run \
                     directory of a TRADES run",
                    experiment.method().title
                );
                return Err(ConfigError::Invalid { field: "model.init", what }.into());
            }
            return Ok(None);
        };
        // A file of another program does not record how it was trained, which is not an error here.
        let (stored, own) = match StoredNetwork::load(path, None) {
            Err(StoredError::Foreign { .. }) => {
                let options = Options { normalize: Some(Normalisation::of(network)), ..Options::default() };
                (StoredNetwork::load_with(path, Some(experiment.clone()), &options)?, false)
            }
            found => (found?, true),
        };
        let bytes = files::read(&stored.file).map_err(StoredError::from)?;
        let digest = Sha256::digest(&bytes);
        let record = InitialRecord {
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            method: own.then(|| stored.experiment.method().title.to_owned()),
            epochs: stored.position,
            file: stored.file.clone(),
        };
        let notes = stored.notes().unwrap_or_default().iter().cloned().chain(stored.unverified()).collect();
        Ok(Some(Self { state: stored.into_state(), record, notes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EngineChoice, MethodChoice};
    use crate::train::{ClassRow, Event, Live, Observer, Outcome, RunDir, Splits, Trainer};

    fn small() -> Experiment {
        let mut e = Experiment::preset("digits-60s").unwrap();
        (e.data.limit, e.data.validation_per_class, e.model.width) = (Some(100), Some(2), Some(4));
        (e.run.engine, e.run.deterministic) = (EngineChoice::Candle, true);
        (e.optimizer.epochs, e.attack.steps, e.evaluation.eval_steps) = (1, 2, 2);
        e
    }

    fn begin(experiment: &Experiment, path: &std::path::Path) -> Result<Trainer, TrainError> {
        let splits = Splits::load(experiment).unwrap();
        Trainer::begin(experiment.clone(), splits, RunDir::create(path, experiment).unwrap())
    }

    #[test]
    fn a_run_starts_from_the_weights_that_are_named_and_records_them() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("first");
        begin(&small(), &first).unwrap().run(&mut ()).unwrap();
        let mut frl = small();
        frl.fairness.method = MethodChoice::Frl;
        let error = begin(&frl, &dir.path().join("none")).err().unwrap().to_string();
        assert!(error.contains("model.init") && error.contains("--init"), "{error}");

        for named in [first.clone(), first.join("checkpoints/last.safetensors")] {
            frl.model.init = Some(named.clone());
            let second = tempfile::tempdir().unwrap();
            let mut trainer = begin(&frl, &second.path().join("run")).unwrap();
            let stored = StoredNetwork::load(&named, None).unwrap();
            let text = std::fs::read_to_string(second.path().join("run/init.json")).unwrap();
            let record: InitialRecord = serde_json::from_str(&text).unwrap();
            let hash = Sha256::digest(std::fs::read(&stored.file).unwrap());
            assert_eq!(record.sha256, hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            assert_eq!((record.method.as_deref(), record.epochs), (Some("FAIR-TAT"), Some(1.0)));
            assert_eq!(trainer.engine().state().unwrap().model, stored.into_state());
            // FRL evaluates the validation split before its first epoch, and resumes without the file.
            trainer.run(&mut ()).unwrap();
            let [first, second] = ["clean_weight", "boundary_weight"].map(|name| {
                trainer.rows().1.iter().filter_map(|row| row.series.iter().find(|(n, _)| n == name)).count()
            });
            assert_eq!((first, second), (10, 10));
        }
    }

    /// Ends a run after so many batches.
    struct StopAfter(u32);

    impl Observer for StopAfter {
        fn event(&mut self, event: &Event<'_>) {
            if let Event::Batch { .. } = event {
                self.0 = self.0.saturating_sub(1);
            }
        }

        fn stop(&self) -> bool {
            self.0 == 0
        }
    }

    /// With its memory, its counts on the validation split, and without the file that it started from.
    #[test]
    fn frl_that_is_stopped_within_an_epoch_ends_with_the_same_bits() {
        let dir = tempfile::tempdir().unwrap();
        let robust = dir.path().join("robust");
        begin(&small(), &robust).unwrap().run(&mut ()).unwrap();
        let mut frl = small();
        (frl.fairness.method, frl.model.init) = (MethodChoice::Frl, Some(robust.clone()));
        (frl.optimizer.epochs, frl.optimizer.batch_size, frl.optimizer.lr) = (3, 20, 0.01);
        (frl.frl.alpha_1, frl.frl.alpha_2) = (0.5, 1.0);
        let whole = dir.path().join("whole");
        let mut trainer = begin(&frl, &whole).unwrap();
        trainer.run(&mut ()).unwrap();
        let expected = (trainer.engine().state().unwrap(), trainer.rows().1.to_vec());
        assert!(trainer.progress().memory.0.values().flatten().any(|value| *value != 0.0));
        // 80 images in batches of 20: before the first epoch's end, at the end of one, within the next.
        for batches in [1, 4, 6] {
            let path = dir.path().join(format!("stopped-{batches}"));
            let mut trainer = begin(&frl, &path).unwrap();
            assert_eq!(trainer.run(&mut StopAfter(batches)).unwrap(), Outcome::Stopped);
            let hidden = dir.path().join("hidden");
            std::fs::rename(&robust, &hidden).unwrap();
            let run = trainer.directory().clone();
            drop(trainer);
            let mut resumed = Trainer::resume(frl.clone(), Splits::load(&frl).unwrap(), run).unwrap();
            resumed.run(&mut ()).unwrap();
            std::fs::rename(&hidden, &robust).unwrap();
            assert!(resumed.engine().state().unwrap() == expected.0, "after {batches} batches");
            let series =
                |rows: &[ClassRow]| rows.iter().map(|row| (row.epsilon, row.series.clone())).collect::<Vec<_>>();
            assert_eq!(series(resumed.rows().1), series(&expected.1), "after {batches} batches");
        }
    }

    /// Chooses FRL before the first batch, as somebody who looks at a run that was opened paused.
    struct Choose(Option<Box<Experiment>>, StopAfter);

    impl Observer for Choose {
        fn event(&mut self, event: &Event<'_>) {
            self.1.event(event);
        }

        fn stop(&self) -> bool {
            self.1.stop()
        }

        fn between(&mut self, live: &mut Live<'_>) {
            if let Some(wanted) = self.0.take() {
                live.change(&wanted).unwrap();
            }
        }
    }

    #[test]
    fn frl_that_is_chosen_before_the_first_batch_knows_the_validation_split() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = small();
        (at.fairness.method, at.optimizer.epochs, at.optimizer.batch_size) = (MethodChoice::At, 2, 20);
        (at.frl.alpha_1, at.frl.alpha_2) = (0.5, 1.0);
        let mut frl = at.clone();
        frl.fairness.method = MethodChoice::Frl;
        let choose = |batches| Choose(Some(Box::new(frl.clone())), StopAfter(batches));
        let mut whole = begin(&at, &dir.path().join("whole")).unwrap();
        whole.run(&mut choose(u32::MAX)).unwrap();
        let expected = whole.engine().state().unwrap();
        let weights = |row: &ClassRow| row.series.iter().map(|(_, weight)| *weight).collect::<Vec<_>>();
        let first: Vec<_> = whole.rows().1.iter().filter(|row| row.epoch == 0).map(weights).collect();
        assert!(first.iter().any(|weights| weights != &first[0]), "epoch 0 is not reweighted: {first:?}");

        let mut stopped = begin(&at, &dir.path().join("stopped")).unwrap();
        assert_eq!(stopped.run(&mut choose(2)).unwrap(), Outcome::Stopped);
        let run = stopped.directory().clone();
        drop(stopped);
        let mut resumed = Trainer::resume(frl.clone(), Splits::load(&frl).unwrap(), run).unwrap();
        resumed.run(&mut ()).unwrap();
        assert!(resumed.engine().state().unwrap() == expected);
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_with_their_name() {
        let dir = tempfile::tempdir().unwrap();
        begin(&small(), &dir.path().join("narrow")).unwrap().run(&mut ()).unwrap();
        let mut wide = small();
        (wide.model.width, wide.model.init) = (Some(8), Some(dir.path().join("narrow")));
        let error = format!("{:#}", anyhow::Error::from(begin(&wide, &dir.path().join("wide")).err().unwrap()));
        assert!(error.contains("--init") && error.contains("best.safetensors") && error.contains("shape"), "{error}");
        wide.model.init = Some(dir.path().join("nothing.safetensors"));
        let error = begin(&wide, &dir.path().join("gone")).err().unwrap().to_string();
        assert!(error.contains("--init") && error.contains("nothing.safetensors"), "{error}");
    }
}
