//! Finds the layer whose output is not finite.

use super::WgslEngine;
use crate::engine::wgsl::program::Fixed;
use crate::engine::wgsl::programs::Key;
use crate::engine::{BatchNormMode, EngineError};

/// The name that is reported if the outputs of all layers are finite.
pub(super) const LOGITS: &str = "logits";
/// The name that is reported if the logits are finite but the gradient is not.
pub(super) const GRADIENT: &str = "gradient with respect to the images";

impl WgslEngine {
    /// Runs the forward pass over the network's input again, layer by layer, and names the first layer whose output is
    /// not finite. Preserves the running statistics.
    pub(super) fn not_finite(&mut self, images: usize, mode: BatchNormMode) -> EngineError {
        match self.find_not_finite(images, mode) {
            Ok(what) => EngineError::NotFinite { what, batch: images },
            Err(error) => error,
        }
    }

    pub(super) fn find_not_finite(&mut self, images: usize, mode: BatchNormMode) -> Result<String, EngineError> {
        let shape = self.network.input;
        if !self.read_named(images, Fixed::Input, shape)?.iter().all(|v| v.is_finite()) {
            return Ok("images".into());
        }
        let key = Key::Layers(mode);
        self.ensure(images, &key)?;
        let running = match self.buffers.get(&Fixed::Running) {
            Some(buffer) => Some((buffer.clone(), self.gpu.read(&[(buffer, 0, self.parameters.running)])?.remove(0))),
            None => None,
        };
        let mut from = 0;
        let mut found = LOGITS.to_owned();
        for output in 0..self.network.layers.len() {
            let outputs = self.sets.last().and_then(|set| set.programs.get(&key)).map(|r| &r.outputs);
            let Some((layer, to, _)) = outputs.and_then(|o| o.get(output)).map(|(l, t, s)| (*l, *t, s.len())) else {
                break;
            };
            self.replay_part(images, &key, from, to)?;
            self.pacer.finish(&self.gpu)?;
            from = to;
            let Some(recorded) = self.sets.last().and_then(|set| set.programs.get(&key)) else { break };
            let ranges: Vec<_> = recorded.outputs[output].2.iter().map(|slice| recorded.range(*slice)).collect();
            let finite = |bytes: &Vec<u8>| bytemuck::pod_collect_to_vec::<u8, f32>(bytes).iter().all(|v| v.is_finite());
            if !self.gpu.read(&ranges)?.iter().all(finite) {
                found = format!("output of layer '{}'", self.network.layers[layer].name);
                break;
            }
        }
        if let Some((buffer, bytes)) = running {
            self.gpu.queue.write_buffer(&buffer, 0, &bytes);
        }
        Ok(found)
    }
}
