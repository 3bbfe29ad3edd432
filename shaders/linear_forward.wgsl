// y = x · weight + bias.
//
// x: B × C. weight: C × K. bias: K. y: B × K. A workgroup computes 4 quads of y, for each of which 64 lanes share C.
#import "shared/grid.wgsl"
#import "shared/lanes.wgsl"

struct Params {
    // Quads of y.
    count: u32,
    // Quads of C and of K.
    features: u32,
    classes: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 4u + lane % 4u;
    let image = i / params.classes;
    let k = i % params.classes;
    let features = select(0u, params.features, i < params.count);
    var sum = vec4<f32>(0.0);
    for (var c = lane / 4u; c < features; c += 64u) {
        let value = x[image * params.features + c];
        let w = 4u * c * params.classes + k;
        sum += value.x * weight[w];
        sum += value.y * weight[w + params.classes];
        sum += value.z * weight[w + 2u * params.classes];
        sum += value.w * weight[w + 3u * params.classes];
    }
    let total = sum_over_rows(Sums(sum, vec4<f32>(0.0)), lane, 4u, 64u).a;
    if lane < 4u && i < params.count {
        y[i] = total + bias[k];
    }
}
