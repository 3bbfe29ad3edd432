//! Writes rows and averages after an epoch, and checkpoints.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use super::best::score;
use super::{TrainError, Trainer, Validation, setup};
use crate::config::StatisticsSource;
use crate::fairness::{ClassStats, DENSE_CLASSES, MANY_CLASSES};
use crate::files;
use crate::model::{LOADER, PROBE_LOGITS, State, loader};
use crate::train::checkpoint::Checkpoint;
use crate::train::{ClassRow, Event, MetricsRow, Observer, RunDir, ValidationSetting, probe_logits};

impl Trainer {
    /// Averages, statistics, rows, best checkpoint: everything between two epochs.
    pub(super) fn finish_epoch(
        &mut self,
        model: &State,
        validation: &Validation,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let epoch = self.progress.epoch;
        let robust = &validation.robust.confusion;
        let averaging = &self.experiment.averaging;
        let begun = epoch >= averaging.average_from;
        let update_ema = begun && averaging.ema;
        let update_fawa = begun && averaging.fawa && robust.worst() >= averaging.fawa_threshold;
        if update_ema {
            self.ema.update(model, averaging.average_decay);
        }
        if update_fawa {
            self.fawa.update(model, averaging.average_decay);
        }
        self.record(validation);
        let row = &self.metrics[self.metrics.len() - 1];
        self.directory.write_rows(&self.metrics, &self.classes)?;
        self.directory.write_confusion(epoch, "train", &self.progress.counted.robust)?;
        self.directory.write_confusion(epoch, "validation", robust)?;
        let rows = &self.classes[self.classes.len() - robust.classes()..];
        self.directory.log_epoch(row, rows)?;
        self.board.epoch(row, &self.classes).map_err(TrainError::TensorBoard)?;
        let train = &self.progress.counted.robust;
        self.predicted.validation = validation.robust.predictions.iter().copied().map(Some).collect();
        let predicted = &self.predicted;
        observer.event(&Event::EpochDone { row, classes: rows, train, validation: robust, predicted });

        self.compare(model, validation, observer)?;
        self.save_model("last", model, Some(validation))?;
        for (name, updated) in [("ema", update_ema), ("fawa", update_fawa)] {
            let average = if name == "ema" { &self.ema } else { &self.fawa };
            if let (Some(state), true) = (average.state().cloned(), updated) {
                let state = self.recalibrated(&state)?;
                self.save_model(name, &state, None)?;
            }
        }

        let f = &self.experiment.fairness;
        if f.freeze_after.is_none_or(|last| epoch <= last) {
            self.progress.statistics = Some(match f.statistics_source {
                StatisticsSource::Training => self.progress.counted.clone(),
                StatisticsSource::Validation => {
                    let mut statistics = ClassStats::new(robust.classes());
                    statistics.robust = robust.clone();
                    statistics
                }
            });
        }
        self.progress.validation = validation.counts(self.method.needs());
        self.progress.memory = self.method.memory();
        self.progress.next_epoch();
        if let Some(wanted) = self.wanted.take() {
            self.put_in_force(wanted, false);
        }
        Ok(())
    }

    /// Adds the epoch's rows.
    fn record(&mut self, validation: &Validation) {
        let (epoch, counted) = (self.progress.epoch, &self.progress.counted);
        let (clean, robust) = (&validation.clean.confusion, &validation.robust.confusion);
        let measured_clean = counted.clean.total() > 0;
        let o = &self.experiment.optimizer;
        let [seconds, seconds_attack, seconds_update, seconds_statistics] = self.progress.seconds;
        self.metrics.push(MetricsRow {
            epoch,
            lr: o.lr_at(epoch, self.batches() - 1, self.batches()),
            train_loss: self.progress.loss_sum / counted.robust.total() as f64,
            train_clean_accuracy: measured_clean.then(|| counted.clean.accuracy()),
            train_robust_accuracy: counted.robust.accuracy(),
            val_clean_accuracy: clean.accuracy(),
            val_clean_worst: clean.worst(),
            val_robust_accuracy: robust.accuracy(),
            val_robust_worst: robust.worst(),
            seconds,
            seconds_attack,
            seconds_update,
            seconds_statistics,
            val_attack: ValidationSetting::of(&self.experiment).to_string(),
            val_without_gradient: Some(validation.robust.without_gradient),
            method: self.experiment.fairness.method.name(),
            val_robust_worst_tenth: (robust.classes() > MANY_CLASSES).then(|| robust.worst_tenth()),
        });
        let cfps = match self.experiment.fairness.statistics_source {
            StatisticsSource::Training => counted.robust.cfps(),
            StatisticsSource::Validation => robust.cfps(),
        };
        let (train_robust, train_clean) = (counted.robust.class_accuracy(), counted.clean.class_accuracy());
        let (val_clean, val_robust) = (clean.class_accuracy(), robust.class_accuracy());
        let (distribution, radii, shown) =
            (self.method.target_distribution(), self.radii(), self.method.shown(&self.progress.sums));
        for (k, name) in self.splits.train.class_names().iter().enumerate() {
            self.classes.push(ClassRow {
                epoch,
                class: k as u32,
                name: name.clone(),
                epsilon: radii[k],
                target_probability: distribution.map(|d| d.probabilities()[k]),
                cfps: cfps[k],
                train_robust_accuracy: train_robust[k],
                train_clean_accuracy: measured_clean.then(|| train_clean[k]),
                val_clean_accuracy: val_clean[k],
                val_robust_accuracy: val_robust[k],
                series: shown.iter().map(|series| (series.name.to_owned(), series.values[k])).collect(),
            });
        }
    }

