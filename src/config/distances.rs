//! Radii and step sizes of an experiment, and how large they can be.

use super::sections::entries;
use super::{ConfigError, Experiment};
use crate::attack::check_distance;
use crate::data::ImageShape;

impl Experiment {
    /// Checks that no radius or step size is larger than the largest distance between two images. In L∞ this distance
    /// is 1. In L2 it depends on the shape of the images; without a shape nothing is checked.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first field that is too large.
    pub fn check_distances(&self, shape: Option<ImageShape>) -> Result<(), ConfigError> {
        for entry in entries() {
            if let Some(distance) = (entry.distance)(self) {
                check_distance(distance, self.attack.norm, shape)
                    .map_err(|what| ConfigError::Invalid { field: entry.path, what })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fields::{self, Kind};
    use crate::engine::Norm;

    /// Selects the fields by their kind, so that the test includes new ones.
    #[test]
    fn every_radius_and_step_size_has_a_largest_value() {
        let distances: Vec<_> = fields::all().iter().filter(|field| field.kind == Kind::Epsilon).collect();
        assert!(distances.len() >= 6);
        for field in distances {
            let with = |value: &str, norm| {
                let mut experiment = Experiment::default();
                experiment.attack.norm = norm;
                fields::write(&mut experiment, field.path, value.into()).unwrap();
                if field.path == "fairness.epsilon_min" {
                    experiment.fairness.epsilon_max = None;
                }
                experiment
            };
            let message = with("8", Norm::Linf).validate().unwrap_err().to_string();
            assert!(message.starts_with(field.path) && message.ends_with("found 8; did you mean 8/255?"), "{message}");
            with("8/255", Norm::Linf).validate().unwrap();
            // In L2 the bound depends on the shape of the images.
            let euclidean = with("9", Norm::L2);
            euclidean.validate().unwrap();
            euclidean.check_distances(Some(ImageShape::new(3, 32, 32))).unwrap();
            let message = euclidean.check_distances(Some(ImageShape::new(1, 8, 8))).unwrap_err().to_string();
            assert!(message.starts_with(field.path) && message.contains("expected at most 8.00"), "{message}");
        }
    }
}
