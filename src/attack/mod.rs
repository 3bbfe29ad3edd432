//! Attacks for evaluation: the same ball for every image, the network in eval mode, the worst of several restarts.

mod limits;
mod measure;
mod step_size;

pub use limits::{check_distance, largest_distance};
pub use measure::{ClassAccuracy, Measured, Report, describe_without_gradient, describe_worst_class, measure};
pub use step_size::{RunSteps, default_step_size, evaluation_step_size};

use serde::{Deserialize, Serialize};

use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input, Norm, Objective, SearchSpec, Start, View, loss};
use crate::rng::Purpose;
use crate::units::Epsilon;

/// Which attack to evaluate under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AttackKind {
    /// No perturbation
    Clean,
    /// One step of size epsilon from the image itself (Goodfellow et al. 2015)
    Fgsm,
    /// Projected gradient ascent on the cross-entropy (Madry et al. 2018)
    Pgd,
}

/// An attack with all settings that must be reported with an accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attack {
    /// Which one.
    pub kind: AttackKind,
    /// Shape of the ball.
    pub norm: Norm,
    /// Its radius.
    pub epsilon: Epsilon,
    /// Size of a step.
    pub step_size: Epsilon,
    /// Number of steps.
    pub steps: u32,
    /// Whether a search starts at a random point in the ball.
    pub random_start: bool,
    /// Number of searches from different starts; an image counts as robust only if it withstands all of them.
    pub restarts: u32,
    /// Seed of the starts.
    pub seed: u64,
}

/// The result of an attack on a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// The prediction for each image: an incorrect one if any restart found one.
    pub predictions: Vec<u32>,
    /// The logits of those predictions, `B × K`.
    pub logits: Vec<f32>,
    /// Whether each image's gradient was exactly zero in a step of any restart ([`Engine::without_gradient`]); the
    /// attack is then weaker than it seems.
    pub without_gradient: Vec<bool>,
}

impl Attack {
    /// No perturbation.
    pub fn clean() -> Self {
        Self {
            kind: AttackKind::Clean,
            norm: Norm::Linf,
            epsilon: Epsilon::ZERO,
            step_size: Epsilon::ZERO,
            steps: 0,
            random_start: false,
            restarts: 1,
            seed: 0,
        }
    }

    /// FGSM: one step of size epsilon.
    pub fn fgsm(epsilon: Epsilon, norm: Norm) -> Self {
        Self { kind: AttackKind::Fgsm, norm, epsilon, step_size: epsilon, steps: 1, ..Self::clean() }
    }

    /// PGD with one random start.
    pub fn pgd(epsilon: Epsilon, step_size: Epsilon, steps: u32, norm: Norm, seed: u64) -> Self {
        let random_start = true;
        Self { kind: AttackKind::Pgd, norm, epsilon, step_size, steps, random_start, seed, ..Self::clean() }
    }

    /// Runs the attack on a batch.
    ///
    /// Each image's result depends only on that image and its id, not on the rest of the batch.
    ///
    /// # Errors
    /// As [`Engine::perturb`].
    pub fn predictions(&self, engine: &mut dyn Engine, batch: &Batch<'_>) -> Result<Predictions, EngineError> {
        let n = batch.len();
        let classes = engine.network().classes;
        let predict = |logits: &[f32]| logits.chunks(classes).map(loss::argmax).collect::<Vec<u32>>();
        let mut without_gradient = vec![false; n];
        if self.kind == AttackKind::Clean {
            let logits = engine.logits(&Input::Batch(batch), BatchNormMode::Eval)?;
            return Ok(Predictions { predictions: predict(&logits), logits, without_gradient });
        }
        let mut found: Option<(Vec<u32>, Vec<f32>)> = None;
        for restart in 0..self.restarts.max(1) {
            let spec = self.perturbation(n, restart);
            let batch = Batch { seed: self.seed, ..*batch };
            let views = engine.perturb(&batch, &spec)?;
            let flags = engine.without_gradient(&views)?;
            without_gradient.iter_mut().zip(flags).for_each(|(without, flag)| *without |= flag);
            let logits = engine.logits(&Input::View(&views, View::Adversarial), BatchNormMode::Eval)?;
            let predictions = predict(&logits);
            found = Some(match found {
                None => (predictions, logits),
                Some((mut kept, mut kept_logits)) => {
                    let images = kept.iter_mut().zip(predictions).zip(batch.labels);
                    let rows = kept_logits.chunks_mut(classes).zip(logits.chunks(classes));
                    for (((kept, new), label), (kept_row, row)) in images.zip(rows) {
                        if *kept == *label {
                            *kept = new;
                            kept_row.copy_from_slice(row);
                        }
                    }
                    (kept, kept_logits)
                }
            });
        }
        let (predictions, logits) = found.unwrap_or_default();
        Ok(Predictions { predictions, logits, without_gradient })
    }

    /// The search of one restart for a batch of `n` images, whose random numbers must be keyed by [`Self::seed`].
    pub fn perturbation(&self, n: usize, restart: u32) -> SearchSpec {
        SearchSpec {
            objective: Objective::CrossEntropy,
            norm: self.norm,
            epsilon: vec![self.epsilon.value(); n],
            step_size: vec![self.step_size.value(); n],
            steps: self.steps,
            start: self.start(restart),
            batch_norm: BatchNormMode::Eval,
            ..SearchSpec::default()
        }
    }

    fn start(&self, restart: u32) -> Start {
        if self.random_start {
            Start::Uniform { purpose: Purpose::EvaluationStart, epoch: restart }
        } else {
            Start::Zero
        }
    }
}

/// The usual notation of a norm.
pub fn norm_name(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    }
}

/// All settings that must be reported with a robust accuracy, in one line.
impl std::fmt::Display for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let norm = norm_name(self.norm);
        match self.kind {
            AttackKind::Clean => f.write_str("clean"),
            AttackKind::Fgsm => write!(f, "FGSM, {norm}, ε {}, no random start", self.epsilon),
            AttackKind::Pgd => {
                let (steps, epsilon, step) = (self.steps, self.epsilon, self.step_size);
                write!(f, "PGD-{steps}, {norm}, ε {epsilon}, step {step}, ")?;
                match (self.random_start, self.restarts) {
                    (false, _) => f.write_str("no random start"),
                    (true, 1) => write!(f, "1 random start, seed {}", self.seed),
                    (true, n) => write!(f, "worst of {n} random starts, seed {}", self.seed),
                }
            }
        }
    }
}
