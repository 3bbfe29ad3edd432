//! [`Attack`]: which attack, with all settings that must be reported with an accuracy.

use serde::{Deserialize, Serialize};

use crate::engine::Norm;
use crate::units::Epsilon;

/// Which attack to evaluate under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AttackKind {
    /// No perturbation
    Clean,
    /// Random noise, uniform in the ball of L∞, on the sphere of L2: a control that costs a robust network little
    Noise,
    /// One step of size epsilon from the image itself (Goodfellow et al. 2015)
    Fgsm,
    /// Projected gradient ascent on the cross-entropy (Madry et al. 2018)
    Pgd,
    /// PGD towards a random wrong class: a weak attack, whose success is counted apart from errors
    PgdTargeted,
    /// Auto-PGD on the cross-entropy (Croce and Hein 2020)
    ApgdCe,
    /// Auto-PGD on the difference-of-logits ratio
    ApgdDlr,
    /// Auto-PGD on the targeted difference-of-logits ratio, towards each of the most likely wrong classes
    ApgdT,
    /// FAB: the nearest misclassified image (Croce and Hein 2020)
    Fab,
    /// FAB towards each of the most likely wrong classes
    FabT,
    /// Square: random search without gradients (Andriushchenko et al. 2020)
    Square,
    /// The L2 attack of Carlini and Wagner (2017)
    Cw,
}

/// An attack with all settings that must be reported with an accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attack {
    /// Which one.
    pub kind: AttackKind,
    /// Shape of the ball.
    pub norm: Norm,
    /// Its radius.
    pub epsilon: Epsilon,
    /// Size of a step of FGSM and PGD; other attacks choose their own.
    pub step_size: Epsilon,
    /// Number of steps; for Square, of queries.
    pub steps: u32,
    /// Whether a search starts at a random point in the ball.
    pub random_start: bool,
    /// Number of searches from different starts; an image counts as robust only if it withstands all of them. For CW,
    /// the number of searches for its constant.
    pub restarts: u32,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Whether PGD counts every iterate and not only the last one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_iterate: bool,
    /// Number of target classes of APGD-T and FAB-T, at most the number of wrong classes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub targets: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl AttackKind {
    /// The name in commands and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noise => "noise",
            Self::Fgsm => "fgsm",
            Self::Pgd => "pgd",
            Self::PgdTargeted => "pgd-targeted",
            Self::ApgdCe => "apgd-ce",
            Self::ApgdDlr => "apgd-dlr",
            Self::ApgdT => "apgd-t",
            Self::Fab => "fab",
            Self::FabT => "fab-t",
            Self::Square => "square",
            Self::Cw => "cw",
        }
    }

    /// The usual name.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noise => "Noise",
            Self::Fgsm => "FGSM",
            Self::Pgd => "PGD",
            Self::PgdTargeted => "Targeted PGD",
            Self::ApgdCe => "APGD-CE",
            Self::ApgdDlr => "APGD-DLR",
            Self::ApgdT => "APGD-T",
            Self::Fab => "FAB",
            Self::FabT => "FAB-T",
            Self::Square => "Square",
            Self::Cw => "CW",
        }
    }

    /// Whether the engine runs the attack itself. Such an attack also moves images that are misclassified without it.
    pub const fn runs_in_engine(self) -> bool {
        matches!(self, Self::Clean | Self::Fgsm | Self::Pgd | Self::PgdTargeted)
    }

    /// Whether the attack needs no gradient.
    pub const fn is_black_box(self) -> bool {
        matches!(self, Self::Clean | Self::Noise | Self::Square)
    }

    /// Whether the attack follows gradients to raise the error, so that no attack without gradients should beat it.
    pub const fn is_white_box(self) -> bool {
        !self.is_black_box() && !matches!(self, Self::PgdTargeted)
    }

    /// Published steps, or queries: those of AutoAttack, and of torchattacks for CW; 0 for attacks whose steps the user
    /// chooses.
    pub const fn published_steps(self) -> u32 {
        match self {
            Self::ApgdCe | Self::ApgdDlr | Self::ApgdT | Self::Fab | Self::FabT => 100,
            Self::Square => 5000,
            Self::Cw => 50,
            Self::Clean | Self::Noise | Self::Fgsm | Self::Pgd | Self::PgdTargeted => 0,
        }
    }
}

/// Number of target classes of APGD-T and FAB-T in AutoAttack.
const TARGETS: u32 = 9;

