//! Validates every shader without a GPU: each variant must compile for Vulkan, Metal and DirectX, and stay within the
//! base tier.

use std::collections::BTreeSet;
use std::process::Command;

use naga::AddressSpace;
use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::device::IMMEDIATE_BYTES;
use super::kernel::Kernel;
use super::kernels::call::{Call, ImageInfo};
use super::kernels::{layouts, variants};
use super::layout::Layout;
use super::shader::{FILES, expand, with_immediates};
use super::subgroups;

/// Validates a shader. `capabilities` are the optional features that it may use.
///
/// # Errors
/// What is wrong with the shader.
fn examine(source: &str, capabilities: Capabilities) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    let info = validator(capabilities).validate(&module).map_err(|e| e.emit_to_string(source))?;
    within_base_limits(&module)?;

    let [entry] = &module.entry_points[..] else {
        return Err(format!("expected one entry point, found {}", module.entry_points.len()));
    };
    if (entry.name.as_str(), entry.stage) != ("main", naga::ShaderStage::Compute) {
        return Err(format!("expected a compute shader 'main', found '{}'", entry.name));
    }
    let subgroups = capabilities.contains(Capabilities::SUBGROUP);
    let spirv = naga::back::spv::write_vec(&module, &info, &spirv_options(capabilities), None);
    spirv.map_err(|e| format!("SPIR-V: {e}"))?;
    let lang_version = if subgroups { (2, 4) } else { (2, 0) };
    let options = naga::back::msl::Options { lang_version, ..Default::default() };
    let metal = naga::back::msl::write_string(&module, &info, &options, &naga::back::msl::PipelineOptions::default());
    metal.map_err(|e| format!("MSL: {e}"))?;
    let (mut text, mut options) = (String::new(), naga::back::hlsl::Options::default());
    if subgroups {
        options.shader_model = naga::back::hlsl::ShaderModel::V6_0;
    }
    let pipeline = naga::back::hlsl::PipelineOptions::default();
    let hlsl = naga::back::hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None);
    hlsl.map(|_| ()).map_err(|e| format!("HLSL: {e}"))
}

/// The optional features that a kernel may use.
fn capabilities(kernel: &Kernel) -> Capabilities {
    if subgroups::are_needed(kernel) { Capabilities::SUBGROUP } else { Capabilities::empty() }
}

fn validator(capabilities: Capabilities) -> Validator {
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    if capabilities.contains(Capabilities::SUBGROUP) {
        validator
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::BASIC | naga::valid::SubgroupOperationSet::BALLOT);
    }
    validator
}

fn spirv_options(capabilities: Capabilities) -> naga::back::spv::Options<'static> {
    let lang_version = if capabilities.contains(Capabilities::SUBGROUP) { (1, 3) } else { (1, 0) };
    naga::back::spv::Options { lang_version, ..Default::default() }
}

/// Checks the limits of `wgpu::Limits::default()` that a shader can exceed.
fn within_base_limits(module: &naga::Module) -> Result<(), String> {
    let limits = wgpu::Limits::default();
    let at_most = |what: &str, found: u32, most: u32| {
        if found <= most { Ok(()) } else { Err(format!("{what}: {found}, at most {most}")) }
    };
    for entry in &module.entry_points {
        let [x, y, z] = entry.workgroup_size;
        at_most("invocations in a workgroup", x * y * z, limits.max_compute_invocations_per_workgroup)?;
        at_most("workgroup size in z", z, limits.max_compute_workgroup_size_z)?;
    }
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let (mut shared, mut storage) = (0, 0);
    for (_, variable) in module.global_variables.iter() {
        match variable.space {
            AddressSpace::WorkGroup => shared += layouter[variable.ty].size.next_multiple_of(16),
            AddressSpace::Storage { .. } => storage += 1,
            AddressSpace::Uniform => at_most(
                "bytes of a uniform",
                layouter[variable.ty].size,
                limits.max_uniform_buffer_binding_size as u32,
            )?,
            AddressSpace::Immediate => return Err("immediates are not in the base tier".into()),
            _ => {}
        }
    }
    at_most("bytes of workgroup memory", shared, limits.max_compute_workgroup_storage_size)?;
    at_most("storage buffers", storage, limits.max_storage_buffers_per_shader_stage)
}

