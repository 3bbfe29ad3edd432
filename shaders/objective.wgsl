// Gradient of an attack's objective with respect to the logits (shared/objective_gradient.wgsl), and the update of the
// search's progress with the prediction (shared/search_progress.wgsl).
//
// logits, reference, gradient: B × K4, from the first image of the range on. One workgroup per image.
#import "shared/grid.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    classes: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> call: Call;
@group(0) @binding(2) var<storage, read_write> info: array<ImageInfo>;
@group(0) @binding(3) var<storage, read> logits0: array<f32>;
// Logits of the clean images, read for KL only.
@group(0) @binding(4) var<storage, read> logits1: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradient: array<f32>;
// Becomes 1 if a logit that was read is not finite.
@group(0) @binding(6) var<storage, read_write> flag: atomic<u32>;

#let LANES = 64
#import "shared/objective_gradient.wgsl"
#import "shared/search_progress.wgsl"

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_group(group, groups);
    let is_inside = index < params.images;
    // Surplus workgroups recompute the last image without writing.
    let image = min(index, params.images - 1u);
    let start = image * params.stride;
    let about = info[params.first_image + image];
    let aim = aim_at(start, start, about.label, about.goal, lane);

    for (var j = lane; j < params.stride; j += {{LANES}}u) {
        var g = 0.0;
        if j < params.classes {
            g = objective_gradient(aim, j, start + j, start + j);
        }
        if is_inside {
            gradient[start + j] = g;
        }
    }
    if is_inside && lane == 0u {
        look(params.first_image + image, aim.likeliest != about.label);
        if !aim.is_finite {
            atomicStore(&flag, 1u);
        }
    }
}
