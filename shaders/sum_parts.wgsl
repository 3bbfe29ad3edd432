// out[i] = Σ over p of parts[p, i], or out[i] + that sum (ACCUMULATE = 1), in the order of p.
// The last step of every sum that was split into parts (split-K).
#import "shared/grid.wgsl"

struct Params {
    quads: u32,
    parts_count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 64u + lane;
    if i >= params.quads {
        return;
    }
#if ACCUMULATE
    var sum = out[i];
#else
    var sum = vec4<f32>();
#end
    // Four independent loads at a time hide latency, because there may be few threads.
    var part = 0u;
    for (; part + 4u <= params.parts_count; part += 4u) {
        let first = part * params.quads + i;
        let a = parts[first];
        let b = parts[first + params.quads];
        let c = parts[first + 2u * params.quads];
        let d = parts[first + 3u * params.quads];
        sum = (((sum + a) + b) + c) + d;
    }
    for (; part < params.parts_count; part += 1u) {
        sum += parts[part * params.quads + i];
    }
    out[i] = sum;
}
