//! The table of training methods: the properties that the rest of the program needs.
//!
//! A new value of [`MethodChoice`] does not compile before it has a row here and an entry in
//! [`crate::train::methods::build`].

use clap::ValueEnum;

use super::{BaseMethod, DafaConfig, Experiment, LossForm, MethodChoice, TradesSearch};
use crate::engine::BatchNormMode;

/// How a method's training attack searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchKind {
    /// PGD on a loss of the true class or of a target, from the start that the attack's settings select.
    Attack,
    /// As TRADES: from small normal noise, with batch norm in eval mode.
    Trades,
    /// Not at all: the images are trained on as they are.
    None,
}

/// Properties of a training method.
#[derive(Debug, Clone, Copy)]
pub struct MethodInfo {
    /// The name that papers use.
    pub title: &'static str,
    /// Authors, venue and arXiv number.
    pub citation: &'static str,
    /// The method that it is built on; `None` if it offers no choice.
    pub base: fn(&Experiment) -> Option<BaseMethod>,
    /// How it searches.
    pub search: fn(&Experiment) -> SearchKind,
    /// Whether the search is targeted.
    pub targeted: fn(&Experiment) -> bool,
    /// Whether only some classes have targets; the others are attacked without.
    pub mixed: bool,
    /// Whether the search maximises the KL divergence from the clean prediction.
    pub divergence: fn(&Experiment) -> bool,
    /// Whether each class has a radius of its own.
    pub class_radii: fn(&Experiment) -> bool,
    /// Whether it chooses the step size of its search, instead of the attack's.
    pub own_step_size: fn(&Experiment) -> bool,
    /// Epochs before it adapts, and the flag that sets them; `None` if it has no warm-up.
    pub warmup: fn(&Experiment) -> Option<(u32, &'static str)>,
    /// Whether its searches stop images early, as Friendly adversarial training.
    pub stops_early: fn(&Experiment) -> bool,
    /// Class-wise values that it adapts other than radii and targets, with their titles: columns of `classes.csv` and
    /// TensorBoard tags.
    pub series: &'static [SeriesInfo],
}

/// The meaning of a class series.
#[derive(Debug, Clone, Copy)]
pub enum SeriesKind {
    /// A weight of the loss or of a term of it; equal weights are the neutral value.
    Weight {
        /// The lower bound to which the method clamps it, if any.
        clamp: Option<f64>,
    },
    /// A weight in `[0, 1]` with mean `1 / K` from multipliers whose sum stays within a limit.
    LimitedWeight(fn(&Experiment) -> f64),
    /// Steps after a mistake that the searches took, of at most a budget.
    Budget(fn(&Experiment, u32) -> u32),
    /// Another number.
    Number,
}

/// A class-wise value that a method adapts.
#[derive(Debug, Clone, Copy)]
pub struct SeriesInfo {
    /// Its column in `classes.csv`, and its TensorBoard tag.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it is.
    pub kind: SeriesKind,
    /// Whether the method adapts it with the settings of an experiment.
    pub there: fn(&Experiment) -> bool,
}

/// How much of their budget the searches of methods that are built on Friendly adversarial training used.
const BUDGET_USED: SeriesInfo = SeriesInfo {
    name: "budget_used",
    title: "Steps after the first mistake",
    kind: SeriesKind::Budget(|e, epoch| e.fat.tau_at(epoch)),
    there: Experiment::stops_early,
};
const WEIGHT: SeriesInfo =
    SeriesInfo { name: "weight", title: "Weight of the loss", kind: SeriesKind::Weight { clamp: None }, there: always };

const fn no_base(_: &Experiment) -> Option<BaseMethod> {
    None
}

const fn never(_: &Experiment) -> bool {
    false
}

const fn always(_: &Experiment) -> bool {
    true
}

fn search_on(base: BaseMethod) -> SearchKind {
    match base {
        BaseMethod::At | BaseMethod::Fat => SearchKind::Attack,
        BaseMethod::Trades => SearchKind::Trades,
    }
}

const FAIR_TAT: MethodInfo = MethodInfo {
    title: "FAIR-TAT",
    citation: "Medi, Jung, Keuper: FAIR-TAT, WACV 2025, arXiv 2410.23142",
    base: |e| Some(e.fairness.base),
    search: |e| search_on(e.fairness.base),
    targeted: |e| {
        let f = &e.fairness;
        f.targeted && (f.base != BaseMethod::Trades || f.trades_search == TradesSearch::Targeted)
    },
    mixed: false,
    divergence: |e| {
        let f = &e.fairness;
        f.base == BaseMethod::Trades && (!f.targeted || f.trades_search == TradesSearch::Kl)
    },
    class_radii: |e| !e.fairness.epsilon_rules.is_empty(),
    own_step_size: never,
    warmup: |e| Some((e.fairness.warmup_epochs, "--warmup-epochs")),
    stops_early: |e| e.fairness.base == BaseMethod::Fat,
    series: &[BUDGET_USED],
};

const AT: MethodInfo = MethodInfo {
    title: "PGD-AT",
    citation: "Madry et al., ICLR 2018, arXiv 1706.06083; settings of Rice, Wong, Kolter, ICML 2020, arXiv 2002.11569",
    base: no_base,
    search: |_| SearchKind::Attack,
    targeted: never,
    mixed: false,
    divergence: never,
    class_radii: never,
    own_step_size: never,
    warmup: |_| None,
    stops_early: never,
    series: &[],
};

const STANDARD: MethodInfo = MethodInfo {
    title: "Standard training",
    citation: "Empirical risk minimisation: the network without a defence in Madry et al., ICLR 2018, arXiv 1706.06083",
    search: |_| SearchKind::None,
    ..AT
};

const TRADES: MethodInfo = MethodInfo {
    title: "TRADES",
    citation: "Zhang et al., ICML 2019, arXiv 1901.08573",
    search: |_| SearchKind::Trades,
    divergence: always,
    ..AT
};

const CFA: MethodInfo = MethodInfo {
    title: "CFA",
    citation: "Wei et al., CVPR 2023, arXiv 2303.14460",
    base: |e| Some(e.cfa.base),
    search: |e| search_on(e.cfa.base),
    targeted: never,
    mixed: false,
    divergence: |e| e.cfa.base == BaseMethod::Trades,
    class_radii: |e| e.cfa.ccm,
    own_step_size: never,
    warmup: |e| Some((e.cfa.warmup_epochs, "--cfa-warmup-epochs")),
    stops_early: |e| e.cfa.base == BaseMethod::Fat,
    series: &[
        SeriesInfo {
            name: "beta",
            title: "KL weight of each class",
            kind: SeriesKind::Number,
            there: |e| e.cfa.base == BaseMethod::Trades,
        },
        BUDGET_USED,
    ],
};

const FRL: MethodInfo = MethodInfo {
    title: "FRL",
    citation: "Xu et al., ICML 2021, arXiv 2010.06121",
    base: no_base,
    search: |_| SearchKind::Trades,
    targeted: never,
    mixed: false,
    divergence: always,
    class_radii: |e| e.frl.variant == super::FrlVariant::ReweightRemargin,
    // A quarter of the largest radius in the batch.
    own_step_size: |e| e.frl.variant == super::FrlVariant::ReweightRemargin,
    warmup: |_| None,
    stops_early: never,
    series: &[
        SeriesInfo {
            name: "clean_weight",
            title: "Weight of the clean loss",
            kind: SeriesKind::LimitedWeight(|e| e.frl.limit),
            there: always,
        },
        SeriesInfo {
            name: "boundary_weight",
            title: "Weight of the boundary loss",
            kind: SeriesKind::LimitedWeight(|e| e.frl.limit),
            there: always,
        },
    ],
};

fn search_of(form: LossForm) -> SearchKind {
    search_on(form.base())
}

const FAT: MethodInfo = MethodInfo {
    title: "FAT",
    citation: "Friendly adversarial training; Zhang et al., ICML 2020, arXiv 2002.11242",
    base: |e| Some(if e.fat.kl { BaseMethod::Trades } else { BaseMethod::At }),
    search: |e| if e.fat.kl { SearchKind::Trades } else { SearchKind::Attack },
    divergence: |e| e.fat.kl,
    stops_early: always,
    series: &[BUDGET_USED],
    ..AT
};

const BAT: MethodInfo = MethodInfo {
    title: "BAT",
    citation: "Balance adversarial training; Sun et al., AAAI 2023, arXiv 2209.07534",
    search: |_| SearchKind::Trades,
    divergence: always,
    // With a budget of its own.
    stops_early: always,
    ..AT
};

const WAT: MethodInfo = MethodInfo {
    title: "WAT",
    citation: "Li and Liu, AAAI 2023, arXiv 2302.04025",
    search: |_| SearchKind::Trades,
    divergence: always,
    series: &[WEIGHT],
    ..AT
};

const DAFA: MethodInfo = MethodInfo {
    title: "DAFA",
    citation: "Lee et al., ICLR 2024, arXiv 2401.12532",
    base: |e| Some(e.dafa.base.base()),
    // Also on AT.
    search: |_| SearchKind::Trades,
    divergence: |e| e.dafa.base == LossForm::Trades,
    class_radii: always,
    warmup: |e| Some((e.dafa.warmup_epochs, "--dafa-warmup-epochs")),
    series: &[SeriesInfo { kind: SeriesKind::Weight { clamp: Some(DafaConfig::MINIMUM) }, ..WEIGHT }],
    ..AT
};

const FAAL: MethodInfo = MethodInfo {
    title: "FAAL",
    citation: "Zhang et al., CVPR 2024, arXiv 2402.17729",
    base: |e| Some(e.faal.base.base()),
    search: |e| search_of(e.faal.base),
    divergence: |e| e.faal.base == LossForm::Trades,
    series: &[WEIGHT],
    ..AT
};

const TRIX: MethodInfo = MethodInfo {
    title: "TRIX (reconstruction)",
    citation: "Medi, Jung, Keuper, 2025, arXiv 2507.07768; reconstructed from the abstract",
    targeted: always,
    mixed: true,
    class_radii: always,
    warmup: |e| Some((e.trix.warmup_epochs, "--trix-warmup-epochs")),
    series: &[
        WEIGHT,
        SeriesInfo {
            name: "targeted",
            title: "Attack: 1 targeted, 0 untargeted",
            kind: SeriesKind::Number,
            there: always,
        },
    ],
    ..AT
};

impl MethodChoice {
    /// Its row of the table.
    pub const fn about(self) -> &'static MethodInfo {
        match self {
            Self::FairTat => &FAIR_TAT,
            Self::Standard => &STANDARD,
            Self::At => &AT,
            Self::Trades => &TRADES,
            Self::Cfa => &CFA,
            Self::Frl => &FRL,
            Self::Fat => &FAT,
            Self::Bat => &BAT,
            Self::Wat => &WAT,
            Self::Dafa => &DAFA,
            Self::Faal => &FAAL,
            Self::Trix => &TRIX,
        }
    }

