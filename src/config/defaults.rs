//! Defaults that follow from the data set: attack, augmentation, validation split, network and schedule.
//!
//! With a radius of 24/255, a network learns on 8×8 digits but stays at chance on CIFAR-10, and a mirrored digit is not
//! the same digit. So an experiment starts from the defaults of its own data set ([`starting_point`]). Each
//! [`DataKind`] has one table of deviations from the program's defaults: a TOML file in `assets/defaults` with a source
//! for each number, or the preset that was made for the kind.
//!
//! ```
//! use fairtat::config::{DataConfig, defaults::{DataKind, starting_point}};
//! use fairtat::units::Epsilon;
//!
//! let data = DataConfig { dataset: "cifar10".into(), ..DataConfig::default() };
//! let experiment = starting_point(None, &data, DataKind::named("cifar10")).unwrap();
//! assert_eq!(experiment.attack.epsilon, Epsilon::levels(8.0));
//! ```

use super::fields::{self, Values};
use super::{ConfigError, DEFAULT_PRESET, DataConfig, Experiment};
use crate::data::{ImageShape, first_shape};

/// A kind of images; images of one kind share their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataKind {
    /// The built-in digits.
    Digits,
    /// The built-in shapes.
    Shapes,
    /// CIFAR-10 and CIFAR-100.
    Cifar,
    /// MNIST.
    Mnist,
    /// Fashion-MNIST.
    FashionMnist,
    /// Grey images from a folder or npy files with sides up to [`SMALL`].
    SmallGrey,
    /// Colour images of such sizes.
    SmallColour,
    /// Larger images, grey or colour.
    Large,
}

/// The largest side in pixels of a small image.
pub const SMALL: usize = 64;

/// The fields whose best values depend on the images, not on the network or the length of training. They take the
/// values of the data set even if a preset for another data set is named.
pub const OF_THE_IMAGES: [&str; 11] = [
    "attack.epsilon",
    "attack.step_size",
    "fairness.epsilon_min",
    "fairness.epsilon_max",
    "data.crop_padding",
    "data.padding",
    "data.flip",
    "data.validation_fraction",
    "data.validation_per_class",
    "evaluation.eval_epsilon",
    "evaluation.eval_step_size",
];

/// The fields of network and schedule; a named preset sets them for any data set.
pub const OF_THE_RECIPE: [&str; 13] = [
    "model.arch",
    "model.width",
    "optimizer.epochs",
    "optimizer.batch_size",
    "optimizer.last_batch",
    "optimizer.lr",
    "optimizer.schedule",
    "optimizer.milestones",
    "optimizer.decay",
    "averaging.average_from",
    "attack.attack_bn",
    "evaluation.eval_batch_size",
    "evaluation.recalibrate_bn",
];

