//! Which experiments are valid.

use super::row::Entry;
use super::sections::entries;
use super::{ConfigError, Experiment, StatisticsSource};
use crate::fairness::Reference;

impl Experiment {
    /// Checks ranges and contradictions that the types cannot express.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first invalid field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        entries().try_for_each(|entry| self.check_numbers(entry))?;
        self.check_paths()?;
        self.check_rules_against_targets()?;
        self.check_distances(None)?;
        self.check_bounds_of_epsilon()?;
        self.check_milestones()?;
        self.check_budgets()?;
        self.run.engine_options().validate()
    }

    /// Makes the paths independent of the working directory, as a run keeps them: a resume may start from another one.
    ///
    /// # Errors
    /// The working directory is not known, or a path is empty.
    pub(crate) fn make_paths_absolute(&mut self) -> std::io::Result<()> {
        for path in [&mut self.data.path, &mut self.model.init].into_iter().flatten() {
            *path = std::path::absolute(&path)?;
        }
        Ok(())
    }

    /// Checks that a file can record the paths: TOML and JSON are UTF-8.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub(crate) fn check_paths(&self) -> Result<(), ConfigError> {
        let paths = [("data.path", &self.data.path), ("model.init", &self.model.init)];
        match paths.into_iter().find_map(|(field, path)| Some((field, path.as_ref().filter(|p| p.to_str().is_none())?)))
        {
            Some((field, path)) => {
                let what = format!("{} is not valid UTF-8, so no file can record it: rename it", path.display());
                Err(ConfigError::Invalid { field, what })
            }
            None => Ok(()),
        }
    }

    /// The checks of a field's own row.
    fn check_numbers(&self, entry: &Entry) -> Result<(), ConfigError> {
        match entry.row.wrong(&(entry.numbers)(self)) {
            Some(what) => Err(ConfigError::Invalid { field: entry.path, what }),
            None => Ok(()),
        }
    }

    /// Rules that count against targets need an attack that has targets.
    fn check_rules_against_targets(&self) -> Result<(), ConfigError> {
        let f = &self.fairness;
        if super::without_effect(self, "fairness.epsilon_rules").is_some() {
            return Ok(());
        }
        let against_target = f.epsilon_rules.iter().find(|rule| rule.parts().0 == Reference::Target);
        let attack = match (f.statistics_source, self.is_targeted()) {
            (StatisticsSource::Validation, _) => "the validation attack",
            (_, false) => "an untargeted attack",
            _ => return Ok(()),
        };
        against_target.map_or(Ok(()), |rule| {
            let what = format!("{rule:?} counts against targets, which {attack} does not have");
            Err(ConfigError::Invalid { field: "fairness.epsilon_rules", what })
        })
    }

    /// Milestones rise, and each has a factor.
    fn check_milestones(&self) -> Result<(), ConfigError> {
        let (milestones, decay) = (&self.optimizer.milestones, &self.optimizer.decay);
        if let Some([before, after]) = milestones.array_windows().find(|[before, after]| before >= after) {
            let what = format!("expected epochs in rising order, found {after} after {before}");
            return Err(ConfigError::Invalid { field: "optimizer.milestones", what });
        }
        let (expected, found) = (milestones.len(), decay.len());
        if found != 1 && found != expected {
            let what = format!("expected one factor, or one for each of the {expected} milestones, found {found}");
            return Err(ConfigError::Invalid { field: "optimizer.decay", what });
        }
        Ok(())
    }

    /// There is one more budget than epochs at which it changes, and the epochs rise.
    fn check_budgets(&self) -> Result<(), ConfigError> {
        let (tau, epochs) = (&self.fat.tau, &self.fat.tau_epochs);
        if tau.len() != epochs.len() + 1 {
            let what =
                format!("expected one value more than fat.tau_epochs has, {}, found {}", epochs.len() + 1, tau.len());
            return Err(ConfigError::Invalid { field: "fat.tau", what });
        }
        if let Some([before, after]) = epochs.array_windows().find(|[before, after]| before >= after) {
            let what = format!("expected epochs in rising order, found {after} after {before}");
            return Err(ConfigError::Invalid { field: "fat.tau_epochs", what });
        }
        Ok(())
    }

    fn check_bounds_of_epsilon(&self) -> Result<(), ConfigError> {
        let minimum = self.fairness.epsilon_min;
        match self.fairness.epsilon_max {
            Some(maximum) if maximum < minimum => {
                let what = format!("expected at least epsilon_min, {minimum}, found {maximum}");
                Err(ConfigError::Invalid { field: "fairness.epsilon_max", what })
            }
            _ => Ok(()),
        }
    }
}