    /// Its name in TOML files and on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The name that papers use.
    pub const fn title(self) -> &'static str {
        self.about().title
    }
}

impl Experiment {
    /// The properties of this experiment's method.
    pub const fn method(&self) -> &'static MethodInfo {
        self.fairness.method.about()
    }

    /// Whether the training attack is targeted.
    pub fn is_targeted(&self) -> bool {
        (self.method().targeted)(self)
    }

    /// Whether training images are attacked at all.
    pub fn trains_on_attacked_images(&self) -> bool {
        (self.method().search)(self) != SearchKind::None
    }

    /// Whether the training attack is the search of TRADES.
    pub fn searches_as_trades(&self) -> bool {
        (self.method().search)(self) == SearchKind::Trades
    }

    /// The class-wise values that this experiment's method adapts other than radii and targets.
    pub fn series(&self) -> impl Iterator<Item = &'static SeriesInfo> {
        self.method().series.iter().filter(|series| (series.there)(self))
    }

    /// Whether the training attack stops images early.
    pub fn stops_early(&self) -> bool {
        (self.method().stops_early)(self)
    }

    /// Batch norm during the training attack.
    pub fn attack_batch_norm(&self) -> BatchNormMode {
        if self.searches_as_trades() { BatchNormMode::Eval } else { self.attack.attack_bn }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fields;

    /// What the table says of a method is what the method does.
    #[test]
    fn the_table_agrees_with_the_methods() {
        use crate::engine::{Batch, Start, Stop};
        use crate::train::methods::{Memory, Radii, build};
        let batch = Batch { pixels: &[], labels: &[2, 0], ids: &[0, 1], augment: None, seed: 0, epoch: 3 };
        for method in MethodChoice::value_variants() {
            for base in [BaseMethod::At, BaseMethod::Fat, BaseMethod::Trades] {
                for (targeted, search) in
                    [(true, TradesSearch::Targeted), (true, TradesSearch::Kl), (false, TradesSearch::Kl)]
                {
                    let mut e = Experiment::default();
                    (e.fairness.method, e.fairness.base, e.cfa.base) = (*method, base, base);
                    (e.fairness.targeted, e.fairness.trades_search) = (targeted, search);
                    let form = if base == BaseMethod::Trades { LossForm::Trades } else { LossForm::At };
                    (e.fat.kl, e.dafa.base, e.faal.base) = (base == BaseMethod::Trades, form, form);
                    let built = build(&e, 3);
                    let spec = built.search(&batch, &Radii(vec![0.1; 3]));
                    assert_eq!(spec.objective.is_targeted(), e.is_targeted(), "{method:?} {base:?} {search:?}");
                    let divergence = spec.objective == crate::engine::Objective::KlToClean;
                    assert_eq!(divergence, (e.method().divergence)(&e), "{method:?} {base:?} {search:?}");
                    let normal = matches!(spec.start, Start::Normal { .. });
                    assert_eq!(normal, e.searches_as_trades(), "{method:?} {base:?}");
                    assert_eq!(spec.stop != Stop::Never, e.stops_early(), "{method:?} {base:?}");
                    assert_eq!(spec.batch_norm, e.attack_batch_norm(), "{method:?} {base:?}");
                    let attacked = spec.steps > 0 || spec.start != Start::Zero;
                    assert_eq!(attacked, e.trains_on_attacked_images(), "{method:?}");
                    let own = spec.step_size != vec![e.attack.step_size.value(); 2];
                    assert_eq!(own, (e.method().own_step_size)(&e), "{method:?}");
                    let shown: Vec<&str> = built.shown(&Memory::default()).iter().map(|series| series.name).collect();
                    let known: Vec<&str> = e.series().map(|series| series.name).collect();
                    assert_eq!(shown, known, "{method:?} {base:?}");
                }
            }
        }
    }

    #[test]
    fn every_method_names_its_source_and_titles_are_different() {
        let mut titles: Vec<&str> = MethodChoice::value_variants().iter().map(|m| m.title()).collect();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), MethodChoice::value_variants().len());
        for method in MethodChoice::value_variants() {
            assert!(method.about().citation.contains("arXiv"), "{method:?}");
        }
    }

    /// Rows of fields name methods as TOML files do.
    #[test]
    fn what_a_method_can_be_is_what_the_form_offers() {
        let field = fields::field("fairness.method").unwrap();
        let offered: Vec<&str> = field.choices.iter().map(|choice| choice.name.as_str()).collect();
        assert_eq!(
            offered,
            ["fair-tat", "standard", "at", "trades", "cfa", "frl", "fat", "bat", "wat", "dafa", "faal", "trix"]
        );
    }
}
