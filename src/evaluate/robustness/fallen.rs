//! A few adversarial images of an attack.

use super::run::attack_images;
use super::{Evaluation, Row};
use crate::attack::AttackError;
use crate::data::Dataset;
use crate::engine::{Engine, EngineError};

/// An image that an attack has turned into one that is misclassified.
#[derive(Debug, Clone, PartialEq)]
pub struct Fallen {
    /// Its number in the set.
    pub number: usize,
    /// Its class, which was also the prediction before the attack.
    pub label: u32,
    /// The prediction after the attack.
    pub prediction: u32,
    /// The image, `C × H × W` in `[0, 1]`.
    pub clean: Vec<f32>,
    /// The same after the attack.
    pub adversarial: Vec<f32>,
}

/// Attacks at most `most` of the images that fell to a row's attack again, of as many classes as possible, and returns
/// those. An attack's effect on an image depends on that image alone, up to rounding. `tick` stops the work by returning
/// `false`; the result is empty then.
///
/// # Errors
/// If the engine fails.
pub fn fallen(
    engine: &mut dyn Engine,
    set: &Dataset,
    evaluation: &Evaluation,
    row: &Row,
    most: usize,
    tick: &mut dyn FnMut(f64) -> bool,
) -> Result<Vec<Fallen>, EngineError> {
    let numbers = spread(&evaluation.fallen(row), set.labels(), most);
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let found = match attack_images(engine, set, &row.entry.attack, &numbers, true, tick) {
        Ok(found) => found,
        Err(AttackError::Stopped) => return Ok(Vec::new()),
        Err(AttackError::Engine(error)) => return Err(error),
    };
    let len = set.shape().len();
    let images = found.images.unwrap_or_default();
    let each = numbers.iter().zip(&found.predictions).zip(images.chunks(len));
    let fell = each.filter(|((number, prediction), _)| set.labels()[**number] != **prediction);
    Ok(fell
        .map(|((number, prediction), adversarial)| Fallen {
            number: *number,
            label: set.labels()[*number],
            prediction: *prediction,
            clean: set.image(*number).iter().map(|v| f32::from(*v) / 255.0).collect(),
            adversarial: adversarial.to_vec(),
        })
        .collect())
}

/// At most `most` of these images: the first of each class, then the second, and so on.
fn spread(numbers: &[usize], labels: &[u32], most: usize) -> Vec<usize> {
    let mut seen = std::collections::HashMap::new();
    let mut ranked: Vec<(usize, usize)> = numbers
        .iter()
        .map(|number| {
            let rank: &mut usize = seen.entry(labels[*number]).or_default();
            *rank += 1;
            (*rank, *number)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(most).map(|(_, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_are_of_as_many_classes_as_possible() {
        let labels = [0, 0, 0, 1, 1, 2];
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5], &labels, 4), [0, 3, 5, 1]);
        assert_eq!(spread(&[1, 4], &labels, 4), [1, 4]);
    }
}
