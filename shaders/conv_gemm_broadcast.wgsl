// The products of conv_gemm.wgsl without workgroup memory, for devices that execute loads lane by lane at a far higher
// cost than arithmetic, such as software adapters: a lane loads every eighth row and broadcasts it within its subgroup.
// Subgroups must have at least eight lanes.
//
// A workgroup computes BM × BN, and each lane all BM rows of TN columns; the result is bit-identical.
#let NQ = BN / 4
#let LANES = BN / TN
#import "shared/conv_gemm.wgsl"

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    let tile = params.first_tile + group.x;
    let row_tile = tile / params.column_tiles;
    let first_column = tile % params.column_tiles * {{NQ}}u;
#if TRANSPOSED
    let phases = params.stride * params.stride;
    let pixels = pixels_of(row_tile % phases);
    let first_row = row_tile / phases * {{BM}}u;
#else
    let pixels = all_pixels();
    let first_row = row_tile * {{BM}}u;
#end
#for i in 0..BM/8
    let at{{i}} = place(pixels, first_row + subgroup_lane % 8u + {{8 * i}}u);
#end
    // Columns beyond the edge recompute the last one; their sums are not written.
#for j in 0..TN/4
    let column{{j}} = min(first_column + lane + {{j * LANES}}u, params.result_quads - 1u);
    let is_real{{j}} = first_column + lane + {{j * LANES}}u < params.result_quads;
#end
#for i in 0..BM
#for j in 0..TN/4
    var sum{{i}}_{{j}} = vec4<f32>();
#end
#end

    var quad = 0u;
    var tap = vec2<u32>(0u, 0u);
    let depth = pixels.taps.x * pixels.taps.y * params.source_quads;
    for (var done = 0u; done < depth; done += 1u) {
        let c = coefficients(quad, params.source_quads);
#for i in 0..BM/8
        let a{{i}} = source_at(at{{i}}, tap, quad, c, true);
#end
#if TRANSPOSED
        let tap_start = weight_tap(pixels, tap) * params.result_quads;
#end
#for j in 0..TN/4
#if TRANSPOSED
        let block{{j}} = (tap_start + column{{j}}) * 4u * params.source_quads + quad;
#for e in 0..4
        let w{{e}}_{{j}} = weight[block{{j}} + {{e}}u * params.source_quads];
#end
        let b0_{{j}} = vec4<f32>(w0_{{j}}.x, w1_{{j}}.x, w2_{{j}}.x, w3_{{j}}.x);
        let b1_{{j}} = vec4<f32>(w0_{{j}}.y, w1_{{j}}.y, w2_{{j}}.y, w3_{{j}}.y);
        let b2_{{j}} = vec4<f32>(w0_{{j}}.z, w1_{{j}}.z, w2_{{j}}.z, w3_{{j}}.z);
        let b3_{{j}} = vec4<f32>(w0_{{j}}.w, w1_{{j}}.w, w2_{{j}}.w, w3_{{j}}.w);
#else
#for e in 0..4
        let b{{e}}_{{j}} = weight[(4u * done + {{e}}u) * params.result_quads + column{{j}}];
#end
#end
#end
#import "shared/broadcast_product.wgsl"
        quad += 1u;
        if quad == params.source_quads {
            quad = 0u;
            tap.x += 1u;
        }
        if tap.x == pixels.taps.x {
            tap.x = 0u;
            tap.y += 1u;
        }
    }

    // All broadcasts come before control flow diverges.
#for i in 0..BM
    let to{{i}} = subgroupBroadcast(at{{i / 8}}.w, {{i % 8}}u);
#end
#for i in 0..BM
#for j in 0..TN/4
    if to{{i}} >= 0 && is_real{{j}} {
        sum{{i}}_{{j}} = write(to{{i}}, column{{j}}, sum{{i}}_{{j}});
    }
#end
#end
#if STATISTICS

    // A lane has all rows of its columns. As in norm_statistics.wgsl, the second pass corrects the rounding errors of
    // the first.
    let live = f32(min({{BM}}u, pixels.count - first_row));
    let block = (params.first_block + row_tile) * (2u * params.result_quads + 1u);
    if lane == 0u && first_column == 0u {
        partials[block] = vec4<f32>(live, 0.0, 0.0, 0.0);
    }
#for j in 0..TN/4
    var total{{j}} = vec4<f32>();
#for i in 0..BM
    total{{j}} += select(vec4<f32>(), sum{{i}}_{{j}}, to{{i}} >= 0);
#end
    let mean{{j}} = total{{j}} / live;
    var rest{{j}} = vec4<f32>();
    var squares{{j}} = vec4<f32>();
#for i in 0..BM
    let d{{i}}_{{j}} = select(vec4<f32>(), sum{{i}}_{{j}} - mean{{j}}, to{{i}} >= 0);
    rest{{j}} += d{{i}}_{{j}};
    squares{{j}} += d{{i}}_{{j}} * d{{i}}_{{j}};
#end
    if is_real{{j}} {
        partials[block + 1u + column{{j}}] = mean{{j}} + rest{{j}} / live;
        partials[block + 1u + params.result_quads + column{{j}}] = squares{{j}} - rest{{j}} * rest{{j}} / live;
    }
#end
#end
}
