//! Errors of an open device.

use std::time::Duration;

use super::cache::default_folder;
use super::device::{Checks, Gpu, GpuError, GpuOptions};
use super::harness::adapter;
use super::kernel::Kernel;

fn gpu() -> Gpu {
    Gpu::open(&adapter().adapter, Checks::Off).unwrap()
}

fn add() -> Kernel {
    Kernel::plain("add.wgsl")
}

/// Runs `what` in a separate thread, so that a call that never returns fails the test.
fn in_time<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(what()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("returns")
}

#[test]
fn bytes_are_read_back_as_written() {
    let gpu = gpu();
    // More than one staging buffer holds, in ranges that cross its end.
    let bytes: Vec<u8> = (0..40 << 20).map(|i: u32| (i ^ (i >> 8) ^ (i >> 17)) as u8).collect();
    let buffer = gpu.buffer("test", bytes.len() as u64).unwrap();
    gpu.queue.write_buffer(&buffer, 0, &bytes);
    let ranges = [(4, 12), (0, 30 << 20), (20 << 20, 20 << 20), (8, 0)];
    let read = gpu.read(&ranges.map(|(offset, size)| (&buffer, offset, size))).unwrap();
    for ((offset, size), found) in ranges.into_iter().zip(read) {
        assert!(found == bytes[offset as usize..][..size as usize], "{size} bytes from {offset}");
    }
    assert_eq!(gpu.read(&[]).unwrap(), Vec::<Vec<u8>>::new());
    gpu.check().unwrap();
}

#[test]
fn a_lost_device_is_an_error_of_every_call() {
    let (errors, early) = in_time(|| {
        let gpu = gpu();
        let buffer = gpu.buffer("test", 1024).unwrap();
        gpu.queue.write_buffer(&buffer, 0, &[1; 1024]);
        gpu.device.destroy();
        let pipeline = gpu.pipeline(&add()).map(|_| ());
        let errors = [
            pipeline,
            gpu.buffer("test", 1024).map(|_| ()),
            gpu.read(&[(&buffer, 0, 16)]).map(|_| ()),
            gpu.wait(),
            gpu.check(),
        ];

        // The same with work in flight, and with a command that the loss makes invalid before the device is polled.
        let gpu = self::gpu();
        let buffer = gpu.buffer("test", 1024).unwrap();
        gpu.queue.write_buffer(&buffer, 0, &[1; 1024]);
        gpu.queue.submit([]);
        gpu.device.destroy();
        gpu.queue.write_buffer(&buffer, 2000, &[1; 1024]);
        // A destroyed device is lost when its work is done, which `wait` waits for.
        (errors, [gpu.wait(), gpu.check(), gpu.read(&[(&buffer, 0, 16)]).map(|_| ())])
    });
    for (i, error) in errors.iter().chain(&early).enumerate() {
        assert!(matches!(error, Err(GpuError::Lost { .. })), "call {i}: {error:?}");
    }
    let message = early[2].as_ref().unwrap_err().to_string();
    assert!(message.contains("destroyed") && message.contains("fairtat resume"), "{message}");
}

#[test]
fn a_buffer_that_is_too_large_is_named_with_its_size() {
    let gpu = gpu();
    let error = gpu.buffer("the activations", 300 << 20).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, GpuError::Limits(_)), "{error:?}");
    assert!(message.contains("the activations needs 300.0 MiB") && message.contains("at most 256.0 MiB"), "{message}");
    // The device still works.
    gpu.buffer("test", 1 << 20).unwrap();
    gpu.check().unwrap();
}

