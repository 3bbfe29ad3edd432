//! The logits of the probe images, with which a program that loads a checkpoint can check that it computes the same.

use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::{BatchNormMode, Engine, EngineError, Input};
use crate::model::{Network, PROBE_IMAGES, State, probe_images, probe_text};

/// The text of [`PROBE_LOGITS`](crate::model::PROBE_LOGITS) for these weights, with batch norm in eval mode.
///
/// Opens an engine of its own on the CPU: the engine of a run compiles no kernels for it, and the bits do not depend on
/// the GPU.
///
/// # Errors
/// If the weights do not fit the network, or if the logits are not finite.
pub fn probe_logits(network: &Network, state: &State) -> Result<String, EngineError> {
    let mut engine = CandleEngine::new(network.clone(), state, CandleDevice::Cpu)?;
    let images = probe_images(network.input);
    let logits = engine.logits(&Input::Images(&images, &[0; PROBE_IMAGES]), BatchNormMode::Eval)?;
    Ok(probe_text(&logits, network.classes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;
    use crate::model::Architecture;

    #[test]
    fn one_row_of_logits_for_each_image() {
        let network = Architecture::SmallCnn.build(ImageShape::new(3, 8, 8), 7, Some((&[0.5; 3], &[0.25; 3])), Some(4));
        let mut state = State::initialise(&network, 3);
        let text = probe_logits(&network, &state).unwrap();
        let rows: Vec<Vec<f32>> = serde_json::from_str(&text).unwrap();
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [7; PROBE_IMAGES]);
        assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "{text}");
        assert_eq!(text, probe_logits(&network, &state).unwrap());
        if let Some(bias) = state.0.get_mut("linear.bias") {
            bias.data.fill(f32::MAX);
            bias.data[0] = f32::NAN;
        }
        assert!(probe_logits(&network, &state).is_err());
    }
}
