//! The built-in presets, one TOML file each in `assets/presets`.
//!
//! A preset can name another one that it changes: `extends = "cifar10-paper"`.

use toml::{Table, Value};

use super::{ConfigError, Experiment};

/// Names presets after their files.
macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../assets/presets/", $name, ".toml")))),*]
    };
}

/// The built-in presets: name and text. The first line of the text describes the preset.
pub const PRESETS: [(&str, &str); 28] = presets![
    "digits-60s",
    "shapes-unfair",
    "shapes-watch",
    "cifar10-small",
    "cifar10-paper",
    "digits-standard",
    "digits-at",
    "digits-trades",
    "digits-cfa",
    "digits-frl",
    "digits-fat",
    "digits-bat",
    "digits-wat",
    "digits-dafa",
    "digits-faal",
    "digits-trix",
    "cifar10-paper-standard",
    "cifar10-paper-at",
    "cifar10-paper-trades",
    "cifar10-paper-cfa",
    "cifar10-paper-frl",
    "cifar10-paper-fat",
    "cifar10-paper-fat-trades",
    "cifar10-paper-bat",
    "cifar10-paper-wat",
    "cifar10-paper-dafa",
    "cifar10-paper-faal",
    "cifar10-paper-trix",
];

/// The preset that runs by default.
pub const DEFAULT_PRESET: &str = "digits-60s";

impl Experiment {
    /// One of [`PRESETS`].
    ///
    /// # Errors
    /// [`ConfigError::UnknownPreset`] lists all presets.
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        let table = table(name, PRESETS.len())?;
        Value::Table(table).try_into().map_err(|error| format_error(name, &error))
    }
}

fn format_error(name: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Format { origin: format!("preset {name}"), what: error.message().to_owned() }
}

/// The values of a preset and of those that it extends, at most `depth` of them.
fn table(name: &str, depth: usize) -> Result<Table, ConfigError> {
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name).filter(|_| depth > 0) else {
        let known = PRESETS.map(|(name, _)| name).join(", ");
        return Err(ConfigError::UnknownPreset { name: name.into(), known });
    };
    let mut own: Table = text.parse().map_err(|error| format_error(name, &error))?;
    match own.remove("extends") {
        Some(Value::String(base)) => {
            let mut values = table(&base, depth - 1)?;
            overwrite(&mut values, own);
            Ok(values)
        }
        _ => Ok(own),
    }
}

/// Replaces values by those of `with`, table by table.
fn overwrite(values: &mut Table, with: Table) {
    for (key, value) in with {
        match (values.get_mut(&key), value) {
            (Some(Value::Table(values)), Value::Table(with)) => overwrite(values, with),
            (_, value) => {
                values.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FatStop, MethodChoice, Schedule, fields};
    use crate::engine::{BatchNormMode, Padding};
    use crate::model::Architecture;
    use crate::units::Epsilon;
    use clap::ValueEnum;

    #[test]
    fn every_method_has_a_preset_of_its_paper_and_a_small_one() {
        for method in MethodChoice::value_variants() {
            let name = method.to_possible_value().unwrap().get_name().to_owned();
            let [paper, small] = match method {
                MethodChoice::FairTat => ["cifar10-paper".to_owned(), "digits-60s".to_owned()],
                _ => [format!("cifar10-paper-{name}"), format!("digits-{name}")],
            };
            for preset in [paper, small] {
                let experiment = Experiment::preset(&preset).unwrap();
                experiment.validate().unwrap();
                assert_eq!(experiment.fairness.method, *method, "{preset}");
            }
        }
    }

    /// What a preset sets is neither the value of the one that it extends, nor without effect under its method.
    #[test]
    fn a_preset_sets_only_what_it_changes() {
        for (name, text) in PRESETS {
            let own: Table = text.parse().unwrap();
            let Some(base) = own.get("extends") else { continue };
            let (base, experiment) =
                (Experiment::preset(base.as_str().unwrap()).unwrap(), Experiment::preset(name).unwrap());
            let changed: Vec<String> = base.differences(&experiment).into_iter().map(|d| d.path).collect();
            let sections = own.iter().filter_map(|(section, fields)| Some((section, fields.as_table()?)));
            for path in
                sections.flat_map(|(section, fields)| fields.keys().map(move |field| format!("{section}.{field}")))
            {
                // Settings whose default says what the paper does may be repeated.
                let known = fields::field(&path).is_some();
                assert!(known && (changed.contains(&path) || path.starts_with("cfa.")), "{name}: {path}");
                assert_eq!(crate::config::without_effect(&experiment, &path), None, "{name}: {path}");
            }
        }
    }

    #[test]
    fn the_presets_of_the_papers_are_their_authors_code() {
        let preset = |name: &str| Experiment::preset(&format!("cifar10-paper-{name}")).unwrap();
        let radius = |text: &str| text.parse::<Epsilon>().unwrap();
        for (name, epochs, milestones, decay) in [
            ("trades", 76, vec![74], 2e-4),
            ("fat", 120, vec![59, 89, 109], 2e-4),
            ("fat-trades", 85, vec![74], 2e-4),
            ("bat", 200, vec![74, 89, 99], 2e-4),
            ("wat", 100, vec![74, 89, 99], 2e-4),
            ("dafa", 110, vec![99, 104], 5e-4),
        ] {
            let e = preset(name);
            let o = &e.optimizer;
            assert_eq!((o.epochs, &o.milestones, o.weight_decay, o.lr), (epochs, &milestones, decay, 0.1), "{name}");
            assert_eq!((e.attack.epsilon, e.attack.step_size), (radius("0.031"), radius("0.007")), "{name}");
            assert_eq!((o.schedule, o.batch_size, e.data.padding), (Schedule::MultiStep, 128, Padding::Zero), "{name}");
            assert!(!e.data.normalize && !e.averaging.ema && o.nesterov == (name == "dafa"), "{name}");
        }
        // The rate falls to a twentieth of a hundredth at the end.
        let fat = preset("fat");
        assert!((fat.optimizer.lr_at(119, 0, 1) - 0.0005).abs() < 1e-12);
        assert_eq!((fat.fat.stop, fat.attack.attack_bn), (FatStop::WhileMisclassified, BatchNormMode::Eval));
        let taus = |name: &str, epochs: &[u32]| epochs.iter().map(|e| preset(name).fat.tau_at(*e)).collect::<Vec<_>>();
        assert_eq!(taus("fat", &[0, 49, 50, 89, 90]), [0, 0, 1, 1, 2]);
        assert_eq!(taus("fat-trades", &[29, 30, 49, 50, 69, 70]), [0, 1, 1, 2, 2, 3]);
        let frl = preset("frl");
        assert_eq!((frl.model.arch, frl.data.validation_per_class), (Architecture::PreActResNet18NoFinalBn, Some(300)));
        assert!((frl.optimizer.lr_at(39, 0, 1) - 0.001).abs() < 1e-12);
        let faal = preset("faal");
        assert_eq!([0, 1].map(|epoch| (1e6 * faal.optimizer.lr_at(epoch, 0, 1)).round()), [10_000.0, 1_000.0]);
        assert!(faal.data.normalize && faal.attack.epsilon == Epsilon::levels(8.0));
        assert_eq!(preset("cfa").averaging.average_from, 50);
    }
}
