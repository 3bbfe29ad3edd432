//! Images and how they are prepared.

use std::path::PathBuf;

use clap::ArgAction;
use serde_json::json;

use crate::config::Applies::Restart;
use crate::config::row::{at_least_one, row};
use crate::config::section::section;
use crate::data::MAX_IMAGE_SIZE;
use crate::engine::Padding;

section! {
    /// Images and how they are prepared.
    pub struct DataConfig in data "Data" {
        /// Data set: digits, shapes, cifar10, cifar100, mnist, fashion-mnist, folder, npy. It sets the defaults of
        /// attack, augmentation, network and schedule
        #[arg(value_name = "NAME")]
        dataset: String = "digits".into(), row("Data set", Restart);
        /// Directory of the data set. By default, a named set is read from the directory of `fairtat data fetch`
        #[arg(value_name = "DIR")]
        path: Option<PathBuf> = None,
            row("Folder", Restart).unset("default location").harmless()
                .idle("This data set is built in and has no folder.", |e| {
                    matches!(e.data.dataset.as_str(), "digits" | "shapes")
                });
        /// Side in pixels: every image is cropped to a square and scaled to this size; unset keeps the size
        #[arg(value_name = "PIXELS")]
        image_size: Option<usize> = None,
            row("Image size", Restart).range(8.0, 64.0).unit("pixels").unset("as it is").first(|_| json!(32))
                .valid("at least 1", at_least_one)
                .valid("at most 4096", |value| value <= MAX_IMAGE_SIZE as f64);
        /// Seed of the data set shapes; runs with the same seed use the same images
        #[arg(value_name = "N")]
        shapes_seed: u64 = 0,
            row("Shapes seed", Restart).range(0.0, 99.0)
                .idle("Only the data set shapes is generated.", |e| e.data.dataset != "shapes");
        /// Channels of the images: 1 for grey, 3 for colour; unset keeps them unchanged
        #[arg(value_name = "1|3")]
        channels: Option<usize> = None,
            row("Channels", Restart).range(1.0, 3.0).unset("as they are").first(|_| json!(3))
                .valid("1 or 3", |value| value == 1.0 || value == 3.0);
        /// Number of training images, before the validation split: the first ones of each class in equal shares; unset
        /// uses all
        #[arg(value_name = "N")]
        limit: Option<usize> = None,
            row("Train images", Restart).range(100.0, 60_000.0).unit("images").log().unset("all").first(|_| json!(1000))
                .valid("at least 1", at_least_one);
        /// Number of test images, chosen in the same way
        #[arg(value_name = "N")]
        test_limit: Option<usize> = None,
            row("Test images", Restart).range(100.0, 10_000.0).unit("images").log().unset("all").first(|_| json!(1000))
                .valid("at least 1", at_least_one);
        /// Share of each class's training images held out for validation
        #[arg(value_name = "SHARE")]
        validation_fraction: f64 = 0.02,
            row("Val. share", Restart).range(0.01, 0.5).unit("share")
                .valid("a share between 0 and 1", |value| value > 0.0 && value < 1.0)
                .idle("The number of images per class replaces the share.", |e| e.data.validation_per_class.is_some());
        /// Number of validation images per class, for small sets; replaces the share
        #[arg(value_name = "N")]
        validation_per_class: Option<usize> = None,
            row("Val. per class", Restart).range(1.0, 1000.0).unit("images").log().unset("from the share")
                .first(|_| json!(20)).valid("at least 1", at_least_one);
        /// Choose the validation images at random (from the seed) instead of the first ones of each class
        #[arg(value_name = "BOOL", action = ArgAction::Set)]
        validation_random: bool = false, row("Val. at random", Restart);
        /// Make input normalisation (mean and standard deviation of each channel) the network's first layer
        #[arg(value_name = "BOOL", action = ArgAction::Set)]
        normalize: bool = true, row("Normalise", Restart);
        /// Pixels added on each side before a random crop of training images; 0 for no crop
        #[arg(value_name = "PIXELS")]
        crop_padding: usize = 0,
            row("Random crop", Restart).range(0.0, 8.0).unit("pixels").valid("at most 64", |value| value <= 64.0);
        /// How the added pixels are filled
        #[arg(value_enum)]
        padding: Padding = Padding::Reflect,
            row("Crop border", Restart).idle("There is no random crop.", |e| e.data.crop_padding == 0);
        /// Mirror half of the training images
        #[arg(value_name = "BOOL", action = ArgAction::Set)]
        flip: bool = false, row("Mirror images", Restart);
    }
}
