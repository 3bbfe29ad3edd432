// The head of a network in an attack: logits, gradient of the objective, and the backward pass to x (shared/head.wgsl).
// Fuses global_pool, linear_forward, objective, linear_input_gradient and global_pool_backward with the batch norm and
// the ReLU before them. One workgroup per image.
#import "shared/head.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"

@group(0) @binding(1) var<uniform> call: Call;
@group(0) @binding(2) var<storage, read_write> info: array<ImageInfo>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(5) var<uniform> bias: array<vec4<f32>, {{CLASSES}}>;
// Logits of the clean images, read for KL only.
@group(0) @binding(6) var<storage, read> logits1: array<f32>;
@group(0) @binding(7) var<storage, read_write> logits: array<f32>;
@group(0) @binding(8) var<storage, read_write> gradient: array<vec4<f32>>;
// Becomes 1 if a logit that was read is not finite.
@group(0) @binding(9) var<storage, read_write> flag: atomic<u32>;
#if NORM
@group(0) @binding(10) var<uniform> affine: array<vec4<f32>, {{4 * FEATURES}}>;
#end
#if NORM == 1
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>;
#end

#let LANES = 256
#import "shared/objective_gradient.wgsl"
#import "shared/search_progress.wgsl"
#import "shared/head_forward.wgsl"
#import "shared/head_backward.wgsl"

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
    let start = image * {{4 * CLASSES}}u;
    let about = info[params.first_image + image];

    pool(image, lane);
    linear(lane);
    if is_inside {
        for (var j = lane; j < {{4 * CLASSES}}u; j += {{LANES}}u) {
            logits[start + j] = logits0[j];
        }
    }

    let aim = aim_at(0u, start, about.label, about.goal, lane);
    if is_inside && lane == 0u {
        look(params.first_image + image, aim.likeliest != about.label);
        if !aim.is_finite {
            atomicStore(&flag, 1u);
        }
    }
    // All lanes must have read the logits before the gradients overwrite them.
    workgroupBarrier();
    for (var j = lane; j < {{4 * CLASSES}}u; j += {{LANES}}u) {
        var g = 0.0;
        if j < params.classes {
            g = objective_gradient(aim, j, j, start + j);
        }
        logits0[j] = g;
    }
    workgroupBarrier();
    back_to_features(lane);
    spread(image, lane, is_inside);
}