impl Attack {
    /// No perturbation.
    pub fn clean() -> Self {
        Self {
            kind: AttackKind::Clean,
            norm: Norm::Linf,
            epsilon: Epsilon::ZERO,
            step_size: Epsilon::ZERO,
            steps: 0,
            random_start: false,
            restarts: 1,
            seed: 0,
            any_iterate: false,
            targets: 0,
        }
    }

    /// FGSM: one step of size epsilon.
    pub fn fgsm(epsilon: Epsilon, norm: Norm) -> Self {
        Self { kind: AttackKind::Fgsm, norm, epsilon, step_size: epsilon, steps: 1, ..Self::clean() }
    }

    /// PGD with one random start.
    pub fn pgd(epsilon: Epsilon, step_size: Epsilon, steps: u32, norm: Norm, seed: u64) -> Self {
        let random_start = true;
        Self { kind: AttackKind::Pgd, norm, epsilon, step_size, steps, random_start, seed, ..Self::clean() }
    }

    /// An attack that chooses its own step sizes, with its published settings: APGD, FAB, Square, CW, noise.
    pub fn published(kind: AttackKind, epsilon: Epsilon, norm: Norm, seed: u64) -> Self {
        let targets = if matches!(kind, AttackKind::ApgdT | AttackKind::FabT) { TARGETS } else { 0 };
        let random_start = !matches!(kind, AttackKind::Clean | AttackKind::Fab | AttackKind::FabT | AttackKind::Cw);
        Self { kind, norm, epsilon, steps: kind.published_steps(), random_start, seed, targets, ..Self::clean() }
    }

    /// What takes the place of a loss that needs more than `classes` classes; `None` if none is needed.
    pub const fn replacement(&self, classes: usize) -> Option<&'static str> {
        match self.kind {
            AttackKind::ApgdDlr if classes < 3 => {
                Some("DLR needs three classes; the margin of the logits takes its place")
            }
            AttackKind::ApgdT if classes < 4 => {
                Some("targeted DLR needs four classes; the margin of the target's logit takes its place")
            }
            _ => None,
        }
    }

    /// Checks that the attack exists in this norm.
    ///
    /// # Errors
    /// Returns a message with what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.kind == AttackKind::Cw && self.norm != Norm::L2 {
            return Err(
                "CW searches the nearest image in L2; use --norm l2 with a radius for L2, or leave it out".into()
            );
        }
        Ok(())
    }
}

/// The usual notation of a norm.
pub fn norm_name(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    }
}

/// All settings that must be reported with a robust accuracy, in one line.
impl std::fmt::Display for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, norm, epsilon, step_size, steps, random_start, restarts, seed, any_iterate, targets } = self;
        let (title, norm) = (kind.title(), norm_name(*norm));
        match kind {
            AttackKind::Clean => return f.write_str(title),
            AttackKind::Fgsm => return write!(f, "{title}, {norm}, ε {epsilon}, no random start"),
            AttackKind::Noise => write!(f, "{title}, {norm}, ε {epsilon}, ")?,
            AttackKind::Pgd | AttackKind::PgdTargeted => {
                write!(f, "{title}-{steps}, {norm}, ε {epsilon}, step {step_size}, ")?;
                if *kind == AttackKind::PgdTargeted {
                    f.write_str("random targets, ")?;
                }
                if *any_iterate {
                    f.write_str("worst iterate, ")?;
                }
            }
            AttackKind::Square => write!(f, "{title}, {norm}, ε {epsilon}, {steps} queries, ")?,
            AttackKind::Cw => {
                let searches = if *restarts == 1 { "c 1".into() } else { format!("{restarts} searches for c") };
                return write!(f, "{title}, {norm}, ε {epsilon}, {steps} steps, {searches}");
            }
            AttackKind::ApgdCe | AttackKind::ApgdDlr | AttackKind::ApgdT | AttackKind::Fab | AttackKind::FabT => {
                write!(f, "{title}, {norm}, ε {epsilon}, {steps} steps, ")?;
                if *targets > 0 {
                    write!(f, "{targets} targets, ")?;
                }
            }
        }
        match (random_start, restarts) {
            (false, 1) => f.write_str("no random start"),
            (false, n) => write!(f, "from the image and {} random starts, seed {seed}", n - 1),
            (true, 1) => write!(f, "1 random start, seed {seed}"),
            (true, n) => write!(f, "worst of {n} random starts, seed {seed}"),
        }
    }
}
