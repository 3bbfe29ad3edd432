//! The adapters of this machine: their capabilities, which of them can run the engine, and which one is used.

use std::sync::OnceLock;

use super::error::GpuError;
use super::wait::block_on;

/// Kinds of adapters in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterKind {
    /// A GPU with dedicated memory.
    Discrete,
    /// A GPU that shares its memory with the CPU and usually draws the desktop.
    Integrated,
    /// A GPU, or a part of one, of a virtual machine.
    Virtual,
    /// The driver does not report the kind.
    Other,
    /// A software implementation on the CPU (lavapipe, WARP): for tests.
    Software,
}

impl AdapterKind {
    const fn of(kind: wgpu::DeviceType) -> Self {
        match kind {
            wgpu::DeviceType::DiscreteGpu => Self::Discrete,
            wgpu::DeviceType::IntegratedGpu => Self::Integrated,
            wgpu::DeviceType::VirtualGpu => Self::Virtual,
            wgpu::DeviceType::Other => Self::Other,
            wgpu::DeviceType::Cpu => Self::Software,
        }
    }

    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Software => "software",
        }
    }
}

/// What kernels may rely on. Decided once per adapter. Apart from subgroups, which are tested on the open device, no
/// other code checks features or limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// [`wgpu::Limits::default()`] and no optional feature: what every WebGPU implementation guarantees.
    Base,
}

impl Tier {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
        }
    }
}

/// The limits of an adapter that decide which networks and batches it can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct AdapterLimits {
    /// Maximum size of a storage buffer binding in bytes.
    pub binding_bytes: u64,
    /// Maximum size of a buffer in bytes.
    pub buffer_bytes: u64,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Maximum number of invocations in a workgroup.
    pub invocations: u32,
    /// Maximum number of storage buffers of a shader.
    pub storage_buffers: u32,
    /// Device-local memory in bytes. `None` if unknown: only Vulkan reports it, wgpu does not.
    pub memory_bytes: Option<u64>,
}

/// Optional features of an adapter. The base tier uses only the pipeline cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct AdapterFeatures {
    /// Subgroup operations.
    pub subgroups: bool,
    /// 16-bit floating point.
    pub f16: bool,
    /// Timestamp queries.
    pub timestamps: bool,
    /// Compiled pipelines can be cached on disk.
    pub pipeline_cache: bool,
}

impl AdapterFeatures {
    /// The names of the supported features.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            (self.subgroups, "subgroups"),
            (self.f16, "f16"),
            (self.timestamps, "timestamps"),
            (self.pipeline_cache, "pipeline cache"),
        ];
        all.into_iter().filter_map(|(there, name)| there.then_some(name)).collect()
    }
}

/// Description of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AdapterSummary {
    /// Its index in the list; can be used to select it.
    pub index: usize,
    /// Its name; a part of it can be used to select it.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Its kind.
    pub kind: AdapterKind,
    /// Name and version of the driver.
    pub driver: String,
    /// Its limits. The engine requests only those of the base tier.
    pub limits: AdapterLimits,
    /// Its optional features.
    pub features: AdapterFeatures,
    /// The highest tier that it supports. `None` if it does not support [`Tier::Base`].
    pub tier: Option<Tier>,
    /// The requirements of the base tier that it does not meet.
    pub lacks: Vec<String>,
}

