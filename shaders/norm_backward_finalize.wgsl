// Adds the partials of norm_backward_sums: means = (Σ g / count, Σ g · x̂ / count), and with GRADIENTS
// d bias = Σ g, d weight = Σ g · x̂, added to the existing values with ACCUMULATE.
//
// partials: for each block C times Σ g, C times Σ g · x̂. means: 2 × C. Gradients: C. One workgroup per quad.
#import "shared/grid.wgsl"
#import "shared/lanes.wgsl"

struct Params {
    blocks: u32,
    quads: u32,
    count: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> means: array<vec4<f32>>;
#if GRADIENTS
@group(0) @binding(3) var<storage, read_write> d_weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> d_bias: array<vec4<f32>>;
#end

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
    var sums = Sums(vec4<f32>(0.0), vec4<f32>(0.0));
    for (var b = lane; b < blocks; b += 256u) {
        sums.a += partials[b * 2u * params.quads + quad];
        sums.b += partials[(b * 2u + 1u) * params.quads + quad];
    }
    let total = sum_over_rows(sums, lane, 1u, held);

    if lane == 0u && quad < params.quads {
        means[quad] = total.a / params.count;
        means[params.quads + quad] = total.b / params.count;
#if GRADIENTS
#if ACCUMULATE
        d_weight[quad] += total.b;
        d_bias[quad] += total.a;
#else
        d_weight[quad] = total.b;
        d_bias[quad] = total.a;
#end
#end
    }
}
