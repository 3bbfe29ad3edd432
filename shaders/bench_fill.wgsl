// Fills the source of bench_copy.wgsl with words that memory compression cannot reduce: multiples of an odd number with
// their upper bits folded into the lower ones.
#import "shared/grid.wgsl"

struct Params {
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> words: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    if i < params.quads {
        let x = (vec4<u32>(4u * i) + vec4<u32>(1u, 2u, 3u, 4u)) * 0xd2511f53u;
        words[i] = x ^ (x >> vec4<u32>(15u));
    }
}
