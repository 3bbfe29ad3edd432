// counts[view][label][prediction] += 1 for each image; a view without a prediction (logits that are not finite) is not
// counted. Integers, so that the order of the additions does not matter.
#import "shared/grid.wgsl"
#import "shared/image_info.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    classes: u32,
    views: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> info: array<ImageInfo>;
// Loss and a prediction for each view, for each image.
@group(0) @binding(2) var<storage, read> results: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;

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
    let label = info[image].label;
    for (var view = 0u; view < params.views; view++) {
        let predicted = results[(1u + params.views) * image + 1u + view];
        if predicted < params.classes && label < params.classes {
            atomicAdd(&counts[(view * params.classes + label) * params.classes + predicted], 1u);
        }
    }
}
