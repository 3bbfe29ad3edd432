//! Looks for an image that the network misclassifies, in small portions between which a run continues.

use std::sync::Arc;

use super::inspect::{InspectionAttack, Subject, perturbed};
use super::{Failure, failure};
use crate::data::Dataset;
use crate::engine::{BatchNormMode, Engine, EngineError, Input, View, loss};

const SEEKING: &str = "looking for a misclassified image";
/// Images of a portion, without an attack and under one.
const PORTION: [usize; 2] = [128, 16];

/// Images to try, in order, until one is misclassified.
#[derive(Debug, Clone)]
pub struct SeekJob {
    /// Returned with the result.
    pub id: u64,
    /// The images.
    pub set: Arc<Dataset>,
    /// Which of them, by index.
    pub images: Vec<u32>,
    /// The attack, as the inspection of each image would use it; `None` tries the images as they are. Images of the target's
    /// class are left out.
    pub attack: Option<InspectionAttack>,
}

/// How far a search is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// That of the job.
    pub id: u64,
    /// Number of images that have been tried.
    pub tried: usize,
    /// Whether it goes on, or how it ended.
    pub state: SeekState,
}

/// Whether a search goes on, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeekState {
    /// It goes on.
    Trying,
    /// This image, by index, is the first misclassified one.
    Found(u32),
    /// Every image is classified right.
    Exhausted,
    /// It failed.
    Failed(Failure),
}

/// A search under way.
#[derive(Debug)]
pub(super) struct SeekWork {
    job: Box<SeekJob>,
    tried: usize,
}

impl SeekWork {
    pub(super) fn new(job: Box<SeekJob>) -> Self {
        Self { job, tried: 0 }
    }

    /// Tries the next portion. The engine's state does not change. The work goes on while the state is
    /// [`SeekState::Trying`].
    pub(super) fn portion(&mut self, engine: &mut dyn Engine) -> Sought {
        match self.search(engine) {
            Ok(state) => Sought { id: self.job.id, tried: self.tried, state },
            Err(error) => self.failed(&error),
        }
    }

    /// The answer if the engine cannot do the work.
    pub(super) fn failed(&self, error: &EngineError) -> Sought {
        self.ended(failure::of_job(SEEKING, "the data set", error))
    }

    /// The answer if no network is open.
    pub(super) fn refused(&self) -> Sought {
        self.ended(failure::no_network(SEEKING))
    }

    fn ended(&self, failure: Failure) -> Sought {
        Sought { id: self.job.id, tried: self.tried, state: SeekState::Failed(failure) }
    }

    fn search(&mut self, engine: &mut dyn Engine) -> Result<SeekState, EngineError> {
        let job = &self.job;
        let last = (self.tried + PORTION[usize::from(job.attack.is_some())]).min(job.images.len());
        let portion = job.images.get(self.tried..last).unwrap_or_default();
        if let Some(bad) = portion.iter().find(|image| **image as usize >= job.set.len()) {
            return Err(EngineError::Invalid(format!("there is no image {bad}; the set has {}", job.set.len())));
        }
        let target = job.attack.as_ref().and_then(|attack| attack.target);
        let label = |image: u32| job.set.labels()[image as usize];
        let images: Vec<u32> = portion.iter().copied().filter(|image| Some(label(*image)) != target).collect();
        let found = if images.is_empty() { None } else { first_misclassified(engine, job, &images)? };
        if let Some(image) = found {
            self.tried += 1 + portion.iter().position(|tried| *tried == image).unwrap_or_default();
            return Ok(SeekState::Found(image));
        }
        self.tried = last;
        Ok(if last < job.images.len() { SeekState::Trying } else { SeekState::Exhausted })
    }
}

/// The first of these images that the network misclassifies.
fn first_misclassified(engine: &mut dyn Engine, job: &SeekJob, images: &[u32]) -> Result<Option<u32>, EngineError> {
    let (shape, classes) = (engine.network().input, engine.network().classes);
    let labels: Vec<u32> = images.iter().map(|image| job.set.labels()[*image as usize]).collect();
    let mut pixels = Vec::with_capacity(images.len() * job.set.shape().len());
    images.iter().for_each(|image| pixels.extend_from_slice(job.set.image(*image as usize)));
    let whole = Subject { name: "the data set".into(), shape: job.set.shape(), pixels: pixels.into(), label: None };
    if whole.shape != shape {
        return Err(EngineError::Invalid(format!(
            "{} has images of {}, the network takes {shape}",
            whole.name, whole.shape
        )));
    }
    let logits = match &job.attack {
        None => engine.logits(&Input::Images(&whole.scaled(), &labels), BatchNormMode::Eval)?,
        Some(attack) => {
            let views = perturbed(engine, &whole.pixels, &labels, attack, attack.steps)?;
            engine.logits(&Input::View(&views, View::Adversarial), BatchNormMode::Eval)?
        }
    };
    let predictions = logits.chunks(classes).map(loss::argmax);
    Ok(images
        .iter()
        .zip(labels)
        .zip(predictions)
        .find(|((_, label), said)| label != said)
        .map(|((image, _), _)| *image))
}

