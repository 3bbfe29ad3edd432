// y = the maximum of each window of size × size; NaN if the window contains NaN. Windows do not overlap; rows and
// columns that do not fill a window are dropped.
//
// x: B × H × W × C. y: B × (H / size) × (W / size) × C.
#import "shared/grid.wgsl"
#import "shared/max_pool.wgsl"

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

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
        var best = x[pixel(w, top, left)];
        for (var ky = 0u; ky < params.size; ky++) {
            for (var kx = 0u; kx < params.size; kx++) {
                let value = x[pixel(w, top + ky, left + kx)];
                best = select(best, value, takes_over(value, best));
            }
        }
        y[i] = best;
    }
}
