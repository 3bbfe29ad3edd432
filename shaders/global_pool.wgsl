// y = mean over the pixels of each image. Sums each row first, then the sums of the rows, so that rounding errors grow
// with height + width.
//
// x: B × H × W × C. y: B × C.
#import "shared/grid.wgsl"

struct Params {
    // Images times quads: one invocation each.
    count: u32,
    quads: u32,
    height: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 64u + lane;
    if i < params.count {
        let pixels = params.height * params.width;
        var at = i / params.quads * pixels * params.quads + i % params.quads;
        var sum = vec4<f32>(0.0);
        for (var row = 0u; row < params.height; row++) {
            var line = vec4<f32>(0.0);
            for (var column = 0u; column < params.width; column++) {
                line += x[at];
                at += params.quads;
            }
            sum += line;
        }
        y[i] = sum / f32(pixels);
    }
}
