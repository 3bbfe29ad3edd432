// Only for tests: words, uniform and normal numbers of a stream from shared/philox.wgsl.
#import "shared/philox.wgsl"

struct Params {
    key: vec2<u32>,
    id: u32,
    epoch: u32,
    purpose: u32,
    first: u32,
    count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> symmetric: array<f32>;
@group(0) @binding(3) var<storage, read_write> normal: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) thread: vec3<u32>) {
    if thread.x < params.count {
        let stream = Stream(params.key, params.id, params.epoch, params.purpose);
        let index = params.first + thread.x;
        let block = random_block(stream, index / 4u);
        words[thread.x] = block[index % 4u];
        symmetric[thread.x] = random_symmetric(stream, index);
        normal[thread.x] = random_normal(stream, index);
    }
}
