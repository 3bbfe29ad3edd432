//! Normalisation of the head: one norm for all rows of the last linear layer, without training.
//!
//! The head computes the logits `z = x · Wᵀ + b` of features `x` (`[B, D]`) with a weight `W` (`[K, D]`, a row for each
//! class) and a bias `b` (`[K]`). With the row norms `n_k = ‖W_k‖₂` and their mean `m`:
//!
//! `W_k ← m / n_k · W_k`, `b_k ← m / n_k · b_k`
//!
//! The rows keep their directions, and the logit of class `k` is multiplied by `m / n_k`. Classes with a short row gain,
//! classes with a long row lose.
//!
//! Source: public notes on a submission to ICLR 2026 about class-wise disparity. According to them, the row norms
//! correlate with the robustness of the classes.

use super::network::{Layer, Network, Op};
use super::state::{Array, ModelError, State};

/// The row norms of a head, and the norm that [`normalize_head`] gave to its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadNorms {
    /// Name of the layer, such as `linear`.
    pub layer: String,
    /// Euclidean norm of each row before, `[K]`.
    pub before: Vec<f64>,
    /// Mean of those norms that are not 0: the norm of these rows afterwards.
    pub mean: f64,
}

impl HeadNorms {
    /// Classes whose row is 0. It has no direction, so the row and its bias entry did not change.
    pub fn zero_rows(&self) -> Vec<usize> {
        (0..self.before.len()).filter(|k| self.before[*k] == 0.0).collect()
    }
}

/// Divides each row of the last linear layer and its bias entry by the Euclidean norm of the row, and multiplies them
/// by the mean norm. Rows that are 0 stay as they are and do not count in the mean. No other array changes.
///
/// The number of classes is taken from `state`; `network` gives the name of the layer and its number of features.
///
/// ```
/// use fairtat::data::ImageShape;
/// use fairtat::model::{Architecture, State, normalize_head};
///
/// let network = Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), 10, None, None);
/// let mut state = State::initialise(&network, 0);
/// let norms = normalize_head(&mut state, &network)?;
/// let row = &state.0["linear.weight"].data[..64];
/// let norm = row.iter().map(|w| w * w).sum::<f32>().sqrt();
/// assert!((f64::from(norm) - norms.mean).abs() < 1e-6);
/// # Ok::<_, fairtat::model::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::Layers`] if the last layer of `network` is not linear. [`ModelError::Mismatch`] if `state` does not
/// hold its arrays in the expected shapes, if they hold NaN or infinity before or after, or if all rows are 0. `state`
/// is then unchanged.
pub fn normalize_head(state: &mut State, network: &Network) -> Result<HeadNorms, ModelError> {
    let architecture = || network.architecture.clone();
    let fail = |what| ModelError::Mismatch { architecture: architecture(), what };
    let (layer, features) = match network.layers.last() {
        Some(Layer { name, op: Op::Linear { in_features, .. }, .. }) => (name.clone(), *in_features),
        Some(Layer { name, op, .. }) => {
            let what = format!("the last layer, '{name}', is {op:?}, expected a linear layer whose rows have norms");
            return Err(ModelError::Layers { architecture: architecture(), what });
        }
        None => return Err(ModelError::Layers { architecture: architecture(), what: "it has no layers".into() }),
    };
    let (weight_name, bias_name) = (format!("{layer}.weight"), format!("{layer}.bias"));
    let get = |name: &str| state.0.get(name).ok_or_else(|| fail(format!("'{name}' is missing")));
    let (weight, bias) = (get(&weight_name)?, get(&bias_name)?);
    let classes = match weight.shape[..] {
        [classes, columns] if classes > 0 && columns == features => classes,
        _ => return Err(fail(format!("'{weight_name}' has shape {:?}, expected [K, {features}]", weight.shape))),
    };
    if bias.shape != [classes] {
        return Err(fail(format!("'{bias_name}' has shape {:?}, expected [{classes}]", bias.shape)));
    }
    for (name, array) in [(&weight_name, weight), (&bias_name, bias)] {
        if !is_finite(array) {
            return Err(fail(format!("'{name}' holds values that are not finite")));
        }
    }

    let before: Vec<f64> = weight.data.chunks(features).map(norm).collect();
    let (sum, rows) = before.iter().filter(|norm| **norm > 0.0).fold((0.0, 0), |(sum, n), norm| (sum + norm, n + 1));
    if rows == 0 {
        return Err(fail(format!("all rows of '{weight_name}' are 0, so there is no norm to give to them")));
    }
    let mean = sum / f64::from(rows);
    let (mut new_weight, mut new_bias) = (weight.clone(), bias.clone());
    let parts = new_weight.data.chunks_mut(features).zip(&mut new_bias.data);
    for ((row, bias), norm) in parts.zip(&before).filter(|(_, norm)| **norm > 0.0) {
        for value in row.iter_mut().chain([bias]) {
            *value = (f64::from(*value) / norm * mean) as f32;
        }
    }
    for (name, array) in [(&weight_name, &new_weight), (&bias_name, &new_bias)] {
        if !is_finite(array) {
            return Err(fail(format!("'{name}' would hold values that are not finite, because a row is nearly 0")));
        }
    }
    state.0.insert(weight_name, new_weight);
    state.0.insert(bias_name, new_bias);
    Ok(HeadNorms { layer, before, mean })
}

