// Adds noise to the perturbation of the images that a step of the search moves, before the projection: `call.noise`
// times a standard normal number. Random numbers are addressed by the step, then by the value's position in C × H × W
// order. delta: B × H × W × C4, from the first image of the range on. One invocation per quad.
#import "shared/grid.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"
#import "shared/philox.wgsl"

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
@group(0) @binding(3) var<storage, read_write> delta: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    let image = i / params.quads;
    if image >= params.images {
        return;
    }
    let about = info[params.first_image + image];
    if (about.status & STATUS_ACTIVE) == 0u {
        return;
    }
    let stream = Stream(call.seed, about.id, call.epoch, PURPOSE_ATTACK_NOISE);
    let quad = i % params.quads;
    let quads_of_pixel = params.quads / params.plane;
    let pixel = quad / quads_of_pixel;
    let channel = 4u * (quad % quads_of_pixel);
    let first = about.steps * params.channels * params.plane;
    var d = delta[i];
#for lane in 0..4
    if channel + {{lane}}u < params.channels {
        d[{{lane}}] += call.noise * random_normal(stream, first + (channel + {{lane}}u) * params.plane + pixel);
    }
#end
    delta[i] = d;
}
