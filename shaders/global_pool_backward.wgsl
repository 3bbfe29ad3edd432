// dx = dy / (H · W) at every pixel.
//
// dy: B × C. dx: B × H × W × C.
#import "shared/grid.wgsl"

struct Params {
    count: u32,
    quads: u32,
    pixels: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    if i < params.count {
        let image = i / (params.pixels * params.quads);
        dx[i] = dy[image * params.quads + i % params.quads] / f32(params.pixels);
    }
}
