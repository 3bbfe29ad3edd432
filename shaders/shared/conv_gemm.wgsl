// Shared by the kernels of a convolution as a matrix product (conv_gemm.wgsl, conv_gemm_broadcast.wgsl): bindings, the
// pixels that are the rows of the product, and their loads.
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
    first_block: u32,
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
#if STATISTICS
@group(0) @binding({{4 + NORMS + INPUT + MEANS + ADD}}) var<storage, read_write> partials: array<vec4<f32>>;
#end
#import "shared/read.wgsl"

// A coordinate outside of every image for any tap.
const FAR: i32 = -0x40000000;

// The rows of the product: pixels of the result, with TRANSPOSED those of one phase, and their taps.
struct Pixels {
    size: vec2<u32>,
    count: u32,
    taps: vec2<u32>,
#if TRANSPOSED
    phase: vec2<u32>,
    // The first of the taps, and its position in the source for the first pixel.
    first_tap: vec2<u32>,
    start: vec2<u32>,
#end
}

#if TRANSPOSED
fn pixels_of(phase_index: u32) -> Pixels {
    let phase = vec2<u32>(phase_index % params.stride, phase_index / params.stride);
    let size = (vec2<u32>(params.result_width, params.result_height) + params.stride - 1u - phase) / params.stride;
    let first_tap = (phase + params.padding) % params.stride;
    let taps = (params.kernel + params.stride - 1u - first_tap) / params.stride;
    return Pixels(size, params.images * size.x * size.y, taps, phase, first_tap, (phase + params.padding) / params.stride);
}
#else
fn all_pixels() -> Pixels {
    let size = vec2<u32>(params.result_width, params.result_height);
    return Pixels(size, params.images * size.x * size.y, vec2<u32>(params.kernel));
}
#end

// The indices of a row of the product: row and column of its first tap in the source, first pixel of its image there,
// and its pixel of the result (-1 if there is none).
fn place(pixels: Pixels, index: u32) -> vec4<i32> {
    let image = index / max(pixels.size.x * pixels.size.y, 1u);
    let pixel = vec2<u32>(index % max(pixels.size.x, 1u), index / max(pixels.size.x, 1u) % max(pixels.size.y, 1u));
#if TRANSPOSED
    let origin = vec2<i32>(pixel + pixels.start);
    let to = pixel * params.stride + pixels.phase;
#else
    let origin = vec2<i32>(pixel * params.stride) - i32(params.padding);
    let to = pixel;
#end
    let first = image * params.source_height * params.source_width;
    let target_pixel = (image * params.result_height + to.y) * params.result_width + to.x;
    let found = vec4<i32>(origin.y, origin.x, i32(first), i32(target_pixel));
    return select(vec4<i32>(FAR, FAR, 0, -1), found, index < pixels.count);
}

// A quad of the source at a tap of a row; zero outside of the image or if `within` is false.
fn source_at(row: vec4<i32>, tap: vec2<u32>, quad: u32, c: Coefficients, within: bool) -> vec4<f32> {
#if TRANSPOSED
    let y = u32(row.x - i32(tap.y));
    let x = u32(row.y - i32(tap.x));
#else
    let y = u32(row.x + i32(tap.y));
    let x = u32(row.y + i32(tap.x));
#end
    let inside = within && y < params.source_height && x < params.source_width;
    let index = (u32(row.z) + y * params.source_width + x) * params.source_quads + quad;
    return select(vec4<f32>(), value_at(select(0u, index, inside), c), inside);
}
#if TRANSPOSED

// The index in the weights of a tap of these pixels.
fn weight_tap(pixels: Pixels, tap: vec2<u32>) -> u32 {
    let at = pixels.first_tap + params.stride * tap;
    return at.y * params.kernel + at.x;
}
#end

// Writes a quad of a pixel of the result, and returns it. Padding channels stay zero even if a NaN was multiplied by
// their zero weights.
fn write(to: i32, column: u32, sum: vec4<f32>) -> vec4<f32> {
    let index = u32(to) * params.result_quads + column;
    let channel = vec4<u32>(4u * column) + vec4<u32>(0u, 1u, 2u, 3u);
    var value = select(vec4<f32>(), sum, channel < vec4<u32>(params.result_channels));
#if ADD
    value += other[index];
#end
    result[index] = value;
    return value;
}
