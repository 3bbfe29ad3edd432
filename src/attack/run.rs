//! Running an [`Attack`] on a batch.

use super::apgd::{self, Apgd, Loss};
use super::cw::Cw;
use super::fab::Fab;
use super::geometry::{clip, length};
use super::oracle::{AttackError, Cost, Oracle, Tick};
use super::square::{Draws, Square};
use super::{Attack, AttackKind};
use crate::engine::{
    Batch, BatchNormMode, Engine, EngineError, Input, Norm, Objective, SearchSpec, Snapshots, Start, View, loss,
};
use crate::rng::{Purpose, Stream};

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
    /// The class that each image was moved towards; `None` for attacks without targets, and for those that try several.
    pub targets: Option<Vec<u32>>,
    /// The images that were classified so, `B × C × H × W`, if they were asked for.
    pub images: Option<Vec<f32>>,
    /// Passes of the network.
    pub cost: Cost,
}

impl Attack {
    /// Runs the attack on a batch.
    ///
    /// Each image's result depends only on that image and its id, not on the rest of the batch.
    ///
    /// # Errors
    /// As [`Engine::perturb`]; also if the attack does not exist in its norm ([`Attack::check`]).
    pub fn predictions(&self, engine: &mut dyn Engine, batch: &Batch<'_>) -> Result<Predictions, EngineError> {
        match self.run(engine, batch, false, &mut |_| true) {
            Ok(found) => Ok(found),
            Err(AttackError::Engine(error)) => Err(error),
            Err(AttackError::Stopped) => Err(EngineError::Invalid("the attack was stopped".into())),
        }
    }

    /// As [`Self::predictions`], and returns the images if `keep_images`. `tick` is called between passes of the network
    /// with the part of the work that is done, in `[0, 1]`, and stops the attack by returning `false`.
    ///
    /// # Errors
    /// As [`Self::predictions`], and [`AttackError::Stopped`].
    pub fn run(
        &self,
        engine: &mut dyn Engine,
        batch: &Batch<'_>,
        keep_images: bool,
        tick: &mut Tick<'_>,
    ) -> Result<Predictions, AttackError> {
        self.check().map_err(EngineError::Invalid)?;
        batch.check(engine.network().input, engine.network().classes)?;
        let batch = &Batch { seed: self.seed, ..*batch };
        if self.kind.runs_in_engine() {
            self.run_in_engine(engine, batch, keep_images, tick)
        } else {
            self.run_on_host(engine, batch, keep_images, tick)
        }
    }

    /// Searches that the engine runs itself; the images stay there.
    fn run_in_engine(
        &self,
        engine: &mut dyn Engine,
        batch: &Batch<'_>,
        keep_images: bool,
        tick: &mut Tick<'_>,
    ) -> Result<Predictions, AttackError> {
        let (n, classes, len) = (batch.len(), engine.network().classes, engine.network().input.len());
        if self.kind == AttackKind::Clean {
            let logits = engine.logits(&Input::Batch(batch), BatchNormMode::Eval)?;
            return Ok(Predictions {
                predictions: predict(&logits, classes),
                logits,
                without_gradient: vec![false; n],
                targets: None,
                images: keep_images.then(|| batch.prepare(engine.network().input)),
                cost: Cost { forward: n as u64, gradient: 0 },
            });
        }
        let mut found: Option<Predictions> = None;
        let restarts = self.restarts.max(1);
        let steps = f64::from(self.steps.max(1)) * f64::from(restarts);
        for restart in 0..restarts {
            let mut spec = self.perturbation(n, restart);
            if self.kind == AttackKind::PgdTargeted {
                spec.objective = Objective::Targeted(self.random_targets(batch, classes));
            }
            let targets = match &spec.objective {
                Objective::Targeted(targets) => Some(targets.clone()),
                _ => None,
            };
            let views = engine.begin(batch, &spec)?;
            for step in 0..self.steps {
                if !tick((f64::from(restart) * f64::from(self.steps) + f64::from(step)) / steps) {
                    return Err(AttackError::Stopped);
                }
                engine.advance(&views, 1)?;
            }
            let without_gradient = engine.without_gradient(&views)?.to_vec();
            let view = if self.any_iterate { View::FirstAdversarial } else { View::Adversarial };
            let logits = engine.logits(&Input::View(&views, view), BatchNormMode::Eval)?;
            let images = if keep_images { Some(engine.read_view(&views, view)?) } else { None };
            let cost = Cost { forward: n as u64, gradient: n as u64 * u64::from(self.steps) };
            let new =
                Predictions { predictions: predict(&logits, classes), logits, without_gradient, targets, images, cost };
            match &mut found {
                None => found = Some(new),
                Some(found) => found.take_worse(&new, batch.labels, classes, len),
            }
        }
        found.ok_or_else(|| EngineError::Invalid("an attack needs at least one start".into()).into())
    }

