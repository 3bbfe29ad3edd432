// The gradient of the images (shared/stem_gradient.wgsl). One workgroup per strip.
#import "shared/stem_gradient.wgsl"

@group(0) @binding({{4 + (NORM > 0) + (RELU + (NORM == 1) > 0) + (NORM == 1)}}) var<storage, read_write> gradient: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = params.first_group + linear_group(group, groups);
    // Surplus workgroups recompute the last image without writing.
    let image = min(index / params.strips, params.images - 1u);
    let strip = index % params.strips;
    let g = strip_gradient(image, strip, lane);
    let pixels = params.height * params.width;
    let pixel = 256u * strip + lane;
    if index / params.strips < params.images && pixel < pixels {
        gradient[image * pixels + pixel] = g;
    }
}
