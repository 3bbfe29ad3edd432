//! One batch: attack, update, statistics, and what there is to see of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Live, TrainError, Trainer};
use crate::data::Dataset;
use crate::engine::{Batch, BatchNormMode, EngineError, Input, PerturbSpec, SgdStep, Start, View, Views, loss};
use crate::train::{Event, Examples, Observer};

/// What is told of a batch when it is done.
pub(super) struct Trained {
    pub(super) images: usize,
    pub(super) lr: f64,
    /// Radius of each class.
    pub(super) epsilon: Vec<f64>,
}

impl Trainer {
    /// Trains on the next batch; none when the observer wants the run to end at once.
    pub(super) fn batch(&mut self, order: &[u32], observer: &mut dyn Observer) -> Result<Option<Trained>, TrainError> {
        self.write_changes()?;
        // A change while the attack waits between two steps is for the next batch.
        let o = self.experiment.optimizer.clone();
        let clean_passes = self.experiment.fairness.clean_passes;
        let radii = self.radii();
        let (epoch, index) = (self.progress.epoch, self.progress.batch);
        let ids = &order[self.cut().range(index)];
        let (pixels, labels) = gather(&self.splits.train, ids);
        let augment = self.experiment.augment();
        let batch = Batch { pixels: &pixels, labels: &labels, ids, augment, seed: self.experiment.run.seed, epoch };
        let lr = o.lr_at(epoch, index, self.batches());

        observer.event(&Event::Attack);
        let clock = Instant::now();
        let objective = self.method.objective(self.engine.as_mut(), &batch)?;
        let chosen = clock.elapsed();
        let mut spec = self.method.perturbation(&batch, objective);
        self.hold_radii(&mut spec, &labels);
        let Some((views, attack)) = self.attack(&batch, spec, observer)? else { return Ok(None) };
        self.watched += clock.elapsed().saturating_sub(chosen + attack);

        observer.event(&Event::Update);
        let engine = self.engine.as_mut();
        let clock = Instant::now();
        if clean_passes == 2 {
            engine.logits(&Input::View(&views, View::Clean), BatchNormMode::Train)?;
        }
        let before_update = clock.elapsed();
        let sgd = SgdStep { lr, momentum: o.momentum, weight_decay: o.weight_decay };
        let result = engine.train_step(&views, &self.method.loss(), &sgd)?;
        let updated = clock.elapsed();
        if !result.loss.is_finite() {
            return Err(EngineError::NotFinite { what: "loss".into(), batch: labels.len() }.into());
        }
        let counted = &mut self.progress.counted;
        if let Some(counts) = result.confusion(View::Adversarial) {
            counted.robust.add_counts(counts);
        }
        if let (Some(targets), Some(predictions)) = (engine.targets(&views)?, result.predictions(View::Adversarial)) {
            counted.add_targets(&labels, targets, predictions);
        }
        if clean_passes > 0 {
            let logits = engine.logits(&Input::View(&views, View::Clean), BatchNormMode::Train)?;
            let predictions: Vec<u32> = logits.chunks(counted.classes()).map(loss::argmax).collect();
            counted.clean.add_all(&labels, &predictions);
        } else if let Some(counts) = result.confusion(View::Clean) {
            counted.clean.add_counts(counts);
        }
        self.progress.loss_sum += result.loss * labels.len() as f64;
        let statistics = clock.elapsed() - updated + chosen + before_update;
        let seconds = &mut self.progress.seconds;
        seconds[1] += attack.as_secs_f64();
        seconds[2] += (updated - before_update).as_secs_f64();
        seconds[3] += statistics.as_secs_f64();
        self.progress.batch += 1;
        Ok(Some(Trained { images: labels.len(), lr, epsilon: radii }))
    }

