//! The settings of methods other than FAIR-TAT, one section per method.

use clap::ArgAction;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::Applies::NextEpoch;
use crate::config::Experiment;
use crate::config::row::{Methods, above_zero, at_least_zero, row, zero_to_one};
use crate::config::section::section;

/// The method that another one is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BaseMethod {
    /// Adversarial training: cross-entropy on adversarial images
    At,
    /// TRADES: cross-entropy on clean images, and KL divergence between clean and adversarial images
    Trades,
}

/// How FAIR-TAT on TRADES searches for adversarial images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TradesSearch {
    /// Towards targets, as FAIR-TAT does
    Targeted,
    /// Away from the clean prediction by KL divergence, as in TRADES; targets only affect CFPS and epsilon
    Kl,
}

/// What FRL adapts to equalise the errors of the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FrlVariant {
    /// Weights of the classes in the loss
    Reweight,
    /// These weights and the radius of each class
    ReweightRemargin,
}

const TRADES: Methods =
    Methods::only(&["trades"], "FAIR-TAT and CFA on TRADES always divide the loss; other methods have another loss.");
/// The methods with TRADES's loss; CFA and FAIR-TAT have it if they are built on TRADES.
const ON_TRADES: Methods = Methods::only(&["trades", "cfa", "fair-tat"], "The method does not use TRADES.");
/// FRL uses the search of TRADES, but its own loss.
const SEARCHES_AS_TRADES: Methods =
    Methods::only(&["trades", "cfa", "fair-tat", "frl"], "The method does not use the search of TRADES.");
const CFA: Methods = Methods::only(&["cfa"], "The method is not CFA.");
const FRL: Methods = Methods::only(&["frl"], "The method is not FRL.");

const OTHER_BASE: &str = "The method is built on adversarial training.";

/// Whether the method has a base, which is not TRADES.
fn other_base(experiment: &Experiment) -> bool {
    experiment.base() == Some(BaseMethod::At)
}

const ONE_BETA: &str = "All classes have one beta.";

fn one_beta(experiment: &Experiment) -> bool {
    !experiment.cfa.ccr || experiment.cfa.base == BaseMethod::At
}

section! {
    /// TRADES (Zhang et al., ICML 2019): CE(clean) + beta · KL(clean ‖ adversarial). Defaults: the authors' code.
    pub struct TradesConfig in trades "TRADES" {
        /// Weight of the KL term
        #[arg(id = "trades-beta", value_name = "BETA")]
        beta: f64 = 6.0,
            row("KL weight", NextEpoch).range(0.0, 20.0).valid("at least 0", at_least_zero).only(ON_TRADES)
                .idle(OTHER_BASE, other_base);
        /// Divide the loss by 1 + beta, as CFA's code does: (1 - b) CE + b KL with b = beta / (1 + beta)
        #[arg(id = "trades-scaled", value_name = "BOOL", action = ArgAction::Set)]
        scaled: bool = false, row("Scaled loss", NextEpoch).only(TRADES);
        /// Standard deviation of the normal noise that the search starts from; the start is not projected
        #[arg(id = "trades-start-deviation", value_name = "DEVIATION")]
        start_deviation: f64 = 0.001,
            row("Start deviation", NextEpoch).range(0.0, 0.1).valid("at least 0", at_least_zero)
                .only(SEARCHES_AS_TRADES)
                .idle(OTHER_BASE, other_base);
    }
}

