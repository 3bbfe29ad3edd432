// One step of a search (shared/pgd_step.wgsl) along the gradient of the images (shared/stem_gradient.wgsl). Fuses
// norm_backward_apply, the gradient of the first convolution, that of the normalisation and pgd_step.
// One workgroup per image, because the whole gradient must be known before a pixel moves; it stays in registers, STRIPS
// quads per lane.
#import "shared/stem_gradient.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"

#let FIRST = 4 + (NORM > 0) + (RELU + (NORM == 1) > 0) + (NORM == 1)
@group(0) @binding({{FIRST}}) var<uniform> call: Call;
@group(0) @binding({{FIRST + 1}}) var<storage, read> info: array<ImageInfo>;
@group(0) @binding({{FIRST + 2}}) var<storage, read> clean: array<vec4<f32>>;
@group(0) @binding({{FIRST + 3}}) var<storage, read_write> delta: array<vec4<f32>>;
@group(0) @binding({{FIRST + 4}}) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding({{FIRST + 5}}) var<uniform> stopped: u32;
@group(0) @binding({{FIRST + 6}}) var<storage, read_write> flags: array<atomic<u32>>;

#let LANES = 256
#import "shared/pgd_step.wgsl"

var<private> held: array<vec4<f32>, {{STRIPS}}>;

fn search_gradient(base: u32, quad: u32) -> vec4<f32> {
    return held[quad / {{LANES}}u];
}

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = params.first_group + linear_group(group, groups);
    let image = min(index, params.images - 1u);
    let about = info[params.first_image + image];
    let moves = index < params.images && (about.status & STATUS_ACTIVE) != 0u && stopped == 0u;
    let pixels = params.height * params.width;
    for (var strip = 0u; strip < select(0u, {{STRIPS}}u, moves); strip++) {
        held[strip] = strip_gradient(image, strip, lane);
    }
    step_image(about, params.first_image + image, image * pixels, select(0u, pixels, moves), lane);
}
