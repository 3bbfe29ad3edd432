// The value that a convolution loads at an index of `source`, with `quads` quads of channels. The caller declares
// `source` and:
// * with NORM, `norm`: batch norm is applied on load, scale · source + shift; with RELU, max(…, 0).
// * with BACKWARD, `norm` and `norm_input`: source is the gradient of the output of a batch norm (and with RELU a ReLU)
//   with input norm_input, and the loaded value is the gradient of that input; with BATCH, `norm_means` as in
//   norm_backward_apply.
//
// norm: scale, shift, mean, rstd, 4 × C. norm_means: Σ g / count, Σ g · x̂ / count, 2 × C.
#import "shared/relu.wgsl"

// Coefficients of a quad of channels: loaded once and used for many values.
#if NORM + BACKWARD
struct Coefficients {
    scale: vec4<f32>,
#if NORM + RELU
    shift: vec4<f32>,
#end
#if BACKWARD * BATCH
    mean: vec4<f32>,
    rstd: vec4<f32>,
    mean_gradient: vec4<f32>,
    mean_product: vec4<f32>,
#end
}

fn coefficients(quad: u32, quads: u32) -> Coefficients {
    var c: Coefficients;
    c.scale = norm[quad];
#if NORM + RELU
    c.shift = norm[quads + quad];
#end
#if BACKWARD * BATCH
    c.mean = norm[2u * quads + quad];
    c.rstd = norm[3u * quads + quad];
    c.mean_gradient = norm_means[quad];
    c.mean_product = norm_means[quads + quad];
#end
    return c;
}
#else
// No coefficients; the value is unused.
alias Coefficients = u32;

fn coefficients(quad: u32, quads: u32) -> Coefficients {
    return 0u;
}
#end

fn value_at(index: u32, c: Coefficients) -> vec4<f32> {
#if BACKWARD
#if RELU
    let g = relu_gate(c.scale * norm_input[index] + c.shift, source[index]);
#else
    let g = source[index];
#end
#if BATCH
    let normalised = (norm_input[index] - c.mean) * c.rstd;
    return c.scale * (g - c.mean_gradient - normalised * c.mean_product);
#else
    return c.scale * g;
#end
#else
#if NORM
    let value = c.scale * source[index] + c.shift;
#if RELU
    return relu(value);
#else
    return value;
#end
#else
    return source[index];
#end
#end
}
