//! One batch: attack, update, statistics, and the examples that an observer asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Live, TrainError, Trainer};
use crate::data::Dataset;
use crate::engine::{Batch, BatchNormMode, EngineError, Input, SearchSpec, SgdStep, View, Views, loss};
use crate::train::methods::Radii;
use crate::train::{Event, Examples, Observer};

/// What observers are told about a finished batch.
pub(super) struct Trained {
    pub(super) images: usize,
    pub(super) lr: f64,
    /// Radius of each class.
    pub(super) epsilon: Vec<f64>,
}

impl Trainer {
    /// Trains on the next batch. `None` if the observer ends the run at once.
    pub(super) fn batch(&mut self, order: &[u32], observer: &mut dyn Observer) -> Result<Option<Trained>, TrainError> {
        self.write_changes()?;
        // A change that is made while the attack is paused between two steps takes effect from the next batch on.
        let o = self.experiment.optimizer.clone();
        let clean_passes = self.experiment.fairness.clean_passes;
        let radii = Radii(self.radii());
        let (epoch, index) = (self.progress.epoch, self.progress.batch);
        let ids = &order[self.cut().range(index)];
        let (pixels, labels) = gather(&self.splits.train, ids);
        let augment = self.experiment.augment();
        let batch = Batch { pixels: &pixels, labels: &labels, ids, augment, seed: self.experiment.run.seed, epoch };
        let lr = o.lr_at(epoch, index, self.batches());

        observer.event(&Event::Attack);
        let clock = Instant::now();
        let spec = self.method.search(&batch, &radii);
        let Some((views, attack)) = self.attack(&batch, spec, observer)? else { return Ok(None) };
        self.watched += clock.elapsed().saturating_sub(attack);

        observer.event(&Event::Update);
        let engine = self.engine.as_mut();
        let clock = Instant::now();
        if clean_passes == 2 {
            engine.logits(&Input::View(&views, View::Clean), BatchNormMode::Train)?;
        }
        let before_update = clock.elapsed();
        let sgd = SgdStep { lr, momentum: o.momentum, weight_decay: o.weight_decay, nesterov: o.nesterov };
        let result = engine.train_step(&views, &self.method.loss(&batch), &sgd)?;
        let updated = clock.elapsed();
        if !result.loss.is_finite() {
            return Err(EngineError::NotFinite { what: "loss".into(), batch: labels.len() }.into());
        }
        self.method.observe(&batch, &result, &mut self.progress.sums);
        let counted = &mut self.progress.counted;
        if let Some(counts) = result.confusion(View::Adversarial) {
            counted.robust.add_counts(counts);
        }
        if let Some(predictions) = result.predictions(View::Adversarial) {
            self.predicted.add(ids, predictions);
        }
        if let (Some(targets), Some(predictions)) = (engine.targets(&views)?, result.predictions(View::Adversarial)) {
            // Where only some classes have targets, these counts would not be shares of one attack.
            if !self.experiment.method().mixed {
                counted.add_targets(&labels, targets, predictions);
            }
        }
        if clean_passes > 0 {
            let logits = engine.logits(&Input::View(&views, View::Clean), BatchNormMode::Train)?;
            let predictions: Vec<u32> = logits.chunks(counted.classes()).map(loss::argmax).collect();
            counted.clean.add_all(&labels, &predictions);
        } else if let Some(counts) = result.confusion(View::Clean) {
            counted.clean.add_counts(counts);
        }
        self.progress.loss_sum += result.loss * labels.len() as f64;
        let statistics = clock.elapsed() - updated + before_update;
        let seconds = &mut self.progress.seconds;
        seconds[1] += attack.as_secs_f64();
        seconds[2] += (updated - before_update).as_secs_f64();
        seconds[3] += statistics.as_secs_f64();
        self.progress.batch += 1;
        Ok(Some(Trained { images: labels.len(), lr, epsilon: radii.0 }))
    }

    /// Runs the inner maximisation and returns the time that it took. `None` if the observer ends the run at once.
    fn attack(
        &mut self,
        batch: &Batch<'_>,
        spec: SearchSpec,
        observer: &mut dyn Observer,
    ) -> Result<Option<(Views, Duration)>, TrainError> {
        let watch = observer.watch();
        if watch.step_by_step && spec.steps > 0 {
            return self.attack_step_by_step(batch, &spec, observer);
        }
        let clock = Instant::now();
        let views = self.engine.perturb(batch, &spec)?;
        let spent = clock.elapsed();
        if watch.examples > 0 {
            let [clean, adversarial] = self.read_back(&views)?;
            let steps = (spec.steps, spec.steps);
            let examples = self.examples(batch, &spec, &views, steps, watch.examples, [&clean, &adversarial])?;
            observer.event(&Event::Examples(Arc::new(examples)));
        }
        Ok(Some((views, spent)))
    }

