//! Learning rate schedules.

use serde::{Deserialize, Serialize};

use super::OptimizerConfig;

/// Learning rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Times 0.1 after half of the epochs and again after three quarters (Rice et al., CFA, FAIR-TAT)
    Step3,
    /// Times 0.1 after each quarter of the epochs
    Step4,
    /// Times 0.96 every 10 epochs
    Steplr,
    /// Times a separate factor at each milestone (see milestones and lr-decay)
    MultiStep,
    /// Half a cosine from the full rate to zero, updated every epoch
    Cosine,
    /// Smith and Topin: up from 1/25 of the rate over the first 30 % of all steps, then down to 1/250,000, updated
    /// every step
    OneCycle,
}

impl OptimizerConfig {
    /// The learning rate of a step. `epoch` counts from 0 to `self.epochs - 1`, `batch` from 0 to `batches - 1`.
    pub fn lr_at(&self, epoch: u32, batch: u32, batches: u32) -> f64 {
        let (base, epochs) = (self.lr, self.epochs);
        let progress = f64::from(epoch) / f64::from(epochs.max(1));
        match self.schedule {
            Schedule::Step3 if progress < 0.5 => base,
            Schedule::Step3 if progress < 0.75 => base / 10.0,
            Schedule::Step3 => base / 100.0,
            Schedule::Step4 => base / 10f64.powi((progress * 4.0).floor().min(3.0) as i32),
            Schedule::Steplr => base * 0.96f64.powi((epoch / 10) as i32),
            Schedule::MultiStep => base * self.decayed(epoch),
            Schedule::Cosine => base * anneal(progress),
            Schedule::OneCycle => {
                let total = f64::from(epochs) * f64::from(batches);
                let step = f64::from(epoch) * f64::from(batches) + f64::from(batch);
                one_cycle(base, step, total)
            }
        }
    }

    /// Product of the factors of all milestones up to `epoch`, as PyTorch's `MultiStepLR` that steps once an epoch.
    fn decayed(&self, epoch: u32) -> f64 {
        let reached = self.milestones.iter().filter(|milestone| **milestone <= epoch).count();
        match self.decay[..] {
            [factor] => (0..reached).map(|_| factor).product(),
            _ => self.decay.iter().take(reached).product(),
        }
    }
}

/// Half a cosine from 1 to 0.
fn anneal(progress: f64) -> f64 {
    (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0
}

/// The learning rate of PyTorch's `OneCycleLR` with its defaults. Momentum is constant here; PyTorch cycles it as well
/// by default.
fn one_cycle(base: f64, step: f64, total: f64) -> f64 {
    const RISE: f64 = 0.3;
    const START: f64 = 1.0 / 25.0;
    const END: f64 = START / 1e4;
    let peak = RISE * total - 1.0;
    let last = total - 1.0;
    let between = |from: f64, to: f64, progress: f64| to + (from - to) * anneal(progress.clamp(0.0, 1.0));
    if step <= peak {
        base * between(START, 1.0, if peak > 0.0 { step / peak } else { 1.0 })
    } else if last > peak {
        base * between(1.0, END, (step - peak) / (last - peak))
    } else {
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optimizer(schedule: Schedule, epochs: u32) -> OptimizerConfig {
        OptimizerConfig { schedule, epochs, lr: 0.1, ..OptimizerConfig::default() }
    }

    #[test]
    fn the_authors_steps() {
        let at = |schedule: Schedule, epoch| optimizer(schedule, 200).lr_at(epoch, 0, 1);
        for (epoch, lr) in [(0, 0.1), (99, 0.1), (100, 0.01), (149, 0.01), (150, 0.001), (199, 0.001)] {
            assert!((at(Schedule::Step3, epoch) - lr).abs() < 1e-12);
            // The defaults of the milestones are those of the default number of epochs.
            assert!((at(Schedule::MultiStep, epoch) - lr).abs() < 1e-12);
        }
        for (epoch, lr) in [(49, 0.1), (50, 0.01), (100, 0.001), (149, 0.001), (150, 1e-4), (199, 1e-4)] {
            assert!((at(Schedule::Step4, epoch) - lr).abs() < 1e-12);
        }
        assert_eq!((at(Schedule::Steplr, 9), at(Schedule::Steplr, 10)), (0.1, 0.096));
    }

    #[test]
    fn milestones_multiply_their_factors_from_their_epoch_on() {
        let milestones = vec![75, 90, 100];
        for (decay, rates) in [
            // PyTorch's MultiStepLR, gamma 0.1.
            (vec![0.1], [0.1, 0.01, 0.001, 1e-4]),
            // TRADES: 0.1, 0.01 and 0.005 of the base.
            (vec![0.1, 0.1, 0.5], [0.1, 0.01, 0.001, 5e-4]),
        ] {
            let milestones = milestones.clone();
            let optimizer = OptimizerConfig { milestones, decay, ..optimizer(Schedule::MultiStep, 120) };
            for epoch in 0..120 {
                let reached = [75, 90, 100].iter().filter(|milestone| epoch >= **milestone).count();
                for batch in [0, 6] {
                    let lr = optimizer.lr_at(epoch, batch, 7);
                    assert!((lr / rates[reached] - 1.0).abs() < 1e-12, "{epoch} {lr}");
                }
            }
        }
        let never = OptimizerConfig { milestones: Vec::new(), ..optimizer(Schedule::MultiStep, 10) };
        assert_eq!(never.lr_at(9, 0, 1), 0.1);
    }

    #[test]
    fn rates_stay_between_zero_and_the_base_even_for_tiny_runs() {
        use Schedule::{Cosine, MultiStep, OneCycle, Step3, Step4, Steplr};
        for schedule in [Step3, Step4, Steplr, MultiStep, Cosine, OneCycle] {
            for (epochs, batches) in [(1, 1), (1, 2), (2, 1), (3, 7)] {
                for epoch in 0..epochs {
                    for batch in 0..batches {
                        let lr = optimizer(schedule, epochs).lr_at(epoch, batch, batches);
                        assert!(lr > 0.0 && lr <= 0.1 + 1e-12, "{schedule:?} {epochs} {batches} {epoch} {batch}: {lr}");
                    }
                }
            }
        }
    }
}
