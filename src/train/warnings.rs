//! Warnings of a run: attacks that are weaker than their radius suggests, averages of the weights that never begin.

use super::{MetricsRow, evaluation_attack, training_attack};
use crate::config::Experiment;

/// All warnings about an experiment that are known before it runs.
pub fn run_warnings(experiment: &Experiment) -> Vec<String> {
    // A method that chooses its own step crosses its ball.
    let own_step = (experiment.method().own_step_size)(experiment);
    let attacked = experiment.trains_on_attacked_images();
    let training = training_attack(experiment).training_warning().filter(|_| attacked && !own_step);
    let mut all: Vec<String> = training.into_iter().collect();
    all.extend(evaluation_warnings(experiment));
    all.extend(long_warmup(experiment));
    let averaging = &experiment.averaging;
    let averages = [averaging.ema, averaging.fawa];
    all.extend(late_averaging(averaging.average_from, averages, experiment.optimizer.epochs, When::Beginning));
    all
}

/// The warning that the run is over before its method adapts anything.
fn long_warmup(experiment: &Experiment) -> Option<String> {
    let (title, epochs) = (experiment.method().title, experiment.optimizer.epochs);
    let (warmup, flag) = (experiment.method().warmup)(experiment).filter(|(warmup, _)| *warmup >= epochs)?;
    Some(format!(
        "{title} adapts nothing in this run: its warm-up has {warmup} epochs ({flag}), and the run has {epochs}"
    ))
}

