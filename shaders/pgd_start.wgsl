// Start of a search: delta = clip(project(s)), x = clean + delta, where s is zero, uniform in the ball, deviation · n
// with n standard normal, or the current value of delta. `project` projects onto the ball, `clip` keeps x in [0, 1]; the
// call can disable both. Random numbers are addressed by the value's position in C × H × W order. Uniform in a ball of d
// dimensions: epsilon · u with u uniform in [-1, 1) (L∞), or epsilon · u^(1/d) · n / ‖n‖ with u uniform in (0, 1] (L2).
// The twin of engine/candle/search.rs. clean, delta, x: B × H × W × C4, from the first image of the range on.
// One workgroup per image.
#import "shared/grid.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"
#import "shared/philox.wgsl"
#import "shared/ball.wgsl"
#import "shared/exponential.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    channels: u32,
    // Pixels and quads of an image.
    plane: u32,
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> call: Call;
@group(0) @binding(2) var<storage, read> info: array<ImageInfo>;
@group(0) @binding(3) var<storage, read> clean: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> delta: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> x: array<vec4<f32>>;

#let LANES = 256
#import "shared/across_lanes.wgsl"

// Whether the start is uniform in an L2 ball; `start` then only gives its direction.
fn is_in_l2_ball() -> bool {
    return call.start == START_UNIFORM && call.norm == NORM_L2;
}

fn stream_of(about: ImageInfo) -> Stream {
    return Stream(call.seed, about.id, call.start_epoch, call.start_purpose);
}

// The start at a quad of an image, before the projection; i is its index in the tensors.
fn start(about: ImageInfo, quad: u32, i: u32) -> vec4<f32> {
    if call.start == START_GIVEN {
        return delta[i];
    }
    var s = vec4<f32>(0.0);
    if call.start != START_UNIFORM && call.start != START_NORMAL {
        return s;
    }
    let stream = stream_of(about);
    let quads_of_pixel = params.quads / params.plane;
    let pixel = quad / quads_of_pixel;
    let channel = 4u * (quad % quads_of_pixel);
#for lane in 0..4
    if channel + {{lane}}u < params.channels {
        let position = (channel + {{lane}}u) * params.plane + pixel;
        if call.start == START_NORMAL {
            s[{{lane}}] = call.deviation * random_normal(stream, position);
        } else if is_in_l2_ball() {
            s[{{lane}}] = random_normal(stream, position);
        } else {
            s[{{lane}}] = about.epsilon * random_symmetric(stream, position);
        }
    }
#end
    return s;
}

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let image = linear_group(group, groups);
    let quads = select(0u, params.quads, image < params.images);
    let about = info[params.first_image + min(image, params.images - 1u)];
    let base = image * params.quads;
    let is_projected = call.project_start != 0u;
    let is_l2 = is_in_l2_ball() || (is_projected && call.norm == NORM_L2);
    var squares = 0.0;
    for (var quad = lane; quad < quads; quad += {{LANES}}u) {
        let i = base + quad;
        var d = start(about, quad, i);
        if is_l2 {
            squares += dot(d, d);
        } else {
            if is_projected {
                d = clip(project_linf(d, about.epsilon), clean[i]);
            }
            x[i] = clean[i] + d;
        }
        delta[i] = d;
    }
    if is_l2 {
        let length = sqrt(lane_sum(squares, lane));
        var factor = scale_l2(length, about.epsilon);
        if is_in_l2_ball() {
            let values = params.channels * params.plane;
            let share = exponential(natural_log(1.0 - random_unit(stream_of(about), 2u * values)) / f32(values));
            factor = about.epsilon * share / max(length, 1e-30);
        }
        for (var quad = lane; quad < quads; quad += {{LANES}}u) {
            let i = base + quad;
            var d = delta[i] * factor;
            if is_projected {
                d = clip(d, clean[i]);
            }
            delta[i] = d;
            x[i] = clean[i] + d;
        }
    }
}
