// Convolution as an implicit matrix product, forward and for the gradient of its input.
//
// Forward (TRANSPOSED = 0), zero where a tap leaves the image:
//
//     y[n, v, u, o] = Σ over ky, kx, c of x[n, s·v - p + ky, s·u - p + kx, c] · w[ky, kx, c, o]
//
// Input gradient (TRANSPOSED = 1):
//
//     dx[n, v, u, c] = Σ over ky, kx, o of dy[n, (v + p - ky) / s, (u + p - kx) / s, o] · w[ky, kx, c, o]
//
// over the taps for which s divides both numerators. These taps are the same for all pixels with the same (v mod s, u mod
// s), a phase. Each of the s² phases is a dense convolution with the taps ky = (v + p) mod s + s·t, so that no product
// with a zero is computed. A phase without taps (1×1, stride 2) writes zeros.
//
// The matrix product: rows M are pixels of the result, columns N its channels, the depth K runs over (tap, channel of the
// source). A workgroup computes BM × BN, a thread TM × TN of it, BK of the depth at a time.
// Shapes: activations B × H × W × C quads, weights tap × C_in × C_out, both channel counts in whole quads.
#let KQ = BK / 4
#let NQ = BN / 4
#let THREADS_X = BN / TN
#let THREADS_Y = BM / TM
#let THREADS = THREADS_X * THREADS_Y
#let ROW = KQ + 1
#let A_SLOTS = BM * KQ / THREADS
#let A_STEP = THREADS / KQ
#let B_SLOTS = (BK * NQ + THREADS - 1) / THREADS
#let NORMS = NORM + BACKWARD
#let MEANS = BACKWARD * BATCH
#let INPUT = BACKWARD * (1 - (RELU + BATCH == 0))

struct Params {
    images: u32,
    source_height: u32,
    source_width: u32,
    source_quads: u32,
    result_height: u32,
    result_width: u32,
    result_quads: u32,
    result_channels: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    column_tiles: u32,
    first_tile: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> result: array<vec4<f32>>;
#if NORMS
@group(0) @binding(4) var<storage, read> norm: array<vec4<f32>>;
#end
#if INPUT
@group(0) @binding(5) var<storage, read> norm_input: array<vec4<f32>>;
#end
#if MEANS
@group(0) @binding(6) var<storage, read> norm_means: array<vec4<f32>>;
#end
#if ADD
@group(0) @binding({{4 + NORMS + INPUT + MEANS}}) var<storage, read> other: array<vec4<f32>>;
#end
#import "shared/read.wgsl"

// What a row of the tile reads and writes: row and column of its first tap in the source, first pixel of its image there,
// and its pixel of the result, -1 for none.
var<workgroup> rows: array<vec4<i32>, {{BM}}>;
// Rows × quads of the depth; the quad more in each row spreads the rows over the memory banks.
var<workgroup> a_tile: array<vec4<f32>, {{BM * ROW}}>;
// Depth × quads of the columns.
var<workgroup> b_tile: array<vec4<f32>, {{BK * NQ}}>;

// Outside of every image, whatever the tap.
const FAR: i32 = -0x40000000;

// Keeps the channels that were added to fill a quad zero, also where a NaN met their zero weights.
fn real_channels(value: vec4<f32>, quad: u32) -> vec4<f32> {
    let channel = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(), value, channel < vec4<u32>(params.result_channels));
}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = params.first_tile + group.x;
    let first_column = tile % params.column_tiles * {{NQ}}u;
    let stride = params.stride;
    let result_size = vec2<u32>(params.result_width, params.result_height);
#if TRANSPOSED
    // Neighbouring tiles are the phases of the same pixels: they read the same source.
    let row_tile = tile / params.column_tiles;
    let phase_index = row_tile % (stride * stride);
    let phase = vec2<u32>(phase_index % stride, phase_index / stride);
    let first_row = row_tile / (stride * stride) * {{BM}}u;
    let size = (result_size + stride - 1u - phase) / stride;
    let first_tap = (phase + params.padding) % stride;
    let taps = (params.kernel + stride - 1u - first_tap) / stride;
    let start = (phase + params.padding) / stride;
#else
    let first_row = tile / params.column_tiles * {{BM}}u;
    let size = result_size;
    let taps = vec2<u32>(params.kernel);
#end
    let source_pixels = params.source_height * params.source_width;
    let count = params.images * size.x * size.y;

    for (var row = lane; row < {{BM}}u; row += {{THREADS}}u) {
        let index = first_row + row;
        var at = vec4<i32>(FAR, FAR, 0, -1);
        if index < count {
            let image = index / (size.x * size.y);
            let pixel = vec2<u32>(index % size.x, index / size.x % size.y);
#if TRANSPOSED
            let origin = vec2<i32>(pixel + start);
            let to = pixel * stride + phase;
#else
            let origin = vec2<i32>(pixel * stride) - i32(params.padding);
            let to = pixel;
#end
            let target_pixel = (image * result_size.y + to.y) * result_size.x + to.x;
            at = vec4<i32>(origin.y, origin.x, i32(image * source_pixels), i32(target_pixel));
        }
        rows[row] = at;
    }
    workgroupBarrier();

    // A thread loads the same quad of the depth for A_SLOTS rows.
    let load_quad = lane % {{KQ}}u;
    let load_row = lane / {{KQ}}u;
