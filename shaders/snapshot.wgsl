// Copies the iterate of some images of a search. Depending on `rule`: images without a misclassified iterate so far;
// these and images whose start is misclassified (last clean); or images whose first misclassified iterate this is
// (first adversarial).
//
// x, kept: B × H × W × C4, from the first image of the range on. One invocation per quad.
#import "shared/grid.wgsl"
#import "shared/image_info.wgsl"

const KEEP_LAST_CLEAN: u32 = 1u;
const KEEP_FIRST_ADVERSARIAL: u32 = 2u;

struct Params {
    images: u32,
    first_image: u32,
    // Quads of an image.
    quads: u32,
    rule: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> info: array<ImageInfo>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> kept: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 256u + lane;
    let image = i / params.quads;
    if image >= params.images {
        return;
    }
    let about = info[params.first_image + image];
    let is_first = (about.status & STATUS_FIRST) != 0u;
    let never = (about.status & STATUS_MISCLASSIFIED) == 0u;
    var keeps = never;
    if params.rule == KEEP_LAST_CLEAN {
        keeps = never || (is_first && about.steps == 1u);
    } else if params.rule == KEEP_FIRST_ADVERSARIAL {
        keeps = is_first;
    }
    if keeps {
        kept[i] = x[i];
    }
}
