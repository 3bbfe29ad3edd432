// What a convolution reads at a place of `source`, in `quads` quads of channels. The caller declares `source`, and:
// * with NORM, `norm`: batch norm is applied on the way, scale · source + shift; with RELU, max(…, 0).
// * with BACKWARD, `norm` and `norm_input`: source is the gradient behind a batch norm (and with RELU a ReLU) that read
//   norm_input, and what is read is the gradient before it; with BATCH, `norm_means` as norm_backward_apply has them.
// norm: scale, shift, mean, rstd, 4 × C. norm_means: Σ g / count, Σ g · x̂ / count, 2 × C.
#import "shared/relu.wgsl"

fn value_at(index: u32, quad: u32, quads: u32) -> vec4<f32> {
#if BACKWARD
    let scale = norm[quad];
#if RELU
    let g = relu_gate(scale * norm_input[index] + norm[quads + quad], source[index]);
#else
    let g = source[index];
#end
#if BATCH
    let normalised = (norm_input[index] - norm[2u * quads + quad]) * norm[3u * quads + quad];
    return scale * (g - norm_means[quad] - normalised * norm_means[quads + quad]);
#else
    return scale * g;
#end
#else
#if NORM
    let value = norm[quad] * source[index] + norm[quads + quad];
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