#for i in 0..A_SLOTS
    let at{{i}} = rows[load_row + {{i * A_STEP}}u];
#end
    // Its place in the depth: channel quad and tap.
    var quad = load_quad;
    var tap = vec2<u32>(0u, 0u);

    let thread_x = lane % {{THREADS_X}}u;
    let thread_y = lane / {{THREADS_X}}u;
#for i in 0..TM
#for j in 0..TN/4
    var sum{{i}}_{{j}} = vec4<f32>();
#end
#end

    let depth = taps.x * taps.y * params.source_quads;
    for (var done = 0u; done < depth; done += {{KQ}}u) {
        while quad >= params.source_quads {
            quad -= params.source_quads;
            tap.x += 1u;
            if tap.x == taps.x {
                tap.x = 0u;
                tap.y += 1u;
            }
        }
        let within = tap.y < taps.y;
        let safe_quad = select(0u, quad, within);
        // Loads come before the barrier and without branches: they are all under way while others still compute.
#for i in 0..A_SLOTS
#if TRANSPOSED
        let y{{i}} = u32(at{{i}}.x - i32(tap.y));
        let x{{i}} = u32(at{{i}}.y - i32(tap.x));
#else
        let y{{i}} = u32(at{{i}}.x + i32(tap.y));
        let x{{i}} = u32(at{{i}}.y + i32(tap.x));
#end
        let inside{{i}} = within && y{{i}} < params.source_height && x{{i}} < params.source_width;
        let from{{i}} = (u32(at{{i}}.z) + y{{i}} * params.source_width + x{{i}}) * params.source_quads + quad;
        let value{{i}} = value_at(select(safe_quad, from{{i}}, inside{{i}}), safe_quad, params.source_quads);
        let a{{i}} = select(vec4<f32>(), value{{i}}, inside{{i}});
#end
#if TRANSPOSED
        // A block of four channels of the result times four of the source, transposed on its way to the tile.
        let column = first_column + load_row;
        let loads = within && load_row < {{NQ}}u && column < params.result_quads;
        let weight_tap = (first_tap.y + stride * tap.y) * params.kernel + first_tap.x + stride * tap.x;
        let block = (weight_tap * params.result_quads + column) * 4u * params.source_quads + quad;
#for e in 0..4
        let w{{e}} = select(vec4<f32>(), weight[select(0u, block + {{e}}u * params.source_quads, loads)], loads);
#end
#else
#for i in 0..B_SLOTS
        let slot{{i}} = lane + {{i * THREADS}}u;
        let depth{{i}} = 4u * done + slot{{i}} / {{NQ}}u;
        let column{{i}} = first_column + slot{{i}} % {{NQ}}u;
        let loads{{i}} = depth{{i}} < 4u * depth && column{{i}} < params.result_quads;
        let b{{i}} = select(vec4<f32>(), weight[select(0u, depth{{i}} * params.result_quads + column{{i}}, loads{{i}})], loads{{i}});
#end
#end
        quad += {{KQ}}u;

        workgroupBarrier();
#for i in 0..A_SLOTS
        a_tile[(load_row + {{i * A_STEP}}u) * {{ROW}}u + load_quad] = a{{i}};
#end
#if TRANSPOSED
        if load_row < {{NQ}}u {
            let to = load_quad * {{4 * NQ}}u + load_row;
            b_tile[to] = vec4<f32>(w0.x, w1.x, w2.x, w3.x);
            b_tile[to + {{NQ}}u] = vec4<f32>(w0.y, w1.y, w2.y, w3.y);
            b_tile[to + {{2 * NQ}}u] = vec4<f32>(w0.z, w1.z, w2.z, w3.z);
            b_tile[to + {{3 * NQ}}u] = vec4<f32>(w0.w, w1.w, w2.w, w3.w);
        }
#else
#for i in 0..B_SLOTS
#if BK * NQ < (i + 1) * THREADS
        if slot{{i}} < {{BK * NQ}}u {
            b_tile[slot{{i}}] = b{{i}};
        }
#else
        b_tile[slot{{i}}] = b{{i}};
#end
#end
#end
        workgroupBarrier();

#import "shared/tile_product.wgsl"
    }

#for i in 0..TM
    let to{{i}} = rows[thread_y + {{i * THREADS_Y}}u].w;
#for j in 0..TN/4
    if to{{i}} >= 0 && first_column + thread_x + {{j * THREADS_X}}u < params.result_quads {
        let quad_index = first_column + thread_x + {{j * THREADS_X}}u;
        let index = u32(to{{i}}) * params.result_quads + quad_index;
#if ADD
        result[index] = real_channels(sum{{i}}_{{j}}, quad_index) + other[index];
#else
        result[index] = real_channels(sum{{i}}_{{j}}, quad_index);
#end
    }
#end
#end
}
