//! Which of two engines attacks faster, measured on the network that is to be trained.
//!
//! Which of the CPU and a GPU in the same chip is faster depends on the network, its width and the drivers: no table would
//! be right. A discrete GPU is taken without asking. A software adapter is never asked either: it runs our shaders on the
//! same cores that Candle would use, without knowing their caches.

use std::time::{Duration, Instant};

use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Norm, Objective, SearchSpec, Start, View};

/// Images in a batch: enough to fill a small GPU.
const IMAGES: usize = 16;
/// Measuring an engine ends after this time, and at the latest after [`REPEATS`] attacks.
const ENOUGH: Duration = Duration::from_millis(400);
const REPEATS: usize = 4;

/// The engine that attacks faster; the first one if they are level. Neither's state changes.
///
/// # Errors
/// When the second engine fails. One that cannot even be measured loses if it is the first.
pub(super) fn faster(mut a: Box<dyn Engine>, mut b: Box<dyn Engine>) -> Result<Box<dyn Engine>, EngineError> {
    let Ok(first) = attack_time(a.as_mut()) else { return Ok(b) };
    let second = attack_time(b.as_mut())?;
    Ok(if second < first { b } else { a })
}

/// The shortest of a few attacks of one step, after one that is not counted. With running statistics, so that none of the
/// engine's state moves.
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
        // A GPU may still be at work when the call returns; what is read back is done.
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
    fn the_faster_engine_is_given_back_as_it_was() {
        // The wide network computes two hundred times as much.
        for (a, b) in [(4, 64), (64, 4)] {
            let before = engine(4).state().unwrap();
            let mut found = faster(engine(a), engine(b)).unwrap();
            assert_eq!(found.state().unwrap(), before);
        }
    }
}
