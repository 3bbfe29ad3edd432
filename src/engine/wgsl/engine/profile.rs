//! Measures the dispatches of a training step one by one.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::WgslEngine;
use crate::engine::wgsl::device::{Gpu, GpuOptions};
use crate::engine::wgsl::profile::{DeviceFigures, Profile, Stopwatch, Timed, median};
use crate::engine::wgsl::programs::Key;
use crate::engine::wgsl::recorded::Command;
use crate::engine::wgsl::{WgslOptions, adapters};
use crate::engine::{Batch, Engine, EngineError, LossSpec, SearchSpec, SgdStep};
use crate::model::{Network, State};

/// Minimum and maximum number of measurements of a dispatch.
const REPEATS: [usize; 2] = [3, 25];

/// A program that a training step runs, with the number of runs of each of its commands.
struct Ran {
    key: Key,
    runs: Vec<u64>,
    /// Seconds of each command in each repetition.
    seconds: Vec<Vec<f64>>,
}

impl WgslEngine {
    /// As [`Self::new`], on a device with timestamp queries if the adapter supports them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_profile(network: Network, state: &State, options: &WgslOptions) -> Result<Self, EngineError> {
        let found = adapters::choose(options.adapter.as_deref())?;
        let gpu = Gpu::open_with(&found.adapter, &GpuOptions::of(options, true))?;
        Self::on(gpu, network, state, options)
    }

    /// Waits until the device has completed all commands.
    ///
    /// # Errors
    /// If the device fails.
    pub fn wait(&mut self) -> Result<(), EngineError> {
        Ok(self.pacer.finish(&self.gpu)?)
    }

    /// Runs one training step, then runs each of its dispatches alone, at least three times and for at least `at_least`
    /// (at most 25 times). Every run changes images and parameters.
    ///
    /// # Errors
    /// As [`Engine::perturb`] and [`Engine::train_step`].
    pub fn profile(
        &mut self,
        batch: &Batch<'_>,
        spec: &SearchSpec,
        loss: &LossSpec,
        sgd: &SgdStep,
        figures: &DeviceFigures,
        at_least: Duration,
    ) -> Result<Profile, EngineError> {
        self.replayed = Some(Vec::new());
        let done = self.perturb(batch, spec).and_then(|views| self.train_step(&views, loss, sgd));
        let replayed = self.replayed.take().unwrap_or_default();
        done?;
        self.pacer.finish(&self.gpu)?;
        let mut programs = self.ran(batch.len(), replayed);
        let watch = Stopwatch::new(&self.gpu)?;
        let (clock, mut repeats) = (Instant::now(), 0);
        while repeats < REPEATS[0] || repeats < REPEATS[1] && clock.elapsed() < at_least {
            for program in &mut programs {
                let commands = self.commands(batch.len(), &program.key);
                let alone: Vec<&[Command]> = commands.chunks(1).collect();
                let seconds = watch.time(&self.gpu, &alone)?;
                program.seconds.iter_mut().zip(seconds).for_each(|(all, seconds)| all.push(seconds));
            }
            repeats += 1;
        }
        let mut timed = Vec::new();
        for Ran { key, runs, seconds } in &mut programs {
            let steps = self.sets.iter().find(|set| set.images == batch.len());
            let steps = steps.and_then(|set| set.programs.get(key)).map_or(&[][..], |recorded| &recorded.steps);
            for ((step, runs), seconds) in steps.iter().zip(runs).zip(seconds) {
                timed.push(Timed { program: name(key), runs: *runs, step, seconds: median(seconds) });
            }
        }
        timed.retain(|timed| timed.runs > 0);
        Ok(Profile::new(&self.network, watch.clock(), repeats, figures, &timed))
    }

    fn commands(&self, images: usize, key: &Key) -> &[Command] {
        let set = self.sets.iter().find(|set| set.images == images);
        set.and_then(|set| set.programs.get(key)).map_or(&[], |recorded| &recorded.commands)
    }

    /// The replayed programs, in the order of their first run.
    fn ran(&self, images: usize, replayed: Vec<(Key, Range<usize>)>) -> Vec<Ran> {
        let mut programs: Vec<Ran> = Vec::new();
        for (key, range) in replayed {
            let at = programs.iter().position(|program| program.key == key).unwrap_or_else(|| {
                let commands = self.commands(images, &key).len();
                programs.push(Ran { key, runs: vec![0; commands], seconds: vec![Vec::new(); commands] });
                programs.len() - 1
            });
            for runs in programs[at].runs.iter_mut().take(range.end).skip(range.start) {
                *runs += 1;
            }
        }
        programs
    }
}

const fn name(key: &Key) -> &'static str {
    match key {
        Key::Prepare { .. } => "prepare",
        Key::Targets => "targets",
        Key::Start | Key::Finish(_) => "start",
        Key::Attack(_) => "attack step",
        Key::Train { .. } => "update",
        _ => "passes",
    }
}
