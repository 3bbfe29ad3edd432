//! Settings with which methods are compared over a common number of epochs.

use crate::config::{Experiment, MethodChoice, Schedule};

/// The settings of a method in a comparison where all train for as many epochs as `base`: shares of the published
/// schedules. FRL and FAAL fine-tune the baseline of the same seed, with epochs and rates that follow from those of
/// `base`. Settings of a method for which `named` is true stay as they are.
pub fn recipe(base: &Experiment, method: MethodChoice, named: impl Fn(&str) -> bool) -> Experiment {
    let mut e = base.clone();
    e.fairness.method = method;
    let epochs = base.optimizer.epochs;
    let share = |of: u32, all: u32| ((f64::from(epochs * of) / f64::from(all)).round() as u32).max(1);
    let fine_tune = |e: &mut Experiment, epochs: u32, rate: f64, milestone: u32| {
        let o = &mut e.optimizer;
        (o.epochs, o.lr, o.schedule, o.milestones, o.decay) =
            (epochs, rate, Schedule::MultiStep, vec![milestone], vec![0.1]);
        e.averaging.average_from = 0;
    };
    match method {
        MethodChoice::Cfa if !named("cfa.warmup_epochs") => e.cfa.warmup_epochs = share(10, 200),
        MethodChoice::Dafa if !named("dafa.warmup_epochs") => e.dafa.warmup_epochs = share(70, 110),
        MethodChoice::Frl => fine_tune(&mut e, share(40, 200), base.optimizer.lr / 100.0, share(40, 200)),
        MethodChoice::Faal => fine_tune(&mut e, 2, base.optimizer.lr / 10.0, 1),
        MethodChoice::FairTat
        | MethodChoice::Standard
        | MethodChoice::At
        | MethodChoice::Trades
        | MethodChoice::Cfa
        | MethodChoice::Dafa
        | MethodChoice::Fat
        | MethodChoice::Bat
        | MethodChoice::Wat
        | MethodChoice::Trix => {}
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_shares_of_the_published_schedules() {
        let base = Experiment::preset("shapes-unfair").unwrap();
        let e = recipe(&base, MethodChoice::Dafa, |_| false);
        assert_eq!((e.dafa.warmup_epochs, e.optimizer.epochs), (6, 10));
        let e = recipe(&base, MethodChoice::Frl, |_| false);
        assert_eq!((e.optimizer.epochs, e.optimizer.schedule), (2, Schedule::MultiStep));
        assert!((e.optimizer.lr - 0.001).abs() < 1e-12 && (e.optimizer.lr_at(1, 0, 1) - 0.001).abs() < 1e-12);
        // The study's own schedule may have several factors.
        let mut base_of_paper = Experiment::preset("cifar10-paper-fat").unwrap();
        base_of_paper.optimizer.epochs = 20;
        let e = recipe(&base_of_paper, MethodChoice::Faal, |path| path == "optimizer.epochs");
        assert_eq!((e.optimizer.epochs, e.validate().is_ok()), (2, true));
        assert_eq!(recipe(&base, MethodChoice::Dafa, |path| path == "dafa.warmup_epochs").dafa.warmup_epochs, 70);
        for method in [MethodChoice::FairTat, MethodChoice::At] {
            let e = recipe(&base, method, |_| false);
            assert_eq!(Experiment { fairness: base.fairness.clone(), ..e }, base);
        }
    }
}