section! {
    /// CFA (Wei et al., CVPR 2023): radius and beta of each class from its robust accuracy. Defaults: the authors' code.
    pub struct CfaConfig in cfa "CFA" {
        /// The method that CFA is built on
        #[arg(id = "cfa-base", value_enum)]
        base: BaseMethod = BaseMethod::At, row("CFA base", NextEpoch).only(CFA);
        /// Class-wise radius: (lambda_1 + robust accuracy of the class) times epsilon
        #[arg(id = "cfa-ccm", value_name = "BOOL", action = ArgAction::Set)]
        ccm: bool = true, row("Class-wise radius", NextEpoch).only(CFA);
        /// Class-wise beta, on TRADES only: (lambda_2 + robust accuracy of the class) times beta
        #[arg(id = "cfa-ccr", value_name = "BOOL", action = ArgAction::Set)]
        ccr: bool = true,
            row("Class-wise beta", NextEpoch).only(CFA)
                .idle("CFA is not built on TRADES.", |e| e.cfa.base == BaseMethod::At);
        /// Lambda of the class-wise radius; unset uses 0.5 on AT and 0.3 on TRADES
        #[arg(id = "cfa-lambda-1", value_name = "LAMBDA")]
        lambda_1: Option<f64> = None,
            row("λ₁ of the radius", NextEpoch).range(0.0, 1.0).unset("as published")
                .first(|e| json!(e.cfa.published_lambda_1())).valid("at least 0", at_least_zero).only(CFA)
                .idle("All classes have one radius.", |e| !e.cfa.ccm);
        /// Lambda of the class-wise beta
        #[arg(id = "cfa-lambda-2", value_name = "LAMBDA")]
        lambda_2: f64 = 0.5,
            row("λ₂ of beta", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(CFA)
                .idle(ONE_BETA, one_beta);
        /// Warm-up epochs before radii and betas adapt
        #[arg(id = "cfa-warmup-epochs", value_name = "EPOCHS")]
        warmup_epochs: u32 = 10,
            row("CFA warm-up", NextEpoch).range(0.0, 50.0).unit("epochs").only(CFA)
                .idle("Nothing is class-wise.", |e| !e.cfa.ccm && one_beta(e));
    }
}

section! {
    /// FRL (Xu et al., ICML 2021): multipliers of each class grow while its errors exceed the average by more than tau.
    /// Defaults: the authors' code.
    pub struct FrlConfig in frl "FRL" {
        /// What FRL adapts: the weights of the classes, or their weights and radii
        #[arg(id = "frl-variant", value_enum)]
        variant: FrlVariant = FrlVariant::ReweightRemargin, row("FRL variant", NextEpoch).only(FRL);
        /// Weight of the boundary error
        #[arg(id = "frl-beta", value_name = "BETA")]
        beta: f64 = 1.5,
            row("Boundary weight", NextEpoch).range(0.0, 20.0).valid("at least 0", at_least_zero).only(FRL);
        /// Tolerated excess of a class's clean or boundary error over the mean; unset uses 0.1 for reweight and 0.07
        /// for reweight-remargin
        #[arg(id = "frl-tau", value_name = "ERROR")]
        tau: Option<f64> = None,
            row("Tolerance τ", NextEpoch).range(0.0, 0.5).unset("as published").first(|e| json!(e.frl.published_tau()))
                .valid("0 to 1", zero_to_one).only(FRL);
        /// Step size of the weight multipliers, halved every 40 epochs
        #[arg(id = "frl-alpha-1", value_name = "STEP")]
        alpha_1: f64 = 0.05,
            row("Weight step α₁", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(FRL);
        /// Step size of the margin multipliers
        #[arg(id = "frl-alpha-2", value_name = "STEP")]
        alpha_2: f64 = 0.2,
            row("Margin step α₂", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(FRL)
                .idle("Reweighting does not change the radii.", |e| e.frl.variant == FrlVariant::Reweight);
        /// Largest sum of the multipliers
        #[arg(id = "frl-limit", value_name = "SUM")]
        limit: f64 = 0.5,
            row("Multiplier limit", NextEpoch).range(0.0, 1.0).valid("a number above 0", above_zero)
                .valid("at most 1", |limit| limit <= 1.0).only(FRL);
    }
}

impl Experiment {
    /// The method that this one is built on. `None` if it offers no choice.
    pub fn base(&self) -> Option<BaseMethod> {
        (self.method().base)(self)
    }
}

impl CfaConfig {
    /// Lambda of the class-wise radius.
    pub fn lambda_1(&self) -> f64 {
        self.lambda_1.unwrap_or_else(|| self.published_lambda_1())
    }

    fn published_lambda_1(&self) -> f64 {
        match self.base {
            BaseMethod::At => 0.5,
            BaseMethod::Trades => 0.3,
        }
    }
}

impl FrlConfig {
    /// Unfairness that is tolerated.
    pub fn tau(&self) -> f64 {
        self.tau.unwrap_or_else(|| self.published_tau())
    }

    fn published_tau(&self) -> f64 {
        match self.variant {
            FrlVariant::Reweight => 0.1,
            FrlVariant::ReweightRemargin => 0.07,
        }
    }
}
