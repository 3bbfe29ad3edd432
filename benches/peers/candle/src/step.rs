//! One FAIR-TAT step: targeted PGD in train mode, one SGD update, class statistics.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use candle_nn::{VarBuilder, VarMap};

use crate::networks::{Architecture, Network};

pub const CLASSES: usize = 10;
pub const STEP_SIZE: f64 = 2.0 / 255.0;
const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;

/// A network, its optimiser and a batch of random images.
pub struct Step {
    device: Device,
    pub network: Network,
    /// Every parameter with its momentum buffer.
    parameters: Vec<(Var, Option<Tensor>)>,
    learning_rate: f64,
    pub image: Tensor,
    pub epsilon: Tensor,
    pub label: Tensor,
    labels: Vec<u32>,
    pub target: Tensor,
    /// Rows: labels; columns: predictions.
    pub confusion: Vec<u64>,
}

impl Step {
    pub fn new(
        architecture: Architecture,
        width: usize,
        batch: usize,
        learning_rate: f64,
        device: &Device,
    ) -> Result<Self> {
        let variables = VarMap::new();
        let network = architecture.build(width, CLASSES, &VarBuilder::from_varmap(&variables, DType::F32, device))?;
        let running = |name: &String| name.ends_with("running_mean") || name.ends_with("running_var");
        let parameters: Vec<_> = match variables.data().lock() {
            Ok(named) => named.iter().filter(|(name, _)| !running(name)).map(|(_, var)| (var.clone(), None)).collect(),
            Err(_) => anyhow::bail!("building the network failed halfway"),
        };
        let mut random = Random(1);
        let [channels, rows, columns] = architecture.image();
        let pixels: Vec<f32> =
            (0..batch * channels * rows * columns).map(|_| random.below(256) as f32 / 255.0).collect();
        let classes = CLASSES as u32;
        let labels: Vec<u32> = (0..batch).map(|_| random.below(classes)).collect();
        let targets: Vec<u32> = labels.iter().map(|label| (label + 1 + random.below(classes - 1)) % classes).collect();
        let last = (batch - 1).max(1) as f32;
        let epsilons: Vec<f32> = (0..batch).map(|i| (4.0 + 8.0 * i as f32 / last) / 255.0).collect();
        Ok(Self {
            network,
            parameters,
            learning_rate,
            image: Tensor::from_vec(pixels, (batch, channels, rows, columns), device)?,
            epsilon: Tensor::from_vec(epsilons, (batch, 1, 1, 1), device)?,
            label: Tensor::from_vec(labels.clone(), batch, device)?,
            target: Tensor::from_vec(targets, batch, device)?,
            labels,
            confusion: vec![0; CLASSES * CLASSES],
            device: device.clone(),
        })
    }

    /// Waits until the device has finished all work.
    pub fn synchronise(&self) -> Result<()> {
        Ok(self.device.synchronize()?)
    }

    /// Loss of `class` and its gradient with respect to the images.
    pub fn image_gradient(&self, image: &Tensor, class: &Tensor) -> Result<(Tensor, Tensor)> {
        let image = Var::from_tensor(image)?;
        let loss = cross_entropy(&self.network.forward(&image)?, class)?;
        let gradient = loss.backward()?.remove(&image).context("Candle returned no gradient of the images")?;
        Ok((loss, gradient))
    }

    /// Adversarial images after `steps` steps towards the targets, from a uniform start.
    pub fn perturb(&self, steps: u32) -> Result<Tensor> {
        let low = self.image.broadcast_sub(&self.epsilon)?.maximum(0.0)?;
        let high = self.image.broadcast_add(&self.epsilon)?.minimum(1.0)?;
        let noise = self.image.rand_like(-1.0, 1.0)?;
        let start = (noise.broadcast_mul(&self.epsilon)? + &self.image)?;
        let mut adversarial = start.maximum(&low)?.minimum(&high)?;
        for _ in 0..steps {
            let (_, gradient) = self.image_gradient(&adversarial, &self.target)?;
            let moved = (adversarial - (gradient.sign()? * STEP_SIZE)?)?;
            adversarial = moved.maximum(&low)?.minimum(&high)?.detach();
        }
        Ok(adversarial)
    }

    /// One SGD update on the adversarial images; returns the logits and the loss.
    pub fn update(&mut self, adversarial: &Tensor) -> Result<(Tensor, Tensor)> {
        let logits = self.network.forward(adversarial)?;
        let loss = cross_entropy(&logits, &self.label)?;
        let gradients = loss.backward()?;
        for (parameter, velocity) in &mut self.parameters {
            let gradient = gradients.get(parameter).context("Candle returned no gradient of a parameter")?;
            let gradient = (gradient + (parameter.as_detached_tensor() * WEIGHT_DECAY)?)?;
            let moved = match velocity.take() {
                Some(velocity) => ((velocity * MOMENTUM)? + gradient)?,
                None => gradient,
            };
            parameter.set(&(parameter.as_detached_tensor() - (&moved * self.learning_rate)?)?)?;
            *velocity = Some(moved.detach());
        }
        Ok((logits.detach(), loss.detach()))
    }

    /// Reads the predictions back and adds them to the confusion matrix.
    pub fn count(&mut self, logits: &Tensor) -> Result<()> {
        let predictions = logits.argmax(1)?.to_vec1::<u32>()?;
        for (&label, prediction) in self.labels.iter().zip(predictions) {
            self.confusion[label as usize * CLASSES + prediction as usize] += 1;
        }
        Ok(())
    }
}

/// Multiplicative congruential generator (Park and Miller, 1988).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0 * 48271 % 0x7fff_ffff;
        (self.0 * u64::from(end) / 0x7fff_ffff) as u32
    }
}
