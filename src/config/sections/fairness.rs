//! The method, and what it adapts between epochs.

use clap::ArgAction;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::Applies::NextEpoch;
use crate::config::row::{Methods, at_least_zero, row};
use crate::config::section::section;
use crate::config::{BaseMethod, Experiment, TradesSearch};
use crate::fairness::{Combine, EpsilonRule, Statistic, TargetMode};
use crate::units::Epsilon;

/// How training makes its adversarial images and adapts between epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MethodChoice {
    /// Fair targeted adversarial training
    FairTat,
    /// Plain adversarial training (Madry et al.): untargeted, one epsilon for all classes
    At,
    /// TRADES (Zhang et al.): clean loss plus the divergence between clean and adversarial predictions
    Trades,
    /// Class-wise calibrated fair adversarial training (Wei et al.), on AT or TRADES
    Cfa,
    /// Fair robust learning (Xu et al.): reweights classes while it fine-tunes a robust network
    Frl,
}

/// Which images CFPS and the class-wise epsilon are measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StatisticsSource {
    /// The adversarial images of the training pass, at no extra cost (the authors' code)
    Training,
    /// The validation split under the evaluation attack
    Validation,
}

const FAIR_TAT: Methods = Methods::only(&["fair-tat"], "The method is not FAIR-TAT.");
/// Both adapt by counts of the training pass.
const BY_COUNTS: Methods = Methods::only(&["fair-tat", "cfa"], "The method does not adapt by these counts.");

const NOT_TARGETED: &str = "The attack is not targeted.";

fn not_targeted(experiment: &Experiment) -> bool {
    !experiment.fairness.targeted
}

const NO_RULE: &str = "There is no rule: every class has the base epsilon.";

fn no_rule(experiment: &Experiment) -> bool {
    experiment.fairness.epsilon_rules.is_empty()
}

/// Whether a rule for the class-wise epsilon looks at one of these statistics.
fn looks_at(experiment: &Experiment, wanted: &[Statistic]) -> bool {
    experiment.fairness.epsilon_rules.iter().any(|rule| wanted.contains(&rule.parts().1))
}

