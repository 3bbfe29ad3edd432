// The target t of each image, drawn from P(t | y): the first class whose threshold is above a random 24-bit number. A
// threshold is Σ_{j≤t} P(j | y) on the grid of `Stream::unit`. The twin of `TargetDistribution::sample`.
#import "shared/grid.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"
#import "shared/philox.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    classes: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> call: Call;
// K × K, one row per label.
@group(0) @binding(2) var<storage, read> thresholds: array<u32>;
@group(0) @binding(3) var<storage, read_write> info: array<ImageInfo>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_group(group, groups) * 64u + lane;
    if index >= params.images {
        return;
    }
    let image = params.first_image + index;
    let stream = Stream(call.seed, info[image].id, call.epoch, PURPOSE_TARGET);
    let drawn = random_block(stream, 0u).x >> 8u;
    let row = info[image].label * params.classes;
    var low = 0u;
    var high = params.classes - 1u;
    while low < high {
        let middle = (low + high) / 2u;
        if drawn < thresholds[row + middle] {
            high = middle;
        } else {
            low = middle + 1u;
        }
    }
    info[image].goal = low;
}