impl DataKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Digits,
        Self::Shapes,
        Self::Cifar,
        Self::Mnist,
        Self::FashionMnist,
        Self::SmallGrey,
        Self::SmallColour,
        Self::Large,
    ];

    /// The kinds of images that come from a folder or from npy files.
    pub const UNNAMED: [Self; 3] = [Self::SmallGrey, Self::SmallColour, Self::Large];

    /// The kind of a data set whose name determines its images. `None` for a folder, npy files and unknown names.
    pub fn named(dataset: &str) -> Option<Self> {
        Some(match dataset {
            "digits" => Self::Digits,
            "shapes" => Self::Shapes,
            "cifar10" | "cifar100" => Self::Cifar,
            "mnist" => Self::Mnist,
            "fashion-mnist" => Self::FashionMnist,
            _ => return None,
        })
    }

    /// The kind of images of which only the shape is known.
    pub const fn of_shape(shape: ImageShape) -> Self {
        match shape.channels {
            _ if shape.height > SMALL || shape.width > SMALL => Self::Large,
            1 => Self::SmallGrey,
            _ => Self::SmallColour,
        }
    }

    /// The kind of the images of `data`. `on_disk` is the shape of the images on disk; `None` if it is not known yet.
    /// The result is `None` if neither the data set's name, the experiment nor `on_disk` determines the kind.
    pub fn of(data: &DataConfig, on_disk: Option<ImageShape>) -> Option<Self> {
        if !is_unnamed(&data.dataset) {
            return Self::named(&data.dataset);
        }
        let channels = data.channels.or(on_disk.map(|shape| shape.channels));
        let (height, width) = match (data.image_size, on_disk) {
            (Some(side), _) => (side, side),
            (None, Some(shape)) => (shape.height, shape.width),
            (None, None) => return None,
        };
        // Large grey and colour images share their defaults.
        let channels = channels.or((height.max(width) > SMALL).then_some(3))?;
        Some(Self::of_shape(ImageShape::new(channels, height, width)))
    }

    /// The name of its table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Shapes => "shapes",
            Self::Cifar => "cifar",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::SmallGrey => "small-grey",
            Self::SmallColour => "small-colour",
            Self::Large => "large",
        }
    }

    /// A short description of the images.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Digits => "8×8 grey digits",
            Self::Shapes => "32×32 colour shapes",
            Self::Cifar => "32×32 colour photographs",
            Self::Mnist => "28×28 grey digits",
            Self::FashionMnist => "28×28 grey clothing",
            Self::SmallGrey => "small grey images",
            Self::SmallColour => "small colour images",
            Self::Large => "images of more than 64 pixels",
        }
    }

    /// The preset whose values are the defaults of this kind, if any.
    pub const fn preset(self) -> Option<&'static str> {
        match self {
            Self::Digits => Some("digits-60s"),
            Self::Shapes => Some("shapes-unfair"),
            Self::Cifar => Some("cifar10-small"),
            _ => None,
        }
    }

    /// The table of a kind without a preset, as TOML; its first line describes it.
    pub const fn table(self) -> Option<&'static str> {
        match self {
            Self::Digits | Self::Shapes | Self::Cifar => None,
            Self::Mnist => Some(include_str!("../../assets/defaults/mnist.toml")),
            Self::FashionMnist => Some(include_str!("../../assets/defaults/fashion-mnist.toml")),
            Self::SmallGrey => Some(include_str!("../../assets/defaults/small-grey.toml")),
            Self::SmallColour => Some(include_str!("../../assets/defaults/small-colour.toml")),
            Self::Large => Some(include_str!("../../assets/defaults/large.toml")),
        }
    }

    /// The program's defaults, overridden by those of this kind.
    ///
    /// # Errors
    /// If the table cannot be read, which a test rules out.
    pub fn defaults(self) -> Result<Experiment, ConfigError> {
        match (self.preset(), self.table()) {
            (Some(preset), _) => Experiment::preset(preset),
            (None, table) => Experiment::from_toml(table.unwrap_or_default(), &format!("defaults of {}", self.title())),
        }
    }
}

/// Whether a data set's name does not determine its images.
fn is_unnamed(dataset: &str) -> bool {
    matches!(dataset, "folder" | "npy")
}

/// The experiment that settings override: the named preset if any, else the defaults of the data set, else the default
/// preset.
///
/// A preset is a recipe: it keeps its network, method and schedule on any data set. The fields that depend on the
/// images ([`OF_THE_IMAGES`]) come from `kind` if the preset was made for another one. `kind` is that of the images to
/// train on.
///
/// # Errors
/// [`ConfigError::UnknownPreset`].
pub fn starting_point(
    preset: Option<&str>,
    data: &DataConfig,
    kind: Option<DataKind>,
) -> Result<Experiment, ConfigError> {
    match (preset, kind) {
        (Some(name), Some(kind)) => {
            let mut start = Experiment::preset(name)?;
            if DataKind::named(&start.data.dataset) != Some(kind) {
                let defaults = Values::of(&kind.defaults()?);
                for path in OF_THE_IMAGES {
                    fields::write(&mut start, path, defaults.get(path).clone()).map_err(|what| {
                        ConfigError::Format { origin: format!("defaults of {}", kind.title()), what }
                    })?;
                }
            }
            Ok(start)
        }
        (Some(name), None) => Experiment::preset(name),
        (None, Some(kind)) => {
            let mut start = kind.defaults()?;
            start.data.dataset = data.dataset.clone();
            Ok(start)
        }
        (None, None) => Experiment::preset(DEFAULT_PRESET),
    }
}