#[test]
fn every_variant_compiles_for_every_back_end_within_the_base_tier() {
    let mut wrong = Vec::new();
    for kernel in variants() {
        let examined =
            expand(kernel.file, &kernel.constants).and_then(|source| examine(&source, capabilities(&kernel)));
        if let Err(what) = examined {
            wrong.push(format!("{}: {what}", kernel.label()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_variant_compiles_with_immediates_that_every_adapter_has_room_for() {
    let examine = |source: &str, capabilities: Capabilities| -> Result<(), String> {
        let source = with_immediates(source)?;
        let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source))?;
        let mut validator = validator(capabilities | Capabilities::IMMEDIATES);
        let info = validator.validate(&module).map_err(|e| e.emit_to_string(&source))?;
        let size = naga::valid::ImmediateSlots::size_for_module(&module);
        if !(1..=IMMEDIATE_BYTES).contains(&size) {
            return Err(format!("bytes of immediates: {size}, at most {IMMEDIATE_BYTES}"));
        }
        let spirv = naga::back::spv::write_vec(&module, &info, &spirv_options(capabilities), None);
        spirv.map(|_| ()).map_err(|e| format!("SPIR-V: {e}"))
    };
    let mut wrong = Vec::new();
    for kernel in variants() {
        let examined =
            expand(kernel.file, &kernel.constants).and_then(|source| examine(&source, capabilities(&kernel)));
        if let Err(what) = examined {
            wrong.push(format!("{}: {what}", kernel.label()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let without = examine("@compute @workgroup_size(1) fn main() {}", Capabilities::empty());
    assert!(without.unwrap_err().contains("found it 0 times"));
}

/// The Rust type of a struct member. A vector is an array of its scalars.
fn type_name(module: &naga::Module, of: naga::Handle<naga::Type>) -> String {
    let scalar = |scalar: naga::Scalar| {
        let kind = match scalar.kind {
            naga::ScalarKind::Uint => "u",
            naga::ScalarKind::Sint => "i",
            naga::ScalarKind::Float => "f",
            other => return format!("{other:?}"),
        };
        format!("{kind}{}", 8 * scalar.width)
    };
    match &module.types[of].inner {
        naga::TypeInner::Scalar(of) => scalar(*of),
        naga::TypeInner::Vector { size, scalar: of } => format!("[{}; {}]", scalar(*of), *size as u8),
        other => format!("{other:?}"),
    }
}

/// Compares the struct `name` of a shader with `layout`, whose members with their WGSL names are `rust`.
fn difference(module: &naga::Module, name: &str, layout: &Layout, rust: &[(&str, &str, usize)]) -> Result<(), String> {
    let found = module.types.iter().find(|(_, of)| of.name.as_deref() == Some(name));
    let Some((handle, naga::Type { inner: naga::TypeInner::Struct { members, span }, .. })) = found else {
        return Err(format!("expected a struct {name}"));
    };
    let wgsl: Vec<(&str, String, usize)> = members
        .iter()
        .map(|member| {
            let name = member.name.as_deref().unwrap_or_default();
            (name, type_name(module, member.ty), member.offset as usize)
        })
        .collect();
    let rust: Vec<(&str, String, usize)> = rust.iter().map(|&(name, of, at)| (name, of.to_owned(), at)).collect();
    if wgsl != rust {
        return Err(format!("{name} in WGSL: {wgsl:?}\n{} in Rust: {rust:?}", layout.name));
    }
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
    // Rust does not have the alignment of vectors, which rounds the size up.
    let size = layouter[handle].alignment.round_up(layout.size as u32);
    if size == *span { Ok(()) } else { Err(format!("{name} has {span} bytes in WGSL, {} {size} in Rust", layout.name)) }
}

fn parsed(kernel: &Kernel) -> naga::Module {
    naga::front::wgsl::parse_str(&expand(kernel.file, &kernel.constants).unwrap()).unwrap()
}

/// A dispatch passes its parameters as bytes: a member that is renamed, moved, added or removed in only one language
/// would be read as another one.
#[test]
fn parameters_have_the_same_members_in_rust_and_in_every_variant() {
    let (layouts, variants) = (layouts(), variants());
    let mut wrong = BTreeSet::new();
    for kernel in &variants {
        let of_kernel: Vec<&Layout> = layouts.iter().filter(|layout| layout.kernels.contains(&kernel.file)).collect();
        match of_kernel[..] {
            [layout] => {
                if let Err(what) = difference(&parsed(kernel), "Params", layout, layout.members) {
                    wrong.insert(format!("{}: {what}", kernel.label()));
                }
            }
            _ => {
                let names: Vec<&str> = of_kernel.iter().map(|layout| layout.name).collect();
                wrong.insert(format!("{}: expected one Rust struct for its Params, found {names:?}", kernel.file));
            }
        }
    }
    let files: BTreeSet<&str> = variants.iter().map(|kernel| kernel.file).collect();
    for layout in &layouts {
        let strangers: Vec<&&str> = layout.kernels.iter().filter(|file| !files.contains(*file)).collect();
        if layout.kernels.is_empty() || !strangers.is_empty() {
            wrong.insert(format!("{} is of {:?}, of which {strangers:?} are no kernels", layout.name, layout.kernels));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

/// The members of [`ImageInfo`] with their WGSL names: one Rust name is reserved in WGSL.
fn image_info() -> Vec<(&'static str, &'static str, usize)> {
    let renamed = |&(name, of, at): &(&'static str, &'static str, usize)| match name {
        "target" => ("goal", of, at),
        _ => (name, of, at),
    };
    ImageInfo::LAYOUT.members.iter().map(renamed).collect()
}

#[test]
fn calls_and_images_have_the_same_members_in_rust_and_in_every_variant() {
    let image_info = image_info();
    let twins = [("Call", Call::LAYOUT, Call::LAYOUT.members), ("ImageInfo", ImageInfo::LAYOUT, &image_info[..])];
    let (mut wrong, mut compared) = (BTreeSet::new(), BTreeSet::new());
    for kernel in variants() {
        let module = parsed(&kernel);
        for (name, layout, members) in twins {
            if !module.types.iter().any(|(_, of)| of.name.as_deref() == Some(name)) {
                continue;
            }
            compared.insert(name);
            if let Err(what) = difference(&module, name, &layout, members) {
                wrong.insert(what);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    assert_eq!(compared, BTreeSet::from(["Call", "ImageInfo"]));
}

#[test]
fn a_difference_between_the_languages_is_found() {
    let layout = Layout { name: "Twin", kernels: &[], members: &[("a", "u32", 0), ("b", "[f32; 2]", 8)], size: 16 };
    let examine = |members: &str| {
        let module = naga::front::wgsl::parse_str(&format!("struct Params {{ {members} }}")).unwrap();
        difference(&module, "Params", &layout, layout.members)
    };
    examine("a: u32, b: vec2<f32>").unwrap();
    for other in [
        "a: u32, c: vec2<f32>",
        "b: vec2<f32>, a: u32",
        "a: u32, b: vec2<f32>, c: u32",
        "a: u32",
        "a: i32, b: vec2<f32>",
        "a: u32, b: vec2<u32>",
        "a: u32, b: vec3<f32>",
        "a: u32, @align(16) b: vec2<f32>",
        "a: u32, @size(16) b: vec2<f32>",
    ] {
        assert!(examine(other).is_err(), "{other}");
    }
    let none = naga::front::wgsl::parse_str("struct Other { a: u32 }").unwrap();
    assert!(difference(&none, "Params", &layout, layout.members).unwrap_err().contains("expected a struct Params"));
}

#[test]
fn every_shader_file_is_a_kernel_or_imported() {
    let mut used: BTreeSet<&str> = variants().into_iter().map(|kernel| kernel.file).collect();
    for (_, source) in FILES {
        let imports = source.lines().filter_map(|line| line.trim().strip_prefix("#import "));
        used.extend(imports.map(|name| name.trim().trim_matches('"')));
    }
    let listed: BTreeSet<&str> = FILES.iter().map(|(name, _)| *name).collect();
    assert_eq!(used, listed);
}

/// Tint, Chrome's compiler, which is stricter about barriers than naga. If it is not installed, the test prints a
/// message; wgpu does not need this check.
#[test]
fn tint_takes_every_variant() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shader.wgsl");
    let run = |source: &str| {
        std::fs::write(&file, source).unwrap();
        Command::new("tint").args(["--format", "wgsl"]).arg(&file).output()
    };
    let Ok(broken) = run("@compute @workgroup_size(1) fn main() { let x: u32 = 1.0; }") else {
        println!("tint is not on the path: nothing was checked with it");
        return;
    };
    assert!(!broken.status.success(), "tint takes a broken shader");
    let mut wrong = Vec::new();
    let variants = variants();
    for kernel in &variants {
        // naga does not have this directive yet, and accepts subgroups without it.
        let enable = if subgroups::are_needed(kernel) { "enable subgroups;\n" } else { "" };
        let output = run(&format!("{enable}{}", expand(kernel.file, &kernel.constants).unwrap())).unwrap();
        if !output.status.success() {
            wrong.push(format!("{}:\n{}", kernel.label(), String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("tint took {} variants", variants.len());
}

#[test]
fn a_wrong_shader_is_found() {
    let main = |before: &str, size: &str, body: &str| {
        format!(
            "{before}\n@compute @workgroup_size({size}) fn main(@builtin(local_invocation_index) lane: u32) {{\n{body}\n}}"
        )
    };
    let nine: String =
        (0..9).map(|i| format!("@group(0) @binding({i}) var<storage, read_write> b{i}: array<f32>;\n")).collect();
    let shared = |quads: u32| format!("var<workgroup> tile: array<vec4<f32>, {quads}>; var<workgroup> sum: f32;");
    for (source, expected) in [
        (main("", "64", "let x: f32 = 1u;"), "f32"),
        (main("", "64", "let x = y;"), "y"),
        (main("", "257", ""), "invocations in a workgroup: 257, at most 256"),
        (main("", "1, 1, 65", ""), "workgroup size in z: 65, at most 64"),
        (main(&shared(1024), "64", "tile[lane].x = 1.0;"), "bytes of workgroup memory: 16400, at most 16384"),
        (main(&nine, "64", "b0[lane] = 1.0;"), "storage buffers: 9, at most 8"),
        (main("enable f16;", "64", "var x: f16 = 1.0h;"), "f16"),
        (main("var<private> x: f64;", "64", "x = 1.0lf;"), "f64"),
        (main("", "64", "let x = subgroupAdd(lane);"), "subgroup"),
        ("@compute @workgroup_size(64) fn other() {}".into(), "'main'"),
        ("fn main() {}".into(), "one entry point, found 0"),
    ] {
        let message = examine(&source, Capabilities::empty()).unwrap_err();
        assert!(message.to_lowercase().contains(&expected.to_lowercase()), "{source}\n{message}");
    }
    examine(&main(&shared(1023), "64", "tile[lane % 1023u].x = 1.0; sum = 0.0;"), Capabilities::empty()).unwrap();
}
