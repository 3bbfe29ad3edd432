//! Which attacks an evaluation runs, and in which order.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::attack::{Attack, AttackKind, AttackSettings, RunSteps};
use crate::engine::Norm;
use crate::units::Epsilon;

/// Attacks that are run one after the other, each on the images that have withstood the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// AutoAttack's version `standard` (Croce and Hein 2020): APGD-CE, APGD-T, FAB-T, Square.
    AutoAttack,
    /// AutoAttack's version `rand`, for randomised networks: APGD-CE and APGD-DLR on the mean of 20 gradients. The
    /// networks here are deterministic, where 20 gradients are equal to one; one is computed.
    Rand,
    /// The attacks of [`Self::AutoAttack`] with a tenth of its cost, for a first look.
    Small,
}

impl Suite {
    /// All suites.
    pub const ALL: [Self; 3] = [Self::AutoAttack, Self::Small, Self::Rand];

    /// The name in commands, tables and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AutoAttack => "autoattack",
            Self::Rand => "rand",
            Self::Small => "autoattack-small",
        }
    }

    /// A short title, for a list to choose from.
    pub const fn short_title(self) -> &'static str {
        match self {
            Self::AutoAttack => "AutoAttack",
            Self::Rand => "AutoAttack, rand",
            Self::Small => "AutoAttack, small budget",
        }
    }

    /// The name in a report.
    pub const fn title(self) -> &'static str {
        match self {
            Self::AutoAttack => "AutoAttack, standard",
            Self::Rand => "AutoAttack, rand (EOT 20, computed once: the network is deterministic)",
            Self::Small => "AutoAttack with a small budget (not comparable with published numbers)",
        }
    }

    /// Its attacks with their published settings.
    fn attacks(self, epsilon: Epsilon, norm: Norm, seed: u64) -> Vec<Attack> {
        let published = |kind| Attack::published(kind, epsilon, norm, seed);
        let standard = [AttackKind::ApgdCe, AttackKind::ApgdT, AttackKind::FabT, AttackKind::Square];
        match self {
            Self::AutoAttack => standard.map(published).to_vec(),
            Self::Rand => [AttackKind::ApgdCe, AttackKind::ApgdDlr].map(published).to_vec(),
            Self::Small => {
                let mut all = standard.map(published);
                for attack in &mut all {
                    attack.steps = if attack.kind == AttackKind::Square { 500 } else { 30 };
                    attack.targets = attack.targets.min(3);
                }
                all.to_vec()
            }
        }
    }
}

/// How much AutoAttack computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Budget {
    /// A tenth: fewer steps, targets and queries
    Small,
    /// As published
    Standard,
}

/// What a user may ask for by name: an attack or a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// One attack, on all images.
    Attack(AttackKind),
    /// Several, each on the survivors of those before.
    Suite(Suite),
}

impl Wanted {
    /// The name in commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attack(kind) => kind.name(),
            Self::Suite(suite) => suite.name(),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = <AttackKind as clap::ValueEnum>::value_variants();
        if let Some(kind) = kinds.iter().find(|kind| kind.name() == text) {
            return Ok(Self::Attack(*kind));
        }
        match text {
            "autoattack" | "standard" | "aa" => Ok(Self::Suite(Suite::AutoAttack)),
            "rand" => Ok(Self::Suite(Suite::Rand)),
            "autoattack-small" => Ok(Self::Suite(Suite::Small)),
            _ => {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                Err(format!("expected one of {}, autoattack, autoattack-small, rand", names.join(", ")))
            }
        }
    }
}

/// What an entry of a plan is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It was asked for.
    Attack,
    /// It checks the others. It is an attack in the same ball, and counts like them.
    Control,
    /// A point of a curve over the radius.
    EpsilonSweep,
    /// A point of a curve over the number of steps.
    StepsSweep,
}

impl Role {
    /// Whether an image must withstand the attack to count as robust.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Attack | Self::Control)
    }
}

/// One attack of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in tables and file names; no two entries share it.
    pub name: String,
    /// The attack.
    pub attack: Attack,
    /// The suite that it belongs to: it attacks the survivors of that suite only.
    pub suite: Option<Suite>,
    /// What it is for.
    pub role: Role,
}

impl Entry {
    /// The attack's usual name, with its steps or radius where other entries may differ in that.
    pub fn title(&self) -> String {
        let Attack { kind, steps, epsilon, .. } = &self.attack;
        let title = match kind {
            AttackKind::Pgd | AttackKind::PgdTargeted => format!("{}-{steps}", kind.title()),
            kind => kind.title().into(),
        };
        match self.role {
            Role::EpsilonSweep => format!("{title}, ε {epsilon}"),
            _ if *epsilon == Epsilon::ZERO && *kind != AttackKind::Clean => format!("{title}, ε 0"),
            _ => title,
        }
    }
}

/// The attacks of an evaluation, clean images first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order in which they run.
    pub entries: Vec<Entry>,
}

impl Plan {
    /// Clean accuracy only.
    pub fn clean() -> Self {
        let clean = Entry { name: "clean".into(), attack: Attack::clean(), suite: None, role: Role::Attack };
        Self { entries: vec![clean] }
    }

    /// Adds an attack on all images. One that is there already is not added again.
    pub fn add(&mut self, attack: Attack, role: Role) {
        if !self.entries.iter().any(|entry| entry.suite.is_none() && entry.attack == attack) {
            self.push(attack, None, role);
        }
    }

