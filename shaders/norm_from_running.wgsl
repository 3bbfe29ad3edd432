// The affine of a batch norm that normalises with its running statistics.
//
// weight, bias: C. running: mean, variance, 2 × C. affine: scale, shift, mean, rstd, 4 × C.
#import "shared/grid.wgsl"
#import "shared/norm_affine.wgsl"

struct Params {
    channels: u32,
    quads: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> running: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> affine: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quad = linear_group(group, groups) * 64u + lane;
    if quad < params.quads {
        write_affine(quad, running[quad], running[params.quads + quad]);
    }
}
