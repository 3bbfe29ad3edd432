//! Images and labels: where they come from, how they are checked, split and prepared.
//!
//! Pixels stay `u8`, planar (`N × C × H × W`), from the file to the engine; an image in `[0, 1]` is `pixel / 255`.

mod dataset;
mod digits;
mod shapes;

pub use dataset::{DataError, Dataset, ImageShape, TrainTest};
pub use digits::digits;
pub use shapes::{ShapesOptions, shapes};
