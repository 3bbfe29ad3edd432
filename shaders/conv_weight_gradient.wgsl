// Gradient of a convolution's weights, zero where a tap leaves the image:
//
//     dw[ky, kx, c, o] = Σ over n, v, u of x[n, s·v - p + ky, s·u - p + kx, c] · dy[n, v, u, o]
//
// An implicit matrix product: rows M are (tap, input channel), columns N output channels, the depth K the pixels of dy.
// The pixels are split into parts that are summed separately (split-K), because few weights make few tiles;
// sum_parts.wgsl adds the parts in a fixed order. A workgroup computes BM × BN of one part, a thread TM × TN of it, BK
// pixels at a time.
//
// Shapes: x and dy B × H × W × C quads, each part tap × C_in × C_out, both channel counts in whole quads.
#let MQ = BM / 4
#let NQ = BN / 4
#let THREADS_X = BN / TN
#let THREADS_Y = BM / TM
#let THREADS = THREADS_X * THREADS_Y
#let A_SLOTS = BK * MQ / THREADS
#let B_SLOTS = BK * NQ / THREADS
#import "shared/conv_weight_gradient.wgsl"

// Pixels × quads of the rows, and pixels × quads of the columns.
var<workgroup> a_tile: array<vec4<f32>, {{BK * MQ}}>;
var<workgroup> b_tile: array<vec4<f32>, {{BK * NQ}}>;

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = params.first_tile + group.x;
    let part = index / params.tiles;
    let tile = index % params.tiles;
    let first_row = tile / params.column_tiles * {{MQ}}u;
    let first_column = tile % params.column_tiles * {{NQ}}u;
    let start = part * params.part_pixels;
    let end = min(start + params.part_pixels, params.pixels);

    // A thread loads the same row quad (tap and channel quad) for A_SLOTS consecutive pixels.
    let load_quad = first_row + lane % {{MQ}}u;
    let load_slot = lane / {{MQ}}u * {{A_SLOTS}}u;
    let tap = load_quad / params.in_quads;
    let channel_quad = load_quad % params.in_quads;
    let x_coefficients = coefficients_of_x(channel_quad);
    let is_weight = tap < params.kernel * params.kernel;
    let offset = vec2<i32>(vec2<u32>(tap % params.kernel, tap / params.kernel)) - i32(params.padding);
    let loads_pixel = start + load_slot;
    var image = loads_pixel / (params.out_width * params.out_height);
    var pixel = vec2<u32>(loads_pixel % params.out_width, loads_pixel / params.out_width % params.out_height);

    let thread_x = lane % {{THREADS_X}}u;
    let thread_y = lane / {{THREADS_X}}u;
#for i in 0..TM
#for j in 0..TN/4
    var sum{{i}}_{{j}} = vec4<f32>();
#end
#end

    for (var done = start; done < end; done += {{BK}}u) {
#for i in 0..A_SLOTS
        let at{{i}} = vec2<u32>(vec2<i32>(pixel * params.stride) + offset);
        let inside{{i}} = is_weight && done + load_slot + {{i}}u < end && at{{i}}.x < params.width && at{{i}}.y < params.height;
        let from{{i}} = ((image * params.height + at{{i}}.y) * params.width + at{{i}}.x) * params.in_quads + channel_quad;
        let a{{i}} = select(vec4<f32>(), x_at(select(0u, from{{i}}, inside{{i}}), x_coefficients), inside{{i}});
#if i == A_SLOTS - 1
        pixel.x += {{BK - A_SLOTS + 1}}u;
        while pixel.x >= params.out_width {
            pixel.x -= params.out_width;
            pixel.y += 1u;
            if pixel.y == params.out_height {
                pixel.y = 0u;
                image += 1u;
            }
        }
#else
        pixel.x += 1u;
        if pixel.x == params.out_width {
            pixel.x = 0u;
            pixel.y += 1u;
        }
        if pixel.y == params.out_height {
            pixel.y = 0u;
            image += 1u;
        }
#end
#end
#for i in 0..B_SLOTS
        let slot{{i}} = lane + {{i * THREADS}}u;
        let pixel{{i}} = done + slot{{i}} / {{NQ}}u;
        let column{{i}} = first_column + slot{{i}} % {{NQ}}u;
        let loads{{i}} = pixel{{i}} < end && column{{i}} < params.out_quads;
        let safe{{i}} = select(0u, column{{i}}, loads{{i}});
        let place{{i}} = select(0u, pixel{{i}} * params.out_quads, loads{{i}}) + safe{{i}};
        let b{{i}} = select(vec4<f32>(), value_at(place{{i}}, coefficients(safe{{i}}, params.out_quads)), loads{{i}});
#end

        workgroupBarrier();
#for i in 0..A_SLOTS
        a_tile[(load_slot + {{i}}u) * {{MQ}}u + lane % {{MQ}}u] = a{{i}};
#end
#for i in 0..B_SLOTS
        b_tile[slot{{i}}] = b{{i}};
#end
        workgroupBarrier();

        for (var k = 0u; k < {{BK}}u; k += 1u) {
#for j in 0..TN/4
            let column_quad{{j}} = b_tile[k * {{NQ}}u + thread_x + {{j * THREADS_X}}u];
#end
#for i in 0..TM/4
            let row_quad{{i}} = a_tile[k * {{MQ}}u + thread_y + {{i * THREADS_Y}}u];
#for j in 0..TN/4
            sum{{4 * i}}_{{j}} = fma(vec4<f32>(row_quad{{i}}.x), column_quad{{j}}, sum{{4 * i}}_{{j}});
            sum{{4 * i + 1}}_{{j}} = fma(vec4<f32>(row_quad{{i}}.y), column_quad{{j}}, sum{{4 * i + 1}}_{{j}});
            sum{{4 * i + 2}}_{{j}} = fma(vec4<f32>(row_quad{{i}}.z), column_quad{{j}}, sum{{4 * i + 2}}_{{j}});
            sum{{4 * i + 3}}_{{j}} = fma(vec4<f32>(row_quad{{i}}.w), column_quad{{j}}, sum{{4 * i + 3}}_{{j}});
#end
#end
        }
    }

#for i in 0..TM/4
#for j in 0..TN/4
    write(
        part, first_row + thread_y + {{i * THREADS_Y}}u, first_column + thread_x + {{j * THREADS_X}}u,
        sum{{4 * i}}_{{j}}, sum{{4 * i + 1}}_{{j}}, sum{{4 * i + 2}}_{{j}}, sum{{4 * i + 3}}_{{j}},
    );
#end
#end
}
