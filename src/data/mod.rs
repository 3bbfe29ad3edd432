//! Images and labels: sources, checks, splits and preparation.
//!
//! Pixels stay `u8`, planar (`N × C × H × W`), from the file to the engine; a value in `[0, 1]` is `pixel / 255`.

mod cifar;
pub mod corruptions;
mod dataset;
mod digits;
pub mod download;
mod fit;
mod folder;
mod folder_files;
mod idx;
mod layout;
mod npy;
mod npy_sets;
mod npz;
pub mod publishers;
mod reading;
mod shapes;
mod source;
mod split;
mod summary;

pub(crate) use cifar::check_cifar;
pub use cifar::{Cifar, load_cifar};
pub(crate) use dataset::same_name;
pub use dataset::{DataError, Dataset, ImageShape, TrainTest};
pub use digits::digits;
pub use fit::{MAX_IMAGE_SIZE, check_memory};
pub use folder::{FolderOptions, LoadedImage, MAX_PIXELS, MAX_SIDE, image_from_rgba, load_folder, load_image};
pub(crate) use folder_files::check_annotations;
pub use folder_files::has_parts;
pub(crate) use idx::check_idx;
pub use idx::{IdxSet, load_idx};
pub use layout::{Detected, Layout, check_parts, detect};
pub(crate) use npy::write_npy;
pub use npy::{read_npy_u64, write_npy_u64};
pub(crate) use npy_sets::check_npy;
pub use npy_sets::{Corruptions, SEVERITIES, corruption_class_names, load_npy, load_pair};
pub use npz::{read_npz_u64, write_npz_u64};
pub(crate) use reading::check_class_names;
pub use shapes::{ShapesOptions, shapes};
pub use source::{SourceOptions, check_name, check_source, first_shape, known_classes, load, load_path, source_names};
pub use split::{ValidationChoice, ValidationSize, split};
pub use summary::{Summary, channel_statistics, describe};
