// The head of a network, for one image and a workgroup of 256: mean over the pixels, then the linear layer. FEATURES
// and CLASSES are the quads of C and K. The mean is that of x, or of scale · x + shift (NORM), after max(·, 0) (RELU).
//
// x, its gradient: B × H × W × C. affine: scale, shift, mean, rstd, 4 × C. weight: C × K. bias: K. logits: B × K.
//
// For the pixels of an image, the lanes form 256 / COLUMNS lines of COLUMNS quads.
//
// Small arrays that few lanes read are uniforms, because a shader may have only eight storage buffers.
#import "shared/grid.wgsl"
#import "shared/relu.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    channels: u32,
    classes: u32,
    height: u32,
    width: u32,
    first_block: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// The means, then their gradient.
var<workgroup> features: array<f32, {{4 * FEATURES}}>;
// The logits, then their gradient.
var<workgroup> logits0: array<f32, {{4 * CLASSES}}>;
var<workgroup> lines: array<vec4<f32>, 256>;

// The lanes form `rows` rows of `columns`; every lane gets the sum over the rows of its column, in an order that
// depends only on their number. Lanes after the last row contribute nothing, but must call this too.
fn sum_over_lines(value: vec4<f32>, lane: u32, columns: u32, rows: u32) -> vec4<f32> {
    // Other lanes may still read the result of an earlier call.
    workgroupBarrier();
    lines[lane] = value;
    workgroupBarrier();
    let row = lane / columns;
    var left = rows;
    while left > 1u {
        let half = (left + 1u) / 2u;
        if row + half < left {
            lines[lane] += lines[lane + half * columns];
        }
        workgroupBarrier();
        left = half;
    }
    return lines[lane % columns];
}

fn feature_quad(quad: u32) -> vec4<f32> {
    let c = 4u * quad;
    return vec4<f32>(features[c], features[c + 1u], features[c + 2u], features[c + 3u]);
}

fn logit_quad(quad: u32) -> vec4<f32> {
    let k = 4u * quad;
    return vec4<f32>(logits0[k], logits0[k + 1u], logits0[k + 2u], logits0[k + 3u]);
}