    /// The prediction for each image after one search of PGD towards `targets`, one class for each image.
    ///
    /// # Errors
    /// As [`Engine::perturb`], and [`AttackError::Stopped`] if `tick` returns `false`.
    pub fn towards(
        &self,
        engine: &mut dyn Engine,
        batch: &Batch<'_>,
        targets: Vec<u32>,
        tick: &mut Tick<'_>,
    ) -> Result<Vec<u32>, AttackError> {
        let batch = &Batch { seed: self.seed, ..*batch };
        let spec = SearchSpec { objective: Objective::Targeted(targets), ..self.perturbation(batch.len(), 0) };
        let views = engine.begin(batch, &spec)?;
        for step in 0..self.steps {
            if !tick(f64::from(step) / f64::from(self.steps)) {
                return Err(AttackError::Stopped);
            }
            engine.advance(&views, 1)?;
        }
        let logits = engine.logits(&Input::View(&views, View::Adversarial), BatchNormMode::Eval)?;
        Ok(predict(&logits, engine.network().classes))
    }

    /// Attacks that move the images themselves, and ask the engine for logits and gradients. An image that is
    /// misclassified without an attack is left as it is.
    fn run_on_host(
        &self,
        engine: &mut dyn Engine,
        batch: &Batch<'_>,
        keep_images: bool,
        tick: &mut Tick<'_>,
    ) -> Result<Predictions, AttackError> {
        let shape = engine.network().input;
        let len = shape.len();
        let clean = batch.prepare(shape);
        let mut oracle = Oracle::new(engine, batch.len(), tick);
        let classes = oracle.classes();
        let mut logits = oracle.logits(&clean)?;
        let mut images = clean.clone();
        let mut without_gradient = vec![false; batch.len()];
        let mut standing = Standing { classes, left: Vec::new() };
        standing.left =
            (0..batch.len()).filter(|i| loss::argmax(&logits[i * classes..][..classes]) == batch.labels[*i]).collect();
        let ranks = match self.kind {
            AttackKind::ApgdT | AttackKind::FabT => self.targets.clamp(1, classes.max(2) as u32 - 1),
            _ => 1,
        };
        let restarts = if self.kind == AttackKind::Cw { 1 } else { self.restarts.max(1) };
        let rounds = f64::from(ranks * restarts);
        let clean_logits = logits.clone();
        for rank in 1..=ranks {
            for restart in 0..restarts {
                if standing.left.is_empty() {
                    break;
                }
                let round = f64::from((rank - 1) * restarts + restart);
                let done = |share: f64| (round + share) / rounds;
                let part = Part {
                    images: standing.left.iter().flat_map(|i| clean[i * len..][..len].iter().copied()).collect(),
                    labels: standing.left.iter().map(|i| batch.labels[*i]).collect(),
                    targets: standing.left.iter().map(|i| nth(&clean_logits[i * classes..][..classes], rank)).collect(),
                    streams: standing.left.iter().map(|i| self.stream(batch.ids[*i], rank, restart)).collect(),
                };
                let (found, zero) = self.round(&mut oracle, &part, restart, &done)?;
                for (i, zero) in standing.left.iter().zip(zero) {
                    without_gradient[*i] |= zero;
                }
                // The verdict is a forward pass of its own, on the image that is returned.
                let verdict = oracle.logits(&found)?;
                standing.judge(&found, &verdict, batch.labels, &mut images, &mut logits);
            }
        }
        let cost = oracle.cost();
        Ok(Predictions {
            predictions: predict(&logits, classes),
            logits,
            without_gradient,
            targets: None,
            images: keep_images.then_some(images),
            cost,
        })
    }

