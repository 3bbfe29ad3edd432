// d weight = xᵀ · dy, d bias = Σ dy over the images, in their order; added to what is there with ACCUMULATE.
//
// x: B × C. dy: B × K. d weight: C × K. d bias: K, computed as a row C of the weight whose inputs are 1.
#import "shared/grid.wgsl"

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

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 64u + lane;
    let c = i / params.classes;
    let k = i % params.classes;
    var sum = vec4<f32>(0.0);
    if c < params.features {
        for (var image = 0u; image < params.images; image++) {
            sum += x[image * params.features + c] * dy[image * params.classes + k];
        }
#if ACCUMULATE
        d_weight[i] += sum;
#else
        d_weight[i] = sum;
#end
    } else if c == params.features {
        for (var image = 0u; image < params.images; image++) {
            sum += dy[image * params.classes + k];
        }
#if ACCUMULATE
        d_bias[k] += sum;
#else
        d_bias[k] = sum;
#end
    }
}
