// Gradient of a convolution's weights, zero where a tap leaves the image:
//
//     dw[ky, kx, c, o] = Σ over n, v, u of x[n, s·v - p + ky, s·u - p + kx, c] · dy[n, v, u, o]
//
// An implicit matrix product: rows M are (tap, input channel), columns N output channels, the depth K the pixels of dy.
// The pixels are split into parts, each summed on its own (split-K), because few weights make few tiles; sum_parts.wgsl
// adds the parts in a fixed order. A workgroup computes BM × BN of one part, a thread TM × TN of it, BK pixels at a time.
// Shapes: x and dy B × H × W × C quads, each part tap × C_in × C_out, both channel counts in whole quads.
#let MQ = BM / 4
#let NQ = BN / 4
#let THREADS_X = BN / TN
#let THREADS_Y = BM / TM
#let THREADS = THREADS_X * THREADS_Y
#let A_SLOTS = BK * MQ / THREADS
#let B_SLOTS = BK * NQ / THREADS
#let NORM = 0
#let MEANS = BACKWARD * BATCH
#let INPUT = BACKWARD * (1 - (RELU + BATCH == 0))

struct Params {
    height: u32,
    width: u32,
    in_quads: u32,
    in_channels: u32,
    out_height: u32,
    out_width: u32,
    out_quads: u32,
    out_channels: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    // Pixels of dy, in all and in a part.
    pixels: u32,
    part_pixels: u32,
    tiles: u32,
    column_tiles: u32,
    // Of this dispatch, counted over all parts.
    first_tile: u32,
    // Where the first part goes.
    first_part: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
// dy, or what it is computed from.
@group(0) @binding(2) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> parts: array<vec4<f32>>;
#if X_NORM
@group(0) @binding(4) var<storage, read> x_norm: array<vec4<f32>>;
#end
#if BACKWARD
@group(0) @binding({{4 + X_NORM}}) var<storage, read> norm: array<vec4<f32>>;
#end
#if INPUT
@group(0) @binding({{5 + X_NORM}}) var<storage, read> norm_input: array<vec4<f32>>;
#end
#if MEANS
@group(0) @binding({{6 + X_NORM}}) var<storage, read> norm_means: array<vec4<f32>>;
#end
#import "shared/read.wgsl"

// The value at a place of x, batch norm and ReLU applied on the way.
fn read_x(index: u32, quad: u32) -> vec4<f32> {
#if X_NORM
    let value = x_norm[quad] * x[index] + x_norm[params.in_quads + quad];
#if X_RELU
    return relu(value);
#else
    return value;
#end
#else
    return x[index];
#end
}

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

    // A thread loads the same row quad, that is tap and channel quad, for A_SLOTS pixels in a row.
    let load_quad = first_row + lane % {{MQ}}u;
    let load_slot = lane / {{MQ}}u * {{A_SLOTS}}u;
    let tap = load_quad / params.in_quads;
    let channel_quad = load_quad % params.in_quads;
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
        let a{{i}} = select(vec4<f32>(), read_x(select(channel_quad, from{{i}}, inside{{i}}), channel_quad), inside{{i}});
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
        let b{{i}} = select(vec4<f32>(), value_at(place{{i}}, safe{{i}}, params.out_quads), loads{{i}});
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

    let row_quads = params.kernel * params.kernel * params.in_quads;
    let lanes = vec4<u32>(0u, 1u, 2u, 3u);
#for i in 0..TM/4
    let row{{i}} = first_row + thread_y + {{i * THREADS_Y}}u;
#for j in 0..TN/4
    {
        let column = first_column + thread_x + {{j * THREADS_X}}u;
        if row{{i}} < row_quads && column < params.out_quads {
            // The channels that were added to fill a quad stay zero, also where a NaN met their zeros.
            let real_out = vec4<u32>(4u * column) + lanes < vec4<u32>(params.out_channels);
            let real_in = vec4<u32>(row{{i}} % params.in_quads * 4u) + lanes < vec4<u32>(params.in_channels);
            let to = ((params.first_part + part) * row_quads + row{{i}}) * 4u * params.out_quads + column;
#for e in 0..4
            let sum_{{e}} = select(vec4<f32>(), sum{{4 * i + e}}_{{j}}, real_out);
            parts[to + {{e}}u * params.out_quads] = select(vec4<f32>(), sum_{{e}}, real_in[{{e}}]);
#end
        }
    }
#end
#end
}
