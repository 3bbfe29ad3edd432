// Merges the partials of norm_statistics or of a convolution, updates the running statistics, and writes the affine of
// each channel.
//
// With n_b, mean_b and M2_b of block b, N = Σ n_b: mean = Σ n_b mean_b / N, M2 = Σ (M2_b + n_b (mean_b - mean)²), which
// is Chan, Golub and LeVeque's merge of two blocks, applied to all blocks at once. Means are relative to that of block
// 0, so that no digits are lost if the mean is large compared with the deviation. variance = M2 / N normalises;
// running = (1 - momentum) running + momentum (mean, M2 / max(N - 1, 1)).
//
// partials: for each block a quad (n_b, 0, 0, 0), C means, C times M2. weight, bias: C. running: mean, variance, 2 × C.
// affine: scale, shift, mean, rstd, 4 × C. One workgroup per quad.
#import "shared/grid.wgsl"
#import "shared/lanes.wgsl"
#import "shared/norm_affine.wgsl"

struct Params {
    blocks: u32,
    channels: u32,
    quads: u32,
    epsilon: f32,
    keep: f32,
    momentum: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> running: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> affine: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quad = linear_group(group, groups);
    let blocks = select(0u, params.blocks, quad < params.quads);
    // Number of lanes that have a block.
    let held = clamp(params.blocks, 1u, 256u);
    let stride = 2u * params.quads + 1u;
    let none = vec4<f32>(0.0);

    let origin = partials[1u + min(quad, params.quads - 1u)];
    var sums = Sums(none, none);
    for (var b = lane; b < blocks; b += 256u) {
        let n = partials[b * stride].x;
        sums.a += n * (partials[b * stride + 1u + quad] - origin);
        sums.b.x += n;
    }
    let total = sum_over_rows(sums, lane, 1u, held);
    let count = total.b.x;
    let offset = total.a / count;

    var squares = none;
    for (var b = lane; b < blocks; b += 256u) {
        let d = partials[b * stride + 1u + quad] - origin - offset;
        squares += partials[b * stride + 1u + params.quads + quad] + partials[b * stride].x * d * d;
    }
    let squared = sum_over_rows(Sums(squares, none), lane, 1u, held).a;

    if lane == 0u && quad < params.quads {
        let mean = origin + offset;
        let unbiased = squared / max(count - 1.0, 1.0);
        running[quad] = params.keep * running[quad] + params.momentum * mean;
        let variance = params.quads + quad;
        running[variance] = params.keep * running[variance] + params.momentum * unbiased;
        write_affine(quad, mean, squared / count);
    }
}