    /// Writes `checkpoints/NAME.safetensors`, its `.json`, and the script that loads all of them in PyTorch.
    pub(super) fn save_model(
        &self,
        name: &str,
        state: &State,
        validation: Option<&Validation>,
    ) -> Result<(), TrainError> {
        let epoch = self.progress.epoch;
        let train = &self.splits.train;
        let names = serde_json::to_string(train.class_names()).unwrap_or_default();
        let mut metadata = BTreeMap::from([
            ("epoch".to_owned(), epoch.to_string()),
            ("experiment".to_owned(), self.experiment.to_toml()),
            ("class_names".to_owned(), names),
            ("shape".to_owned(), train.shape().to_string()),
        ]);
        if let Some((mean, std)) = setup::normalisation(&self.experiment, train) {
            metadata.insert("mean".to_owned(), serde_json::to_string(&mean).unwrap_or_default());
            metadata.insert("std".to_owned(), serde_json::to_string(&std).unwrap_or_default());
        }
        self.directory.check()?;
        let network = self.engine.network();
        // A run does not end because weights whose logits are not finite cannot be compared: the script then says so.
        if let Ok(logits) = probe_logits(network, state) {
            metadata.insert(PROBE_LOGITS.to_owned(), logits);
        }
        state.save(&self.directory.checkpoint(name), &metadata)?;
        self.write_loader()?;
        let o = &self.experiment.optimizer;
        let results = validation.map(
            |v| json!({ "clean": v.clean.report(train.class_names()), "robust": v.robust.report(train.class_names()) }),
        );
        let counted = &self.progress.counted;
        let statistics = if counted.classes() <= DENSE_CLASSES {
            json!(counted)
        } else {
            json!({ "classes": counted.classes(), "robust": RunDir::confusion_name(epoch, "train", counted.classes()) })
        };
        let description = json!({
            "epoch": epoch,
            "architecture": self.experiment.model.arch,
            "parameters": network.parameter_count(),
            "class_names": train.class_names(),
            "validation": results,
            "score": validation.map(score),
            "optimizer": { "name": "sgd", "momentum": o.momentum, "weight_decay": o.weight_decay, "schedule": o.schedule },
            "rng": { "generator": "philox4x32-10", "seed": self.experiment.run.seed },
            "statistics": statistics,
        });
        Ok(self.directory.write_class_json(format!("checkpoints/{name}.json"), &description, counted.classes())?)
    }

    /// Writes the script, unless it is there already.
    fn write_loader(&self) -> Result<(), TrainError> {
        let text = loader(self.engine.network())?;
        let name = format!("checkpoints/{LOADER}");
        if files::read(&self.directory.path().join(&name)).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(());
        }
        Ok(self.directory.write(name, text.as_bytes())?)
    }

    /// Writes the checkpoint that a resume continues from.
    pub(super) fn save_checkpoint(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        observer.event(&Event::Saving);
        self.directory.check()?;
        self.write_changes()?;
        let path = self.directory.checkpoint("resume");
        let checkpoint = Checkpoint {
            progress: self.progress.clone(),
            experiment: Some(self.wanted().clone()),
            engine: self.engine.state()?,
            ema: self.ema.state().cloned(),
            fawa: self.fawa.state().cloned(),
        };
        let (epoch, batch) = (self.progress.epoch, self.progress.batch);
        if let Some(name) = checkpoint.not_finite() {
            return Err(self.diverged(batch.max(1), format!("NaN or infinity in '{name}'")));
        }
        checkpoint.save(&path)?;
        self.saved = (Instant::now(), Some((epoch, batch)));
        self.directory.log(&json!({ "event": "checkpoint", "epoch": epoch, "batch": batch }))?;
        observer.event(&Event::Checkpoint { epoch, batch, batches: self.batches(), path: &path });
        Ok(())
    }
}