// CFPS is counted under every method; only FAIR-TAT makes something of it.
section! {
    /// The method, and what it adapts between epochs.
    pub struct FairnessConfig in fairness "Method and fairness" {
        /// Training method; targets, CFPS and class-wise epsilon are fair-tat's
        #[arg(value_enum)]
        method: MethodChoice = MethodChoice::FairTat, row("Method", NextEpoch);
        /// What FAIR-TAT is built on
        #[arg(id = "fair-tat-base", value_enum)]
        base: BaseMethod = BaseMethod::At, row("FAIR-TAT base", NextEpoch).only(FAIR_TAT);
        /// On TRADES: search towards targets, or as TRADES does (KL), where targets only enter CFPS and epsilon
        #[arg(value_enum)]
        trades_search: TradesSearch = TradesSearch::Targeted,
            row("TRADES search", NextEpoch).only(FAIR_TAT)
                .idle("FAIR-TAT is not built on TRADES.", |e| e.fairness.base == BaseMethod::At)
                .idle(NOT_TARGETED, not_targeted);
        /// Attack towards a target class instead of away from the true one
        #[arg(value_name = "BOOL", action = ArgAction::Set)]
        targeted: bool = true, row("Targeted", NextEpoch).only(FAIR_TAT);
        /// How targets are chosen after the warm-up
        #[arg(value_enum)]
        target_mode: TargetMode = TargetMode::Softmax,
            row("Targets", NextEpoch).only(FAIR_TAT).idle(NOT_TARGETED, not_targeted);
        /// Factor of CFPS in the softmax target mode
        #[arg(value_name = "FACTOR")]
        temperature: f64 = 2.0,
            row("Temperature", NextEpoch).range(0.0, 20.0).valid("at least 0", at_least_zero).only(FAIR_TAT)
                .idle(NOT_TARGETED, not_targeted)
                .idle("Only the target mode softmax has a temperature.", |e| {
                    e.fairness.target_mode != TargetMode::Softmax
                });
        /// Class that the fixed target mode attacks towards
        #[arg(value_name = "CLASS")]
        fixed_target: u32 = 0,
            row("Fixed target", NextEpoch).range(0.0, 9.0).unit("class").only(FAIR_TAT)
                .idle(NOT_TARGETED, not_targeted)
                .idle("Only the target mode fixed names a class.", |e| e.fairness.target_mode != TargetMode::Fixed);
        /// Images that CFPS and the class-wise epsilon come from
        #[arg(value_enum)]
        statistics_source: StatisticsSource = StatisticsSource::Training, row("Statistics from", NextEpoch);
        /// Keep the statistics of this epoch from then on instead of updating them each epoch
        #[arg(value_name = "EPOCH")]
        freeze_after: Option<u32> = None,
            row("Freeze after", NextEpoch).range(0.0, 200.0).unit("epoch").unset("never")
                .first(|e| json!(e.optimizer.epochs / 2)).only(BY_COUNTS);
        /// Rules for the class-wise epsilon, separated by commas; none leaves every class at the base radius
        #[arg(value_enum, value_delimiter = ',', num_args = 0.., value_name = "RULES")]
        epsilon_rules: Vec<EpsilonRule> = vec![EpsilonRule::GRob], row("Epsilon rules", NextEpoch).only(FAIR_TAT);
        /// How several rules become one radius
        #[arg(value_enum)]
        combine: Combine = Combine::Average,
            row("Combine rules", NextEpoch).only(FAIR_TAT)
                .idle("There are not two rules to combine.", |e| e.fairness.epsilon_rules.len() < 2);
        /// Lambda of the rules on robust accuracy: epsilon_k = (lambda + accuracy_k) * epsilon
        #[arg(value_name = "LAMBDA")]
        lambda_rob: f64 = 0.5,
            row("λ of accuracy", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(FAIR_TAT)
                .idle("No rule looks at robust accuracy.", |e| !looks_at(e, &[Statistic::Robust]));
        /// Lambda of the rules on CFPS and CFNS
        #[arg(value_name = "LAMBDA")]
        lambda_count: f64 = 0.5,
            row("λ of counts", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(FAIR_TAT)
                .idle("No rule looks at CFPS or CFNS.", |e| !looks_at(e, &[Statistic::Cfps, Statistic::Cfns]));
        /// No class gets a smaller radius
        #[arg(value_name = "K/255")]
        epsilon_min: Epsilon = Epsilon::ZERO,
            row("Min. epsilon", NextEpoch).range(0.0, 80.0).only(FAIR_TAT).idle(NO_RULE, no_rule);
        /// No class gets a larger radius; unset for no bound
        #[arg(value_name = "K/255")]
        epsilon_max: Option<Epsilon> = None,
            row("Max. epsilon", NextEpoch).range(0.0, 120.0).unset("no bound")
                .first(|e| json!(Epsilon::levels(e.attack.epsilon.exact() * 255.0 * 1.5)))
                .only(FAIR_TAT).idle(NO_RULE, no_rule);
        /// Epochs with uniform targets and the base radius before the method adapts
        #[arg(value_name = "EPOCHS")]
        warmup_epochs: u32 = 1, row("Warm-up", NextEpoch).range(0.0, 50.0).unit("epochs").only(FAIR_TAT);
        /// Forward passes on clean images in train mode for each batch: 0, 1 (after the step, gives
        /// train_clean_accuracy), or 2 (also one before it, as in the authors' code, where it only moves running statistics)
        #[arg(value_name = "0|1|2")]
        clean_passes: u32 = 1,
            row("Clean passes", NextEpoch).range(0.0, 2.0).valid("0, 1 or 2", |value| value <= 2.0);
    }
}
