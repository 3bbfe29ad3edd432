//! The picture of an empty window: a small network is trained when the window opens, and attacked before the user's eyes.
//!
//! Softmax regression, `p = softmax(W x + b)`, from zero by full-batch gradient descent on the cross-entropy. The attack is
//! PGD in the L∞ norm, `x ← clip(x + α sign(∇ₓ loss))` to pixels from 0 to 1, without a random start. For this network
//! `∇ₓ loss = Wᵀ (p − y)`.

use crate::data::{Dataset, ImageShape, digits};

/// Training images: few, so that the picture is there within a moment.
pub(super) const TRAINED_ON: usize = 500;
const EPOCHS: usize = 80;
const LEARNING_RATE: f32 = 0.5;
const CLASSES: usize = 10;
/// Step size of the attack, in levels of 255.
pub(super) const STEP: f32 = 6.0;
/// Steps after which an image counts as resistant.
const STEPS: usize = 16;
/// The attack goes on until the network is this sure of another class.
const SURE: f32 = 0.6;
/// Number of attacks that are shown in turn.
const STORIES: usize = 8;

/// An attack on one image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Story {
    /// The true class.
    pub(super) label: usize,
    /// The image and what the network says of it, before the attack and after each step.
    pub(super) steps: Vec<Step>,
}

/// An image, in `[0, 1]`, and the probability of each class.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) image: Vec<f32>,
    pub(super) probabilities: [f32; CLASSES],
}

impl Step {
    /// The most likely class.
    pub(super) fn prediction(&self) -> usize {
        (0..CLASSES)
            .fold(0, |best, class| if self.probabilities[class] > self.probabilities[best] { class } else { best })
    }
}

/// The shape of the images.
pub(super) const SHAPE: ImageShape = ImageShape::new(1, 8, 8);

/// Trains the network and attacks test images of different classes that it recognises, until it is fooled; empty if the
/// images cannot be read.
pub(super) fn stories() -> Vec<Story> {
    let Ok(data) = digits() else { return Vec::new() };
    let network = Network::fit(&data.train);
    let mut stories: Vec<Story> = Vec::new();
    for index in 0..data.test.len() {
        let (label, image) = (data.test.labels()[index] as usize, pixels(&data.test, index));
        if stories.len() == STORIES {
            break;
        }
        if !stories.iter().any(|story| story.label == label)
            && let Some(steps) = network.attack(image, label)
        {
            stories.push(Story { label, steps });
        }
    }
    stories
}

fn pixels(set: &Dataset, index: usize) -> Vec<f32> {
    set.image(index).iter().map(|byte| f32::from(*byte) / 255.0).collect()
}

struct Network {
    /// `[classes, pixels]`.
    weights: Vec<Vec<f32>>,
    biases: [f32; CLASSES],
}

impl Network {
    fn fit(set: &Dataset) -> Self {
        let mut network = Self { weights: vec![vec![0.0; SHAPE.len()]; CLASSES], biases: [0.0; CLASSES] };
        let images: Vec<(Vec<f32>, usize)> =
            (0..set.len().min(TRAINED_ON)).map(|i| (pixels(set, i), set.labels()[i] as usize)).collect();
        let rate = LEARNING_RATE / images.len().max(1) as f32;
        for _ in 0..EPOCHS {
            let mut weights = vec![vec![0.0; SHAPE.len()]; CLASSES];
            let mut biases = [0.0; CLASSES];
            for (image, label) in &images {
                let probabilities = network.probabilities(image);
                for (class, probability) in probabilities.iter().enumerate() {
                    let error = probability - f32::from(u8::from(class == *label));
                    weights[class].iter_mut().zip(image).for_each(|(sum, pixel)| *sum += error * pixel);
                    biases[class] += error;
                }
            }
            for (class, gradient) in weights.iter().enumerate() {
                network.weights[class].iter_mut().zip(gradient).for_each(|(weight, sum)| *weight -= rate * sum);
                network.biases[class] -= rate * biases[class];
            }
        }
        network
    }

    fn probabilities(&self, image: &[f32]) -> [f32; CLASSES] {
        let mut values = self.biases;
        for (value, weights) in values.iter_mut().zip(&self.weights) {
            *value += weights.iter().zip(image).map(|(weight, pixel)| weight * pixel).sum::<f32>();
        }
        let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        values.iter_mut().for_each(|value| *value = (*value - largest).exp());
        let sum: f32 = values.iter().sum();
        values.map(|value| value / sum)
    }

    /// Derivative of the cross-entropy of `label` by pixel `i`, at an image with these probabilities.
    fn slope(&self, i: usize, probabilities: &[f32; CLASSES], label: usize) -> f32 {
        let error = |class: usize| probabilities[class] - f32::from(u8::from(class == label));
        (0..CLASSES).map(|class| self.weights[class][i] * error(class)).sum()
    }

    /// The image and all steps; `None` if the network is wrong at the start, or is not fooled.
    fn attack(&self, image: Vec<f32>, label: usize) -> Option<Vec<Step>> {
        let probabilities = self.probabilities(&image);
        let mut steps = vec![Step { image, probabilities }];
        if steps[0].prediction() != label {
            return None;
        }
        for _ in 0..STEPS {
            let last = steps.last()?;
            let mut image = last.image.clone();
            for (i, pixel) in image.iter_mut().enumerate() {
                let slope = self.slope(i, &last.probabilities, label);
                if slope != 0.0 {
                    *pixel = (*pixel + slope.signum() * STEP / 255.0).clamp(0.0, 1.0);
                }
            }
            let step = Step { probabilities: self.probabilities(&image), image };
            let fooled = step.prediction() != label && step.probabilities[step.prediction()] >= SURE;
            steps.push(step);
            if fooled {
                return Some(steps);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_story_begins_right_ends_wrong_and_keeps_within_its_ball() {
        let stories = stories();
        assert!(stories.len() >= 5, "{} stories", stories.len());
        for story in &stories {
            let (first, last) = (&story.steps[0], story.steps.last().unwrap());
            assert_eq!(first.prediction(), story.label);
            assert_ne!(last.prediction(), story.label);
            assert!(last.probabilities[last.prediction()] >= SURE);
            for (count, step) in story.steps.iter().enumerate() {
                assert!((step.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-4);
                let radius = count as f32 * STEP / 255.0 + 1e-5;
                let inside = |(x, clean): (&f32, &f32)| (0.0..=1.0).contains(x) && (x - clean).abs() <= radius;
                assert!(step.image.iter().zip(&first.image).all(inside));
            }
        }
        assert_eq!(stories, super::stories(), "the same at every start");
    }

    /// The gradient that the attack follows, against finite differences.
    #[test]
    fn the_attack_follows_the_gradient_and_raises_the_loss() {
        let network = Network::fit(&digits().unwrap().train);
        let set = digits().unwrap().test;
        let (image, label) = (pixels(&set, 0), set.labels()[0] as usize);
        let loss = |image: &[f32]| -f64::from(network.probabilities(image)[label]).ln();
        let probabilities = network.probabilities(&image);
        for i in [10, 27, 36, 51] {
            let slope = network.slope(i, &probabilities, label);
            let (mut up, mut down) = (image.clone(), image.clone());
            up[i] += 1e-2;
            down[i] -= 1e-2;
            let found = (loss(&up) - loss(&down)) / 2e-2;
            assert!((found - f64::from(slope)).abs() < 2e-2 * found.abs().max(0.1), "{found} {slope}");
        }
        for story in stories() {
            let losses = story.steps.iter().map(|step| -step.probabilities[story.label].ln());
            assert!(losses.is_sorted(), "{}", story.label);
        }
    }
}
