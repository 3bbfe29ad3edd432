//! The meaning of every term, for the Learn panel and for tooltips.
//!
//! The entries are in `assets/glossary.md`, which is embedded in the program: a heading with the key, then one field
//! per line. A formula is plain text in which `_k` is a subscript.

use std::collections::HashMap;

/// One term.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Its identifier, such as `robust-accuracy`.
    pub key: String,
    /// The name that is displayed.
    pub title: String,
    /// What it is, in one to three sentences.
    pub what: String,
    /// Its definition.
    pub formula: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// Sensible or usual values.
    pub range: Option<String>,
    /// Keys of related terms.
    pub see: Vec<String>,
    /// Alternative keys.
    pub also: Vec<String>,
    tooltip: String,
}

impl Entry {
    /// Explanation, formula, unit and range, for a tooltip.
    pub fn tooltip(&self) -> &str {
        &self.tooltip
    }

    fn finish(mut self) -> Self {
        self.tooltip.clone_from(&self.what);
        let mut add = |name: &str, text: &Option<String>| {
            if let Some(text) = text {
                self.tooltip.push_str(&format!("\n{name}: {text}"));
            }
        };
        add("Formula", &self.formula);
        add("Unit", &self.unit);
        add("Usual", &self.range);
        self
    }
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Glossary {
    entries: Vec<Entry>,
    /// Maps every key and alternative key to its entry.
    index: HashMap<String, usize>,
}

impl Default for Glossary {
    fn default() -> Self {
        Self::load()
    }
}

impl Glossary {
    /// The embedded glossary. This parses the text, so call it once.
    pub fn load() -> Self {
        Self::new(parse(include_str!("../../assets/glossary.md")).0)
    }

    fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_cached_key(|entry| entry.title.to_lowercase());
        let mut index = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            for key in std::iter::once(&entry.key).chain(&entry.also) {
                index.insert(key.clone(), i);
            }
        }
        Self { entries, index }
    }

    /// The meaning of a term, short enough for a tooltip. A key may also be written with spaces or underscores, so that
    /// the name of an experiment's field finds its term.
    pub fn tooltip(&self, key: &str) -> Option<&str> {
        self.get(key).map(Entry::tooltip)
    }

    /// The entry of a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        let plain = || key.trim().to_lowercase().replace(['_', ' '], "-");
        let found = self.index.get(key).or_else(|| self.index.get(&plain()))?;
        self.entries.get(*found)
    }

    /// All terms, ordered by title.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Terms that have every word of `text` in their title, key or explanation; matches in title or key come first.
    pub fn find(&self, text: &str) -> Vec<&Entry> {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        let rank = |entry: &Entry| {
            let name = format!("{} {} {}", entry.title, entry.key, entry.also.join(" ")).to_lowercase();
            let what = entry.what.to_lowercase();
            let in_name = words.iter().all(|word| name.contains(word));
            let anywhere = words.iter().all(|word| name.contains(word) || what.contains(word));
            (in_name || anywhere).then_some(usize::from(!in_name))
        };
        let mut found: Vec<(usize, &Entry)> =
            self.entries.iter().filter_map(|entry| rank(entry).map(|rank| (rank, entry))).collect();
        found.sort_by_key(|(rank, _)| *rank);
        found.into_iter().map(|(_, entry)| entry).collect()
    }
}

/// The entries of a glossary, and the lines that could not be parsed.
fn parse(text: &str) -> (Vec<Entry>, Vec<String>) {
    let (mut entries, mut strange) = (Vec::<Entry>::new(), Vec::new());
    for line in text.lines().map(str::trim).skip_while(|line| !line.starts_with("## ")) {
        if let Some(key) = line.strip_prefix("## ") {
            entries.push(Entry { key: key.trim().to_owned(), ..Entry::default() });
        } else if !line.is_empty() {
            let field = line.split_once(": ").zip(entries.last_mut());
            if !field.is_some_and(|((name, value), entry)| set(entry, name, value.trim())) {
                strange.push(line.to_owned());
            }
        }
    }
    (entries.into_iter().map(Entry::finish).collect(), strange)
}

