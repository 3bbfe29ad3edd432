// Stochastic gradient descent with PyTorch's momentum: g ← g + decay · p, m ← momentum · m + g, p ← p - lr · m, or with
// Nesterov momentum p ← p - lr · (g + momentum · m).
#import "shared/grid.wgsl"
#import "shared/call.wgsl"

struct Params {
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> call: Call;
@group(0) @binding(2) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> parameter: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> momentum: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    if i < params.quads {
        let p = parameter[i];
        let g = gradient[i] + call.weight_decay * p;
        let m = call.momentum * momentum[i] + g;
        momentum[i] = m;
        parameter[i] = p - call.lr * select(m, g + call.momentum * m, call.nesterov == 1u);
    }
}
