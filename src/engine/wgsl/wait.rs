//! Waiting for the device and its driver. [`block_on`] is the only place of the engine where a thread blocks on them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

/// How long a wait may take before the device counts as hung.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Blocks this thread until `future` is done. Opening devices, error scopes and polling all use this function, so that
/// a port to a platform whose threads must not block (WebGPU in a browser) replaces only this one.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}

/// [`wgpu::Device::poll`] that reports the loss of the device as an error. wgpu panics on device loss, after it has
/// called the callback and released its locks.
pub(super) fn poll(device: &wgpu::Device, kind: wgpu::PollType) -> Result<wgpu::PollStatus, String> {
    without_panic(|| block_on(async { device.poll(kind) }))?.map_err(|e| e.to_string())
}

thread_local! {
    static POLLING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call`. A panic is returned as its message and not printed.
fn without_panic<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    // A panicking thread may not change the hook.
    if !std::thread::panicking() {
        QUIET.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if !POLLING.get() {
                    before(panic);
                }
            }));
        });
    }
    POLLING.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    POLLING.set(false);
    result.map_err(|panic| panic.downcast_ref::<String>().map_or("the driver failed", String::as_str).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_wgpu_becomes_a_message() {
        assert_eq!(without_panic(|| 3), Ok(3));
        let reason = "Parent device is lost";
        assert_eq!(
            without_panic(|| panic!("Error in Device::poll: {reason}\n")).map(|()| 0),
            Err(format!("Error in Device::poll: {reason}"))
        );
        // Other panics of this thread are still printed.
        assert!(!POLLING.get());
    }
}
