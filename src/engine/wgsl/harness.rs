//! Runs single kernels in tests: upload, dispatch, read back, compare with a twin.

use std::sync::{Arc, OnceLock};

use super::adapters::{Found, choose};
use super::device::{Checks, Gpu, GpuOptions, Subgroups};
use super::kernel::{BufferId, Dispatch, Slice};
use super::recorded;
use crate::rng::{Purpose, Stream};

/// The adapter that tests run on: the one whose name contains `FAIRTAT_TEST_ADAPTER`, else the best one.
///
/// # Panics
/// If there is none, with instructions. A test that passes without a device would test nothing.
pub(super) fn adapter() -> &'static Found {
    let wanted = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    choose(wanted.as_deref()).unwrap_or_else(|error| panic!("these tests need an adapter: {error}"))
}

fn gpu(checks: Checks, subgroups: Subgroups) -> Arc<Gpu> {
    static BASE: OnceLock<[Arc<Gpu>; 2]> = OnceLock::new();
    static WITH_SUBGROUPS: OnceLock<[Arc<Gpu>; 2]> = OnceLock::new();
    // Parameters are uniforms on one of the devices and, where the adapter has them, immediates on the other.
    let open = |checks| {
        let options = GpuOptions { checks, immediates: checks == Checks::On, subgroups, ..GpuOptions::default() };
        Arc::new(Gpu::open_with(&adapter().adapter, &options).unwrap())
    };
    let gpus = if subgroups == Subgroups::Never { &BASE } else { &WITH_SUBGROUPS };
    Arc::clone(&gpus.get_or_init(|| [Checks::Off, Checks::On].map(open))[usize::from(checks == Checks::On)])
}

/// Buffers and dispatches of one test.
pub(super) struct Harness {
    gpu: Arc<Gpu>,
    buffers: Vec<wgpu::Buffer>,
    checks: Checks,
}

/// The initial value of outputs, with which values that no kernel wrote are detected.
const UNWRITTEN: f32 = -7.25e30;

impl Harness {
    pub(super) fn new(checks: Checks) -> Self {
        Self { gpu: gpu(checks, Subgroups::Never), buffers: Vec::new(), checks }
    }

    /// Two harnesses: without run-time checks and with uniforms, and with checks and immediates.
    pub(super) fn both() -> [Self; 2] {
        [Checks::Off, Checks::On].map(Self::new)
    }

    /// The same for kernels with subgroup broadcasts; empty if the adapter has no subgroups of eight lanes.
    pub(super) fn with_subgroups() -> Option<[Self; 2]> {
        let all = [Checks::Off, Checks::On].map(|checks| Self {
            gpu: gpu(checks, Subgroups::Always),
            buffers: Vec::new(),
            checks,
        });
        let there = all.iter().all(|h| h.gpu.subgroups);
        if !there {
            println!("the adapter has no subgroups of eight lanes: kernels that need them do not run");
        }
        there.then_some(all)
    }

    fn add(&mut self, bytes: &[u8]) -> Slice {
        let buffer = self.gpu.buffer("test", bytes.len() as u64).unwrap();
        self.gpu.queue.write_buffer(&buffer, 0, bytes);
        self.buffers.push(buffer);
        Slice { buffer: BufferId(self.buffers.len() - 1), offset: 0, size: bytes.len() as u64 }
    }

    /// A buffer with these values (`f32`, `u32`, or any plain struct).
    pub(super) fn input<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> Slice {
        self.add(bytemuck::cast_slice(values))
    }

    /// A buffer for `len` values of `f32`, all unwritten.
    pub(super) fn output(&mut self, len: usize) -> Slice {
        self.input(&vec![UNWRITTEN; len])
    }

    pub(super) fn run(&self, dispatches: &[Dispatch]) {
        let commands = recorded::commands(&self.gpu, dispatches.iter(), &self.buffers).unwrap();
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for command in &commands {
                command.record(&mut pass);
            }
        }
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.wait().unwrap();
    }

    pub(super) fn read<T: bytemuck::Pod>(&self, slice: Slice) -> Vec<T> {
        let bytes = self.gpu.read(&[(&self.buffers[slice.buffer.0], slice.offset, slice.size)]).unwrap();
        bytemuck::pod_collect_to_vec(&bytes[0])
    }

    /// Asserts that a buffer agrees with its twin's values: relative L2 error of at most `tolerance`, every value
    /// finite and written.
    pub(super) fn expect(&self, what: &str, slice: Slice, expected: &[f32], tolerance: f64) {
        let found: Vec<f32> = self.read(slice);
        assert_eq!(found.len(), expected.len(), "{what}");
        if let Some(i) = found.iter().position(|v| *v == UNWRITTEN || !v.is_finite()) {
            panic!("{what}, checks {:?}: value {i} of {} is {}", self.checks, found.len(), found[i]);
        }
        let error = relative_error(&found, expected);
        assert!(
            error <= tolerance,
            "{what}, checks {:?}: relative error {error:.3e}, allowed {tolerance:.0e}; found {:?}, expected {:?}",
            self.checks,
            &found[..found.len().min(8)],
            &expected[..expected.len().min(8)]
        );
    }
}

/// `‖a - b‖ / ‖b‖`, or `‖a‖` if `b` is zero.
pub(super) fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let size: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    if size == 0.0 { difference.sqrt() } else { (difference / size).sqrt() }
}

/// Standard normal values, different for each `sample`.
pub(super) fn random(len: usize, sample: u32) -> Vec<f32> {
    let stream = Stream::new(21, Purpose::Test, 0, sample);
    (0..len).map(|i| stream.normal(i as u32)).collect()
}

/// Rows of `channels` values, padded with zeros to whole quads.
pub(super) fn pad(values: &[f32], channels: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len().div_ceil(channels) * channels.next_multiple_of(4));
    for row in values.chunks(channels) {
        out.extend_from_slice(row);
        out.resize(out.len().next_multiple_of(4), 0.0);
    }
    out
}