/// Why a run that ended after `epochs` epochs lacks averages that its experiment asks for. `has` says which of EMA and
/// FAWA exist; `rows` are those of all epochs.
pub(super) fn missing_averages(
    experiment: &Experiment,
    epochs: u32,
    has: [bool; 2],
    rows: &[MetricsRow],
) -> Option<String> {
    let averaging = &experiment.averaging;
    let missing = [averaging.ema && !has[0], averaging.fawa && !has[1]];
    late_averaging(averaging.average_from, missing, epochs, When::End).or_else(|| {
        let percent = (1000.0 * averaging.fawa_threshold).round() / 10.0;
        let first = u64::from(averaging.average_from) + 1;
        let reached = |row: &MetricsRow| row.val_robust_worst >= averaging.fawa_threshold;
        let early = rows.iter().filter(|row| reached(row)).all(|row| row.epoch < averaging.average_from);
        let text = match (early, rows.iter().any(reached)) {
            (true, true) => format!(
                "the worst class reached {percent} % on the validation split only before averaging began with epoch {first} \
                 (--average-from), not from there on (--fawa-threshold)"
            ),
            (false, _) => "FAWA was not asked for in the epochs whose worst class reached its threshold".to_owned(),
            (true, false) => {
                format!("the worst class never reached {percent} % on the validation split (--fawa-threshold)")
            }
        };
        missing[1].then(|| format!("no FAWA weights: {text}"))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Beginning,
    End,
}

/// The warning that averaging, which begins after `from` epochs, does not begin within `epochs` epochs. `averages` says
/// which of EMA and FAWA are asked for. `None` if averaging begins in time or if nothing is averaged.
fn late_averaging(from: u32, averages: [bool; 2], epochs: u32, when: When) -> Option<String> {
    let without = match averages {
        [true, true] => "no EMA, no FAWA",
        [true, false] => "no EMA",
        [false, true] => "no FAWA",
        [false, false] => return None,
    };
    let counted = if epochs == 1 { "1 epoch".to_owned() } else { format!("{epochs} epochs") };
    let run = match when {
        When::Beginning => format!("the run has {counted}"),
        When::End => format!("the run ended after {counted}"),
    };
    // The option counts epochs from 0.
    (from >= epochs).then(|| {
        format!(
            "averaging begins with epoch {}, and {run}: {without}; --average-from, now {from}, sets another beginning",
            u64::from(from) + 1
        )
    })
}

/// Why the attacks of an experiment's evaluations, on the validation split and on the test set, are weaker than their
/// radius suggests ([`Attack::warning`]).
fn evaluation_warnings(experiment: &Experiment) -> Vec<String> {
    let evaluation = &experiment.evaluation;
    let mut all: Vec<String> = Vec::new();
    for steps in [evaluation.eval_steps, evaluation.test_steps] {
        // Zero test steps skip the test.
        if steps > 0
            && let Some(warning) = evaluation_attack(experiment, steps).warning()
            && !all.contains(&warning)
        {
            all.push(warning);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PRESETS;
    use crate::units::Epsilon;

    #[test]
    fn no_preset_begins_with_a_warning() {
        for (name, _) in PRESETS {
            assert_eq!(run_warnings(&Experiment::preset(name).unwrap()), [""; 0], "{name}");
        }
    }

    #[test]
    fn a_warm_up_that_outlasts_the_run_is_a_warning() {
        let mut e = Experiment::preset("shapes-unfair").unwrap();
        e.fairness.method = crate::config::MethodChoice::Dafa;
        let expected =
            "DAFA adapts nothing in this run: its warm-up has 70 epochs (--dafa-warmup-epochs), and the run has 10";
        assert_eq!(run_warnings(&e), [expected]);
        e.dafa.warmup_epochs = 9;
        assert_eq!(run_warnings(&e), [""; 0]);
        e.fairness.method = crate::config::MethodChoice::Wat;
        e.dafa.warmup_epochs = 70;
        assert_eq!(run_warnings(&e), [""; 0]);
    }

    #[test]
    fn a_named_step_that_is_too_short_is_a_warning_for_each_attack_that_takes_place() {
        let mut e = Experiment::default();
        e.evaluation.eval_step_size = Some(Epsilon::levels(0.1));
        (e.evaluation.eval_steps, e.evaluation.test_steps) = (10, 20);
        let warnings = evaluation_warnings(&e);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].starts_with("PGD-10") && warnings[1].starts_with("PGD-20"), "{warnings:?}");
        e.evaluation.test_steps = 10;
        assert_eq!(evaluation_warnings(&e).len(), 1);
        e.evaluation.test_steps = 0;
        assert_eq!(evaluation_warnings(&e).len(), 1);
    }

    #[test]
    fn a_training_attack_that_is_too_weak_comes_before_those_of_the_evaluation() {
        let mut e = Experiment::default();
        e.attack.steps = 0;
        let warnings = run_warnings(&e);
        assert!(
            warnings[0].starts_with("training attack PGD-0") && warnings[0].contains("random noise"),
            "{warnings:?}"
        );
        e = Experiment::default();
        e.attack.step_size = Epsilon::levels(10.0);
        assert!(run_warnings(&e)[0].contains("a step of 10/255 is longer than ε, 8/255"));
        e.attack.step_size = Epsilon::levels(1.0);
        assert!(
            run_warnings(&e)[0].contains("10 steps of 1/255 go no further than 10/255, less than 1.5 · ε = 12/255")
        );
    }

    fn row(epoch: u32, val_robust_worst: f64) -> MetricsRow {
        MetricsRow {
            epoch,
            lr: 0.1,
            train_loss: 1.0,
            train_clean_accuracy: None,
            train_robust_accuracy: 0.5,
            val_clean_accuracy: 0.5,
            val_clean_worst: 0.5,
            val_robust_accuracy: 0.5,
            val_robust_worst,
            seconds: 1.0,
            seconds_attack: 0.5,
            seconds_update: 0.25,
            seconds_statistics: 0.25,
            val_attack: String::new(),
            val_without_gradient: None,
            method: String::new(),
            val_robust_worst_tenth: None,
        }
    }

    #[test]
    fn averages_that_never_begin_are_told_at_both_ends_with_their_cause() {
        let mut e = Experiment::default();
        (e.optimizer.epochs, e.averaging.average_from) = (5, 5);
        let late = "averaging begins with epoch 6, and the run";
        let option = "--average-from, now 5, sets another beginning";
        assert_eq!(run_warnings(&e), [format!("{late} has 5 epochs: no EMA, no FAWA; {option}")]);
        let ended = |e: &Experiment, has| missing_averages(e, e.optimizer.epochs, has, &[]);
        assert_eq!(ended(&e, [false; 2]), Some(format!("{late} ended after 5 epochs: no EMA, no FAWA; {option}")));
        e.averaging.fawa = false;
        assert_eq!(ended(&e, [false; 2]), Some(format!("{late} ended after 5 epochs: no EMA; {option}")));
        e.averaging.ema = false;
        assert_eq!((run_warnings(&e), ended(&e, [false; 2])), (vec![], None));

        // Averaging began in time, so the threshold is the reason.
        let mut e = Experiment::default();
        (e.optimizer.epochs, e.averaging.average_from) = (5, 4);
        assert_eq!(run_warnings(&e), [""; 0]);
        let threshold =
            "no FAWA weights: the worst class never reached 20 % on the validation split (--fawa-threshold)";
        assert_eq!(ended(&e, [true, false]).as_deref(), Some(threshold));
        assert_eq!(ended(&e, [true, true]), None);
        // The threshold was reached, but too early.
        let rows = |worst: [f64; 5]| -> Vec<MetricsRow> {
            worst.into_iter().zip(0..).map(|(val_robust_worst, epoch)| row(epoch, val_robust_worst)).collect()
        };
        let told = |worst| missing_averages(&e, 5, [true, false], &rows(worst)).unwrap();
        assert_eq!(told([0.1; 5]), threshold);
        assert_eq!(
            told([0.1, 0.3, 0.2, 0.1, 0.19]),
            "no FAWA weights: the worst class reached 20 % on the validation split only before averaging began with epoch \
             5 (--average-from), not from there on (--fawa-threshold)"
        );
        assert!(told([0.1, 0.1, 0.1, 0.1, 0.3]).contains("FAWA was not asked for in the epochs"));
        e.averaging.fawa = false;
        assert_eq!(ended(&e, [true, false]), None);
    }
}
