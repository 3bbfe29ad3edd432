// The subgroup size of a small workgroup, or zero if a lane does not receive the values that the others broadcast.

struct Params {
    number: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>;

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let mine = params.number + group.x * 8u + lane;
    var right = subgroup_lane == lane;
#for i in 0..8
    let got{{i}} = subgroupBroadcast(mine, {{i}}u);
    right = right && got{{i}} == params.number + group.x * 8u + {{i}}u;
#end
    sizes[group.x * 8u + lane] = select(0u, size, right);
}
