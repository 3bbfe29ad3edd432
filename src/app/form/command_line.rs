//! The command line that runs the experiment of the form.

use std::fmt::Write;

use serde_json::Value;

use super::Form;
use crate::config::defaults::{DataKind, starting_point};
use crate::config::fields::{self, Field, Kind, Values, item};
use crate::config::{Experiment, PRESETS};

impl Form {
    /// The shortest `fairtat train …` that runs exactly this experiment, for a POSIX shell. If no flag can express it,
    /// the command line writes the experiment to a file first.
    pub fn command_line(&self) -> String {
        let preset = PRESETS.iter().find(|(name, _)| *name == self.preset).map(|(name, _)| *name);
        let (by_preset, by_data) = (preset.map(|name| self.flags(Some(name))), self.flags(None));
        let chosen = match (by_preset, by_data) {
            (Some(Ok(by_preset)), Ok(by_data)) if by_data.len() < by_preset.len() => Ok(by_data),
            (Some(Err(_)), Ok(words)) | (Some(Ok(words)), _) | (None, Ok(words)) => Ok(words),
            (Some(Err(path)), Err(_)) => Err(("preset", path)),
            (None, Err(path)) => Err(("data set", path)),
        };
        match chosen {
            Ok(words) => {
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                format!("fairtat train {}", words.join(" "))
            }
            Err((origin, path)) => {
                let toml = self.to_toml();
                let toml = toml.trim_end();
                format!(
                    "# No flag takes the {origin}'s value of {path} away, so the experiment is written to a file.\n\
                     cat > experiment.toml <<'END'\n{toml}\nEND\nfairtat train --config experiment.toml"
                )
            }
        }
    }

    /// The arguments after `fairtat train` that turn a preset, or the defaults of the data set, into this experiment.
    ///
    /// # Errors
    /// The field that no flag can set.
    fn flags(&self, preset: Option<&'static str>) -> Result<Vec<String>, &'static str> {
        let data = &self.experiment.data;
        let own = preset.and_then(|name| Experiment::preset(name).ok()).filter(|own| own.data.dataset == data.dataset);
        // A folder may hold other images where the command runs, and then the defaults that the flags modify differ
        // too.
        let kinds = match DataKind::of(data, None) {
            _ if own.is_some() => vec![None],
            None if matches!(data.dataset.as_str(), "folder" | "npy") => DataKind::UNNAMED.map(Some).to_vec(),
            known => vec![known],
        };
        let starts = kinds.into_iter().filter_map(|kind| starting_point(preset, data, kind).ok());
        let starts: Vec<Values> = starts.map(|start| Values::of(&start)).collect();
        let values = Values::of(&self.experiment);
        let mut words = preset.map_or(Vec::new(), |name| vec!["--preset".to_owned(), name.to_owned()]);
        let differs = |field: &&Field| starts.iter().any(|start| start.get(field.path) != values.get(field.path));
        // Without a preset, the data set selects the defaults that the flags modify.
        let named = |field: &&Field| preset.is_none() && field.path == "data.dataset";
        let mut differences: Vec<&Field> =
            fields::all().iter().filter(|field| named(field) || differs(field)).collect();
        complete_validation(&mut differences, &self.experiment);
        for field in differences {
            let flag = format!("--{}", field.flag);
            let value = match values.get(field.path) {
                Value::Null => return Err(field.path),
                Value::String(text) => text.clone(),
                // Formatted as in Rust, not as in JSON: the shortest text that keeps every significant digit.
                Value::Array(items) => items.iter().map(item).collect::<Vec<_>>().join(","),
                other => other.to_string(),
            };
            match (field.kind, value.as_str()) {
                (Kind::Choices | Kind::Integers | Kind::Reals, "") => words.push(flag),
                // Otherwise the value would be parsed as a flag.
                (_, value) if value.starts_with('-') => words.push(format!("{flag}={value}")),
                _ => words.extend([flag, value]),
            }
        }
        Ok(words)
    }
}

/// On the command line a share by itself removes the preset's number of validation images, see
/// `ExperimentArgs::put_over`: the share must be given to remove the number, and the number must be given to keep it.
fn complete_validation(differences: &mut Vec<&'static Field>, experiment: &Experiment) {
    use crate::config::fields::field;
    let place = |path| differences.iter().position(|field| field.path == path);
    let (share, number) = ("data.validation_fraction", "data.validation_per_class");
    match (place(share), place(number), experiment.data.validation_per_class) {
        (Some(_), None, Some(_)) => differences.extend(field(number)),
        (shown, Some(at), None) => {
            differences.remove(at);
            if shown.is_none() {
                differences.extend(field(share));
            }
        }
        _ => {}
    }
}

/// A word quoted for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,=:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "'{}'", word.replace('\'', "'\\''"));
    text
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::app::form::presets;

    /// The words into which a shell splits a line.
    fn words(line: &str) -> Vec<String> {
        let output = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\0' {line}")]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
    }

