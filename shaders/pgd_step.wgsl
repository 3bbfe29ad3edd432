// One step of projected gradient ascent (shared/pgd_step.wgsl) along a gradient.
// clean, gradient, delta, x: B × H × W × C4, from the first image of the range on. One workgroup per image.
#import "shared/grid.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    // Quads of an image.
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> call: Call;
@group(0) @binding(2) var<storage, read> info: array<ImageInfo>;
@group(0) @binding(3) var<storage, read> clean: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> delta: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> stopped: u32;
@group(0) @binding(8) var<storage, read_write> flags: array<atomic<u32>>;

#let LANES = 256
#import "shared/pgd_step.wgsl"

fn search_gradient(base: u32, quad: u32) -> vec4<f32> {
    return gradient[base + quad];
}

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let image = linear_group(group, groups);
    let about = info[params.first_image + min(image, params.images - 1u)];
    let moves = image < params.images && (about.status & STATUS_ACTIVE) != 0u && stopped == 0u;
    step_image(about, params.first_image + image, image * params.quads, select(0u, params.quads, moves), lane);
}