/// The name of the run directory for a preset on a data set.
pub fn run_name(preset: Option<&str>, dataset: &str) -> String {
    let made_for = |preset| Experiment::preset(preset).is_ok_and(|experiment| experiment.data.dataset == dataset);
    match preset {
        None => dataset.to_owned(),
        Some(preset) if made_for(preset) => preset.to_owned(),
        Some(preset) => format!("{preset}-on-{dataset}"),
    }
}

/// The kind of a data set's images, and its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Their kind.
    pub kind: DataKind,
    /// What the kind was derived from, if not from the data set's name.
    pub known_from: Option<String>,
}

impl Images {
    /// The kind of a data set's images. `None` for an unknown name. For a folder or npy files, size and channels are
    /// those that the experiment asks for, else those of the first image, which is read. If that image cannot be read,
    /// the kind is that of small colour images; loading the data set reports the error.
    pub fn of(data: &DataConfig) -> Option<Self> {
        if let Some(kind) = DataKind::of(data, None) {
            let asked = is_unnamed(&data.dataset).then(|| "by the size and channels asked for".to_owned());
            return Some(Self { kind, known_from: asked });
        }
        is_unnamed(&data.dataset).then(|| Self::on_disk(data))
    }

    fn on_disk(data: &DataConfig) -> Self {
        let (shape, known_from) = match first_shape(&data.dataset, data.path.as_deref()) {
            Ok(shape) => (shape, format!("by the first image, {} × {} pixels", shape.width, shape.height)),
            Err(_) => (ImageShape::new(3, 32, 32), "assumed, as the first image cannot be read".into()),
        };
        let kind = DataKind::of(data, Some(shape)).unwrap_or(DataKind::SmallColour);
        Self { kind, known_from: Some(known_from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PRESETS, fields};
    use crate::data::source_names;
    use crate::units::Epsilon;

    fn data(dataset: &str) -> DataConfig {
        DataConfig { dataset: dataset.into(), ..DataConfig::default() }
    }

    fn start(preset: Option<&str>, dataset: &str) -> Experiment {
        starting_point(preset, &data(dataset), DataKind::named(dataset)).unwrap()
    }

    #[test]
    fn every_data_set_has_defaults_that_are_valid_and_its_own() {
        for name in source_names() {
            let kinds = DataKind::named(name).map_or(DataKind::UNNAMED.to_vec(), |kind| vec![kind]);
            for kind in kinds {
                let experiment = starting_point(None, &data(name), Some(kind)).unwrap();
                experiment.validate().unwrap();
                assert_eq!(experiment.data.dataset, name);
            }
        }
        for kind in DataKind::ALL {
            assert!(kind.preset().is_some() != kind.table().is_some());
            assert!(kind.table().is_none_or(|text| text.starts_with("# ")));
            let changed = Experiment::default();
            let (own, program) = (Values::of(&kind.defaults().unwrap()), Values::of(&changed));
            // Any other field in a table would be ignored when a preset is adapted or the window offers the defaults.
            for field in own.differences(&program) {
                let known = OF_THE_IMAGES.contains(&field.path) || OF_THE_RECIPE.contains(&field.path);
                assert!(known || field.path == "data.dataset", "{kind:?}: {}", field.path);
            }
        }
        assert!(OF_THE_IMAGES.iter().chain(&OF_THE_RECIPE).all(|path| fields::field(path).is_some()));
    }

    #[test]
    fn attacks_are_those_of_the_literature_and_characters_are_not_mirrored() {
        for (dataset, epsilon, flip) in [
            ("digits", Epsilon::levels(24.0), false),
            ("shapes", Epsilon::levels(8.0), true),
            ("cifar10", Epsilon::levels(8.0), true),
            ("cifar100", Epsilon::levels(8.0), true),
            ("mnist", Epsilon::new(0.3).unwrap(), false),
            ("fashion-mnist", Epsilon::new(0.1).unwrap(), false),
        ] {
            let experiment = start(None, dataset);
            assert_eq!((experiment.attack.epsilon, experiment.data.flip), (epsilon, flip), "{dataset}");
            // Ten steps can cross the ball, whatever its radius.
            let reach = experiment.attack.step_size.exact() * f64::from(experiment.attack.steps);
            assert!((reach / epsilon.exact() - 2.5).abs() < 1e-9, "{dataset}");
        }
    }

    #[test]
    fn presets_on_their_own_data_are_untouched() {
        for (name, _) in PRESETS {
            let preset = Experiment::preset(name).unwrap();
            assert_eq!(start(Some(name), &preset.data.dataset), preset, "{name}");
            assert_eq!(starting_point(Some(name), &preset.data, None).unwrap(), preset, "{name}");
        }
        // CIFAR-100 has images of the same kind as CIFAR-10.
        assert_eq!(start(Some("cifar10-paper"), "cifar100"), Experiment::preset("cifar10-paper").unwrap());
        for kind in DataKind::ALL {
            if let Some(preset) = kind.preset() {
                assert_eq!(kind.defaults().unwrap(), Experiment::preset(preset).unwrap());
            }
        }
    }

    #[test]
    fn a_preset_of_other_images_keeps_its_recipe_and_gives_up_what_depends_on_them() {
        let (digits, cifar) = (Experiment::preset("digits-60s").unwrap(), start(None, "cifar10"));
        let adapted = start(Some("digits-60s"), "cifar10");
        assert_eq!((&adapted.attack, &adapted.model), (&cifar.attack, &digits.model));
        assert_eq!((&adapted.optimizer, &adapted.averaging), (&digits.optimizer, &digits.averaging));
        assert_eq!((adapted.data.flip, adapted.data.crop_padding, adapted.data.validation_per_class), (true, 4, None));
        // The paper's preset also sets the radius of the evaluation.
        let paper = start(Some("cifar10-paper"), "mnist");
        assert_eq!((paper.evaluation.eval_epsilon, paper.evaluation.eval_step_size), (None, None));
        assert_eq!(paper.attack.epsilon, Epsilon::new(0.3).unwrap());
        assert!(matches!(starting_point(Some("none"), &data("mnist"), None), Err(ConfigError::UnknownPreset { .. })));
    }

    #[test]
    fn images_without_a_name_are_told_by_size_and_channels() {
        let kind = |size, channels, on_disk: Option<(usize, usize, usize)>| {
            let data = DataConfig { image_size: size, channels, ..data("folder") };
            DataKind::of(&data, on_disk.map(|(c, h, w)| ImageShape::new(c, h, w)))
        };
        assert_eq!(kind(None, None, None), None);
        assert_eq!(kind(Some(32), None, None), None);
        assert_eq!(kind(Some(32), Some(1), None), Some(DataKind::SmallGrey));
        assert_eq!(kind(Some(224), None, None), Some(DataKind::Large));
        assert_eq!(kind(None, None, Some((3, 32, 65))), Some(DataKind::Large));
        assert_eq!(kind(Some(32), None, Some((3, 480, 640))), Some(DataKind::SmallColour));
        assert_eq!(kind(None, Some(1), Some((3, 64, 64))), Some(DataKind::SmallGrey));
    }

    #[test]
    fn the_first_image_of_a_folder_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        for part in ["train/a", "train/b", "test/a", "test/b"] {
            std::fs::create_dir_all(directory.path().join(part)).unwrap();
            image::GrayImage::new(48, 40).save(directory.path().join(part).join("1.png")).unwrap();
        }
        let in_folder = DataConfig { path: Some(directory.path().into()), ..data("folder") };
        let mut experiment = Experiment { data: in_folder, ..Experiment::default() };
        let images = Images::of(&experiment.data).unwrap();
        assert_eq!(images.kind, DataKind::SmallGrey);
        assert_eq!(images.known_from.as_deref(), Some("by the first image, 48 × 40 pixels"));
        experiment.data.image_size = Some(128);
        assert_eq!(Images::of(&experiment.data).unwrap().kind, DataKind::Large);
        experiment.data.path = Some(directory.path().join("none"));
        experiment.data.image_size = Some(32);
        let images = Images::of(&experiment.data).unwrap();
        assert_eq!(images.kind, DataKind::SmallColour);
        assert!(images.known_from.unwrap().contains("cannot be read"));
        experiment.data = data("digit");
        assert_eq!(Images::of(&experiment.data), None);
    }

    #[test]
    fn runs_are_named_after_what_they_train_on() {
        for (preset, dataset, expected) in [
            (None, "cifar10", "cifar10"),
            (Some("digits-60s"), "digits", "digits-60s"),
            (Some("digits-60s"), "cifar10", "digits-60s-on-cifar10"),
        ] {
            assert_eq!(run_name(preset, dataset), expected);
        }
    }
}
