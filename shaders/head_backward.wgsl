// The head of a network, backward: from the gradient of the logits to that of x (shared/head.wgsl). Fuses
// linear_input_gradient and global_pool_backward with the batch norm and the ReLU before them.
// One workgroup per image.
#import "shared/head.wgsl"

#let READS_X = RELU + (NORM == 1) > 0
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dlogits: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<vec4<f32>>;
#if READS_X
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
#end
#if NORM
@group(0) @binding({{4 + READS_X}}) var<uniform> affine: array<vec4<f32>, {{4 * FEATURES}}>;
#end
#if NORM == 1
@group(0) @binding({{5 + READS_X}}) var<storage, read_write> partials: array<vec4<f32>>;
#end

#import "shared/head_backward.wgsl"

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_group(group, groups);
    // Surplus workgroups recompute the last image without writing.
    let image = min(index, params.images - 1u);
    for (var j = lane; j < {{4 * CLASSES}}u; j += 256u) {
        logits0[j] = dlogits[image * {{4 * CLASSES}}u + j];
    }
    workgroupBarrier();
    back_to_features(lane);
    spread(image, lane, index < params.images);
}
