// Gradient of an attack's objective, which is maximised, with respect to the logits z, for p = softmax(z):
//
//   cross-entropy of the label y      p - e_y
//   towards the class t               e_t - p
//   KL(p(clean) ‖ p)                  p - p(clean)
//   DLR (Croce and Hein 2020, eq. 6)  that of -(z_y - max_{i≠y} z_i) / (z_(1) - z_(3) + 1e-12)
//
// logits, reference, gradient: B × K4, from the first image of the range on. One workgroup an image.
#import "shared/grid.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    classes: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> call: Call;
@group(0) @binding(2) var<storage, read> info: array<ImageInfo>;
@group(0) @binding(3) var<storage, read> logits0: array<f32>;
// Logits of the clean images, read for KL only.
@group(0) @binding(4) var<storage, read> logits1: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradient: array<f32>;
// Becomes 1 when a logit that was read is not finite.
@group(0) @binding(6) var<storage, read_write> flag: atomic<u32>;

#let LANES = 64
#let ROWS = 2
#import "shared/softmax.wgsl"

// The class with the largest logit beside two others; needs a class that is neither.
fn largest_beside(start: u32, a: u32, b: u32, lane: u32) -> u32 {
    var largest = Candidate(0u, params.classes);
    for (var j = lane; j < params.classes; j += {{LANES}}u) {
        let next = Candidate(total_order(bitcast<u32>(logits0[start + j])), j);
        if j != a && j != b && better(next, largest) {
            largest = next;
        }
    }
    return min(lane_first_largest(largest, lane).index, params.classes - 1u);
}

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_group(group, groups);
    let is_inside = index < params.images;
    // Workgroups beyond the last image repeat it, without writing.
    let image = min(index, params.images - 1u);
    let start = image * params.stride;
    let classes = params.classes;
    let label = info[params.first_image + image].label;
    let goal = info[params.first_image + image].goal;
    let objective = call.objective;

    let row = softmax0(start, classes, lane);
    var is_finite = row.is_finite;
    var clean_shift = vec2<f32>(0.0);
    if objective == OBJECTIVE_KL_TO_CLEAN {
        let clean = softmax1(start, classes, lane);
        is_finite = is_finite && clean.is_finite;
        clean_shift = clean.shift;
    }
    var ranked = vec3<u32>(0u);
    if objective == OBJECTIVE_DLR {
        ranked.x = largest_beside(start, classes, classes, lane);
        ranked.y = largest_beside(start, ranked.x, classes, lane);
        ranked.z = largest_beside(start, ranked.x, ranked.y, lane);
    }
    let other = select(ranked.x, ranked.y, ranked.x == label);
    let numerator = logits0[start + label] - logits0[start + other];
    let denominator = logits0[start + ranked.x] - logits0[start + ranked.z] + 1e-12;

    for (var j = lane; j < params.stride; j += {{LANES}}u) {
        var g = 0.0;
        if j < classes {
            let p = exponential(log_softmax(logits0[start + j], row.shift));
            if objective == OBJECTIVE_DLR {
                g -= select(0.0, 1.0 / denominator, j == label);
                g += select(0.0, 1.0 / denominator, j == other);
                g += select(0.0, numerator / (denominator * denominator), j == ranked.x);
                g -= select(0.0, numerator / (denominator * denominator), j == ranked.z);
            } else if objective == OBJECTIVE_KL_TO_CLEAN {
                g = p - exponential(log_softmax(logits1[start + j], clean_shift));
            } else if objective == OBJECTIVE_TARGETED {
                g = select(-p, 1.0 - p, j == goal);
            } else {
                g = select(p, p - 1.0, j == label);
            }
        }
        if is_inside {
            gradient[start + j] = g;
        }
    }
    if is_inside && lane == 0u && !is_finite {
        atomicStore(&flag, 1u);
    }
}
