// The head of a network, forward: logits, and with POOLED the means that the gradient of the linear layer's weight
// needs (shared/head.wgsl). Fuses global_pool and linear_forward with the batch norm and the ReLU before them. One
// workgroup per image.
#import "shared/head.wgsl"

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> bias: array<vec4<f32>, {{CLASSES}}>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;
#if NORM
@group(0) @binding(5) var<uniform> affine: array<vec4<f32>, {{4 * FEATURES}}>;
#end
#if POOLED
@group(0) @binding({{5 + (NORM > 0)}}) var<storage, read_write> pooled: array<f32>;
#end

#import "shared/head_forward.wgsl"

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_group(group, groups);
    // Surplus workgroups recompute the last image without writing.
    let image = min(index, params.images - 1u);
    pool(image, lane);
    linear(lane);
    if index < params.images {
        for (var j = lane; j < {{4 * CLASSES}}u; j += 256u) {
            logits[image * {{4 * CLASSES}}u + j] = logits0[j];
        }
#if POOLED
        for (var c = lane; c < {{4 * FEATURES}}u; c += 256u) {
            pooled[image * {{4 * FEATURES}}u + c] = features[c];
        }
#end
    }
}