    /// The inner maximisation, and the time that it took; none when the observer wants the run to end at once.
    fn attack(
        &mut self,
        batch: &Batch<'_>,
        spec: PerturbSpec,
        observer: &mut dyn Observer,
    ) -> Result<Option<(Views, Duration)>, TrainError> {
        let watch = observer.watch();
        if watch.step_by_step && spec.steps > 0 {
            return self.attack_step_by_step(batch, spec, observer);
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

    /// The same search in pieces: each goes on from where the one before left the images. Targets are keyed by image and
    /// epoch, so that every piece draws the same ones.
    fn attack_step_by_step(
        &mut self,
        batch: &Batch<'_>,
        mut spec: PerturbSpec,
        observer: &mut dyn Observer,
    ) -> Result<Option<(Views, Duration)>, TrainError> {
        let total = std::mem::take(&mut spec.steps);
        let (mut done, mut spent) = (0, Duration::ZERO);
        loop {
            let clock = Instant::now();
            let mut views = self.engine.perturb(batch, &spec)?;
            spent += clock.elapsed();
            done += spec.steps;

            let [clean, adversarial] = self.read_back(&views)?;
            let count = observer.watch().examples;
            if count > 0 {
                let examples = self.examples(batch, &spec, &views, (done, total), count, [&clean, &adversarial])?;
                observer.event(&Event::Examples(Arc::new(examples)));
            }
            let mut live = Live::within_a_batch(self);
            observer.stepped(&mut live, (done, total));
            let touched = live.touched();
            if observer.discard() {
                return Ok(None);
            }
            spec.start = Start::Given(adversarial.iter().zip(&clean).map(|(a, c)| a - c).collect());
            if done == total {
                if touched {
                    // Somebody else's images are in the engine now.
                    spec.steps = 0;
                    views = self.engine.perturb(batch, &spec)?;
                }
                return Ok(Some((views, spent)));
            }
            spec.steps = if observer.watch().step_by_step { 1 } else { total - done };
        }
    }

    fn read_back(&mut self, views: &Views) -> Result<[Vec<f32>; 2], EngineError> {
        Ok([self.engine.read_view(views, View::Clean)?, self.engine.read_view(views, View::Adversarial)?])
    }

    /// The first `count` images of a batch, clean and adversarial, and what the network says of them. Batch norm is in eval
    /// mode: nothing in the engine moves.
    fn examples(
        &mut self,
        batch: &Batch<'_>,
        spec: &PerturbSpec,
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
    use crate::engine::{Norm, Objective};
    use crate::train::{RunDir, Splits, Watch};

    /// Looks at every step; may use the engine for something else in between.
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

        fn watch(&self) -> Watch {
            // From the second step on in one go, or every step by itself.
            Watch { step_by_step: self.all || self.seen.len() < 2, examples: 2 }
        }

        fn stepped(&mut self, live: &mut Live<'_>, step: (u32, u32)) {
            self.seen.push(step);
            if self.meddle {
                let set = Arc::clone(&live.splits().train);
                let (pixels, labels) = gather(&set, &[5]);
                let batch = Batch { pixels: &pixels, labels: &labels, ids: &[5], augment: None, seed: 1, epoch: 0 };
                let spec = crate::attack::Attack::fgsm(crate::units::Epsilon::levels(9.0), Norm::Linf);
                live.engine().perturb(&batch, &spec.perturbation(1, 0)).unwrap();
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

    #[test]
    fn a_search_in_steps_finds_what_it_finds_in_one_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut runs = 0;
        for norm in [Norm::Linf, Norm::L2] {
            for mode in [BatchNormMode::Train, BatchNormMode::Eval] {
                for kl in [false, true] {
                    let mut attack = |all: Option<bool>, meddle| {
                        runs += 1;
                        let mut trainer = trainer(&dir.path().join(runs.to_string()), |e| {
                            (e.attack.norm, e.attack.attack_bn, e.attack.steps) = (norm, mode, 4);
                            if norm == Norm::L2 {
                                e.attack.epsilon = crate::units::Epsilon::levels(128.0);
                                e.attack.step_size = crate::units::Epsilon::levels(40.0);
                            }
                        });
                        let ids: Vec<u32> = (0..16).collect();
                        let (pixels, labels) = gather(&trainer.splits.train, &ids);
                        let augment = None;
                        let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment, seed: 3, epoch: 0 };
                        let objective = trainer.method.objective(trainer.engine.as_mut(), &batch).unwrap();
                        let mut spec = trainer.method.perturbation(&batch, objective);
                        if kl {
                            spec.objective = Objective::KlToClean;
                        }
                        let mut stepping = Stepping { all: all == Some(true), meddle, seen: vec![], examples: vec![] };
                        let views = match all {
                            None => trainer.attack(&batch, spec, &mut ()).unwrap(),
                            Some(_) => trainer.attack(&batch, spec, &mut stepping).unwrap(),
                        };
                        let (views, _) = views.unwrap();
                        let targets = trainer.engine.targets(&views).unwrap().map(<[u32]>::to_vec);
                        let [_, adversarial] = trainer.read_back(&views).unwrap();
                        (adversarial, targets, stepping)
                    };
                    let (whole, targets, _) = attack(None, false);
                    for (all, meddle) in [(true, false), (true, true), (false, false)] {
                        let (stepped, same_targets, stepping) = attack(Some(all), meddle);
                        assert_eq!(same_targets, targets);
                        let seen: &[_] =
                            if all { &[(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)] } else { &[(0, 4), (1, 4), (4, 4)] };
                        assert_eq!(stepping.seen, seen, "all {all}");
                        assert_eq!(stepping.examples.iter().map(|e| e.step).collect::<Vec<_>>(), seen);
                        let last = &stepping.examples[seen.len() - 1];
                        for (a, b) in last.adversarial.iter().zip(&stepped) {
                            assert!((a - b).abs() < 1e-6);
                        }
                        // A sign of a gradient that is all but zero may turn by rounding, and with it a pixel.
                        let strayed = whole.iter().zip(&stepped).filter(|(a, b)| (**a - **b).abs() > 1e-5).count();
                        assert!(strayed <= 2, "{norm:?} {mode:?} KL {kl} all {all} meddle {meddle}: {strayed}");
                    }
                }
            }
        }
    }

    /// A whole run under the eyes of somebody who takes every step ends where an unwatched one does.
    #[test]
    fn training_in_steps_ends_near_training_in_one_go() {
        let dir = tempfile::tempdir().unwrap();
        let states = [false, true].map(|all| {
            let mut trainer = trainer(&dir.path().join(all.to_string()), |e| {
                (e.optimizer.epochs, e.attack.steps, e.fairness.warmup_epochs) = (1, 3, 0);
            });
            let mut stepping = Stepping { all: true, meddle: true, seen: vec![], examples: vec![] };
            let observer: &mut dyn Observer = if all { &mut stepping } else { &mut () };
            trainer.run(observer).unwrap();
            assert_eq!(stepping.seen.is_empty(), !all);
            trainer.engine.state().unwrap().model
        });
        let flat = |i: usize| states[i].0.values().flat_map(|array| array.data.iter().map(|v| f64::from(*v)));
        let difference: f64 = flat(0).zip(flat(1)).map(|(a, b)| (a - b) * (a - b)).sum();
        let length: f64 = flat(0).map(|a| a * a).sum();
        assert!((difference / length).sqrt() < 1e-3, "{}", (difference / length).sqrt());
    }
}
