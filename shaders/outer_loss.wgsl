// The outer loss on any number of views of each image, its gradients with respect to their logits, and the predictions.
// A term has a weight w for each image. With p = softmax(z), the terms and their gradients are:
//
//   cross-entropy      -log p_y                           w p_j for j ≠ y, minus their sum for y
//   KL(p_a ‖ p_b)      Σ p_a (log p_a - log p_b)          w p_a ∘ (log p_a - log p_b - KL),  w (p_b - p_a)
//   KL(p ‖ uniform)    log K + Σ p log p                  w p ∘ (log p - Σ p log p)
//   margin             max_{i≠y} z_i - z_y                w (e_i - e_y)
//
// logits, gradient: a block of B × K4 for each view, from the first image of the range on, with stride
// params.view_stride.
// `terms`: number of terms T and of images N, then kind and views (2 words) of each term, then T × N weights.
// `results`: bits of the loss and a prediction for each view, for each image. One workgroup per image.
#import "shared/grid.wgsl"
#import "shared/image_info.wgsl"

const TERM_CROSS_ENTROPY: u32 = 0u;
const TERM_KL: u32 = 1u;
const TERM_MARGIN: u32 = 3u;

struct Params {
    images: u32,
    first_image: u32,
    classes: u32,
    // Values per image.
    stride: u32,
    views: u32,
    view_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> info: array<ImageInfo>;
@group(0) @binding(2) var<storage, read> terms: array<u32>;
@group(0) @binding(3) var<storage, read_write> results: array<u32>;
@group(0) @binding(4) var<storage, read> logits: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradient: array<f32>;

#let LANES = 64
#let ROWS = 1
fn logit0(at: u32) -> f32 {
    return logits[at];
}

#import "shared/softmax.wgsl"
#import "shared/largest_beside.wgsl"

// For each view: the terms that `log_softmax` subtracts, and the likeliest class. src/engine/loss_spec.rs limits the
// number of views.
var<private> shifts: array<vec2<f32>, {{MAX_VIEWS}}>;
var<private> tops: array<u32, {{MAX_VIEWS}}>;

// log p_a - log p_b relative to that of the likeliest class, the reference: if p_a is nearly certain, KL equals the
// reference up to rounding, and their difference would be only rounding error. The zero is explicit because compilers
// may reorder the additions.
fn excess(log_a: f32, log_b: f32, reference: f32, is_likeliest: bool) -> f32 {
    return select(log_a - log_b - reference, 0.0, is_likeliest);
}

@compute @workgroup_size({{LANES}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_group(group, groups);
    let is_inside = index < params.images;
    // Surplus workgroups recompute the last image without writing.
    let image = min(index, params.images - 1u);
    let position = params.first_image + image;
    let classes = params.classes;
    let label = info[position].label;
    let result = (1u + params.views) * position;

    for (var view = 0u; view < params.views; view++) {
        let start = view * params.view_stride + image * params.stride;
        let row = softmax0(start, classes, lane);
        shifts[view] = row.shift;
        tops[view] = row.likeliest;
        if is_inside {
            for (var j = lane; j < params.stride; j += {{LANES}}u) {
                gradient[start + j] = 0.0;
            }
            if lane == 0u {
                results[result + 1u + view] = select(0xffffffffu, row.likeliest, row.is_finite);
            }
        }
    }

    var total = 0.0;
    let count = terms[0];
    for (var term = 0u; term < count; term++) {
        let kind = terms[2u + 3u * term];
        let view_a = terms[3u + 3u * term];
        let view_b = terms[4u + 3u * term];
        let weight = bitcast<f32>(terms[2u + 3u * count + term * terms[1] + position]);
        let a = view_a * params.view_stride + image * params.stride;
        let b = view_b * params.view_stride + image * params.stride;
        let shift_a = shifts[view_a];
        let shift_b = shifts[view_b];
        if kind == TERM_MARGIN {
            let other = largest_beside(a, label, classes, lane);
            total += weight * (logits[a + other] - logits[a + label]);
            // Each value is only ever written by the lane that cleared it.
            if is_inside && lane == other % {{LANES}}u {
                gradient[a + other] += weight;
            }
            if is_inside && lane == label % {{LANES}}u {
                gradient[a + label] -= weight;
            }
            continue;
        }
        let to_label = kind == TERM_CROSS_ENTROPY;
        let to_other = kind == TERM_KL;
        let top = tops[view_a];
        let reference =
            select(0.0, log_softmax(logits[a + top], shift_a) - log_softmax(logits[b + top], shift_b), to_other);
        var own = 0.0;
        for (var j = lane; j < classes; j += {{LANES}}u) {
            let log_a = log_softmax(logits[a + j], shift_a);
            let log_b = log_softmax(logits[b + j], shift_b);
            let factor = select(log_a, excess(log_a, log_b, reference, j == top), to_other);
            own += exponential(log_a) * select(factor, select(1.0, 0.0, j == label), to_label);
        }
        let mean = lane_sum(own, lane);
        if to_label {
            total += weight * -log_softmax(logits[a + label], shift_a);
        } else {
            total += weight * (select(natural_log(f32(classes)), reference, to_other) + mean);
        }
        if is_inside {
            for (var j = lane; j < classes; j += {{LANES}}u) {
                let log_a = log_softmax(logits[a + j], shift_a);
                let p = exponential(log_a);
                if to_label {
                    // For the label, minus the sum of the others: p_y - 1 loses all digits if p_y is close to one.
                    gradient[a + j] += weight * select(p, -mean, j == label);
                } else if to_other {
                    let log_b = log_softmax(logits[b + j], shift_b);
                    gradient[a + j] += weight * p * (excess(log_a, log_b, reference, j == top) - mean);
                    gradient[b + j] += weight * (exponential(log_b) - p);
                } else {
                    gradient[a + j] += weight * p * (log_a - mean);
                }
            }
        }
    }
    if is_inside && lane == 0u {
        results[result] = bitcast<u32>(total);
    }
}