    /// Adds the attacks of a suite.
    pub fn add_suite(&mut self, suite: Suite, epsilon: Epsilon, norm: Norm, seed: u64) {
        if !self.entries.iter().any(|entry| entry.suite == Some(suite)) {
            for attack in suite.attacks(epsilon, norm, seed) {
                self.push(attack, Some(suite), Role::Attack);
            }
        }
    }

    /// The attacks that `wanted` names, with the settings of an evaluation of this run, clean images first, and their
    /// controls if asked for.
    ///
    /// # Errors
    /// If an attack does not exist in the norm ([`Attack::check`]).
    pub fn of(wanted: &[Wanted], settings: &AttackSettings, run: &RunSteps, controls: bool) -> Result<Self, String> {
        let mut plan = Self::clean();
        let (epsilon, norm) = settings.ball(run);
        for wanted in wanted {
            match wanted {
                Wanted::Attack(kind) => {
                    let attack = settings.attack(*kind, run);
                    attack.check()?;
                    plan.add(attack, Role::Attack);
                }
                Wanted::Suite(suite) => plan.add_suite(*suite, epsilon, norm, settings.seed),
            }
        }
        if controls {
            plan.add_controls(&settings.attack(AttackKind::Pgd, run));
        }
        Ok(plan)
    }

    /// Adds the controls of the authors of AutoAttack and of Carlini et al. 2019 ("On evaluating adversarial
    /// robustness"): noise in the same ball, an attack with radius 0, and `pgd` with its own and five times its steps.
    pub fn add_controls(&mut self, pgd: &Attack) {
        let noise = Attack::published(AttackKind::Noise, pgd.epsilon, pgd.norm, pgd.seed);
        self.add(noise, Role::Control);
        let nothing = Attack { epsilon: Epsilon::ZERO, step_size: Epsilon::ZERO, ..pgd.clone() };
        self.add(nothing, Role::Control);
        self.add(pgd.clone(), Role::Control);
        self.add(Attack { steps: pgd.steps.saturating_mul(5), ..pgd.clone() }, Role::Control);
    }

    /// The plan for a network with so many classes: an attack has at most as many targets as there are wrong classes.
    pub fn for_classes(&self, classes: usize) -> Self {
        let mut plan = self.clone();
        let most = classes.saturating_sub(1).max(1) as u32;
        plan.entries.iter_mut().for_each(|entry| entry.attack.targets = entry.attack.targets.min(most));
        plan
    }

    /// Adds the points of a curve.
    pub fn add_sweep(&mut self, attacks: impl IntoIterator<Item = Attack>, role: Role) {
        attacks.into_iter().for_each(|attack| self.push(attack, None, role));
    }

    fn push(&mut self, attack: Attack, suite: Option<Suite>, role: Role) {
        let taken = |name: &str| self.entries.iter().any(|entry| entry.name == name);
        let mut base = attack.kind.name().to_owned();
        match attack.kind {
            AttackKind::Pgd | AttackKind::PgdTargeted => base = format!("{base}-{}", attack.steps),
            _ => {}
        }
        if role == Role::EpsilonSweep {
            base += &format!("-epsilon-{}", attack.epsilon.to_string().replace("/255", ""));
        } else if attack.epsilon == Epsilon::ZERO && attack.kind != AttackKind::Clean {
            base += "-epsilon-0";
        }
        if let Some(suite) = suite.filter(|_| taken(&base)) {
            base = format!("{}-{base}", suite.name());
        }
        let mut name = base.clone();
        let mut number = 2;
        while taken(&name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        self.entries.push(Entry { name, attack, suite, role });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoattack_is_as_published() {
        let mut plan = Plan::clean();
        plan.add_suite(Suite::AutoAttack, Epsilon::levels(8.0), Norm::Linf, 0);
        let told: Vec<String> = plan.entries.iter().map(|entry| entry.attack.to_string()).collect();
        assert_eq!(
            told,
            [
                "clean",
                "APGD-CE, L∞, ε 8/255, 100 steps, 1 random start, seed 0",
                "APGD-T, L∞, ε 8/255, 100 steps, 9 targets, 1 random start, seed 0",
                "FAB-T, L∞, ε 8/255, 100 steps, 9 targets, no random start",
                "Square, L∞, ε 8/255, 5000 queries, 1 random start, seed 0",
            ]
        );
    }

    #[test]
    fn names_are_distinct() {
        let mut plan = Plan::clean();
        let pgd = Attack::pgd(Epsilon::levels(8.0), Epsilon::levels(2.0), 20, Norm::Linf, 0);
        plan.add(pgd.clone(), Role::Attack);
        plan.add(Attack::published(AttackKind::Square, pgd.epsilon, Norm::Linf, 0), Role::Attack);
        plan.add_suite(Suite::AutoAttack, pgd.epsilon, Norm::Linf, 0);
        plan.add_controls(&pgd);
        plan.add(Attack { seed: 1, ..pgd }, Role::Attack);
        let names: Vec<&str> = plan.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "clean",
                "pgd-20",
                "square",
                "apgd-ce",
                "apgd-t",
                "fab-t",
                "autoattack-square",
                "noise",
                "pgd-20-epsilon-0",
                "pgd-100",
                "pgd-20-2"
            ]
        );
    }

    #[test]
    fn names_are_parsed_and_refused() {
        assert_eq!("apgd-t".parse(), Ok(Wanted::Attack(AttackKind::ApgdT)));
        assert_eq!("standard".parse(), Ok(Wanted::Suite(Suite::AutoAttack)));
        assert!("apgd".parse::<Wanted>().unwrap_err().contains("apgd-ce, apgd-dlr"));
    }
}
