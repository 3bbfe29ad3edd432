// d weight = xᵀ · dy, d bias = Σ dy over the images; added to the existing values with ACCUMULATE. A workgroup computes
// 16 quads of the result, for each of which 16 lanes share the images; their sums are added in a fixed order.
//
// x: B × C. dy: B × K. d weight: C × K. d bias: K, computed as a row C of the weight whose inputs are 1.
#import "shared/grid.wgsl"
#import "shared/lanes.wgsl"

struct Params {
    images: u32,
    // C, rounded up to whole quads.
    features: u32,
    // Quads of K.
    classes: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> d_weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> d_bias: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 16u + lane % 16u;
    let c = i / params.classes;
    let k = i % params.classes;
    let images = select(0u, params.images, c <= params.features);
    var own = vec4<f32>(0.0);
    for (var image = lane / 16u; image < images; image += 16u) {
        var factor = 1.0;
        if c < params.features {
            factor = x[image * params.features + c];
        }
        own += factor * dy[image * params.classes + k];
    }
    let sum = sum_over_rows(Sums(own, vec4<f32>(0.0)), lane, 16u, 16u).a;
    if lane < 16u && c < params.features {
#if ACCUMULATE
        d_weight[i] += sum;
#else
        d_weight[i] = sum;
#end
    } else if lane < 16u && c == params.features {
#if ACCUMULATE
        d_bias[k] += sum;
#else
        d_bias[k] = sum;
#end
    }
}
