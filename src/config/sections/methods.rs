//! The settings of methods other than FAIR-TAT, one section per method.

use clap::ArgAction;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::Applies::NextEpoch;
use crate::config::Experiment;
use crate::config::row::{Methods, above_zero, at_least_one, at_least_zero, row, zero_to_one};
use crate::config::section::section;

/// The method that another one is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BaseMethod {
    /// Adversarial training: cross-entropy on adversarial images
    At,
    /// Friendly adversarial training: the same, with searches that stop early
    Fat,
    /// TRADES: cross-entropy on clean images, and KL divergence between clean and adversarial images
    Trades,
}

/// The search and the loss of a method with two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LossForm {
    /// Adversarial training: cross-entropy on adversarial images
    At,
    /// TRADES: cross-entropy on clean images, and KL divergence between clean and adversarial images
    Trades,
}

/// When Friendly adversarial training stops an image whose budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FatStop {
    /// At once, even if it is classified correctly again (the code of CFA and FAIR-TAT)
    Spent,
    /// When it is misclassified the next time (the original)
    WhileMisclassified,
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

const TRADES: Methods = Methods::only(
    &["trades", "fat"],
    "FAIR-TAT and CFA on TRADES always divide the loss; other methods have another loss.",
);
/// The methods with TRADES's loss; most have it only in one of their forms.
const ON_TRADES: Methods =
    Methods::only(&["trades", "cfa", "fair-tat", "fat", "dafa", "faal"], "The method does not use TRADES.");
/// FRL, BAT and WAT use the search of TRADES, but losses of their own.
const SEARCHES_AS_TRADES: Methods = Methods::only(
    &["trades", "cfa", "fair-tat", "fat", "dafa", "faal", "frl", "bat", "wat"],
    "The method does not use the search of TRADES.",
);
/// Friendly adversarial training, and the methods that can be built on it.
const ON_FAT: Methods = Methods::only(&["fat", "fair-tat", "cfa"], "The method does not stop its searches early.");
const BAT: Methods = Methods::only(&["bat"], "The method is not BAT.");
const WAT: Methods = Methods::only(&["wat"], "The method is not WAT.");
const DAFA: Methods = Methods::only(&["dafa"], "The method is not DAFA.");
const FAAL: Methods = Methods::only(&["faal"], "The method is not FAAL.");
const TRIX: Methods = Methods::only(&["trix"], "The method is not TRIX.");
const CFA: Methods = Methods::only(&["cfa"], "The method is not CFA.");
const FRL: Methods = Methods::only(&["frl"], "The method is not FRL.");

const OTHER_BASE: &str = "The method is built on adversarial training.";

/// Whether the method has a base, which is not TRADES.
fn other_base(experiment: &Experiment) -> bool {
    experiment.base().is_some_and(|base| base != BaseMethod::Trades)
}

const OTHER_SEARCH: &str = "The search is that of adversarial training.";

fn other_search(experiment: &Experiment) -> bool {
    !experiment.searches_as_trades()
}

const NOT_FRIENDLY: &str = "The method is not built on Friendly adversarial training.";

fn not_friendly(experiment: &Experiment) -> bool {
    !experiment.stops_early()
}

const ONE_BETA: &str = "All classes have one beta.";

fn one_beta(experiment: &Experiment) -> bool {
    !experiment.cfa.ccr || experiment.cfa.base != BaseMethod::Trades
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
        scaled: bool = false, row("Scaled loss", NextEpoch).only(TRADES).idle(OTHER_BASE, other_base);
        /// Standard deviation of the normal noise that the search starts from; the start is not projected
        #[arg(id = "trades-start-deviation", value_name = "DEVIATION")]
        start_deviation: f64 = 0.001,
            row("Start deviation", NextEpoch).range(0.0, 0.1).valid("at least 0", at_least_zero)
                .only(SEARCHES_AS_TRADES)
                .idle(OTHER_SEARCH, other_search);
    }
}

