// The products of conv_weight_gradient.wgsl without workgroup memory, for devices that execute loads lane by lane at a
// far higher cost than arithmetic, such as software adapters: a lane loads every eighth row quad and broadcasts it
// within its subgroup. Subgroups must have at least eight lanes.
//
// A workgroup computes BM × BN of a part, and each lane all BM rows of TN columns.
#let NQ = BN / 4
#let LANES = BN / TN
#import "shared/conv_weight_gradient.wgsl"

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    let index = params.first_tile + group.x;
    let part = index / params.tiles;
    let tile = index % params.tiles;
    let first_row = tile / params.column_tiles * {{BM / 4}}u;
    let first_column = tile % params.column_tiles * {{NQ}}u;
    let start = part * params.part_pixels;
    let end = min(start + params.part_pixels, params.pixels);

    // Row quads: taps and quads of the input channels.
#for i in 0..BM/32
    let load_quad{{i}} = first_row + subgroup_lane % 8u + {{8 * i}}u;
    let tap{{i}} = load_quad{{i}} / params.in_quads;
    let channel_quad{{i}} = load_quad{{i}} % params.in_quads;
    let is_weight{{i}} = tap{{i}} < params.kernel * params.kernel;
    let offset{{i}} = vec2<i32>(vec2<u32>(tap{{i}} % params.kernel, tap{{i}} / params.kernel)) - i32(params.padding);
    let x_coefficients{{i}} = coefficients_of_x(channel_quad{{i}});
#end
    // Columns beyond the edge recompute the last one; their sums are not written.
#for j in 0..TN/4
    let column{{j}} = min(first_column + lane + {{j * LANES}}u, params.out_quads - 1u);
    let c{{j}} = coefficients(column{{j}}, params.out_quads);
#end
#for i in 0..BM
#for j in 0..TN/4
    var sum{{i}}_{{j}} = vec4<f32>();
#end
#end

    var image = start / (params.out_width * params.out_height);
    var pixel = vec2<u32>(start % params.out_width, start / params.out_width % params.out_height);
    for (var at = start; at < end; at += 1u) {
#for i in 0..BM/32
        let from{{i}} = vec2<u32>(vec2<i32>(pixel * params.stride) + offset{{i}});
        let inside{{i}} = is_weight{{i}} && from{{i}}.x < params.width && from{{i}}.y < params.height;
        let place{{i}} = ((image * params.height + from{{i}}.y) * params.width + from{{i}}.x) * params.in_quads + channel_quad{{i}};
        let a{{i}} = select(vec4<f32>(), x_at(select(0u, place{{i}}, inside{{i}}), x_coefficients{{i}}), inside{{i}});
#end
#for j in 0..TN/4
        let b{{j}} = value_at(at * params.out_quads + column{{j}}, c{{j}});
#end
#for i in 0..BM/32
#for s in 0..8
#let q = 8 * i + s
        let row_quad{{q}} = subgroupBroadcast(a{{i}}, {{s}}u);
#for j in 0..TN/4
        sum{{4 * q}}_{{j}} = fma(vec4<f32>(row_quad{{q}}.x), b{{j}}, sum{{4 * q}}_{{j}});
        sum{{4 * q + 1}}_{{j}} = fma(vec4<f32>(row_quad{{q}}.y), b{{j}}, sum{{4 * q + 1}}_{{j}});
        sum{{4 * q + 2}}_{{j}} = fma(vec4<f32>(row_quad{{q}}.z), b{{j}}, sum{{4 * q + 2}}_{{j}});
        sum{{4 * q + 3}}_{{j}} = fma(vec4<f32>(row_quad{{q}}.w), b{{j}}, sum{{4 * q + 3}}_{{j}});
#end
#end
#end
        pixel.x += 1u;
        if pixel.x == params.out_width {
            pixel.x = 0u;
            pixel.y += 1u;
        }
        if pixel.y == params.out_height {
            pixel.y = 0u;
            image += 1u;
        }
    }

#for q in 0..BM/4
#for j in 0..TN/4
    write(
        part, first_row + {{q}}u, first_column + lane + {{j * LANES}}u,
        sum{{4 * q}}_{{j}}, sum{{4 * q + 1}}_{{j}}, sum{{4 * q + 2}}_{{j}}, sum{{4 * q + 3}}_{{j}},
    );
#end
#end
}
