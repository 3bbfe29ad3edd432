//! The initial weights of a run that fine-tunes ([`ModelConfig::init`](crate::config::ModelConfig)).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{StoredError, StoredNetwork, TrainError, methods};
use crate::config::{ConfigError, Experiment};
use crate::files;
use crate::model::State;

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
}

impl InitialWeights {
    /// The initial weights that an experiment names. `None` if it draws random ones.
    ///
    /// # Errors
    /// If the file cannot be read, or if the method needs one and the experiment names none.
    pub(super) fn of(experiment: &Experiment) -> Result<Option<Self>, TrainError> {
        let Some(path) = &experiment.model.init else {
            // Needs do not depend on the number of classes.
            if methods::build(experiment, 2).needs().trained_network {
                let what = format!(
                    "{} fine-tunes a robust network; name one with --init, such as the run directory of a TRADES run",
                    experiment.method().title
                );
                return Err(ConfigError::Invalid { field: "model.init", what }.into());
            }
            return Ok(None);
        };
        // A file of another program does not record how it was trained, which is not an error here.
        let stored = match StoredNetwork::load(path, None) {
            Err(StoredError::Foreign { .. }) => StoredNetwork::load(path, Some(experiment.clone()))?,
            found => found?,
        };
        let bytes = files::read(&stored.file).map_err(StoredError::from)?;
        let digest = Sha256::digest(&bytes);
        let record = InitialRecord {
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            method: stored.position.map(|_| stored.experiment.method().title.to_owned()),
            epochs: stored.position,
            file: stored.file.clone(),
        };
        Ok(Some(Self { state: stored.into_state(), record }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EngineChoice, MethodChoice};
    use crate::train::{RunDir, Splits, Trainer};

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

    #[test]
    fn weights_that_do_not_fit_are_refused_with_their_name() {
        let dir = tempfile::tempdir().unwrap();
        begin(&small(), &dir.path().join("narrow")).unwrap().run(&mut ()).unwrap();
        let mut wide = small();
        (wide.model.width, wide.model.init) = (Some(8), Some(dir.path().join("narrow")));
        let error = begin(&wide, &dir.path().join("wide")).err().unwrap().to_string();
        assert!(error.contains("shape"), "{error}");
        wide.model.init = Some(dir.path().join("nothing.safetensors"));
        let error = begin(&wide, &dir.path().join("gone")).err().unwrap().to_string();
        assert!(error.contains("--init") && error.contains("nothing.safetensors"), "{error}");
    }
}
