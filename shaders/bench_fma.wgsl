// Measures the peak rate of multiply-adds in registers. Every invocation has CHAINS vectors, each of which depends only
// on its own previous value.
//
// result[i] = sum over chains c of x_c, where x_c starts at (i mod 64) + c and is replaced `rounds * UNROLL` times by
// `factor * x_c + step`.
#import "shared/grid.wgsl"

struct Params {
    invocations: u32,
    rounds: u32,
    factor: f32,
    step: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    let factor = vec4<f32>(params.factor);
    let step = vec4<f32>(params.step);
    let start = vec4<f32>(f32(i % 64u));
#for c in 0..CHAINS
    var x{{c}} = start + {{c}}.0;
#end
    for (var round = 0u; round < params.rounds; round++) {
#for u in 0..UNROLL
#for c in 0..CHAINS
        x{{c}} = fma(x{{c}}, factor, step);
#end
#end
    }
    var sum = x0;
#for c in 1..CHAINS
    sum += x{{c}};
#end
    if i < params.invocations {
        result[i] = sum;
    }
}
