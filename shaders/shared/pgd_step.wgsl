// One step of projected gradient ascent (Madry et al. 2018) on one image, by all LANES = 256 invocations of a workgroup:
// delta ← clip(project(delta + step · direction)), x = clean + delta, if the image is active. The direction is sign(g) in
// an L∞ ball and g / (‖g‖ + 1e-12) in an L2 ball; `project` leads into the ball, `clip` keeps x in [0, 1]. The twin of
// engine/candle/search.rs.
//
// An image whose gradient holds NaN or infinity stays where it is and raises `bad_gradient`; once logits were not finite
// (`stopped`) no image moves. So what went wrong can be looked for at the very images where it did.
//
// Needs `call`, `clean`, `delta`, `x`, `stopped`, `bad_gradient`, and `search_gradient(base, quad)`, which gives a lane its
// own quads of the gradient: lane, lane + 256 and so on.
#import "shared/ball.wgsl"
#import "shared/across_lanes.wgsl"

// 1, 0 or -1. By the bits, because a device may take the smallest numbers for zero: the gradient of a
// network that is all but certain.
fn sign_of(g: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(g);
    let size = bits & vec4<u32>(0x7fffffffu);
    let one = bitcast<vec4<f32>>((bits & vec4<u32>(0x80000000u)) | vec4<u32>(0x3f800000u));
    return select(one, vec4<f32>(0.0), size == vec4<u32>(0u));
}

// An image of `count` quads, none where it does not move, the first of which is `base` in the tensors.
fn step_image(about: ImageInfo, base: u32, count: u32, lane: u32) {
    var quads = count;
    var broken = 0.0;
    for (var quad = lane; quad < quads; quad += {{LANES}}u) {
        let size = bitcast<vec4<u32>>(search_gradient(base, quad)) & vec4<u32>(0x7fffffffu);
        broken += select(0.0, 1.0, any(size >= vec4<u32>(0x7f800000u)));
    }
    if lane_sum(broken, lane) > 0.0 {
        quads = 0u;
        if lane == 0u {
            atomicStore(&bad_gradient, 1u);
        }
    }
    if call.norm == NORM_L2 {
        var squares = 0.0;
        for (var quad = lane; quad < quads; quad += {{LANES}}u) {
            let g = search_gradient(base, quad);
            squares += dot(g, g);
        }
        let length = sqrt(lane_sum(squares, lane)) + SMALLEST_LENGTH;
        squares = 0.0;
        for (var quad = lane; quad < quads; quad += {{LANES}}u) {
            let i = base + quad;
            let d = delta[i] + search_gradient(base, quad) / length * about.step_size;
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
