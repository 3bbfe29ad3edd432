// The smallest possible dispatch: one invocation writes one number. Its time is the fixed cost of a dispatch.

struct Params {
    number: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> result: u32;

@compute @workgroup_size(1)
fn main() {
    result = params.number;
}