impl AdapterSummary {
    fn new(index: usize, adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let mut lacks = Vec::new();
        let downlevel = adapter.get_downlevel_capabilities();
        if !downlevel.flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS) {
            lacks.push("it has no compute shaders".to_owned());
        }
        wgpu::Limits::default().check_limits_with_fail_fn(&limits, false, |name, needed, found| {
            lacks.push(format!("{name} is {found}, but {needed} is needed"));
        });
        let driver = [info.driver.as_str(), info.driver_info.as_str()];
        Self {
            index,
            name: info.name,
            backend: info.backend.to_str().to_owned(),
            kind: AdapterKind::of(info.device_type),
            driver: driver.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "),
            limits: AdapterLimits {
                binding_bytes: limits.max_storage_buffer_binding_size,
                buffer_bytes: limits.max_buffer_size,
                workgroup_bytes: limits.max_compute_workgroup_storage_size,
                invocations: limits.max_compute_invocations_per_workgroup,
                storage_buffers: limits.max_storage_buffers_per_shader_stage,
                memory_bytes: memory_bytes(adapter),
            },
            features: AdapterFeatures {
                subgroups: features.contains(wgpu::Features::SUBGROUP),
                f16: features.contains(wgpu::Features::SHADER_F16),
                timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
                pipeline_cache: features.contains(wgpu::Features::PIPELINE_CACHE),
            },
            tier: lacks.is_empty().then_some(Tier::Base),
            lacks,
        }
    }

    /// Such as `[1] Radeon 780M (vulkan, integrated)`.
    fn line(&self) -> String {
        format!("[{}] {} ({}, {})", self.index, self.name, self.backend, self.kind.name())
    }

    /// Preference among several drivers of one GPU: on Windows, the Vulkan driver's compiler generates better code than
    /// FXC.
    fn backend_rank(&self) -> u8 {
        match self.backend.as_str() {
            "vulkan" => 0,
            "metal" => 1,
            _ => 2,
        }
    }
}

/// The device-local memory of a Vulkan adapter.
#[cfg(any(target_os = "linux", target_os = "windows"))]
pub(super) fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    #[allow(unsafe_code)]
    // SAFETY: the handle is only used to query properties, and is valid as long as `adapter`, which is borrowed.
    let properties = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    let heaps = properties.memory_heaps.iter().take(properties.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
pub(super) const fn memory_bytes(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// An adapter with its description.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) summary: AdapterSummary,
    pub(super) adapter: wgpu::Adapter,
}

/// Every adapter of Vulkan, Metal and DirectX 12. Enumerated once per process: loading drivers takes a while, and an
/// index must refer to the same adapter during the whole process.
///
/// wgpu's environment variables `WGPU_BACKEND` and `WGPU_VALIDATION` (and the other flags) are respected.
pub(super) fn found() -> &'static [Found] {
    static FOUND: OnceLock<Vec<Found>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
        descriptor.backends = backends;
        descriptor.flags = if cfg!(debug_assertions) {
            wgpu::InstanceFlags::DEBUG | wgpu::InstanceFlags::VALIDATION
        } else {
            wgpu::InstanceFlags::empty()
        };
        let descriptor = descriptor.with_env();
        let backends = backends & descriptor.backends;
        let instance = wgpu::Instance::new(descriptor);
        let adapters = block_on(instance.enumerate_adapters(backends));
        let with_summary = |(index, adapter)| Found { summary: AdapterSummary::new(index, &adapter), adapter };
        adapters.into_iter().enumerate().map(with_summary).collect()
    })
}

/// Every adapter of this machine, including those that cannot run the engine.
pub fn adapters() -> Vec<AdapterSummary> {
    found().iter().map(|found| found.summary.clone()).collect()
}

/// The adapter that is used by default. `None` if no adapter can run the engine.
pub fn default_adapter() -> Option<AdapterSummary> {
    choose(None).ok().map(|found| found.summary.clone())
}

/// The adapter that `wanted` selects: an index, a part of a name, `high-performance` or `low-power`. If `wanted` is
/// `None`, wgpu's `WGPU_ADAPTER_NAME` selects the adapter, and without it the fastest kind is used.
///
/// # Errors
/// [`GpuError::NoAdapter`] if none matches; it lists the adapters.
pub(super) fn choose(wanted: Option<&str>) -> Result<&'static Found, GpuError> {
    let found = found();
    let from_environment = std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.trim().is_empty());
    let index = pick(&adapters(), wanted.or(from_environment.as_deref()))?;
    found.get(index).ok_or_else(|| GpuError::NoAdapter(how_to_get_an_adapter()))
}

