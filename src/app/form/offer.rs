//! What the form offers when its data set changes: the usual settings for the new images.
//!
//! A radius for 8×8 digits does not suit photographs. A user who changes the data set sees which settings would change
//! and accepts all, some or none of them. Until then, and if the settings are kept, nothing else changes.

use super::{Form, FormState};
use crate::config::defaults::{DataKind, Images, run_name};
use crate::config::fields::{self, Values};
use crate::config::{Change, DataConfig, Derived, Experiment, Origin, PRESETS, deviations};
use crate::data::ImageShape;

/// The fields that determine the images.
pub(super) const WHICH_IMAGES: [&str; 4] = ["data.dataset", "data.path", "data.image_size", "data.channels"];

/// The usual settings for the images, where the form has other values.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The data set.
    pub dataset: String,
    /// The kind of its images.
    pub kind: DataKind,
    /// The data set that the settings were made for.
    pub made_for: String,
    /// The settings.
    pub settings: Vec<Offered>,
}

/// One setting of an [`Offer`].
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    /// Field and values.
    pub change: Change,
    /// Whether the user set the value in the form, rather than the preset.
    pub own: bool,
}

/// Copies the fields that determine the images from `from`.
pub(super) fn keep_images(data: &mut DataConfig, from: &DataConfig) {
    data.dataset.clone_from(&from.dataset);
    data.path.clone_from(&from.path);
    (data.image_size, data.channels) = (from.image_size, from.channels);
}

/// The kind of images that `data` names. `on_disk` is the shape of the images at the path of `current`.
fn kind(data: &DataConfig, current: &DataConfig, on_disk: Option<ImageShape>) -> Option<DataKind> {
    let same = data.dataset == current.dataset && data.path == current.path;
    DataKind::of(data, on_disk.filter(|_| same))
}

impl Form {
    /// What the data set offers if its images are of another kind than those the settings were made for; otherwise
    /// `None`. `on_disk` is the shape of the first image of a folder or npy file; such a set offers nothing while this
    /// is unknown.
    pub fn offer(&self, on_disk: Option<ImageShape>) -> Option<Offer> {
        let data = &self.experiment.data;
        let now = kind(data, data, on_disk)?;
        if kind(&self.made_for, data, on_disk) == Some(now) {
            return None;
        }
        let changes = deviations(&self.experiment, now).ok()?;
        let settings: Vec<_> =
            changes.into_iter().map(|change| Offered { own: self.differs(change.field.path), change }).collect();
        let (dataset, made_for) = (data.dataset.clone(), self.made_for.dataset.clone());
        (!settings.is_empty()).then_some(Offer { dataset, kind: now, made_for, settings })
    }

    /// Applies the offered settings for which `wanted` returns true, as one step. From then on the form is compared
    /// with the defaults of the data set.
    pub fn take(&mut self, offer: &Offer, wanted: impl Fn(&str) -> bool) {
        let mut experiment = self.experiment.clone();
        for Offered { change, .. } in offer.settings.iter().filter(|offered| wanted(offered.change.field.path)) {
            // A default is always valid for its field.
            let _ = fields::write(&mut experiment, change.field.path, change.new.clone());
        }
        let made_for = experiment.data.clone();
        self.replace(FormState { experiment, preset: offer.kind.name().to_owned(), made_for });
    }

    /// Keeps the current settings for the data set, as one step.
    pub fn keep(&mut self) {
        self.replace(FormState { made_for: self.experiment.data.clone(), ..self.state() });
    }

    /// Which settings of a run of this form come from its data set, and which do not although they usually would;
    /// `None` if a preset for the same kind of images is in use.
    pub fn derived(&self, on_disk: Option<ImageShape>) -> Option<Derived> {
        let data = &self.experiment.data;
        let now = kind(data, data, on_disk)?;
        let images = Images { kind: now, known_from: None };
        let base = self.base()?;
        let values = Values::of(&self.experiment);
        match base.kind {
            Some(of) if of == now => {
                let own = |path: &str| base.differs(path, &values);
                Derived::new(Origin::DataSet, &Experiment::default(), &self.experiment, images, own).ok()
            }
            _ if base.kind.or(DataKind::named(&base.experiment.data.dataset)) == Some(now) => None,
            _ => {
                let made_for = base.kind.map_or(base.experiment.data.dataset.as_str(), DataKind::title).to_owned();
                let origin = Origin::File { name: self.preset.clone(), made_for };
                let changes = deviations(&self.experiment, now).ok()?;
                let dataset = data.dataset.clone();
                let told = !changes.is_empty();
                told.then_some(Derived { origin, dataset, images, changes, named: Vec::new() })
            }
        }
    }

    /// The kind of the form's images, whose name loads its defaults.
    pub fn kind(&self, on_disk: Option<ImageShape>) -> Option<DataKind> {
        kind(&self.experiment.data, &self.experiment.data, on_disk)
    }

