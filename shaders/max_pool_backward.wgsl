// dx = dy at the maximum of each window of size × size, 0 elsewhere. Of equal values, the first has the gradient; of
// several NaN, the last. Rows and columns that do not fill a window get 0: here they form windows too, which are cut
// off.
//
// x, dx: B × H × W × C. dy: B × (H / size) × (W / size) × C.
#import "shared/grid.wgsl"
#import "shared/max_pool.wgsl"

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    if i < params.count {
        let w = window(i);
        let top = w.oy * params.size;
        let left = w.ox * params.size;
        var gradient = vec4<f32>(0.0);
        var position = vec4<u32>(0u);
        let down = params.height / params.size;
        let across = params.width / params.size;
        if w.oy < down && w.ox < across {
            gradient = dy[((w.image * down + w.oy) * across + w.ox) * params.quads + w.quad];
            var best = x[pixel(w, top, left)];
            for (var k = 0u; k < params.size * params.size; k++) {
                let value = x[pixel(w, top + k / params.size, left + k % params.size)];
                let better = takes_over(value, best);
                best = select(best, value, better);
                position = select(position, vec4<u32>(k), better);
            }
        }
        for (var ky = 0u; ky < min(params.size, params.height - top); ky++) {
            for (var kx = 0u; kx < min(params.size, params.width - left); kx++) {
                let here = position == vec4<u32>(ky * params.size + kx);
                dx[pixel(w, top + ky, left + kx)] = select(vec4<f32>(0.0), gradient, here);
            }
        }
    }
}