type Rank = fn(AdapterKind) -> u8;

/// Discrete, integrated, virtual, other, software.
const fn ranks_for_speed(kind: AdapterKind) -> u8 {
    kind as u8
}

const fn ranks_for_power(kind: AdapterKind) -> u8 {
    match kind {
        AdapterKind::Integrated => 0,
        AdapterKind::Discrete => 1,
        other => other as u8,
    }
}

/// The usable adapter of the best rank; the first of several.
fn preferred(all: &[AdapterSummary], rank: Rank) -> Option<usize> {
    let usable = all.iter().filter(|adapter| adapter.tier.is_some());
    usable.min_by_key(|adapter| (rank(adapter.kind), adapter.backend_rank())).map(|adapter| adapter.index)
}

fn pick(all: &[AdapterSummary], wanted: Option<&str>) -> Result<usize, GpuError> {
    if all.is_empty() {
        return Err(GpuError::NoAdapter(how_to_get_an_adapter()));
    }
    let list = || all.iter().map(AdapterSummary::line).collect::<Vec<_>>().join("; ");
    let fail = |what: String| Err(GpuError::NoAdapter(what));
    let best = |rank| match preferred(all, rank) {
        Some(index) => Ok(index),
        None => {
            let why = |a: &AdapterSummary| format!("{}: {}", a.line(), a.lacks.join(", "));
            let why = all.iter().map(why).collect::<Vec<_>>().join("; ");
            fail(format!("no adapter meets the minimum of WebGPU: {why}; `--engine candle` runs without a GPU"))
        }
    };
    let wanted = match wanted.map(str::trim) {
        None | Some("high-performance") => return best(ranks_for_speed),
        Some("low-power") => return best(ranks_for_power),
        Some(wanted) => wanted,
    };
    let index = match wanted.parse::<usize>().ok().filter(|index| *index < all.len()) {
        Some(index) => index,
        None => match named(all, wanted)[..] {
            [] => return fail(format!("no adapter is called '{wanted}'; available: {}", list())),
            [index] => index,
            _ => return fail(format!("'{wanted}' matches several adapters; choose one by its index: {}", list())),
        },
    };
    let chosen = &all[index];
    match chosen.tier {
        Some(_) => Ok(index),
        None => fail(format!("{} cannot run the network: {}", chosen.line(), chosen.lacks.join(", "))),
    }
}

/// The adapters whose name equals `wanted`, else those whose name contains it. A GPU with several backends counts once.
fn named(all: &[AdapterSummary], wanted: &str) -> Vec<usize> {
    let wanted = wanted.to_lowercase();
    let those = |test: &dyn Fn(&str) -> bool| -> Vec<&AdapterSummary> {
        all.iter().filter(|adapter| test(&adapter.name.to_lowercase())).collect()
    };
    let mut matches = those(&|name| name == wanted);
    if matches.is_empty() && !wanted.is_empty() {
        matches = those(&|name| name.contains(&wanted));
    }
    if let [first, rest @ ..] = &matches[..]
        && rest.iter().all(|other| other.name == first.name)
        && let Some(best) = matches.iter().map(|adapter| adapter.backend_rank()).min()
    {
        matches.retain(|adapter| adapter.backend_rank() == best);
    }
    matches.into_iter().map(|adapter| adapter.index).collect()
}