#[test]
fn a_broken_shader_is_refused_by_name() {
    let gpu = gpu();
    let error = gpu.pipeline(&Kernel::plain("none.wgsl")).unwrap_err().to_string();
    assert!(error.contains("the shader 'none'") && error.contains("no shader file"), "{error}");
    // A file without an entry point, and a source that is not valid WGSL.
    let error = gpu.pipeline(&Kernel::plain("shared/grid.wgsl")).unwrap_err();
    assert!(matches!(error, GpuError::Refused { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("the shader 'shared/grid'") && message.contains("main"), "{message}");
    let message = gpu.compile("broken", "fn main() { let x: f32 = 1u; }".into()).unwrap_err().to_string();
    assert!(message.contains("the shader 'broken'") && message.contains("f32"), "{message}");
    gpu.pipeline(&add()).unwrap();
    gpu.check().unwrap();
}

#[test]
fn a_wrong_command_is_reported_once_it_was_given() {
    let gpu = gpu();
    let buffer = gpu.buffer("test", 64).unwrap();
    // Past the end of the buffer.
    let error = gpu.read(&[(&buffer, 32, 64)]).unwrap_err();
    assert!(matches!(error, GpuError::Refused { .. }), "{error:?}");
    assert!(gpu.check().is_err());
}

#[test]
fn pipelines_survive_in_a_file_and_damage_to_it_is_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let options = GpuOptions { pipelines: Some(folder.path().join("pipelines")), ..GpuOptions::default() };
    let open = || Gpu::open_with(&adapter().adapter, &options).unwrap();
    let gpu = open();
    gpu.pipeline(&add()).unwrap();
    drop(gpu);
    let file = || std::fs::read_dir(folder.path().join("pipelines")).map(|mut files| files.next().unwrap().unwrap());
    if !adapter().summary.features.pipeline_cache {
        assert!(file().is_err(), "a back end without a cache writes none");
        return;
    }
    let path = file().unwrap().path();
    let written = std::fs::read(&path).unwrap();
    assert!(written.len() > 64, "{} bytes", written.len());

    // If nothing was compiled, nothing is written.
    std::fs::write(&path, &written[..written.len() - 7]).unwrap();
    drop(open());
    assert_eq!(std::fs::read(&path).unwrap().len(), written.len() - 7);
    // If the driver exports no new data (lavapipe), the file is not rewritten.
    std::fs::write(&path, &written).unwrap();
    let gpu = open();
    let age = std::fs::metadata(&path).unwrap().modified().unwrap();
    gpu.pipeline(&add()).unwrap();
    drop(gpu);
    let same = std::fs::read(&path).unwrap() == written;
    assert!(!same || std::fs::metadata(&path).unwrap().modified().unwrap() == age);
    for damaged in [&written[..written.len() / 2], b"something else", b""] {
        std::fs::write(&path, damaged).unwrap();
        let gpu = open();
        gpu.pipeline(&add()).unwrap();
        gpu.save_pipelines().unwrap();
        gpu.check().unwrap();
        assert!(std::fs::read(&path).unwrap().len() > 64);
    }
    // A file that cannot be written does no harm.
    let taken = GpuOptions { pipelines: Some(path.join("below a file")), ..options.clone() };
    let gpu = Gpu::open_with(&adapter().adapter, &taken).unwrap();
    gpu.pipeline(&add()).unwrap();
    assert!(gpu.save_pipelines().is_err());
}

#[test]
fn pipelines_that_are_only_measured_are_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let pipelines = Some(folder.path().join("pipelines"));
    let options = GpuOptions { pipelines, ..GpuOptions::default() };
    let mut gpu = Gpu::open_with(&adapter().adapter, &options).unwrap();
    gpu.apart(|gpu| gpu.pipeline(&add())).unwrap();
    gpu.save_pipelines().unwrap();
    assert!(!folder.path().join("pipelines").exists());
    gpu.pipeline(&add()).unwrap();
    gpu.save_pipelines().unwrap();
    assert_eq!(folder.path().join("pipelines").exists(), adapter().summary.features.pipeline_cache);
}

#[test]
fn the_default_folder_is_the_users() {
    let folder = default_folder();
    assert!(folder.is_none_or(|folder| folder.ends_with("pipelines")));
}
