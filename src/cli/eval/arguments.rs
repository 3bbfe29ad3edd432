//! The arguments of `fairtat eval`, and the attacks that they ask for.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;

use super::super::Usage;
use super::super::stored::StoredArgs;
use crate::attack::{Attack, AttackKind, AttackSettings, check_distance, evaluation_step_size, norm_name};
use crate::config::Experiment;
use crate::console::tell;
use crate::data::ImageShape;
use crate::data::corruptions::Corruption;
use crate::engine::Norm;
use crate::evaluate::robustness::{Budget, Plan, Role, Suite, Wanted};
use crate::train::run_steps;
use crate::units::Epsilon;

/// Which images to evaluate on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Part {
    Test,
    Validation,
    Train,
}

impl Part {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Validation => "validation",
            Self::Train => "train",
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EvalArgs {
    /// Attacks, separated by commas: clean, noise, fgsm, pgd, pgd-targeted, apgd-ce, apgd-dlr, apgd-t, fab, fab-t,
    /// square, cw; autoattack (its version standard) or rand, whose attacks run on the survivors of those before
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "clean,pgd")]
    attack: Vec<Wanted>,
    /// How much AutoAttack computes [default: standard]
    #[arg(long, value_enum)]
    budget: Option<Budget>,
    /// Steps of PGD [default: 20], and of APGD, FAB and CW [default: those of AutoAttack, 100; CW 50]
    #[arg(long, value_name = "STEPS")]
    steps: Option<u32>,
    /// Queries of Square [default: 5000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    queries: Option<u32>,
    /// Target classes of APGD-T and FAB-T, the most likely ones [default: 9]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    targets: Option<u32>,
    /// Radius [default: that of the checkpoint's experiment]
    #[arg(long, value_name = "K/255")]
    epsilon: Option<Epsilon>,
    /// Step size of PGD [default: that of the checkpoint's experiment if norm and radius are its own and the steps can
    /// cross the ball with it, else 2.5 · radius / steps]
    #[arg(long, value_name = "K/255")]
    pub(super) step_size: Option<Epsilon>,
    /// Shape of the ball [default: that of the checkpoint's experiment]
    #[arg(long, value_enum)]
    norm: Option<Norm>,
    /// Starts of PGD, APGD, FAB and Square, or searches of CW for its constant; an image counts as robust only if it
    /// withstands all of them [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4095))]
    restarts: Option<u32>,
    /// Count an image as misclassified if any iterate of PGD is, not only the last one
    #[arg(long)]
    any_iterate: bool,
    /// Also run controls that check the attacks: random noise, radius 0, more steps [default: with AutoAttack]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    controls: Option<bool>,
    /// Also measure robust accuracy over the radius, under the first attack that is named, else PGD: `0:16/255` for 9
    /// radii, or `0:16/255:5`
    #[arg(long, value_name = "FROM:TO[:COUNT]")]
    epsilon_sweep: Option<EpsilonSweep>,
    /// Also measure robust accuracy over the number of steps of that attack, PGD's if it has none
    #[arg(long, value_name = "STEPS,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    steps_sweep: Vec<u32>,
    /// Also measure accuracy under common corruptions, five severities each: standard (15), authors (the 18 of FAIR-TAT),
    /// all (19), or names such as fog,frost. They are generated, unless --corruptions-dir names the published files
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', num_args = 0..=1, default_missing_value = "standard")]
    corruptions: Vec<CorruptionChoice>,
    /// Directory of CIFAR-10-C or CIFAR-100-C: one .npy file for each corruption, and labels.npy
    #[arg(long, value_name = "DIR", requires = "corruptions")]
    pub(super) corruptions_dir: Option<PathBuf>,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Evaluate only this many images: the first ones of each class
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// Which images
    #[arg(long, value_enum, default_value_t = Part::Test)]
    pub(super) part: Part,
    /// Write a report to this directory: report.md, report.json, report.csv, the verdict on every image, figures. An
    /// evaluation that was stopped continues from there
    #[arg(long, value_name = "DIR")]
    pub(super) report: Option<PathBuf>,
    /// Replace a report
    #[arg(long, requires = "report")]
    pub(super) force: bool,
    /// Also write the adversarial images of every attack, as .npy files of exact f32 values
    #[arg(long, requires = "report")]
    pub(super) save_images: bool,
    #[command(flatten)]
    pub(super) stored: StoredArgs,
    /// More checkpoints, for one table of all
    pub(super) more: Vec<PathBuf>,
    /// Also test the adversarial images of each checkpoint on all others
    #[arg(long, requires = "more")]
    pub(super) transfer: bool,
}

/// Some corruptions, by name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CorruptionChoice(Vec<Corruption>);

impl FromStr for CorruptionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "standard" => Corruption::STANDARD.to_vec(),
            "authors" => Corruption::AUTHORS.to_vec(),
            "all" => Corruption::ALL.to_vec(),
            _ => {
                let names: Vec<&str> = Corruption::ALL.iter().map(|corruption| corruption.name()).collect();
                let found = Corruption::ALL.into_iter().find(|corruption| corruption.name() == text);
                vec![found.ok_or_else(|| format!("expected standard, authors, all, or of {}", names.join(", ")))?]
            }
        }))
    }
}