/// Instructions for a machine on which no driver provides an adapter.
pub fn how_to_get_an_adapter() -> String {
    let install = if cfg!(target_os = "linux") {
        "install the Vulkan driver of your GPU (for AMD and Intel on Debian and Ubuntu: `apt-get install \
         mesa-vulkan-drivers`; for NVIDIA: its proprietary driver)"
    } else if cfg!(target_os = "windows") {
        "install the driver of your GPU from its manufacturer"
    } else {
        "a Mac with Metal is needed"
    };
    let chosen = match std::env::var("WGPU_BACKEND") {
        Ok(backend) if !backend.is_empty() => format!(" (WGPU_BACKEND allows only '{backend}')"),
        _ => String::new(),
    };
    format!("no GPU driver provides an adapter{chosen}: {install}; `--engine candle` runs without a GPU")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, name: &str, kind: AdapterKind, backend: &str) -> AdapterSummary {
        AdapterSummary {
            index,
            name: name.into(),
            backend: backend.into(),
            kind,
            driver: String::new(),
            limits: AdapterLimits {
                binding_bytes: 1 << 27,
                buffer_bytes: 1 << 28,
                workgroup_bytes: 1 << 14,
                invocations: 256,
                storage_buffers: 8,
                memory_bytes: None,
            },
            features: AdapterFeatures { subgroups: false, f16: false, timestamps: false, pipeline_cache: false },
            tier: Some(Tier::Base),
            lacks: Vec::new(),
        }
    }

    fn laptop() -> Vec<AdapterSummary> {
        vec![
            adapter(0, "llvmpipe", AdapterKind::Software, "vulkan"),
            adapter(1, "GeForce RTX 4080", AdapterKind::Discrete, "dx12"),
            adapter(2, "Radeon 780M", AdapterKind::Integrated, "vulkan"),
            adapter(3, "GeForce RTX 4080", AdapterKind::Discrete, "vulkan"),
            adapter(4, "GeForce RTX 4080 SUPER", AdapterKind::Discrete, "vulkan"),
        ]
    }

    #[test]
    fn choice_by_kind_index_and_name() {
        let all = laptop();
        for (wanted, expected) in [
            (None, 3),
            (Some("high-performance"), 3),
            (Some("low-power"), 2),
            (Some("1"), 1),
            (Some(" 780m"), 2),
            (Some("super"), 4),
            // An equal name takes precedence over a part of a name; one GPU with two drivers counts once.
            (Some("geforce rtx 4080"), 3),
        ] {
            assert_eq!(pick(&all, wanted).unwrap(), expected, "{wanted:?}");
        }
        assert_eq!(pick(&all[..1], None).unwrap(), 0, "software is better than nothing");
        let mut below = laptop();
        for adapter in &mut below[1..] {
            (adapter.tier, adapter.lacks) = (None, vec!["it has no compute shaders".into()]);
        }
        assert_eq!(pick(&below, None).unwrap(), 0);
    }

    #[test]
    fn a_failed_choice_lists_the_adapters() {
        let mut all = laptop();
        let error = |all: &[AdapterSummary], wanted| pick(all, wanted).unwrap_err().to_string();
        for (wanted, expected) in [
            ("4080", "'4080' matches several adapters"),
            ("arc", "no adapter is called 'arc'; available: [0] llvmpipe (vulkan, software); [1] GeForce"),
            ("9", "no adapter is called '9'"),
            ("", "no adapter is called ''"),
        ] {
            let message = error(&all, Some(wanted));
            assert!(
                message.contains(expected) && message.contains("[2] Radeon 780M (vulkan, integrated)"),
                "{message}"
            );
        }
        all[2].tier = None;
        all[2].lacks = vec!["max_storage_buffers_per_shader_stage is 4, but 8 is needed".into()];
        let message = error(&all, Some("780M"));
        assert!(
            message.contains("[2] Radeon 780M (vulkan, integrated) cannot run the network: max_storage"),
            "{message}"
        );
        let message = error(&all[2..3], None);
        assert!(message.contains("no adapter meets the minimum of WebGPU") && message.contains("is 4"), "{message}");
        assert!(error(&[], None).contains("--engine candle"));
    }

    #[test]
    fn the_list_is_what_the_drivers_say() {
        let all = adapters();
        assert!(!all.is_empty(), "{}", how_to_get_an_adapter());
        for (i, adapter) in all.iter().enumerate() {
            assert_eq!((adapter.index, adapter.tier.is_some()), (i, adapter.lacks.is_empty()), "{adapter:?}");
            assert!(adapter.tier.is_none() || adapter.limits.binding_bytes >= 1 << 27, "{adapter:?}");
        }
    }
}