    /// A name for the run directory.
    pub fn run_name(&self) -> String {
        let preset = PRESETS.iter().find(|(name, _)| *name == self.preset).map(|(name, _)| *name);
        run_name(preset, &self.experiment.data.dataset)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::units::Epsilon;

    fn paths(offer: &Offer) -> Vec<&'static str> {
        offer.settings.iter().map(|offered| offered.change.field.path).collect()
    }

    #[test]
    fn another_data_set_offers_its_settings_and_they_are_taken_in_one_step() {
        let mut form = Form::default();
        assert_eq!(form.offer(None), None);
        form.set("optimizer.lr", json!(0.05)).unwrap();
        form.set("data.dataset", json!("cifar10")).unwrap();
        let offer = form.offer(None).unwrap();
        assert_eq!((offer.dataset.as_str(), offer.made_for.as_str()), ("cifar10", "digits"));
        let expected = ["data.flip", "attack.epsilon", "attack.step_size", "model.arch", "optimizer.lr"];
        assert!(expected.iter().all(|path| paths(&offer).contains(path)), "{:?}", paths(&offer));
        // Nothing changes until it is accepted, and values typed by the user are marked.
        assert_eq!(form.experiment.attack.epsilon, Epsilon::levels(24.0));
        let own: Vec<_> = offer.settings.iter().filter(|offered| offered.own).collect();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].change.field.path, "optimizer.lr");
        form.take(&offer, |path| path != "optimizer.lr");
        let mut expected = DataKind::Cifar.defaults().unwrap();
        expected.optimizer.lr = 0.05;
        assert_eq!(form.experiment, expected);
        assert_eq!((form.offer(None), form.run_name().as_str()), (None, "cifar10"));
        assert!(form.differs("optimizer.lr") && !form.differs("attack.epsilon") && !form.differs("data.dataset"));
        assert_eq!(form.command_line(), "fairtat train --dataset cifar10 --lr 0.05");
        let derived = form.derived(None).unwrap();
        assert_eq!((&derived.origin, &derived.named[..]), (&Origin::DataSet, &["lr"][..]));
        form.undo();
        assert_eq!(form.offer(None), Some(offer));
        form.undo();
        assert_eq!((form.offer(None), form.experiment.data.dataset.as_str()), (None, "digits"));
    }

    #[test]
    fn own_settings_are_kept_until_the_images_change_again() {
        let mut form = Form::default();
        form.set("data.dataset", json!("mnist")).unwrap();
        let offer = form.offer(None).unwrap();
        let before = form.experiment.clone();
        form.keep();
        assert_eq!((form.offer(None), &form.experiment), (None, &before));
        assert_eq!(form.run_name(), "digits-60s-on-mnist");
        let derived = form.derived(None).unwrap();
        assert!(derived.is_warning() && derived.changes.len() == offer.settings.len(), "{derived:?}");
        form.undo();
        assert_eq!(form.offer(None), Some(offer));
        form.redo();
        form.set("data.dataset", json!("cifar100")).unwrap();
        assert!(form.offer(None).is_some());
        form.load_preset("cifar10-paper").unwrap();
        form.set("data.dataset", json!("cifar100")).unwrap();
        assert_eq!(form.offer(None), None);
    }

    #[test]
    fn a_folder_offers_nothing_before_its_images_are_known() {
        let mut form = Form::default();
        form.set_data_path(std::path::Path::new("my/images")).unwrap();
        assert_eq!(form.offer(None), None);
        let grey = Some(ImageShape::new(1, 28, 28));
        assert_eq!(form.offer(grey).unwrap().kind, DataKind::SmallGrey);
        form.set("data.image_size", json!(224)).unwrap();
        assert_eq!(form.offer(None).unwrap().kind, DataKind::Large);
        let offer = form.offer(None).unwrap();
        form.take(&offer, |_| true);
        assert_eq!(form.experiment.data.path.as_deref(), Some(std::path::Path::new("my/images")));
        assert_eq!((form.preset.as_str(), form.run_name().as_str()), ("large", "folder"));
        form.set("optimizer.epochs", json!(3)).unwrap();
        form.load_preset("large").unwrap();
        assert_eq!(form.experiment.data.path.as_deref(), Some(std::path::Path::new("my/images")));
        let again = Form::restored(form.experiment.clone(), &form.preset, Some(form.made_for.clone()));
        assert_eq!((again.offer(None), again.preset.as_str()), (None, "large"));
    }

    #[test]
    fn an_experiment_of_a_run_is_compared_with_the_defaults_of_its_data() {
        let mut form = Form::default();
        let mut experiment = DataKind::Mnist.defaults().unwrap();
        experiment.run.seed = 3;
        form.load(experiment);
        assert_eq!((form.preset.as_str(), form.offer(None)), ("mnist", None));
        assert!(form.differs("run.seed"));
    }
}
