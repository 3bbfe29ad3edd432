// One step of projected gradient ascent (Madry et al. 2018) on one image, by all LANES = 256 invocations of a
// workgroup: delta ← clip(project(delta + step · direction)), x = clean + delta, if the image is active. The direction
// is sign(g) in an L∞ ball and g / ‖g‖ in an L2 ball, and zero where g is zero; `project` projects onto the ball,
// `clip` keeps x in [0, 1]. The twin of engine/candle/search.rs.
//
// An image whose gradient contains NaN or infinity does not move and raises the first of `flags`; once a logit was not
// finite (`stopped`), no image moves. The cause can then be located with the images that produced it. An image whose
// gradient is zero has no direction, and raises the flag of its position in the batch, from the fifth flag on; noise and an
// unprojected start are projected all the same.
//
// Needs `call`, `clean`, `delta`, `x`, `stopped`, `flags`, and `search_gradient(base, quad)`, which returns the quads
// of the gradient that belong to a lane: lane, lane + 256 and so on.
#import "shared/ball.wgsl"
#import "shared/across_lanes.wgsl"

const SIGN: u32 = 0x80000000u;
const SIZE: u32 = 0x7fffffffu;
const INFINITE: u32 = 0x7f800000u;
const SMALLEST_NORMAL: u32 = 0x00800000u;

// 1, 0 or -1. From the bits, because a device may flush the smallest numbers to zero.
fn sign_of(g: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(g);
    let size = bits & vec4<u32>(SIZE);
    let one = bitcast<vec4<f32>>((bits & vec4<u32>(SIGN)) | vec4<u32>(0x3f800000u));
    return select(one, vec4<f32>(0.0), size == vec4<u32>(0u));
}

// A positive multiple of g whose squares neither overflow nor underflow, given the bits of the largest absolute value
// of the image: that value is scaled into [1, 4). The factor is a power of two, so that nothing is rounded.
fn scaled(g: vec4<f32>, largest: u32) -> vec4<f32> {
    if largest < SMALLEST_NORMAL {
        // The bits of a subnormal number, as an integer, are a multiple of it.
        let bits = bitcast<vec4<u32>>(g);
        let size = vec4<f32>(bits & vec4<u32>(SIZE));
        return select(size, -size, bits >= vec4<u32>(SIGN));
    }
    // Exponents are biased by 127; the exponent is limited so that the factor is a normal number.
    return g * bitcast<f32>((254u - min(largest >> 23u, 253u)) << 23u);
}

// One step of an image of `count` quads (0 if it does not move) that begins at quad `base` of the tensors. `position`
// is its index in the batch.
fn step_image(about: ImageInfo, position: u32, base: u32, count: u32, lane: u32) {
    var quads = count;
    var own = 0u;
    for (var quad = lane; quad < quads; quad += {{LANES}}u) {
        let size = bitcast<vec4<u32>>(search_gradient(base, quad)) & vec4<u32>(SIZE);
        own = max(own, max(max(size.x, size.y), max(size.z, size.w)));
    }
    // Absolute values are ordered as their bits; infinity and NaN are the largest.
    let largest = lane_max(own, lane);
    if lane == 0u && count > 0u {
        if largest >= INFINITE {
            atomicStore(&flags[0], 1u);
        } else if largest == 0u {
            atomicStore(&flags[4u + position], 1u);
        }
    }
    if largest >= INFINITE {
        quads = 0u;
    }
    if call.norm == NORM_L2 {
        var squares = 0.0;
        for (var quad = lane; quad < quads; quad += {{LANES}}u) {
            let g = scaled(search_gradient(base, quad), largest);
            squares += dot(g, g);
        }
        // At least 1, unless the gradient is zero.
        let length = max(sqrt(lane_sum(squares, lane)), 1.0);
        squares = 0.0;
        for (var quad = lane; quad < quads; quad += {{LANES}}u) {
            let i = base + quad;
            let d = delta[i] + scaled(search_gradient(base, quad), largest) / length * about.step_size;
            squares += dot(d, d);
            delta[i] = d;
        }
        let factor = scale_l2(sqrt(lane_sum(squares, lane)), about.epsilon);
        for (var quad = lane; quad < quads; quad += {{LANES}}u) {
            let i = base + quad;
            let d = clip(delta[i] * factor, clean[i]);
            delta[i] = d;
            x[i] = clean[i] + d;
        }
    } else {
        for (var quad = lane; quad < quads; quad += {{LANES}}u) {
            let i = base + quad;
            let moved = delta[i] + sign_of(search_gradient(base, quad)) * about.step_size;
            let d = clip(project_linf(moved, about.epsilon), clean[i]);
            delta[i] = d;
            x[i] = clean[i] + d;
        }
    }
}