section! {
    /// FAT, Friendly adversarial training (Zhang et al., ICML 2020): searches that stop early. Defaults: the code of CFA
    /// and FAIR-TAT.
    pub struct FatConfig in fat "Friendly adversarial training" {
        /// Search by KL divergence and train on the loss of TRADES (FAT for TRADES)
        #[arg(id = "fat-kl", value_name = "BOOL", action = ArgAction::Set)]
        kl: bool = false,
            row("FAT for TRADES", NextEpoch)
                .only(Methods::only(&["fat"], "The method is not Friendly adversarial training."));
        /// When an image stops whose budget is used up
        #[arg(id = "fat-stop", value_enum)]
        stop: FatStop = FatStop::Spent,
            row("Stopping rule", NextEpoch).only(ON_FAT).idle(NOT_FRIENDLY, not_friendly);
        /// Budget: steps that an image may take from misclassified iterates. Several values, separated by commas, for a
        /// budget that changes at the epochs of tau-epochs
        #[arg(id = "fat-tau", value_delimiter = ',', num_args = 1.., value_name = "STEPS")]
        tau: Vec<u32> = vec![3],
            row("Budget τ", NextEpoch).range(0.0, 10.0).only(ON_FAT).idle(NOT_FRIENDLY, not_friendly);
        /// Epochs, counted from 0, from which the next value of tau holds; separated by commas
        #[arg(id = "fat-tau-epochs", value_delimiter = ',', num_args = 0.., value_name = "EPOCHS")]
        tau_epochs: Vec<u32> = vec![],
            row("Epochs of τ", NextEpoch).range(1.0, 200.0).valid("at least 1", at_least_one).only(ON_FAT)
                .idle(NOT_FRIENDLY, not_friendly);
        /// Standard deviation of normal noise that each step of the search adds; the original has 0.001
        #[arg(id = "fat-noise", value_name = "DEVIATION")]
        noise: f64 = 0.0,
            row("Noise per step", NextEpoch).range(0.0, 0.1).valid("at least 0", at_least_zero).only(ON_FAT)
                .idle(NOT_FRIENDLY, not_friendly);
    }
}

section! {
    /// BAT (Sun et al., AAAI 2023): balances source and target classes with two iterates of one search. Defaults: the
    /// authors' code.
    pub struct BatConfig in bat "BAT" {
        /// Weight of the KL term
        #[arg(id = "bat-beta", value_name = "BETA")]
        beta: f64 = 6.0,
            row("BAT KL weight", NextEpoch).range(0.0, 20.0).valid("at least 0", at_least_zero).only(BAT);
        /// Steps that an image may take from misclassified iterates
        #[arg(id = "bat-tau", value_name = "STEPS")]
        tau: u32 = 1, row("BAT budget τ", NextEpoch).range(0.0, 10.0).unit("steps").only(BAT);
        /// Weight of the two terms that pull predictions towards the uniform distribution
        #[arg(id = "bat-uniform", value_name = "WEIGHT")]
        uniform: f64 = 1.0,
            row("Uniform weight", NextEpoch).range(0.0, 5.0).valid("at least 0", at_least_zero).only(BAT);
    }
}