    /// One search of each image of `part`: the images it found, those without success unchanged, and whether a gradient
    /// was zero.
    fn round(
        &self,
        oracle: &mut Oracle<'_>,
        part: &Part,
        restart: u32,
        done: &dyn Fn(f64) -> f64,
    ) -> Result<(Vec<f32>, Vec<bool>), AttackError> {
        let (len, n) = (oracle.shape().len(), part.labels.len());
        let (norm, epsilon, steps) = (self.norm, self.epsilon.value(), self.steps);
        let noise = |i: usize| -> Vec<f32> {
            let mut noise = vec![0.0; len];
            match norm {
                Norm::Linf => part.streams[i].fill_symmetric(&mut noise),
                Norm::L2 => (0..len).for_each(|at| noise[at] = part.streams[i].normal(at as u32)),
            }
            noise
        };
        let each = |make: &dyn Fn(usize, &[f32]) -> Vec<f32>| -> Vec<f32> {
            part.images.chunks(len).enumerate().flat_map(|(i, clean)| make(i, clean)).collect()
        };
        let within = |nearest: Vec<f32>, distance: &[f32]| -> Vec<f32> {
            let rows = nearest.chunks(len).zip(part.images.chunks(len)).zip(distance);
            rows.flat_map(|((found, clean), far)| if *far <= epsilon { found } else { clean }.iter().copied()).collect()
        };
        match self.kind {
            AttackKind::ApgdCe | AttackKind::ApgdDlr | AttackKind::ApgdT => {
                let loss = match self.kind {
                    AttackKind::ApgdCe => Loss::CrossEntropy,
                    AttackKind::ApgdDlr => Loss::Dlr,
                    _ => Loss::DlrTowards(part.targets.clone()),
                };
                let starts = each(&|i, clean| apgd::start(norm, epsilon, clean, &noise(i)));
                let search = Apgd { norm, epsilon, steps, loss: &loss, stop_at_success: true };
                let found = search.run(oracle, &part.images, &part.labels, starts, done, &mut |_, _| ())?;
                Ok((found.adversarial, found.without_gradient))
            }
            AttackKind::Fab | AttackKind::FabT => {
                let targets = (self.kind == AttackKind::FabT).then_some(part.targets.as_slice());
                // A random start lies half a radius away from the image.
                let starts = match restart {
                    0 => part.images.clone(),
                    _ => each(&|i, clean| apgd::start(norm, 0.5 * epsilon, clean, &noise(i))),
                };
                let search = Fab { norm, epsilon, steps, targets, stop_at_success: true };
                let found = search.run(oracle, &part.images, &part.labels, starts, done)?;
                Ok((within(found.nearest, &found.distance), found.without_gradient))
            }
            AttackKind::Cw => {
                let search = Cw { steps, searches: self.restarts, c: 1.0 };
                let found = search.run(oracle, &part.images, &part.labels, done)?;
                Ok((within(found.nearest, &found.distance), found.without_gradient))
            }
            AttackKind::Square => {
                let search = Square { norm, epsilon, queries: steps };
                let draws = part.streams.iter().map(|stream| Draws::Random(stream.sequence())).collect();
                let found = search.run(oracle, &part.images, &part.labels, draws, done)?;
                Ok((found.best, vec![false; n]))
            }
            _ => {
                oracle.tick(done(0.0))?;
                let images = each(&|i, clean| {
                    let mut x = noise(i);
                    let scale = match norm {
                        Norm::Linf => epsilon,
                        Norm::L2 => epsilon / (length(norm, &x) + 1e-12),
                    };
                    x.iter_mut().zip(clean).for_each(|(x, c)| *x = c + scale * *x);
                    clip(&mut x);
                    x
                });
                Ok((images, vec![false; n]))
            }
        }
    }