fn is_finite(array: &Array) -> bool {
    array.data.iter().all(|value| value.is_finite())
}

/// Euclidean norm.
fn norm(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::Architecture;
    use super::*;
    use crate::data::ImageShape;

    const FEATURES: usize = 16;

    fn network(classes: usize) -> Network {
        Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), classes, None, Some(4))
    }

    /// Random weights with rows of very different norms.
    fn state(classes: usize) -> State {
        let mut state = State::initialise(&network(classes), 5);
        let weight = &mut state.0.get_mut("linear.weight").unwrap().data;
        for (k, row) in weight.chunks_mut(FEATURES).enumerate() {
            row.iter_mut().for_each(|value| *value *= (k + 1) as f32);
        }
        state
    }

    fn rows(state: &State) -> Vec<Vec<f32>> {
        state.0["linear.weight"].data.chunks(FEATURES).map(<[f32]>::to_vec).collect()
    }

    fn logits(state: &State, x: &[f32]) -> Vec<f64> {
        let dot = |row: &Vec<f32>| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        rows(state).iter().zip(&state.0["linear.bias"].data).map(|(row, b)| dot(row) + f64::from(*b)).collect()
    }

    #[test]
    fn all_norms_become_the_mean_and_all_directions_stay() {
        for classes in [2, 10, 100] {
            let old = state(classes);
            let mut new = old.clone();
            let norms = normalize_head(&mut new, &network(classes)).unwrap();
            assert_eq!((norms.layer.as_str(), norms.before.len()), ("linear", classes));
            let mean = norms.before.iter().sum::<f64>() / classes as f64;
            assert!((norms.mean / mean - 1.0).abs() < 1e-12 && norms.zero_rows().is_empty());
            for ((old, new), before) in rows(&old).iter().zip(rows(&new)).zip(&norms.before) {
                assert!((norm(&new) / mean - 1.0).abs() < 1e-6);
                for (old, new) in old.iter().zip(&new) {
                    assert!((f64::from(*old) / before - f64::from(*new) / mean).abs() < 1e-6);
                }
            }
            let others = |state: &State| {
                let mut state = state.clone();
                state.0.retain(|name, _| !name.starts_with("linear"));
                state
            };
            assert_eq!(others(&new), others(&old));
            new.check(&network(classes)).unwrap();
        }
    }

    #[test]
    fn each_logit_is_multiplied_by_a_constant_of_its_class() {
        let old = state(7);
        let mut new = old.clone();
        let norms = normalize_head(&mut new, &network(7)).unwrap();
        for seed in 0..5 {
            let mut x = [0.0; FEATURES];
            crate::rng::Stream::new(seed, crate::rng::Purpose::Test, 0, 0).fill_symmetric(&mut x);
            for ((old, new), before) in logits(&old, &x).iter().zip(logits(&new, &x)).zip(&norms.before) {
                assert!((old * norms.mean / before - new).abs() < 1e-5, "{old} {new}");
            }
        }
    }

    #[test]
    fn the_values_are_those_computed_by_hand() {
        let mut network = network(3);
        network.layers.last_mut().unwrap().op = Op::Linear { in_features: 2, out_features: 3 };
        let array = |shape: &[usize], data: &[f32]| Array { shape: shape.to_vec(), data: data.to_vec() };
        let mut state = State::default();
        // Norms 5, 0 and 1: the mean of those above 0 is 3.
        state.0.insert("linear.weight".into(), array(&[3, 2], &[3.0, -4.0, 0.0, 0.0, 0.0, 1.0]));
        state.0.insert("linear.bias".into(), array(&[3], &[10.0, 7.0, -2.0]));
        let norms = normalize_head(&mut state, &network).unwrap();
        assert_eq!((&norms.before[..], norms.mean, norms.zero_rows()), (&[5.0, 0.0, 1.0][..], 3.0, vec![1]));
        let close = |found: &[f32], expected: &[f32]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(&state.0["linear.weight"].data, &[1.8, -2.4, 0.0, 0.0, 0.0, 3.0]), "{state:?}");
        assert!(close(&state.0["linear.bias"].data, &[6.0, 7.0, -6.0]), "{state:?}");
    }

    #[test]
    fn heads_that_cannot_be_normalised_are_refused_and_stay_as_they_are() {
        type Change = fn(&mut State);
        fn array<'a>(state: &'a mut State, name: &str) -> &'a mut Array {
            state.0.get_mut(name).unwrap()
        }
        let changes: [(Change, &str); 9] = [
            (|s| drop(s.0.remove("linear.weight")), "'linear.weight' is missing"),
            (|s| drop(s.0.remove("linear.bias")), "'linear.bias' is missing"),
            (|s| array(s, "linear.weight").shape = vec![64], "'linear.weight' has shape [64], expected [K, 16]"),
            (|s| array(s, "linear.weight").shape = vec![8, 8], "'linear.weight' has shape [8, 8], expected [K, 16]"),
            (|s| array(s, "linear.bias").shape = vec![2, 2], "'linear.bias' has shape [2, 2], expected [4]"),
            (|s| array(s, "linear.weight").data[20] = f32::NAN, "'linear.weight' holds values that are not finite"),
            (|s| array(s, "linear.bias").data[1] = f32::INFINITY, "'linear.bias' holds values that are not finite"),
            (|s| array(s, "linear.weight").data.fill(0.0), "all rows of 'linear.weight' are 0"),
            (
                |s| {
                    array(s, "linear.weight").data[..FEATURES].fill(1e-44);
                    array(s, "linear.bias").data[0] = 1.0;
                },
                "'linear.bias' would hold values that are not finite",
            ),
        ];
        for (change, expected) in changes {
            let mut state = state(4);
            change(&mut state);
            let before = format!("{state:?}");
            let error = normalize_head(&mut state, &network(4)).unwrap_err();
            assert!(matches!(error, ModelError::Mismatch { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}: expected '{expected}'");
            // As text, because NaN does not equal itself.
            assert_eq!(format!("{state:?}"), before);
        }
    }

    #[test]
    fn a_network_without_a_linear_head_is_refused() {
        let mut network = network(4);
        network.layers.pop();
        let error = normalize_head(&mut state(4), &network).unwrap_err();
        assert!(matches!(error, ModelError::Layers { .. }), "{error}");
        let expected = "the last layer, 'pool', is GlobalAvgPool, expected a linear layer";
        assert!(error.to_string().contains(expected), "{error}");
        network.layers.clear();
        assert!(normalize_head(&mut state(4), &network).unwrap_err().to_string().contains("no layers"));
    }

    #[test]
    fn every_architecture_has_a_head() {
        for architecture in Architecture::ALL {
            let network = architecture.build(ImageShape::new(3, 8, 8), 6, None, Some(8));
            let mut state = State::initialise(&network, 1);
            let norms = normalize_head(&mut state, &network).unwrap();
            assert_eq!(norms.before.len(), 6, "{architecture}");
            state.check(&network).unwrap();
            // The number of classes is that of the state.
            let other = architecture.build(ImageShape::new(1, 1, 1), 1, None, Some(8));
            assert_eq!(normalize_head(&mut state, &other).unwrap().before.len(), 6, "{architecture}");
        }
    }
}
