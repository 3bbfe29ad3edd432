//! `--check`: compares the image gradient with finite differences, then tests that attack and training work.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use candle_nn::loss::cross_entropy;

use crate::networks::Architecture;
use crate::step::Step;

pub fn check(device: &Device, name: &str) -> Result<()> {
    // ResNet-20 has no max pooling, whose gradient Candle scales.
    let mut step = Step::new(Architecture::ResNet20, 4, 8, 0.1, device)?;
    let (_, gradient) = step.image_gradient(&step.image, &step.target)?;
    // In f32 the difference for a single pixel is lost in rounding; the difference along the gradient is not.
    let length = scalar(&gradient.sqr()?.sum_all()?)?.sqrt();
    let change = 1e-2 / length;
    let [up, down] = [change, -change].map(|change| -> Result<f64> {
        let moved = (&step.image + (&gradient * change)?)?;
        scalar(&cross_entropy(&step.network.forward(&moved)?, &step.target)?)
    });
    let slope = (up? - down?) / (2.0 * change) / length;
    ensure!(
        (slope - length).abs() < 0.02 * length,
        "gradient of the images: expected a slope of {length} along it, found {slope}"
    );

    let adversarial = step.perturb(10)?;
    let moved = (&adversarial - &step.image)?.abs()?;
    let beyond = scalar(&moved.broadcast_sub(&step.epsilon)?.max_all()?)?;
    ensure!(beyond < 1e-6, "the attack: expected no pixel further than epsilon, found {beyond} beyond");
    let (least, most) = (scalar(&adversarial.min_all()?)?, scalar(&adversarial.max_all()?)?);
    ensure!(least >= 0.0 && most <= 1.0, "the attack: expected pixels from 0 to 1, found {least} to {most}");
    let (clean, _) = step.image_gradient(&step.image, &step.target)?;
    let (attacked, _) = step.image_gradient(&adversarial, &step.target)?;
    let (clean, attacked) = (scalar(&clean)?, scalar(&attacked)?);
    ensure!(attacked < clean, "the attack: expected a loss of the targets below {clean}, found {attacked}");

    let mut losses = Vec::new();
    for _ in 0..20 {
        let adversarial = step.perturb(3)?;
        let (logits, loss) = step.update(&adversarial)?;
        step.count(&logits)?;
        losses.push(scalar(&loss)?);
    }
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    ensure!(last < 0.8 * first, "training: expected the robust loss to fall below 0.8 × {first}, found {last}");
    let counted: u64 = step.confusion.iter().sum();
    ensure!(counted == 20 * 8, "class statistics: expected 160 images counted, found {counted}");

    println!("checked on {name}");
    println!("slope along the image gradient {slope:.4}, its length {length:.4}");
    println!("targeted PGD-10: target loss {clean:.3} to {attacked:.3}");
    println!("20 steps on one batch: robust loss {first:.3} to {last:.3}");
    Ok(())
}

fn scalar(tensor: &Tensor) -> Result<f64> {
    Ok(f64::from(tensor.to_scalar::<f32>()?))
}