    /// The random numbers of one search of one image.
    fn stream(&self, id: u32, rank: u32, restart: u32) -> Stream {
        let search = (self.kind as u32) << 24 | (rank & 0xfff) << 12 | (restart & 0xfff);
        Stream::new(self.seed, Purpose::Evaluation, search, id)
    }

    /// A class other than the true one for each image, uniformly.
    fn random_targets(&self, batch: &Batch<'_>, classes: usize) -> Vec<u32> {
        let draw = |(label, id): (&u32, &u32)| {
            let others = classes.saturating_sub(1).max(1) as u32;
            let drawn = self.stream(*id, 0, 0).sequence().below(others);
            (label + 1 + drawn) % classes as u32
        };
        batch.labels.iter().zip(batch.ids).map(draw).collect()
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
            snapshots: Snapshots { first_adversarial: self.any_iterate, ..Snapshots::default() },
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

fn predict(logits: &[f32], classes: usize) -> Vec<u32> {
    logits.chunks(classes).map(loss::argmax).collect()
}

/// The class with the `rank`-th largest logit, counted from 0; the first of equal ones comes first.
fn nth(logits: &[f32], rank: u32) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    order.get(rank as usize).copied().unwrap_or_default() as u32
}

/// The images of one round.
struct Part {
    images: Vec<f32>,
    labels: Vec<u32>,
    targets: Vec<u32>,
    streams: Vec<Stream>,
}

/// The images of a batch that are still classified correctly.
struct Standing {
    classes: usize,
    left: Vec<usize>,
}

impl Standing {
    /// Takes over the misclassified ones of the images that were found, and removes them from those that are left.
    fn judge(&mut self, found: &[f32], verdict: &[f32], labels: &[u32], images: &mut [f32], logits: &mut [f32]) {
        let len = found.len() / self.left.len().max(1);
        let mut row = 0;
        let classes = self.classes;
        self.left.retain(|i| {
            let (x, z) = (&found[row * len..][..len], &verdict[row * classes..][..classes]);
            row += 1;
            if loss::argmax(z) == labels[*i] {
                return true;
            }
            images[i * len..][..len].copy_from_slice(x);
            logits[i * classes..][..classes].copy_from_slice(z);
            false
        });
    }
}

impl Predictions {
    /// Replaces the results of images that were classified correctly so far by those of another restart.
    fn take_worse(&mut self, new: &Self, labels: &[u32], classes: usize, len: usize) {
        self.cost += new.cost;
        for (i, label) in labels.iter().enumerate() {
            self.without_gradient[i] |= new.without_gradient[i];
            // An image that was moved towards its target is the strongest result of a targeted attack.
            let target = self.targets.as_ref().map(|targets| targets[i]);
            let has_reached = target.is_some() && Some(self.predictions[i]) == target;
            let reaches = target.is_some() && Some(new.predictions[i]) == target;
            if self.predictions[i] != *label && (has_reached || !reaches) {
                continue;
            }
            self.predictions[i] = new.predictions[i];
            self.logits[i * classes..][..classes].copy_from_slice(&new.logits[i * classes..][..classes]);
            if let (Some(images), Some(new)) = (&mut self.images, &new.images) {
                images[i * len..][..len].copy_from_slice(&new[i * len..][..len]);
            }
        }
    }
}
