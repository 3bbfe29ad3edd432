// How many lanes the subgroups of this device have; zero where what one lane broadcasts is not what the others get.

struct Params {
    number: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sizes: array<u32>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let got = subgroupBroadcast(params.number + subgroup_lane, 3u);
    sizes[lane] = select(0u, size, got == params.number + 3u);
}
