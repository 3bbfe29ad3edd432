//! Measures which of two engines attacks faster, on the network that is to be trained.
//!
//! Whether the CPU or an integrated GPU is faster depends on the network, its width and the drivers, so no fixed table
//! would be right. A discrete GPU is used without measuring. A software adapter is not measured either: it runs the
//! shaders on the same cores that Candle would use, without tuning for their caches.

use std::time::{Duration, Instant};

use crate::engine::{Batch, BatchNormMode, Cancel, Engine, EngineError, Norm, Objective, SearchSpec, Start, View};

/// Batch size: enough to fill a small GPU.
const IMAGES: usize = 16;
/// The measurement of an engine ends after this time, or after [`REPEATS`] attacks if that is earlier.
const ENOUGH: Duration = Duration::from_millis(400);
const REPEATS: usize = 4;

/// The engine that attacks faster; the first one if they are equal. Neither engine's state changes.
///
/// # Errors
/// Returns an error if the second engine fails, or [`EngineError::Stopped`] between the two. If the first one fails, the
/// second is returned.
pub(super) fn faster(
    mut a: Box<dyn Engine>,
    mut b: Box<dyn Engine>,
    stop: Cancel<'_>,
) -> Result<Box<dyn Engine>, EngineError> {
    let Ok(first) = attack_time(a.as_mut()) else { return Ok(b) };
    if stop() {
        return Err(EngineError::Stopped);
    }
    let second = attack_time(b.as_mut())?;
    Ok(if second < first { b } else { a })
}

/// The shortest time of a few one-step attacks, after a warm-up. Uses running statistics, so that the engine's state
/// does not change.
fn attack_time(engine: &mut dyn Engine) -> Result<Duration, EngineError> {
    let network = engine.network();
    let (size, classes) = (network.input.len(), network.classes as u32);
    let pixels: Vec<u8> = (0..IMAGES * size).map(|i| (i * 37 % 251) as u8).collect();
    let labels: Vec<u32> = (0..IMAGES as u32).map(|i| i % classes).collect();
    let ids: Vec<u32> = (0..IMAGES as u32).collect();
    let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
    let spec = SearchSpec {
        objective: Objective::CrossEntropy,
        norm: Norm::Linf,
        epsilon: vec![8.0 / 255.0; IMAGES],
        step_size: vec![2.0 / 255.0; IMAGES],
        steps: 1,
        start: Start::Zero,
        batch_norm: BatchNormMode::Eval,
        ..SearchSpec::default()
    };
    let attack = |engine: &mut dyn Engine| -> Result<Duration, EngineError> {
        let clock = Instant::now();
        let views = engine.perturb(&batch, &spec)?;
        // A GPU may still be computing when the call returns; reading back waits for it.
        engine.read_view(&views, View::Adversarial)?;
        Ok(clock.elapsed())
    };
    attack(engine)?;
    let (clock, mut best) = (Instant::now(), Duration::MAX);
    for _ in 0..REPEATS {
        best = best.min(attack(engine)?);
        if clock.elapsed() > ENOUGH {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;
    use crate::engine::candle::{CandleDevice, CandleEngine};
    use crate::model::{Architecture, State};

    fn engine(width: usize) -> Box<dyn Engine> {
        let network = Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), 10, None, Some(width));
        let state = State::initialise(&network, 0);
        Box::new(CandleEngine::new(network, &state, CandleDevice::Cpu).unwrap())
    }

    #[test]
    fn the_faster_engine_is_returned_unchanged() {
        // The wide network computes two hundred times as much.
        for (a, b) in [(4, 64), (64, 4)] {
            let before = engine(4).state().unwrap();
            let mut found = faster(engine(a), engine(b), &mut || false).unwrap();
            assert_eq!(found.state().unwrap(), before);
        }
    }
}
