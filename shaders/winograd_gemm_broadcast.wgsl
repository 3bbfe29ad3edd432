// The products of winograd_gemm.wgsl without workgroup memory, for devices that execute loads lane by lane at a far
// higher cost than arithmetic, such as software adapters: a lane loads every eighth row and broadcasts it within its
// subgroup. Subgroups must have at least eight lanes.
//
// A workgroup computes BM × BN of a slot's product, and each lane all BM rows of TN columns; m is bit-identical.
#let NQ = BN / 4
#let LANES = BN / TN
#import "shared/winograd_gemm.wgsl"

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    let tiles = params.row_tiles * params.column_tiles;
    let index = linear_group(group, groups);
    // Uniform for all lanes.
    if index >= tiles * params.slots {
        return;
    }
    let slot = index / tiles;
    let tile = index % tiles;
    let first_row = tile / params.column_tiles * {{BM}}u;
    let first_column = tile % params.column_tiles * {{NQ}}u;
    let u_start = slot * 4u * params.depth_quads * params.column_quads;
    let m_start = slot * params.rows * params.column_quads;

    // Rows and columns beyond the edge recompute the last one; their sums are not written.
#for i in 0..BM/8
    let row_start{{i}} = (slot * params.rows + min(first_row + subgroup_lane % 8u + {{8 * i}}u, params.rows - 1u)) * params.depth_quads;
#end
#for j in 0..TN/4
    let column{{j}} = min(first_column + lane + {{j * LANES}}u, params.column_quads - 1u);
#end
#for i in 0..BM
#for j in 0..TN/4
    var sum{{i}}_{{j}} = vec4<f32>();
#end
#end

    for (var quad = 0u; quad < params.depth_quads; quad += 1u) {
#for i in 0..BM/8
        let a{{i}} = v[row_start{{i}} + quad];
#end
#for j in 0..TN/4
#if TRANSPOSED
#for e in 0..4
        let w{{e}}_{{j}} = u[u_start + (4u * column{{j}} + {{e}}u) * params.depth_quads + quad];
#end
        let b0_{{j}} = vec4<f32>(w0_{{j}}.x, w1_{{j}}.x, w2_{{j}}.x, w3_{{j}}.x);
        let b1_{{j}} = vec4<f32>(w0_{{j}}.y, w1_{{j}}.y, w2_{{j}}.y, w3_{{j}}.y);
        let b2_{{j}} = vec4<f32>(w0_{{j}}.z, w1_{{j}}.z, w2_{{j}}.z, w3_{{j}}.z);
        let b3_{{j}} = vec4<f32>(w0_{{j}}.w, w1_{{j}}.w, w2_{{j}}.w, w3_{{j}}.w);
#else
#for e in 0..4
        let b{{e}}_{{j}} = u[u_start + (4u * quad + {{e}}u) * params.column_quads + column{{j}}];
#end
#end
#end
#import "shared/broadcast_product.wgsl"
    }

#for i in 0..BM
#for j in 0..TN/4
    if first_row + {{i}}u < params.rows && first_column + lane + {{j * LANES}}u < params.column_quads {
        m[m_start + (first_row + {{i}}u) * params.column_quads + column{{j}}] = sum{{i}}_{{j}};
    }
#end
#end
}
