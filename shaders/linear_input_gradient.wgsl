// dx = dy · weightᵀ.
//
// dy: B × K. weight: C × K. dx: B × C.
#import "shared/grid.wgsl"

struct Params {
    // Quads of dx.
    count: u32,
    // Quads of C and of K.
    features: u32,
    classes: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 64u + lane;
    if i < params.count {
        let image = i / params.features;
        let first = 4u * (i % params.features) * params.classes;
        var sum = vec4<f32>(0.0);
        for (var k = 0u; k < params.classes; k++) {
            let g = dy[image * params.classes + k];
            let w = first + k;
            sum += vec4<f32>(
                dot(g, weight[w]),
                dot(g, weight[w + params.classes]),
                dot(g, weight[w + 2u * params.classes]),
                dot(g, weight[w + 3u * params.classes]),
            );
        }
        dx[i] = sum;
    }
}