    /// The same search with a pause before each step, in which the observer may use the engine.
    fn attack_step_by_step(
        &mut self,
        batch: &Batch<'_>,
        spec: &SearchSpec,
        observer: &mut dyn Observer,
    ) -> Result<Option<(Views, Duration)>, TrainError> {
        let clock = Instant::now();
        let mut views = self.engine.begin(batch, spec)?;
        let mut spent = clock.elapsed();
        let mut done = 0;
        loop {
            let count = observer.watch().examples;
            if count > 0 {
                let [clean, adversarial] = self.read_back(&views)?;
                let examples = self.examples(batch, spec, &views, (done, spec.steps), count, [&clean, &adversarial])?;
                observer.event(&Event::Examples(Arc::new(examples)));
            }
            let mut live = Live::within_a_batch(self, views);
            observer.stepped(&mut live, (done, spec.steps));
            let interrupted = live.into_set_aside();
            if observer.discard() {
                return Ok(None);
            }
            if let Some(search) = interrupted {
                views = self.engine.take_up(&search)?;
            }
            if done == spec.steps {
                return Ok(Some((views, spent)));
            }
            let steps = if observer.watch().step_by_step { 1 } else { spec.steps - done };
            let clock = Instant::now();
            self.engine.advance(&views, steps)?;
            spent += clock.elapsed();
            done += steps;
        }
    }

    fn read_back(&mut self, views: &Views) -> Result<[Vec<f32>; 2], EngineError> {
        Ok([self.engine.read_view(views, View::Clean)?, self.engine.read_view(views, View::Adversarial)?])
    }

    /// The first `count` images of a batch, clean and adversarial, with the network's predictions. Batch norm is in
    /// eval mode, so the engine's state does not change.
    fn examples(
        &mut self,
        batch: &Batch<'_>,
        spec: &SearchSpec,
        views: &Views,
        step: (u32, u32),
        count: usize,
        images: [&[f32]; 2],
    ) -> Result<Examples, EngineError> {
        let (shape, classes) = (self.splits.train.shape(), self.splits.train.classes());
        let count = count.min(batch.len());
        let labels = &batch.labels[..count];
        let [clean, adversarial] = images.map(|all| &all[..count * shape.len()]);
        let targets = self.engine.targets(views)?.map(|targets| targets[..count].to_vec());
        let mut probabilities = |images: &[f32]| {
            let logits = self.engine.logits(&Input::Images(images, labels), BatchNormMode::Eval)?;
            Ok::<_, EngineError>(logits.chunks(classes).flat_map(loss::log_softmax).map(f32::exp).collect())
        };
        Ok(Examples {
            epoch: batch.epoch,
            batch: self.progress.batch,
            step,
            shape,
            ids: batch.ids[..count].to_vec(),
            labels: labels.to_vec(),
            targets,
            epsilon: spec.epsilon[..count].to_vec(),
            clean_probabilities: probabilities(clean)?,
            probabilities: probabilities(adversarial)?,
            clean: clean.to_vec(),
            adversarial: adversarial.to_vec(),
        })
    }
}