/// Radii of a curve, evenly spaced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EpsilonSweep(Vec<Epsilon>);

impl FromStr for EpsilonSweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (from, to, count) = match parts.as_slice() {
            [from, to] => (from, to, 9),
            [from, to, count] => {
                let count = count.parse().ok().filter(|count| (2..=1000).contains(count));
                (from, to, count.ok_or_else(|| format!("expected 2 to 1000 radii, found '{}'", parts[2]))?)
            }
            _ => return Err(format!("expected FROM:TO or FROM:TO:COUNT, such as 0:16/255, found '{text}'")),
        };
        let read = |text: &str| text.parse::<Epsilon>().map_err(|error| format!("'{text}': {error}"));
        let (from, to) = (read(from)?, read(to)?);
        if to.exact() <= from.exact() {
            return Err(format!("expected a radius above {from}, found {to}"));
        }
        let at = |i: u32| {
            let share = f64::from(i) / f64::from(count - 1);
            to.rounded_like(from.exact() + share * (to.exact() - from.exact()))
        };
        Ok(Self((0..count).map(at).collect()))
    }
}

impl EvalArgs {
    /// Checks what does not depend on the checkpoint.
    pub(super) fn check(&self) -> Result<()> {
        self.stored.engine.validate()?;
        self.stored.json.check()?;
        let wants = |kinds: &[AttackKind]| {
            let kind = |wanted: &Wanted| matches!(wanted, Wanted::Attack(kind) if kinds.contains(kind));
            self.attack.iter().any(kind)
        };
        let has_suite = self.attack.iter().any(|wanted| matches!(wanted, Wanted::Suite(_)));
        let has_autoattack = self.attack.contains(&Wanted::Suite(Suite::AutoAttack));
        const PGD: [AttackKind; 2] = [AttackKind::Pgd, AttackKind::PgdTargeted];
        const STEPPING: [AttackKind; 8] = [
            AttackKind::Pgd,
            AttackKind::PgdTargeted,
            AttackKind::ApgdCe,
            AttackKind::ApgdDlr,
            AttackKind::ApgdT,
            AttackKind::Fab,
            AttackKind::FabT,
            AttackKind::Cw,
        ];
        let starts = [&STEPPING[..], &[AttackKind::Square, AttackKind::Noise]].concat();
        // Controls and curves use PGD.
        let is_swept = self.epsilon_sweep.is_some() || !self.steps_sweep.is_empty();
        let uses_pgd = wants(&PGD) || self.controls.unwrap_or(has_suite) || is_swept;
        let unused: [(&str, bool, bool, &str); 7] = [
            ("--steps", self.steps.is_some(), uses_pgd || wants(&STEPPING), "an option of PGD, APGD, FAB and CW"),
            ("--step-size", self.step_size.is_some(), uses_pgd, "an option of PGD"),
            (
                "--restarts",
                self.restarts.is_some(),
                uses_pgd || wants(&starts),
                "an option of attacks with random starts",
            ),
            ("--any-iterate", self.any_iterate, uses_pgd, "an option of PGD"),
            ("--queries", self.queries.is_some(), wants(&[AttackKind::Square]), "an option of Square"),
            (
                "--targets",
                self.targets.is_some(),
                wants(&[AttackKind::ApgdT, AttackKind::FabT]),
                "an option of APGD-T and FAB-T",
            ),
            ("--budget", self.budget.is_some(), has_autoattack, "an option of AutoAttack's version standard"),
        ];
        for (flag, _, _, what) in unused.iter().filter(|(_, named, used, _)| *named && !*used) {
            let suite = if has_suite { "; AutoAttack has its published settings" } else { "" };
            tell!("warning: {flag} is ignored: it is {what}, which is not evaluated; see --attack{suite}");
        }
        if self.steps == Some(0) && (uses_pgd || wants(&STEPPING)) {
            return Err(Usage(
                "--steps: PGD needs at least 1 step, found 0: it would only add random noise. `--attack clean` gives the \
                 accuracy without an attack"
                    .into(),
            )
            .into());
        }
        Ok(())
    }

    /// The corruptions that were asked for, each once.
    pub(super) fn corruptions(&self) -> Vec<Corruption> {
        let mut all: Vec<Corruption> = Vec::new();
        for corruption in self.corruptions.iter().flat_map(|choice| &choice.0) {
            if !all.contains(corruption) {
                all.push(*corruption);
            }
        }
        all
    }

