// Shared by the kernels of a convolution's weight gradient (conv_weight_gradient.wgsl,
// conv_weight_gradient_broadcast.wgsl): bindings, loads of x and stores of sums.
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
    // Pixels of dy, in total and per part.
    pixels: u32,
    part_pixels: u32,
    tiles: u32,
    column_tiles: u32,
    // First tile of this dispatch, counted over all parts.
    first_tile: u32,
    // Index of the first part in `parts`.
    first_part: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
// dy, or the gradient from which it is computed on load.
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

// The same for x as shared/read.wgsl for dy.
#if X_NORM
struct XCoefficients {
    scale: vec4<f32>,
    shift: vec4<f32>,
}

fn coefficients_of_x(quad: u32) -> XCoefficients {
    return XCoefficients(x_norm[quad], x_norm[params.in_quads + quad]);
}

// The value at an index of x, with batch norm and ReLU applied on load.
fn x_at(index: u32, c: XCoefficients) -> vec4<f32> {
    let value = c.scale * x[index] + c.shift;
#if X_RELU
    return relu(value);
#else
    return value;
#end
}
#else
alias XCoefficients = u32;

fn coefficients_of_x(quad: u32) -> XCoefficients {
    return 0u;
}

fn x_at(index: u32, c: XCoefficients) -> vec4<f32> {
    return x[index];
}
#end

// Writes the four rows of a row quad for a quad of columns. Padding channels stay zero even if a NaN was multiplied by
// their zeros.
fn write(part: u32, row: u32, column: u32, sum0: vec4<f32>, sum1: vec4<f32>, sum2: vec4<f32>, sum3: vec4<f32>) {
    let row_quads = params.kernel * params.kernel * params.in_quads;
    if row >= row_quads || column >= params.out_quads {
        return;
    }
    let lanes = vec4<u32>(0u, 1u, 2u, 3u);
    let real_out = vec4<u32>(4u * column) + lanes < vec4<u32>(params.out_channels);
    let first_in = row % params.in_quads * 4u;
    let to = ((params.first_part + part) * row_quads + row) * 4u * params.out_quads + column;
#for e in 0..4
    parts[to + {{e}}u * params.out_quads] = select(vec4<f32>(), sum{{e}}, real_out & vec4<bool>(first_in + {{e}}u < params.in_channels));
#end
}
