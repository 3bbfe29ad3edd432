//! Standard training: empirical risk minimisation on the images as they are, without an attack.
//!
//! ```text
//! θ   ← SGD on mean CE(f(x), y)
//! ```
//!
//! The network without a defence that adversarial training is compared with (Madry et al. 2018). The search is a
//! perturbation of zero, so the adversarial view is the clean one, and statistics that are counted under the training
//! attack are counted on clean images. The evaluation attacks as for every other method.

use super::{Evidence, Method, Radii, attack};
use crate::config::{AttackConfig, Experiment};
use crate::engine::{Batch, LossSpec, Objective, SearchSpec, Start, View};

/// See the [module](self).
#[derive(Debug)]
pub struct Standard {
    attack: AttackConfig,
    /// Zero for each class.
    epsilon: Vec<f64>,
}

impl Standard {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        Self { attack: experiment.attack.clone(), epsilon: vec![0.0; classes] }
    }
}

impl Method for Standard {
    fn plan(&mut self, _epoch: u32, _seen: &Evidence<'_>) {}

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    /// No steps from the image itself. Radii that are held by hand have no effect.
    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        let epsilon = vec![0.0; batch.len()];
        SearchSpec {
            epsilon,
            steps: 0,
            start: Start::Zero,
            ..attack(&self.attack, Objective::CrossEntropy, batch, radii)
        }
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        LossSpec::cross_entropy(View::Adversarial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EngineChoice, MethodChoice};
    use crate::engine::{BatchNormMode, EngineState, SgdStep};
    use crate::train::{RunDir, Splits, Trainer};
    use crate::units::Epsilon;

    fn small(engine: EngineChoice) -> Experiment {
        let mut e = Experiment::preset("digits-60s").unwrap();
        (e.data.limit, e.data.validation_per_class, e.model.width) = (Some(100), Some(2), Some(4));
        (e.optimizer.epochs, e.optimizer.batch_size, e.evaluation.recalibrate_bn) = (2, 32, 0);
        (e.run.engine, e.run.deterministic) = (engine, true);
        e.averaging.average_from = 0;
        e
    }

    fn begin(experiment: &Experiment, directory: &std::path::Path) -> Trainer {
        let splits = Splits::load(experiment).unwrap();
        Trainer::begin(experiment.clone(), splits, RunDir::create(directory, experiment).unwrap()).unwrap()
    }

    /// The weights and momentum after two epochs are those of adversarial training with radius 0, bit for bit. Batch norm
    /// is in eval mode during that search, because in train mode each of its forward passes moves the running statistics.
    #[test]
    fn it_is_adversarial_training_with_radius_zero() {
        for engine in [EngineChoice::Candle, EngineChoice::Wgsl] {
            let dir = tempfile::tempdir().unwrap();
            let trained = |name: &str, change: &dyn Fn(&mut Experiment)| -> (EngineState, u64) {
                let mut experiment = small(engine);
                change(&mut experiment);
                let mut trainer = begin(&experiment, &dir.path().join(name));
                trainer.run(&mut ()).unwrap();
                let attacked = trainer.rows().1.iter().filter(|row| row.epsilon > 0.0).count();
                (trainer.engine().state().unwrap(), attacked as u64)
            };
            let standard = trained("standard", &|e| e.fairness.method = MethodChoice::Standard);
            let zero = trained("zero", &|e| {
                e.fairness.method = MethodChoice::At;
                e.attack.attack_bn = BatchNormMode::Eval;
                (e.attack.epsilon, e.attack.steps) = (Epsilon::ZERO, 2);
                e.evaluation.eval_epsilon = Some(Epsilon::levels(24.0));
            });
            assert!(standard == zero, "{engine:?}");
            let attacked = trained("attacked", &|e| e.fairness.method = MethodChoice::At);
            assert!(attacked.0 != standard.0 && attacked.1 == 20, "{engine:?}");
        }
    }

    /// The perturbation is zero, so the loss on the adversarial view is the loss on the clean one, and radii that are held
    /// by hand change nothing.
    #[test]
    fn the_loss_is_that_of_the_unperturbed_images() {
        for engine in [EngineChoice::Candle, EngineChoice::Wgsl] {
            let dir = tempfile::tempdir().unwrap();
            let mut experiment = small(engine);
            experiment.fairness.method = MethodChoice::Standard;
            let mut trainer = begin(&experiment, &dir.path().join("run"));
            let set = std::sync::Arc::clone(&trainer.splits().train);
            let labels = &set.labels()[..16];
            let pixels: Vec<u8> = (0..16).flat_map(|i| set.image(i).to_vec()).collect();
            let ids: Vec<u32> = (0..16).collect();
            let batch = Batch { pixels: &pixels, labels, ids: &ids, augment: None, seed: 5, epoch: 1 };
            let method = Standard::new(&experiment, set.classes());
            assert_eq!(method.class_epsilon(), [0.0; 10]);
            let spec = method.search(&batch, &Radii(vec![0.3; 10]));
            let before = trainer.engine().state().unwrap();
            let sgd = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false };
            let [own, clean] = [method.loss(&batch), LossSpec::cross_entropy(View::Clean)].map(|loss| {
                let engine = trainer.engine();
                engine.load_state(&before).unwrap();
                let views = engine.perturb(&batch, &spec).unwrap();
                let images = [View::Clean, View::Adversarial].map(|view| engine.read_view(&views, view).unwrap());
                assert!(images[0] == images[1]);
                let loss = engine.train_step(&views, &loss, &sgd).unwrap().loss;
                (loss, engine.state().unwrap())
            });
            assert!(own == clean && own.1 != before, "{engine:?}");
        }
    }
}