    /// What the command line, or the file that it writes, would train.
    fn trained(text: &str) -> Experiment {
        if let Some((_, rest)) = text.split_once("<<'END'\n") {
            let (toml, _) = rest.split_once("\nEND\n").unwrap();
            return Experiment::from_toml(toml, "experiment.toml").unwrap();
        }
        crate::cli::trained_by(&words(text)).unwrap()
    }

    #[test]
    fn an_unchanged_preset_needs_no_flag() {
        for preset in presets() {
            let mut form = Form::default();
            form.load_preset(preset.name).unwrap();
            assert_eq!(form.command_line(), format!("fairtat train --preset {}", preset.name));
        }
        let mut form = Form::default();
        form.set("optimizer.lr", json!(0.05)).unwrap();
        form.set("attack.epsilon", json!("8/255")).unwrap();
        form.set("data.path", json!("my data/it's")).unwrap();
        let expected = "fairtat train --preset digits-60s --path 'my data/it'\\''s' --epsilon 8/255 --lr 0.05";
        assert_eq!(form.command_line(), expected);
        assert_eq!(words(expected)[5], "my data/it's");
    }

    #[test]
    fn validation_by_share_and_by_number_are_told_apart() {
        for (share, number) in [(0.02, None), (0.1, None), (0.1, Some(20)), (0.1, Some(5)), (0.02, Some(5))] {
            let mut form = Form::default();
            form.set("data.validation_fraction", json!(share)).unwrap();
            form.set("data.validation_per_class", json!(number)).unwrap();
            let line = form.command_line();
            assert_eq!(trained(&line), form.experiment, "{line}");
            assert!(!line.contains("experiment.toml"), "{line}");
        }
    }

    #[test]
    fn what_no_flag_can_unset_is_written_to_a_file() {
        let mut form = Form::default();
        form.load_preset("shapes-unfair").unwrap();
        form.set("model.width", json!(null)).unwrap();
        let line = form.command_line();
        assert!(line.starts_with("# No flag takes the preset's value of model.width away"), "{line}");
        assert!(line.ends_with("fairtat train --config experiment.toml"));
        assert_eq!(trained(&line), form.experiment);
    }

    #[test]
    fn settings_kept_for_other_images_are_named_and_taken_ones_are_not() {
        let mut form = Form::default();
        form.set("data.dataset", json!("cifar10")).unwrap();
        form.keep();
        let line = form.command_line();
        assert!(line.contains("--epsilon 24/255") && line.contains("--flip false"), "{line}");
        assert_eq!(trained(&line), form.experiment, "{line}");
        // Whatever the folder contains where the command runs.
        let mut form = Form::default();
        form.set_data_path(std::path::Path::new("none")).unwrap();
        form.load_preset("small-grey").unwrap();
        let line = form.command_line();
        assert!(line.starts_with("fairtat train --dataset folder --path none"), "{line}");
        assert!(line.contains("--epsilon 8/255") && line.contains("--crop-padding 0"), "{line}");
        assert_eq!(trained(&line), form.experiment, "{line}");
    }

    /// A value that is valid for the field by itself, selected by two numbers.
    fn value(field: &fields::Field, pick: usize, share: f64) -> Value {
        let (least, most) = field.range;
        let name = |k: usize| json!(field.choices[k % field.choices.len()].name);
        match field.kind {
            _ if field.unset.is_some() && pick.is_multiple_of(4) => Value::Null,
            Kind::Bool => json!(pick.is_multiple_of(2)),
            Kind::Choice => name(pick),
            Kind::Choices => (0..pick % 3).map(|k| name(pick + k)).collect(),
            Kind::Integer if field.path == "data.channels" => json!([1, 3][pick % 2]),
            Kind::Integer => json!((least + share * (most - least)) as u64),
            Kind::Real => json!((least + share * (most - least)).clamp(1e-7, 0.9999)),
            Kind::Integers => (1..=pick as u64 % 3).map(|k| json!(k + (share * 50.0) as u64)).collect(),
            Kind::Reals => (0..pick % 3).map(|_| json!(least + share * (most - least))).collect(),
            Kind::Epsilon => json!(format!("{}/255", (share * most * 10.0).round() / 10.0)),
            Kind::Text if field.path == "data.dataset" && !pick.is_multiple_of(3) => {
                let names: Vec<_> = crate::data::source_names().collect();
                json!(names[pick % names.len()])
            }
            Kind::Text | Kind::Path => json!(["-x", "a b", "it's $HOME", "1", "x\"y\\z", "ü&*"][pick % 6]),
        }
    }

    proptest! {
        #[test]
        fn any_experiment_is_trained_again(
            preset in 0..presets().len(),
            changes in prop::collection::vec((0..fields::all().len(), 0..60usize, 0.0..1.0f64), 0..12),
        ) {
            let mut form = Form::default();
            form.load_preset(presets()[preset].name).unwrap();
            for (index, pick, share) in changes {
                let field = &fields::all()[index];
                let before = form.experiment.clone();
                form.set(field.path, value(field, pick, share)).unwrap();
                // The command line must refuse contradictory settings.
                if form.experiment.validate().is_err() {
                    form.experiment = before;
                }
            }
            let line = form.command_line();
            prop_assert_eq!(trained(&line), form.experiment, "{}", line);
        }
    }
}