section! {
    /// WAT (Li and Liu, AAAI 2023): weights of the classes from their cumulative loss on the validation split. Defaults:
    /// the authors' code.
    pub struct WatConfig in wat "WAT" {
        /// Weight of the KL term, in the loss and in the costs
        #[arg(id = "wat-beta", value_name = "BETA")]
        beta: f64 = 6.0,
            row("WAT KL weight", NextEpoch).range(0.0, 20.0).valid("at least 0", at_least_zero).only(WAT);
        /// Step size of the weights
        #[arg(id = "wat-eta", value_name = "STEP")]
        eta: f64 = 0.1, row("Weight step η", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(WAT);
    }
}

section! {
    /// DAFA (Lee et al., ICLR 2024): radius, step and loss weight of each class from its similarity to the others,
    /// measured once. Defaults: the authors' code.
    pub struct DafaConfig in dafa "DAFA" {
        /// Search and loss
        #[arg(id = "dafa-base", value_enum)]
        base: LossForm = LossForm::Trades, row("DAFA base", NextEpoch).only(DAFA);
        /// Warm-up epochs; the last of them measures the similarity of classes
        #[arg(id = "dafa-warmup-epochs", value_name = "EPOCHS")]
        warmup_epochs: u32 = 70,
            row("DAFA warm-up", NextEpoch).range(1.0, 100.0).unit("epochs").valid("at least 1", at_least_one).only(DAFA);
        /// How strongly similarity moves the weights; the authors take 1.5 for CIFAR-100 and STL-10
        #[arg(id = "dafa-lambda", value_name = "LAMBDA")]
        lambda: f64 = 1.0,
            row("λ of similarity", NextEpoch).range(0.0, 5.0).valid("at least 0", at_least_zero).only(DAFA);
    }
}

section! {
    /// FAAL (Zhang et al., CVPR 2024): fine-tunes with the class weights that are worst for each batch. Defaults: the
    /// authors' scripts.
    pub struct FaalConfig in faal "FAAL" {
        /// Search and loss
        #[arg(id = "faal-base", value_enum)]
        base: LossForm = LossForm::At, row("FAAL base", NextEpoch).only(FAAL);
        /// Largest KL divergence of the class weights from equal ones
        #[arg(id = "faal-radius", value_name = "DIVERGENCE")]
        radius: f64 = 0.5,
            row("Radius of weights", NextEpoch).range(0.0, 2.0).valid("at least 0", at_least_zero).only(FAAL);
    }
}

section! {
    /// TRIX (Medi, Jung, Keuper, 2025), reconstructed from its abstract: targeted attacks on strong classes, untargeted
    /// ones on weak classes.
    pub struct TrixConfig in trix "TRIX (reconstruction)" {
        /// Lambda of the class-wise radius: (lambda + robust accuracy of the class) times epsilon
        #[arg(id = "trix-lambda", value_name = "LAMBDA")]
        lambda: f64 = 0.5,
            row("TRIX λ of the radius", NextEpoch).range(0.0, 1.0).valid("at least 0", at_least_zero).only(TRIX);
        /// Weight the loss of each class by its robust error
        #[arg(id = "trix-weighted", value_name = "BOOL", action = ArgAction::Set)]
        weighted: bool = true, row("Class-wise loss", NextEpoch).only(TRIX);
        /// Warm-up epochs of plain adversarial training
        #[arg(id = "trix-warmup-epochs", value_name = "EPOCHS")]
        warmup_epochs: u32 = 1, row("TRIX warm-up", NextEpoch).range(0.0, 50.0).unit("epochs").only(TRIX);
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
                .idle("CFA is not built on TRADES.", |e| e.cfa.base != BaseMethod::Trades);
        /// Lambda of the class-wise radius; unset uses 0.5 on AT, 0.7 on FAT and 0.3 on TRADES
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
            BaseMethod::Fat => 0.7,
            BaseMethod::Trades => 0.3,
        }
    }
}

impl DafaConfig {
    /// The smallest weight of a class.
    pub const MINIMUM: f64 = 0.01;
}

impl LossForm {
    /// The method with this search and loss.
    pub const fn base(self) -> BaseMethod {
        match self {
            Self::At => BaseMethod::At,
            Self::Trades => BaseMethod::Trades,
        }
    }
}

impl FatConfig {
    /// The budget of an epoch.
    pub fn tau_at(&self, epoch: u32) -> u32 {
        let passed = self.tau_epochs.iter().filter(|from| epoch >= **from).count();
        self.tau.get(passed).or(self.tau.last()).copied().unwrap_or(0)
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