/// Sets a field by its name; returns whether there is such a field.
fn set(entry: &mut Entry, name: &str, value: &str) -> bool {
    let list = || value.split(',').map(|key| key.trim().to_owned()).collect();
    match name {
        "title" => entry.title = value.to_owned(),
        "what" => entry.what = value.to_owned(),
        "formula" => entry.formula = Some(value.to_owned()),
        "unit" => entry.unit = Some(value.to_owned()),
        "range" => entry.range = Some(value.to_owned()),
        "see" => entry.see = list(),
        "also" => entry.also = list(),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::Experiment;
    use crate::evaluate::signatures::effective_number;
    use crate::fairness::{ClassStats, Confusion, TargetDistribution};

    #[test]
    fn every_entry_is_whole_and_no_key_is_there_twice() {
        let (entries, strange) = parse(include_str!("../../assets/glossary.md"));
        assert!(strange.is_empty(), "{strange:?}");
        let keys: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let mut names = HashSet::new();
        for entry in &entries {
            assert!(!entry.title.is_empty() && entry.what.ends_with(['.', ')']), "{entry:?}");
            assert!(entry.what.len() < 330, "{} is too long for a tooltip: {}", entry.key, entry.what.len());
            for key in std::iter::once(&entry.key).chain(&entry.also) {
                assert!(names.insert(key.clone()), "{key} is there twice");
                assert_eq!(*key, key.to_lowercase().replace(['_', ' '], "-"));
            }
            for key in &entry.see {
                assert!(keys.contains(key.as_str()), "{} refers to {key}", entry.key);
                assert_ne!(*key, entry.key);
            }
        }
        assert!(entries.len() > 50, "{}", entries.len());
    }

    #[test]
    fn fields_of_the_experiment_find_their_terms() {
        let glossary = Glossary::load();
        for key in
            ["step_size", "eval_steps", "target_mode", "lambda_rob", "warmup_epochs", "attack_bn", "lr", "engine"]
        {
            assert!(glossary.tooltip(key).is_some(), "{key}");
        }
        assert_eq!(glossary.get("Worst class").map(|entry| entry.key.as_str()), Some("worst-class"));
        assert_eq!(glossary.tooltip("flux"), None);
        let tooltip = glossary.tooltip("cfps").unwrap();
        assert!(tooltip.contains("\nFormula: CFPS(j) = #"), "{tooltip}");
    }

    #[test]
    fn search_puts_names_before_explanations() {
        let glossary = Glossary::load();
        let found: Vec<&str> = glossary.find("worst").iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(found[0], "wat", "{found:?}");
        assert_eq!(found[1], "worst-class", "{found:?}");
        assert!(found.contains(&"fawa") && !found.contains(&"momentum"), "{found:?}");
        assert_eq!(glossary.find("").len(), glossary.entries().len());
        assert!(glossary.find("no such thing").is_empty());
    }

    fn formula(key: &str) -> String {
        Glossary::load().get(key).and_then(|entry| entry.formula.clone()).unwrap()
    }

    /// The written formulas against the functions that training uses.
    #[test]
    fn formulas_are_those_of_the_code() {
        let mut confusion = Confusion::new(3);
        confusion.add_all(&[0, 0, 0, 1, 1, 2, 2], &[0, 1, 2, 1, 2, 2, 1]);
        // Errors: 0→1, 0→2, 1→2, 2→1. None is predicted as 0; two are images of class 0.
        assert_eq!(formula("cfps"), "CFPS(j) = #{i : ŷ_i = j, y_i ≠ j} / #{i : ŷ_i ≠ y_i}");
        assert_eq!(confusion.cfps(), [0.0, 0.5, 0.5]);
        assert_eq!(formula("cfns"), "CFNS(j) = #{i : y_i = j, ŷ_i ≠ j} / #{i : ŷ_i ≠ y_i}");
        assert_eq!(confusion.cfns(), [0.5, 0.25, 0.25]);

        assert!(formula("temperature").contains("exp(T · CFPS(j))"));
        let cfps = [0.1, 0.2, 0.7];
        let pi = TargetDistribution::softmax(&cfps, 2.0);
        let weight = |j: usize| (2.0 * cfps[j]).exp();
        let sum: f64 = (0..3).map(weight).sum();
        assert!((0..3).all(|j| (pi.probabilities()[j] - weight(j) / sum).abs() < 1e-12));
        assert_eq!(formula("target"), "P(t = j | y) = π(j) / (1 − π(y)) for j ≠ y");
        let p = pi.probabilities();
        assert!((pi.given(2)[0] - p[0] / (1.0 - p[2])).abs() < 1e-12 && pi.given(2)[2] == 0.0);
        assert!((effective_number(&[0.25; 4]).unwrap() - 4.0).abs() < 1e-12);

        assert!(formula("class-epsilon").starts_with("ε_k = (λ + r_k) · ε"));
        let experiment = Experiment::default();
        let mut stats = ClassStats::new(2);
        stats.add_robust(&[0, 0, 1, 1], Some(&[1, 1, 0, 0]), &[0, 0, 0, 1]);
        let (lambda, base) = (experiment.fairness.lambda_rob, experiment.attack.epsilon.exact());
        assert_eq!(experiment.margins().class_epsilon(&stats), [(lambda + 1.0) * base, (lambda + 0.5) * base]);
        let range = Glossary::load().get("class-epsilon").unwrap().range.clone().unwrap();
        assert!(range.contains("4/255 to 12/255") && (lambda, base) == (0.5, 8.0 / 255.0), "{range}");
    }

    /// The numbers that the glossary states as this program's defaults.
    #[test]
    fn defaults_are_those_of_the_experiment() {
        let (glossary, e) = (Glossary::load(), Experiment::default());
        let range = |key: &str| glossary.get(key).unwrap().range.clone().unwrap();
        assert!(range("fawa").contains(&format!("δ = {}", e.averaging.fawa_threshold)));
        assert!(range("ema").contains(&format!("d = {}", e.averaging.average_decay)));
        assert!(range("momentum").contains(&e.optimizer.momentum.to_string()));
        assert!(range("temperature").contains(&e.fairness.temperature.to_string()));
        assert!(range("warm-up").starts_with(&e.fairness.warmup_epochs.to_string()));
        assert!(range("validation-split").starts_with(&format!("{} %", 100.0 * e.data.validation_fraction)));
        let digits = Experiment::preset("digits-60s").unwrap();
        assert!(range("epsilon").contains(&digits.attack.epsilon.to_string()));
        assert!(range("epoch").contains(&digits.optimizer.epochs.to_string()));
    }
}