/// Bytes and labels of the images `ids`.
pub(super) fn gather(set: &Dataset, ids: &[u32]) -> (Vec<u8>, Vec<u32>) {
    let mut pixels = Vec::with_capacity(ids.len() * set.shape().len());
    for &id in ids {
        pixels.extend_from_slice(set.image(id as usize));
    }
    (pixels, ids.iter().map(|id| set.labels()[*id as usize]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EngineChoice, Experiment};
    use crate::engine::{Norm, Objective, Snapshots, Start, Stop};
    use crate::fairness::TargetDistribution;
    use crate::rng::Purpose;
    use crate::train::{RunDir, Splits, WatchRequest};

    /// Watches every step, and optionally uses the engine for other work in between.
    struct Stepping {
        all: bool,
        meddle: bool,
        seen: Vec<(u32, u32)>,
        examples: Vec<Arc<Examples>>,
    }

    impl Observer for Stepping {
        fn event(&mut self, event: &Event<'_>) {
            if let Event::Examples(examples) = event {
                self.examples.push(Arc::clone(examples));
            }
        }

        fn watch(&self) -> WatchRequest {
            // Runs all steps one by one, or from the second step on in one go.
            WatchRequest { step_by_step: self.all || self.seen.len() < 2, examples: 2 }
        }

        fn stepped(&mut self, live: &mut Live<'_>, step: (u32, u32)) {
            self.seen.push(step);
            if self.meddle {
                let set = Arc::clone(&live.splits().train);
                let (pixels, labels) = gather(&set, &[5]);
                let batch = Batch { pixels: &pixels, labels: &labels, ids: &[5], augment: None, seed: 1, epoch: 0 };
                let spec = crate::attack::Attack::fgsm(crate::units::Epsilon::levels(9.0), Norm::Linf);
                live.engine().unwrap().perturb(&batch, &spec.perturbation(1, 0)).unwrap();
            }
        }
    }

    fn trainer(directory: &std::path::Path, change: impl Fn(&mut Experiment)) -> Trainer {
        let mut e = Experiment::preset("digits-60s").unwrap();
        e.data.limit = Some(100);
        e.data.validation_per_class = Some(2);
        e.model.width = Some(4);
        (e.run.engine, e.run.deterministic) = (EngineChoice::Candle, true);
        change(&mut e);
        let directory = RunDir::create(directory, &e).unwrap();
        Trainer::begin(e.clone(), Splits::load(&e).unwrap(), directory).unwrap()
    }

    /// Stepping gives the same bits, running statistics included, for every objective and batch norm mode, even if the
    /// observer uses the engine in between.
    #[test]
    fn a_watched_search_is_an_unwatched_one() {
        let dir = tempfile::tempdir().unwrap();
        let objectives = [
            Objective::CrossEntropy,
            Objective::Drawn(TargetDistribution::uniform(10).table()),
            Objective::LeastLikely,
            Objective::KlToClean,
            Objective::Dlr,
            Objective::Margin,
        ];
        let mut trainer = trainer(&dir.path().join("run"), |_| ());
        let ids: Vec<u32> = (0..16).collect();
        let (pixels, labels) = gather(&trainer.splits.train, &ids);
        let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 3, epoch: 0 };
        let before = trainer.engine.state().unwrap();
        for (i, objective) in objectives.into_iter().enumerate() {
            for batch_norm in [BatchNormMode::Train, BatchNormMode::Eval] {
                let norm = if i % 2 == 0 { Norm::Linf } else { Norm::L2 };
                let (epsilon, step_size) = if norm == Norm::L2 { (0.5, 0.15) } else { (0.1, 0.03) };
                let spec = SearchSpec {
                    objective: objective.clone(),
                    norm,
                    epsilon: vec![epsilon; 16],
                    step_size: vec![step_size; 16],
                    steps: 4,
                    start: Start::Normal { deviation: 0.05, purpose: Purpose::AttackStart, epoch: 0 },
                    project_start: i % 2 == 0,
                    noise: if i % 3 == 0 { 0.01 } else { 0.0 },
                    batch_norm,
                    stop: if i % 2 == 0 { Stop::WhileMisclassified { budget: 1 } } else { Stop::Never },
                    snapshots: Snapshots { last_clean: true, first_adversarial: true },
                };
                let mut attack = |stepping: Option<&mut Stepping>| {
                    trainer.engine.load_state(&before).unwrap();
                    let found = match stepping {
                        None => trainer.attack(&batch, spec.clone(), &mut ()).unwrap(),
                        Some(stepping) => trainer.attack(&batch, spec.clone(), stepping).unwrap(),
                    };
                    let (views, _) = found.unwrap();
                    let all = [View::Clean, View::Adversarial, View::LastClean, View::FirstAdversarial];
                    let images = all.map(|view| trainer.engine.read_view(&views, view).unwrap());
                    let targets = trainer.engine.targets(&views).unwrap().map(<[u32]>::to_vec);
                    (images, targets, trainer.engine.state().unwrap())
                };
                let unwatched = attack(None);
                for (all, meddle) in [(true, false), (true, true), (false, false)] {
                    let mut stepping = Stepping { all, meddle, seen: vec![], examples: vec![] };
                    let watched = attack(Some(&mut stepping));
                    assert!(watched == unwatched, "{:?} {batch_norm:?}, all {all}, meddle {meddle}", spec.objective);
                    let seen: &[_] =
                        if all { &[(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)] } else { &[(0, 4), (1, 4), (4, 4)] };
                    assert_eq!(stepping.seen, seen);
                    assert_eq!(stepping.examples.iter().map(|e| e.step).collect::<Vec<_>>(), seen);
                }
            }
        }
    }

    /// A whole run that an observer steps through ends with the same bits as an unwatched one.
    #[test]
    fn training_in_steps_is_training_in_one_go() {
        let dir = tempfile::tempdir().unwrap();
        let [unwatched, watched] = [false, true].map(|all| {
            let mut trainer = trainer(&dir.path().join(all.to_string()), |e| {
                (e.optimizer.epochs, e.attack.steps, e.fairness.warmup_epochs) = (1, 3, 0);
            });
            let mut stepping = Stepping { all: true, meddle: true, seen: vec![], examples: vec![] };
            let observer: &mut dyn Observer = if all { &mut stepping } else { &mut () };
            trainer.run(observer).unwrap();
            assert_eq!(stepping.seen.is_empty(), !all);
            trainer.engine.state().unwrap()
        });
        assert!(watched == unwatched);
    }
}
