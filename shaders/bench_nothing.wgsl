// The smallest dispatch that there is: one number, by one invocation. What is left of its time is what a dispatch costs.

struct Params {
    number: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> result: u32;

@compute @workgroup_size(1)
fn main() {
    result = params.number;
}
