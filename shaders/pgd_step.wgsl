// One step of projected gradient ascent (Madry et al. 2018): delta ← clip(project(delta + step · direction)),
// x = clean + delta, for every image that is active. The direction is sign(g) in an L∞ ball and g / (‖g‖ + 1e-12) in an
// L2 ball; `project` leads into the ball, `clip` keeps x in [0, 1]. The twin of engine/candle/search.rs.
// clean, gradient, delta, x: B × H × W × C4, from the first image of the range on. One workgroup an image.
//
// An image whose gradient holds NaN or infinity stays where it is and raises `bad_gradient`; once logits were not finite
// (`stopped`) no image moves. So what went wrong can be looked for at the very images where it did.
#import "shared/grid.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"
#import "shared/ball.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    // Quads of an image.
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> call: Call;
@group(0) @binding(2) var<storage, read> info: array<ImageInfo>;
@group(0) @binding(3) var<storage, read> clean: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> delta: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> stopped: u32;
@group(0) @binding(8) var<storage, read_write> bad_gradient: atomic<u32>;

#let LANES = 256
#import "shared/across_lanes.wgsl"

// 1, 0 or -1. By the bits, because a device may take the smallest numbers for zero: the gradient of a
// network that is all but certain.
fn sign_of(g: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(g);
    let size = bits & vec4<u32>(0x7fffffffu);
    let one = bitcast<vec4<f32>>((bits & vec4<u32>(0x80000000u)) | vec4<u32>(0x3f800000u));
    return select(one, vec4<f32>(0.0), size == vec4<u32>(0u));
}

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let image = linear_group(group, groups);
    let about = info[params.first_image + min(image, params.images - 1u)];
    let moves = image < params.images && about.is_active != 0u;
    let base = image * params.quads;
    var quads = select(0u, params.quads, moves && stopped == 0u);
    var broken = 0.0;
    for (var quad = lane; quad < quads; quad += {{LANES}}u) {
        let size = bitcast<vec4<u32>>(gradient[base + quad]) & vec4<u32>(0x7fffffffu);
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
            let g = gradient[base + quad];
            squares += dot(g, g);
        }
        let length = sqrt(lane_sum(squares, lane)) + SMALLEST_LENGTH;
        squares = 0.0;
        for (var quad = lane; quad < quads; quad += {{LANES}}u) {
            let i = base + quad;
            let d = delta[i] + gradient[i] / length * about.step_size;
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
            let moved = delta[i] + sign_of(gradient[i]) * about.step_size;
            let d = clip(project_linf(moved, about.epsilon), clean[i]);
            delta[i] = d;
            x[i] = clean[i] + d;
        }
    }
}
