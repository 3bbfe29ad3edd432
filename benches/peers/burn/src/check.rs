//! `--check`: compares burn's logits and image gradient with a small network in f64, then tests that training works.

use anyhow::{Result, ensure};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};

use crate::networks::{Architecture, NORMALISATION, Network, PlainCnn};
use crate::step::{CLASSES, Step, cross_entropy};

/// The network that is checked.
const CHECKED: Architecture = Architecture::SmallCnn;

pub fn check(device: &Device, name: &str) -> Result<()> {
    let mut step = Step::new(CHECKED, 4, 4, 0.1, device);
    let frozen = step.frozen()?;
    let Network::Plain(network) = &frozen else { anyhow::bail!("the checked network is not a plain one") };
    let reference = Reference::new(network)?;
    let image = values(step.image())?;
    let classes = |tensor: &Tensor<1, Int>| -> Result<Vec<usize>> {
        let classes = tensor.clone().try_into_vec_as::<i32>()?;
        Ok(classes.into_iter().map(|class| class as usize).collect())
    };
    let target = classes(step.target())?;

    let found = values(frozen.forward(step.image().autodiff()).without_autodiff())?;
    let wanted = reference.logits(&image);
    let apart = found.iter().zip(&wanted).map(|(f, w)| (f - w).abs()).fold(0.0, f64::max);
    ensure!(apart < 1e-4, "logits: expected those of the network in f64 to 1e-4, found a difference of {apart:e}");

    let gradient = step.image_gradient(&frozen, step.image(), step.target())?;
    let found = values(gradient)?;
    let largest = found.iter().fold(0.0, |a: f64, g| a.max(g.abs()));
    let mut gradient_apart: f64 = 0.0;
    for pixel in (0..image.len()).step_by(71) {
        let change = 1e-6;
        let [up, down] = [change, -change].map(|change| {
            let mut moved = image.clone();
            moved[pixel] += change;
            loss(&reference.logits(&moved), &target)
        });
        gradient_apart = gradient_apart.max((found[pixel] - (up - down) / (2.0 * change)).abs());
    }
    ensure!(
        gradient_apart < 1e-3 * largest,
        "gradient of the images: expected finite differences to {:e}, found a difference of {gradient_apart:e}",
        1e-3 * largest
    );

    let input = step.image().autodiff().require_grad();
    let backward = cross_entropy(frozen.forward(input), step.target()).backward();
    let wanted = GradientsParams::from_grads(backward, &frozen).len();
    ensure!(wanted == 0, "the attack: expected no gradient of a parameter, found {wanted}");

    let adversarial = step.perturb(10)?;
    let epsilon = step.epsilon();
    let moved = values(adversarial.clone())?;
    let each = image.len() / epsilon.len();
    for (i, (a, x)) in moved.iter().zip(&image).enumerate() {
        ensure!(
            (a - x).abs() <= f64::from(epsilon[i / each]) + 1e-6,
            "pixel {i}: moved by {}, further than epsilon",
            (a - x).abs()
        );
        ensure!((0.0..=1.0).contains(a), "pixel {i}: expected a value from 0 to 1, found {a}");
    }
    let clean = loss(&reference.logits(&image), &target);
    let attacked = loss(&reference.logits(&moved), &target);
    ensure!(attacked < clean, "the attack: expected a loss of the targets below {clean}, found {attacked}");
    let labels = classes(step.label())?;
    let (before, after) = (loss(&reference.logits(&image), &labels), loss(&reference.logits(&moved), &labels));

    let mut losses = Vec::new();
    for _ in 0..20 {
        let adversarial = step.perturb(3)?;
        let (logits, loss) = step.update(adversarial)?;
        step.count(logits)?;
        losses.push(loss.into_scalar::<f32>());
    }
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    ensure!(last < 0.8 * first, "training: expected the robust loss to fall below 0.8 × {first}, found {last}");
    let counted: u64 = step.confusion.iter().sum();
    ensure!(counted == 20 * 4, "class statistics: expected 80 images counted, found {counted}");

    println!("checked on {name}");
    println!("logits within {apart:.1e} and image gradient within {gradient_apart:.1e} (largest {largest:.1e}) of f64");
    println!("targeted PGD-10: target loss {clean:.3} to {attacked:.3}, label loss {before:.3} to {after:.3}");
    println!("20 steps on one batch: robust loss {first:.3} to {last:.3}; no parameter gradient in the attack");
    Ok(())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f64>> {
    Ok(tensor.try_into_vec_as::<f64>()?)
}

fn loss(logits: &[f64], classes: &[usize]) -> f64 {
    let each = logits
        .chunks(CLASSES)
        .zip(classes)
        .map(|(logits, &class)| logits.iter().map(|l| (l - logits[class]).exp()).sum::<f64>().ln());
    each.sum::<f64>() / classes.len() as f64
}

/// The plain network in f64 with batch norm in train mode. Values are in the order batch, channel, row, column.
struct Reference {
    layers: Vec<Layer>,
    head: Vec<f64>,
    bias: Vec<f64>,
}

struct Layer {
    weights: Vec<f64>,
    outputs: usize,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    pool: bool,
}

impl Reference {
    fn new(network: &PlainCnn) -> Result<Self> {
        let plain = |parameter: &burn::module::Param<Tensor<1>>| values(parameter.val().without_autodiff());
        let mut layers = Vec::new();
        for ((convolution, norm), pool) in network.convolutions.iter().zip(&network.norms).zip(network.pools) {
            layers.push(Layer {
                weights: values(convolution.weight.val().without_autodiff())?,
                outputs: convolution.weight.dims()[0],
                gamma: plain(&norm.gamma)?,
                beta: plain(&norm.beta)?,
                pool,
            });
        }
        let bias = network.linear.bias.as_ref().map(plain).transpose()?.unwrap_or(vec![0.0; CLASSES]);
        Ok(Self { layers, head: values(network.linear.weight.val().without_autodiff())?, bias })
    }

    fn logits(&self, image: &[f64]) -> Vec<f64> {
        let (mean, deviation) = NORMALISATION;
        let [mut channels, mut side, _] = CHECKED.image();
        let batch = image.len() / (channels * side * side);
        let mut x: Vec<f64> = image.iter().map(|x| (x - mean) / deviation).collect();
        for layer in &self.layers {
            x = convolve(&x, &layer.weights, channels, layer.outputs, side);
            channels = layer.outputs;
            normalise(&mut x, layer, channels, side * side);
            if layer.pool {
                x = pool(&x, side);
                side /= 2;
            }
        }
        let pixels = side * side;
        let features: Vec<f64> = x.chunks(pixels).map(|plane| plane.iter().sum::<f64>() / pixels as f64).collect();
        (0..batch * CLASSES)
            .map(|i| {
                let (image, class) = (i / CLASSES, i % CLASSES);
                let products = (0..channels).map(|c| features[image * channels + c] * self.head[c * CLASSES + class]);
                self.bias[class] + products.sum::<f64>()
            })
            .collect()
    }
}

/// 3×3 convolution with stride 1 and zero padding of one pixel.
fn convolve(x: &[f64], weights: &[f64], inputs: usize, outputs: usize, side: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for image in x.chunks(inputs * side * side) {
        for output in 0..outputs {
            for (row, column) in (0..side * side).map(|i| (i / side, i % side)) {
                let mut sum = 0.0;
                for (input, i, j) in (0..inputs * 9).map(|i| (i / 9, i % 9 / 3, i % 3)) {
                    let (row, column) = (row + i, column + j);
                    if (1..=side).contains(&row) && (1..=side).contains(&column) {
                        let weight = weights[((output * inputs + input) * 3 + i) * 3 + j];
                        sum += weight * image[(input * side + row - 1) * side + column - 1];
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

/// Batch norm with the batch's own mean and variance, then ReLU.
fn normalise(x: &mut [f64], layer: &Layer, channels: usize, pixels: usize) {
    for channel in 0..channels {
        let indices: Vec<usize> = (0..x.len()).filter(|i| i / pixels % channels == channel).collect();
        let count = indices.len() as f64;
        let mean = indices.iter().map(|&i| x[i]).sum::<f64>() / count;
        let variance = indices.iter().map(|&i| (x[i] - mean).powi(2)).sum::<f64>() / count;
        let scale = layer.gamma[channel] / (variance + 1e-5).sqrt();
        for i in indices {
            x[i] = ((x[i] - mean) * scale + layer.beta[channel]).max(0.0);
        }
    }
}

/// 2×2 max pooling.
fn pool(x: &[f64], side: usize) -> Vec<f64> {
    let half = side / 2;
    let planes = x.chunks(side * side);
    planes
        .flat_map(|plane| {
            (0..half * half).map(move |i| {
                let corner = 2 * (i / half) * side + 2 * (i % half);
                [0, 1, side, side + 1].map(|offset| plane[corner + offset]).into_iter().fold(f64::MIN, f64::max)
            })
        })
        .collect()
}
