//! What can go wrong with a GPU.

use super::wait::block_on;

/// What can go wrong with a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No adapter, or none that fits what was asked for.
    #[error("{0}")]
    NoAdapter(String),
    /// The adapter refused to open a device.
    #[error("{adapter} does not open ({what}); a newer driver may help, and `--engine candle` runs without a GPU")]
    Open {
        /// Its name.
        adapter: String,
        /// What the driver says.
        what: String,
    },
    /// A buffer or a pipeline did not fit into the device's memory.
    #[error("{adapter} has no memory left ({what}); a smaller batch needs less")]
    OutOfMemory {
        /// Its name.
        adapter: String,
        /// What was to be allocated.
        what: String,
    },
    /// The device is gone: the driver was reset, the machine slept, the GPU was removed.
    #[error(
        "{adapter} was lost ({what}); the last checkpoint is intact: `fairtat resume` goes on from it, with `--engine \
         candle` on the CPU"
    )]
    Lost {
        /// Its name.
        adapter: String,
        /// What the driver says.
        what: String,
    },
    /// A shader or a command was refused: a bug in fairtat or in the driver.
    #[error("{adapter} refused {what}; this is a bug in fairtat or in the driver, please report it")]
    Refused {
        /// Its name.
        adapter: String,
        /// What, and what the driver says.
        what: String,
    },
    /// Something does not fit into what the adapter offers.
    #[error("{0}")]
    Limits(String),
}

/// Runs `create` and gives the error that it caused on this device.
pub(super) fn scoped<T>(device: &wgpu::Device, create: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let created = create();
    let errors = [internal.pop(), validation.pop()].map(block_on);
    let errors = [block_on(memory.pop())].into_iter().chain(errors);
    errors.flatten().next().map_or(Ok(created), Err)
}

/// Such as `147 KiB`, rounded down to whole units of at least ten where there are so many.
pub(super) fn readable(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
