// y = scale · x + shift for each channel, with RELU max(y, 0).
//
// x, y: rows × C. affine: scale, shift, mean, rstd, 4 × C.
#import "shared/grid.wgsl"
#import "shared/relu.wgsl"

struct Params {
    count: u32,
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> affine: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    if i < params.count {
        let quad = i % params.quads;
        let value = affine[quad] * x[i] + affine[params.quads + quad];
#if RELU
        y[i] = relu(value);
#else
        y[i] = value;
#end
    }
}
