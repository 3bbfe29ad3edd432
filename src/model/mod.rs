//! Networks as data, their parameters, initialisation and files.

mod architectures;
mod checksum;
mod copy;
mod export;
mod head;
mod network;
pub mod pytorch;
mod state;

pub use architectures::{Architecture, MAX_WIDTH};
pub use checksum::SHA256;
pub use export::{
    Facts, LOADER, Names, PROBE_IMAGES, PROBE_LOGITS, loader, normalisation, probe_images, probe_text, save_onnx,
    save_pth,
};
pub use head::{HeadNorms, normalize_head};
pub use network::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, Initialisation, Layer, Network, Op, StateSpec, Value};
pub use state::{Array, ModelError, State};
