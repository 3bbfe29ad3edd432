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

/// The training method: how it makes adversarial images and adapts between epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MethodChoice {
    /// Fair targeted adversarial training
    FairTat,
    /// Standard training, without an attack: not robust, to see what the attack of the others is for
    Standard,
    /// Plain adversarial training (Madry et al.): untargeted, one epsilon for all classes
    At,
    /// TRADES (Zhang et al.): clean loss plus the divergence between clean and adversarial predictions
    Trades,
    /// Class-wise calibrated fair adversarial training (Wei et al.), on AT or TRADES
    Cfa,
    /// Fair robust learning (Xu et al.): fine-tunes a robust network and reweights classes
    Frl,
    /// Friendly adversarial training (Zhang et al.): searches that stop soon after the first mistake
    Fat,
    /// Balance adversarial training (Sun et al.): balances source and target classes of mistakes
    Bat,
    /// Worst-class adversarial training (Li and Liu): class weights from cumulative validation losses
    Wat,
    /// Distance-aware fair adversarial training (Lee et al.): shifts robustness between similar classes
    Dafa,
    /// Fairness-aware adversarial learning (Zhang et al.): fine-tunes with the worst class weights of each batch
    Faal,
    /// Mixed adversarial training (Medi et al.), a reconstruction: targeted for strong classes, untargeted for weak ones
    Trix,
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
/// They adapt to counts of the training pass.
const BY_COUNTS: Methods = Methods::only(&["fair-tat", "cfa", "trix"], "The method does not use these counts.");

const NOT_TARGETED: &str = "The attack is not targeted.";

fn not_targeted(experiment: &Experiment) -> bool {
    !experiment.fairness.targeted
}

const NO_RULE: &str = "No rule is selected: every class has the base epsilon.";

fn no_rule(experiment: &Experiment) -> bool {
    experiment.fairness.epsilon_rules.is_empty()
}

/// Whether a rule for the class-wise epsilon uses one of these statistics.
fn looks_at(experiment: &Experiment, wanted: &[Statistic]) -> bool {
    experiment.fairness.epsilon_rules.iter().any(|rule| wanted.contains(&rule.parts().1))
}

// CFPS is counted under every method, but only FAIR-TAT uses it.
section! {
    /// The method, and what it adapts between epochs.
    pub struct FairnessConfig in fairness "Method and fairness" {
        /// Training method; targets, CFPS and epsilon rules belong to fair-tat
        #[arg(value_enum)]
        method: MethodChoice = MethodChoice::FairTat, row("Method", NextEpoch);
        /// The method that FAIR-TAT is built on
        #[arg(id = "fair-tat-base", value_enum)]
        base: BaseMethod = BaseMethod::At, row("FAIR-TAT base", NextEpoch).only(FAIR_TAT);
        /// Search on TRADES: towards targets, or as in TRADES (KL), where targets only affect CFPS and epsilon
        #[arg(value_enum)]
        trades_search: TradesSearch = TradesSearch::Targeted,
            row("TRADES search", NextEpoch).only(FAIR_TAT)
                .idle("FAIR-TAT is not built on TRADES.", |e| e.fairness.base != BaseMethod::Trades)
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
                .idle("Only the target mode softmax uses a temperature.", |e| {
                    e.fairness.target_mode != TargetMode::Softmax
                });
        /// Target class of the target mode fixed
        #[arg(value_name = "CLASS")]
        fixed_target: u32 = 0,
            row("Fixed target", NextEpoch).range(0.0, 9.0).unit("class").only(FAIR_TAT)
                .idle(NOT_TARGETED, not_targeted)
                .idle("Only the target mode fixed uses a class.", |e| e.fairness.target_mode != TargetMode::Fixed);
        /// Images on which the statistics behind targets and class-wise epsilon are measured
        #[arg(value_enum)]
        statistics_source: StatisticsSource = StatisticsSource::Training, row("Statistics from", NextEpoch);
        /// After this epoch, keep its statistics instead of updating them each epoch
        #[arg(value_name = "EPOCH")]
        freeze_after: Option<u32> = None,
            row("Freeze after", NextEpoch).range(0.0, 200.0).unit("epoch").unset("never")
                .first(|e| json!(e.optimizer.epochs / 2)).only(BY_COUNTS);
        /// Rules for the class-wise epsilon, separated by commas; without rules, every class has the base radius
        #[arg(value_enum, value_delimiter = ',', num_args = 0.., value_name = "RULES")]
        epsilon_rules: Vec<EpsilonRule> = vec![EpsilonRule::GRob], row("Epsilon rules", NextEpoch).only(FAIR_TAT);
        /// How several rules are combined into one radius
        #[arg(value_enum)]
        combine: Combine = Combine::Average,
            row("Combine rules", NextEpoch).only(FAIR_TAT)
                .idle("Fewer than two rules are selected.", |e| e.fairness.epsilon_rules.len() < 2);
        /// Lambda of the rules that use robust accuracy: epsilon_k = (lambda + accuracy_k) * epsilon
        #[arg(value_name = "LAMBDA")]
        lambda_rob: f64 = 0.5,
            row("λ of accuracy", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(FAIR_TAT)
                .idle("No rule uses robust accuracy.", |e| !looks_at(e, &[Statistic::Robust]));
        /// Lambda of the rules that use CFPS or CFNS
        #[arg(value_name = "LAMBDA")]
        lambda_count: f64 = 0.5,
            row("λ of counts", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(FAIR_TAT)
                .idle("No rule uses CFPS or CFNS.", |e| !looks_at(e, &[Statistic::Cfps, Statistic::Cfns]));
        /// Smallest radius of a class
        #[arg(value_name = "K/255")]
        epsilon_min: Epsilon = Epsilon::ZERO,
            row("Min. epsilon", NextEpoch).range(0.0, 80.0).only(FAIR_TAT).idle(NO_RULE, no_rule);
        /// Largest radius of a class; unset for no limit
        #[arg(value_name = "K/255")]
        epsilon_max: Option<Epsilon> = None,
            row("Max. epsilon", NextEpoch).range(0.0, 120.0).unset("no bound")
                .first(|e| json!(Epsilon::levels(e.attack.epsilon.exact() * 255.0 * 1.5)))
                .only(FAIR_TAT).idle(NO_RULE, no_rule);
        /// Warm-up epochs, with uniform targets and the base radius, before the method adapts
        #[arg(value_name = "EPOCHS")]
        warmup_epochs: u32 = 1, row("Warm-up", NextEpoch).range(0.0, 50.0).unit("epochs").only(FAIR_TAT);
        /// Forward passes on clean images in train mode per batch: 0; 1 (after the update, measures
        /// train_clean_accuracy); or 2 (one more before the update, as in the authors' code, which only updates running
        /// statistics)
        #[arg(value_name = "0|1|2")]
        clean_passes: u32 = 1,
            row("Clean passes", NextEpoch).range(0.0, 2.0).valid("0, 1 or 2", |value| value <= 2.0);
    }
}