    /// All checkpoints.
    pub(super) fn checkpoints(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.stored.checkpoint.as_path()).chain(self.more.iter().map(PathBuf::as_path))
    }

    /// The settings of the attacks.
    fn settings(&self) -> AttackSettings {
        let Self { norm, epsilon, steps, step_size, queries, targets, restarts, any_iterate, seed, .. } = *self;
        AttackSettings { norm, epsilon, steps, step_size, queries, targets, restarts, any_iterate, seed }
    }

    /// Radius and shape of the ball of every attack.
    pub(super) fn ball(&self, experiment: &Experiment) -> (Epsilon, Norm) {
        self.settings().ball(&run_steps(experiment))
    }

    /// An attack with another radius, and the step size that belongs to it.
    fn with_radius(&self, attack: &Attack, epsilon: Epsilon, experiment: &Experiment) -> Attack {
        let step_size = match attack.kind {
            AttackKind::Fgsm => epsilon,
            AttackKind::Pgd | AttackKind::PgdTargeted => {
                evaluation_step_size(attack.norm, epsilon, attack.steps, self.step_size, &run_steps(experiment))
            }
            _ => attack.step_size,
        };
        Attack { epsilon, step_size, ..attack.clone() }
    }

    /// An attack with the settings that were given.
    fn attack(&self, kind: AttackKind, experiment: &Experiment) -> Attack {
        self.settings().attack(kind, &run_steps(experiment))
    }
}

/// The attacks that were asked for.
pub(super) struct Attacks {
    pub(super) plan: Plan,
    /// For each entry of the plan, why it is weaker than its radius suggests, or is not what its options suggest.
    pub(super) warnings: Vec<Vec<String>>,
}

impl Attacks {
    pub(super) fn of(arguments: &EvalArgs, experiment: &Experiment, shape: ImageShape) -> Result<Self, Usage> {
        let (epsilon, norm) = arguments.ball(experiment);
        let has_suite = arguments.attack.iter().any(|wanted| matches!(wanted, Wanted::Suite(_)));
        let controls = arguments.controls.unwrap_or(has_suite);
        // Survivors are counted from the images that are classified correctly without an attack.
        let needs_clean = has_suite || controls || arguments.report.is_some() || !arguments.more.is_empty();
        let mut plan = if needs_clean { Plan::clean() } else { Plan { entries: Vec::new() } };
        for wanted in &arguments.attack {
            match (wanted, arguments.budget) {
                (Wanted::Attack(kind), _) => {
                    let attack = arguments.attack(*kind, experiment);
                    attack.check().map_err(|what| Usage(format!("--attack {}: {what}", kind.name())))?;
                    plan.add(attack, Role::Attack);
                }
                (Wanted::Suite(Suite::AutoAttack), Some(Budget::Small)) => {
                    plan.add_suite(Suite::Small, epsilon, norm, arguments.seed);
                }
                (Wanted::Suite(suite), _) => plan.add_suite(*suite, epsilon, norm, arguments.seed),
            }
        }
        if controls {
            plan.add_controls(&arguments.attack(AttackKind::Pgd, experiment));
        }
        let kinds = arguments.attack.iter().filter_map(|wanted| match wanted {
            Wanted::Attack(AttackKind::Clean | AttackKind::Noise) | Wanted::Suite(_) => None,
            Wanted::Attack(kind) => Some(*kind),
        });
        let swept = kinds.into_iter().next().unwrap_or(AttackKind::Pgd);
        let iterative = Some(swept).filter(|kind| !matches!(kind, AttackKind::Fgsm | AttackKind::Noise));
        let stepping = arguments.attack(iterative.unwrap_or(AttackKind::Pgd), experiment);
        let swept = arguments.attack(swept, experiment);
        if let Some(EpsilonSweep(radii)) = &arguments.epsilon_sweep {
            for radius in radii {
                check_distance(*radius, norm, Some(shape)).map_err(|what| Usage(format!("--epsilon-sweep: {what}")))?;
            }
            plan.add_sweep(
                radii.iter().map(|epsilon| arguments.with_radius(&swept, *epsilon, experiment)),
                Role::EpsilonSweep,
            );
        }
        let with_steps = |steps: &u32| {
            let varied = Attack { steps: *steps, ..stepping.clone() };
            arguments.with_radius(&varied, stepping.epsilon, experiment)
        };
        let steps: std::collections::BTreeSet<u32> = arguments.steps_sweep.iter().copied().collect();
        plan.add_sweep(steps.iter().map(with_steps), Role::StepsSweep);
        let warnings = warnings(&plan, arguments, experiment);
        Ok(Self { plan, warnings })
    }
}

/// Why each attack is weaker than its radius suggests, or is not what its options suggest. Warnings about all attacks
/// are at the first that is not a clean evaluation.
fn warnings(plan: &Plan, arguments: &EvalArgs, experiment: &Experiment) -> Vec<Vec<String>> {
    let of = |attack: &Attack| attack.warning().into_iter().collect();
    let mut warnings: Vec<Vec<String>> = plan.entries.iter().map(|entry| of(&entry.attack)).collect();
    let run = run_steps(experiment);
    let attacked = plan.entries.iter().position(|entry| entry.attack.kind != AttackKind::Clean);
    if let (Some(norm), None) = (arguments.norm, arguments.epsilon)
        && norm != run.norm
        && let Some(attacked) = attacked
    {
        let (own, other) = (norm_name(run.norm), norm_name(norm));
        warnings[attacked].push(format!(
            "ε {} is the radius of the checkpoint's experiment in {own}; an {other} ball of that radius holds other images. \
             Name a radius for {other} with --epsilon",
            run.eval_epsilon
        ));
    }
    warnings
}