/// All answers of a search, for tests.
#[cfg(test)]
pub(crate) fn seek(engine: &mut dyn Engine, job: SeekJob) -> Vec<Sought> {
    let mut work = SeekWork::new(Box::new(job));
    let mut all = vec![work.portion(engine)];
    while all.last().is_some_and(|sought| sought.state == SeekState::Trying) {
        all.push(work.portion(engine));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Norm;
    use crate::worker::inspect::tests::{pgd, subject, trained};
    use crate::worker::{InspectionJob, inspect};

    /// The prediction for each image, as it is and after the attack, one by one.
    fn one_by_one(engine: &mut dyn Engine, set: &Dataset, images: &[u32], attack: &InspectionAttack) -> Vec<[u32; 2]> {
        let mut said = |image: u32| {
            let job = InspectionJob { id: 0, subject: subject(set, image as usize), attack: attack.clone() };
            let steps = inspect(engine, &job, None).unwrap().steps;
            [0, steps.len() - 1].map(|step| loss::argmax(&steps[step].probabilities))
        };
        images.iter().map(|image| said(*image)).collect()
    }

    #[test]
    fn the_first_misclassified_image_is_found_as_it_is_and_under_attack() {
        let (mut engine, set) = trained();
        let attack = InspectionAttack { epsilon: crate::units::Epsilon::levels(12.0), ..pgd(Norm::Linf, true, None) };
        let images: Vec<u32> = (300..400).collect();
        let said = one_by_one(&mut engine, &set, &images, &attack);
        let set = Arc::new(set);
        for (under_attack, attack) in [None, Some(attack)].into_iter().enumerate() {
            let wrong = |i: usize| said[i][under_attack] != set.labels()[images[i] as usize];
            let right: Vec<u32> = (0..images.len()).filter(|i| !wrong(*i)).map(|i| images[i]).collect();
            let first = images[(0..images.len()).find(|i| wrong(*i)).unwrap()];
            // Behind images that are classified right, more than fit a portion.
            let before: Vec<u32> = right.iter().copied().cycle().take(150).collect();
            let job = |images| SeekJob { id: 7, set: Arc::clone(&set), images, attack: attack.clone() };
            let all = seek(&mut engine, job([before.clone(), vec![first, right[0], first]].concat()));
            let last = Sought { id: 7, tried: 151, state: SeekState::Found(first) };
            assert_eq!(all.last(), Some(&last), "{attack:?}");
            assert!(all.len() > 1 && all.windows(2).all(|pair| pair[0].tried < pair[1].tried), "{all:?}");
            let none = seek(&mut engine, job(before));
            assert_eq!(none.last(), Some(&Sought { id: 7, tried: 150, state: SeekState::Exhausted }));
        }
    }

    #[test]
    fn images_of_the_target_are_left_out_and_missing_ones_refused() {
        let (mut engine, set) = trained();
        let target = set.labels()[0];
        let of_target: Vec<u32> = (0..200).filter(|i| set.labels()[*i as usize] == target).collect();
        let attack = InspectionAttack { steps: 0, random_start: false, ..pgd(Norm::Linf, false, Some(target)) };
        let said = one_by_one(
            &mut engine,
            &set,
            &(0..200).collect::<Vec<_>>(),
            &InspectionAttack { target: None, ..attack.clone() },
        );
        let wrong =
            (0..200).find(|i| said[*i as usize][0] != set.labels()[*i as usize] && set.labels()[*i as usize] != target);
        let (set, wrong) = (Arc::new(set), wrong.unwrap());
        let job = |images: Vec<u32>| SeekJob { id: 1, set: Arc::clone(&set), images, attack: Some(attack.clone()) };
        let all = seek(&mut engine, job([of_target.clone(), vec![wrong]].concat()));
        assert_eq!(all.last().unwrap().state, SeekState::Found(wrong));
        assert_eq!(all.last().unwrap().tried, of_target.len() + 1);
        assert_eq!(seek(&mut engine, job(of_target)).last().unwrap().state, SeekState::Exhausted);
        assert_eq!(seek(&mut engine, job(Vec::new())).last().unwrap().state, SeekState::Exhausted);
        let [Sought { state: SeekState::Failed(failure), .. }] = &seek(&mut engine, job(vec![1_000_000]))[..] else {
            panic!("there is no such image")
        };
        assert!(failure.doing == SEEKING && failure.what.contains("there is no image 1000000"), "{failure:?}");
    }
}
