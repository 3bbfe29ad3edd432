// The gradient of the images, the input of a network's stem: the normalisation of the colours and a convolution of
// stride 1 with QUADS quads of channels, KERNEL × KERNEL taps and PADDING:
//
//   dx[v, u, c] = scale[c] · Σ over ky, kx, o of dy[v + p - ky, u + p - kx, o] · w[ky, kx, c, o]
//
// With NORM, a batch norm follows, and `dy` is the gradient of its output (with RELU, of the output of the ReLU after
// it): norm_backward_apply is computed on load. NORM = 1: batch statistics, NORM = 2: constants.
//
// A strip is 256 pixels of an image, one per lane. The rows of dy that it reads are loaded to workgroup memory DEPTH
// quads at a time, at most TILE pixels of them.
//
// dx: B × H × W × 4. dy, features (the input of the batch norm): B × H' × W' × C. weight: tap × 4 × C. normalization,
// affine: scale, shift, mean, rstd, 4 × 4 and 4 × C. means: 2 × C. Small arrays are uniforms, because a shader may have
// only eight storage buffers.
#import "shared/grid.wgsl"
#import "shared/relu.wgsl"

#let READS = RELU + (NORM == 1) > 0

struct Params {
    images: u32,
    first_image: u32,
    // Sizes of the images.
    channels: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    // Strips per image.
    strips: u32,
    // The first workgroup of this dispatch.
    first_group: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> normalization: array<vec4<f32>, 4>;
#if NORM
@group(0) @binding(4) var<uniform> affine: array<vec4<f32>, {{4 * QUADS}}>;
#end
#if READS
@group(0) @binding(5) var<storage, read> features: array<vec4<f32>>;
#end
#if NORM == 1
@group(0) @binding({{5 + READS}}) var<uniform> means: array<vec4<f32>, {{2 * QUADS}}>;
#end

// Pixels of DEPTH quads.
var<workgroup> tile: array<vec4<f32>, {{DEPTH * TILE}}>;
// For each tap and quad of the depth, a vector over the colours for each of its four channels.
var<workgroup> weights: array<vec4<f32>, {{4 * KERNEL * KERNEL * DEPTH}}>;

// The gradient of the convolution's output.
fn output_gradient(at: u32, quad: u32) -> vec4<f32> {
#if NORM
    let scale = affine[quad];
#if RELU
    let g = relu_gate(scale * features[at] + affine[{{QUADS}}u + quad], dy[at]);
#else
    let g = dy[at];
#end
#if NORM == 1
    let normalised = (features[at] - affine[{{2 * QUADS}}u + quad]) * affine[{{3 * QUADS}}u + quad];
    return scale * (g - means[quad] - normalised * means[{{QUADS}}u + quad]);
#else
    return scale * g;
#end
#else
    return dy[at];
#end
}

// The gradient at the lane's pixel of a strip. All lanes must call it; those after the last pixel get that of the last
// pixel.
fn strip_gradient(image: u32, strip: u32, lane: u32) -> vec4<f32> {
    let pixels = params.height * params.width;
    let first = 256u * strip;
    let first_row = first / params.width;
    let last_row = (min(first + 256u, pixels) - 1u) / params.width;
    // The tile's first pixel in dy, and its size.
    let top = i32(first_row) + {{PADDING}} - {{KERNEL - 1}};
    let left = {{PADDING}} - {{KERNEL - 1}};
    let tile_width = params.width + {{KERNEL - 1}}u;
    let tile_pixels = (last_row - first_row + {{KERNEL}}u) * tile_width;
    // The position in the tile for the tap (0, 0); the other taps read further up and left.
    let pixel = min(first + lane, pixels - 1u);
    let at = (pixel / params.width - first_row + {{KERNEL - 1}}u) * tile_width + pixel % params.width + {{KERNEL - 1}}u;

    var sum = vec4<f32>(0.0);
    for (var quad = 0u; quad < {{QUADS}}u; quad += {{DEPTH}}u) {
        // Other lanes may still read the tile of the previous quads.
        workgroupBarrier();
        for (var i = lane; i < tile_pixels * {{DEPTH}}u; i += 256u) {
            let position = i / {{DEPTH}}u;
            let from_quad = quad + i % {{DEPTH}}u;
            let row = u32(top + i32(position / tile_width));
            let column = u32(left + i32(position % tile_width));
            var value = vec4<f32>(0.0);
            // Positions before the first row or column wrap to large numbers and fail the test too.
            if row < params.out_height && column < params.out_width && from_quad < {{QUADS}}u {
                let from_pixel = (image * params.out_height + row) * params.out_width + column;
                value = output_gradient(from_pixel * {{QUADS}}u + from_quad, from_quad);
            }
            tile[i % {{DEPTH}}u * {{TILE}}u + position] = value;
        }
        for (var i = lane; i < {{KERNEL * KERNEL * DEPTH}}u; i += 256u) {
            let from_quad = quad + i % {{DEPTH}}u;
            let inside = from_quad < {{QUADS}}u;
            let start = i / {{DEPTH}}u * {{4 * QUADS}}u + min(from_quad, {{QUADS - 1}}u);
#for c in 0..4
            let w{{c}} = select(vec4<f32>(0.0), weight[start + {{c * QUADS}}u], inside);
#end
#for e in 0..4
            weights[4u * i + {{e}}u] = vec4<f32>(w0[{{e}}], w1[{{e}}], w2[{{e}}], w3[{{e}}]);
#end
        }
        workgroupBarrier();
        for (var ky = 0u; ky < {{KERNEL}}u; ky++) {
            for (var kx = 0u; kx < {{KERNEL}}u; kx++) {
                let from_pixel = at - ky * tile_width - kx;
                let tap = (ky * {{KERNEL}}u + kx) * {{4 * DEPTH}}u;
#for d in 0..DEPTH
                let g{{d}} = tile[{{d * TILE}}u + from_pixel];
#for e in 0..4
                sum = fma(vec4<f32>(g{{d}}[{{e}}]), weights[tap + {{4 * d + e}}u], sum);
#end
#end
            }
        }
    }
    // Padding colours stay zero even if a NaN was multiplied by their zero weights.
    return select(vec4<f32>(0.0), normalization[0] * sum, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels));
}
