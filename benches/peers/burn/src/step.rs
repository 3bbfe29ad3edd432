//! One FAIR-TAT step: targeted PGD in train mode, one SGD update, class statistics.

use anyhow::{Context, Result};
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

use crate::networks::{Architecture, Network};

pub const CLASSES: usize = 10;
pub const STEP_SIZE: f64 = 2.0 / 255.0;

/// A network, its optimiser and a batch of random images.
pub struct Step {
    /// Device of tensors without gradients; the model's tensors are on the same device with autodiff.
    device: Device,
    network: Option<Network>,
    optimiser: ModuleOptimizer,
    learning_rate: f64,
    image: Tensor<4>,
    epsilon: Vec<f32>,
    /// Radius of each pixel's ball.
    radius: Tensor<4>,
    /// Minimum and maximum value of each pixel.
    bounds: [Tensor<4>; 2],
    label: Tensor<1, Int>,
    labels: Vec<i32>,
    target: Tensor<1, Int>,
    /// Rows: labels; columns: predictions.
    pub confusion: Vec<u64>,
}

impl Step {
    pub fn new(architecture: Architecture, width: usize, batch: usize, learning_rate: f64, device: &Device) -> Self {
        let plain = device.clone().without_autodiff();
        let mut random = Random(1);
        let [channels, rows, columns] = architecture.image();
        let pixels: Vec<f32> =
            (0..batch * channels * rows * columns).map(|_| random.below(256) as f32 / 255.0).collect();
        let labels: Vec<i32> = (0..batch).map(|_| random.below(CLASSES as u32) as i32).collect();
        let targets: Vec<i32> =
            labels.iter().map(|label| (label + 1 + random.below(CLASSES as u32 - 1) as i32) % CLASSES as i32).collect();
        let last = (batch - 1).max(1) as f32;
        let epsilon: Vec<f32> = (0..batch).map(|i| (4.0 + 8.0 * i as f32 / last) / 255.0).collect();
        let each = channels * rows * columns;
        let bound = |sign: f32| -> Vec<f32> {
            pixels.iter().enumerate().map(|(i, x)| (x + sign * epsilon[i / each]).clamp(0.0, 1.0)).collect()
        };
        let tensor =
            |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [batch, channels, rows, columns]), &plain);
        let optimiser = SgdConfig::new()
            .with_momentum(Some(MomentumConfig::new().with_momentum(0.9).with_dampening(0.0)))
            .with_weight_decay(Some(WeightDecayConfig::new(5e-4)))
            .init();
        let bounds = [tensor(bound(-1.0)), tensor(bound(1.0))];
        let image = tensor(pixels);
        let network = architecture.build(width, CLASSES, device);
        // Parameters are created on first use. A copy made before that would share its gradient setting with the
        // original.
        let _ = network.forward(image.clone().autodiff());
        Self {
            network: Some(network),
            optimiser,
            learning_rate,
            bounds,
            radius: tensor((0..batch * each).map(|i| epsilon[i / each]).collect()),
            image,
            epsilon,
            label: Tensor::from_data(TensorData::new(labels.clone(), [batch]), &plain),
            target: Tensor::from_data(TensorData::new(targets, [batch]), &plain),
            labels,
            confusion: vec![0; CLASSES * CLASSES],
            device: plain,
        }
    }

    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("an earlier update failed and consumed the network")
    }

    /// Waits until the device has finished all work.
    pub fn synchronise(&self) -> Result<()> {
        self.device.sync().context("the device failed")
    }

    /// Gradient of the mean loss with respect to the images. The network's parameters do not require gradients, so burn
    /// computes none for them.
    pub fn image_gradient(&self, frozen: &Network, image: Tensor<4>, class: &Tensor<1, Int>) -> Result<Tensor<4>> {
        let image = image.autodiff().require_grad();
        let loss = cross_entropy(frozen.forward(image.clone()), class);
        let mut gradients = loss.backward();
        image.grad_remove(&mut gradients).context("burn returned no gradient of the images")
    }

    /// The network without parameter gradients, with batch norm still in train mode.
    pub fn frozen(&self) -> Result<Network> {
        Ok(self.network()?.clone().no_grad())
    }

    /// Adversarial images after `steps` steps towards the targets, from a uniform start.
    pub fn perturb(&self, steps: u32) -> Result<Tensor<4>> {
        let frozen = self.frozen()?;
        let [low, high] = self.bounds.clone();
        let noise = self.image.random_like(Distribution::Uniform(-1.0, 1.0));
        let start = noise * self.radius.clone() + self.image.clone();
        let mut adversarial = start.max_pair(low.clone()).min_pair(high.clone());
        for _ in 0..steps {
            let gradient = self.image_gradient(&frozen, adversarial.clone(), &self.target)?;
            adversarial =
                (adversarial - gradient.sign().mul_scalar(STEP_SIZE)).max_pair(low.clone()).min_pair(high.clone());
        }
        Ok(adversarial)
    }

    /// One SGD update on the adversarial images; returns the logits and the loss.
    pub fn update(&mut self, adversarial: Tensor<4>) -> Result<(Tensor<2>, Tensor<1>)> {
        let network = self.network.take().context("an earlier update failed and consumed the network")?;
        let logits = network.forward(adversarial.autodiff());
        let loss = cross_entropy(logits.clone(), &self.label);
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        self.network = Some(self.optimiser.step(self.learning_rate, network, gradients));
        Ok((logits.without_autodiff(), loss.without_autodiff()))
    }

    /// Reads the predictions back and adds them to the confusion matrix.
    pub fn count(&mut self, logits: Tensor<2>) -> Result<()> {
        let predictions = logits.argmax(1).try_into_vec_as::<i32>().context("cannot read the predictions")?;
        for (&label, prediction) in self.labels.iter().zip(predictions) {
            self.confusion[label as usize * CLASSES + prediction as usize] += 1;
        }
        Ok(())
    }

    pub fn image(&self) -> Tensor<4> {
        self.image.clone()
    }

    /// The radius of each image.
    pub fn epsilon(&self) -> &[f32] {
        &self.epsilon
    }

    pub fn label(&self) -> &Tensor<1, Int> {
        &self.label
    }

    pub fn target(&self) -> &Tensor<1, Int> {
        &self.target
    }
}

pub fn cross_entropy(logits: Tensor<2>, class: &Tensor<1, Int>) -> Tensor<1> {
    CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, class.clone())
}

/// Multiplicative congruential generator (Park and Miller, 1988).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0 * 48271 % 0x7fff_ffff;
        (self.0 * u64::from(end) / 0x7fff_ffff) as u32
    }
}
