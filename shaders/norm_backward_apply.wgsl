// Gradient of batch norm's input. With BATCH, the statistics were those of the batch, and
// dx = scale · (g - Σ g / count - x̂ · Σ g · x̂ / count), x̂ = (x - mean) · rstd; otherwise they are constants, and
// dx = scale · g. g = dy; with RELU, zero where the ReLU after it masks y = scale · x + shift. With ADD, dx += other.
// (Ioffe, Szegedy: Batch Normalization, 2015, section 3.)
//
// x, dy, dx: rows × C. affine: scale, shift, mean, rstd, 4 × C. means: Σ g / count, Σ g · x̂ / count, 2 × C.
#import "shared/grid.wgsl"
#import "shared/relu.wgsl"
#let READS = 1 - (BATCH + RELU == 0)

struct Params {
    count: u32,
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> affine: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;
#if BATCH + RELU
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
#end
#if BATCH
@group(0) @binding(5) var<storage, read> means: array<vec4<f32>>;
#end
#if ADD
@group(0) @binding({{4 + READS + BATCH}}) var<storage, read> other: array<vec4<f32>>;
#end

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    if i < params.count {
        let quad = i % params.quads;
        let scale = affine[quad];
#if RELU
        let g = relu_gate(scale * x[i] + affine[params.quads + quad], dy[i]);
#else
        let g = dy[i];
#end
#if BATCH
        let normalised = (x[i] - affine[2u * params.quads + quad]) * affine[3u * params.quads + quad];
        let before = scale * (g - means[quad] - normalised * means[params.quads + quad]);
#else
        let before = scale * g;
#end
#if ADD
        dx[i] = before + other[i];
#else
        dx[i] = before;
#end
    }
}
