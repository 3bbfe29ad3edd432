//! Errors of the GPU engine.

use super::wait::block_on;

/// An error of a GPU or of its driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No adapter, or none that matches the request.
    #[error("{0}")]
    NoAdapter(String),
    /// The adapter refused to open a device.
    #[error("cannot open {adapter} ({what}); a newer driver may help, and `--engine candle` runs without a GPU")]
    Open {
        /// Name of the adapter.
        adapter: String,
        /// Message of the driver.
        what: String,
    },
    /// A buffer or a pipeline did not fit into the device's memory.
    #[error("{adapter} is out of memory ({what}); a smaller batch needs less")]
    OutOfMemory {
        /// Name of the adapter.
        adapter: String,
        /// The allocation that failed.
        what: String,
    },
    /// The device was lost: the driver was reset, the machine went to sleep, or the GPU was removed.
    #[error(
        "{adapter} was lost ({what}); the last checkpoint is intact: `fairtat resume` continues from it, with \
         `--engine candle` on the CPU"
    )]
    Lost {
        /// Name of the adapter.
        adapter: String,
        /// Message of the driver.
        what: String,
    },
    /// A shader or a command was refused: a bug in fairtat or in the driver.
    #[error("{adapter} refused {what}; this is a bug in fairtat or in the driver, please report it")]
    Refused {
        /// Name of the adapter.
        adapter: String,
        /// What was refused, and the message of the driver.
        what: String,
    },
    /// Something exceeds the limits of the adapter.
    #[error("{0}")]
    Limits(String),
}

/// Runs `create`.
///
/// # Errors
/// The error that it caused on this device.
pub(super) fn scoped<T>(device: &wgpu::Device, create: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let created = create();
    let errors = [internal.pop(), validation.pop()].map(block_on);
    let errors = [block_on(memory.pop())].into_iter().chain(errors);
    errors.flatten().next().map_or(Ok(created), Err)
}

/// A human-readable size such as `147 KiB`, rounded down. The unit is the largest of bytes, KiB and MiB that gives at
/// least ten.
pub(super) fn readable(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
