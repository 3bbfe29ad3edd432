// The outer loss of one or two views of each image, its gradients with respect to their logits, and the predictions.
// A term has a weight w for each image and is, with p = softmax(z) and its gradients:
//
//   cross-entropy      -log p_y                           w (p - e_y)
//   KL(p_a ‖ p_b)      Σ p_a (log p_a - log p_b)          w p_a ∘ (log p_a - log p_b - KL),  w (p_b - p_a)
//   KL(p ‖ uniform)    log K + Σ p log p                  w p ∘ (log p - Σ p log p)
//
// logits, gradients: B × K4, from the first image of the range on. `terms`: number of terms T and of images N, then kind
// and views (2 words) of each term, then T × N weights. `results`: bits of the loss and two predictions for each image.
// One workgroup an image.
#import "shared/grid.wgsl"
#import "shared/image_info.wgsl"

const TERM_CROSS_ENTROPY: u32 = 0u;
const TERM_KL: u32 = 1u;

struct Params {
    images: u32,
    first_image: u32,
    classes: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> info: array<ImageInfo>;
@group(0) @binding(2) var<storage, read> terms: array<u32>;
@group(0) @binding(3) var<storage, read_write> results: array<u32>;
#for view in 0..VIEWS
@group(0) @binding({{4 + 2 * view}}) var<storage, read> logits{{view}}: array<f32>;
@group(0) @binding({{5 + 2 * view}}) var<storage, read_write> gradient{{view}}: array<f32>;
#end

#let LANES = 64
#let ROWS = VIEWS
#import "shared/softmax.wgsl"

fn log_p(view: u32, at: u32, shift: vec2<f32>) -> f32 {
#if VIEWS == 2
    if view == 1u {
        return log_softmax(logits1[at], shift);
    }
#end
    return log_softmax(logits0[at], shift);
}

fn add_gradient(view: u32, at: u32, g: f32) {
#if VIEWS == 2
    if view == 1u {
        gradient1[at] += g;
        return;
    }
#end
    gradient0[at] += g;
}

// log p_a - log p_b relative to that of the likeliest class, the reference: where p_a is all but certain, KL is the
// reference up to rounding, and the difference of the two would be nothing but the rounding. The zero is spelled out
// because compilers may add up in another order.
fn excess(log_a: f32, log_b: f32, reference: f32, is_likeliest: bool) -> f32 {
    return select(log_a - log_b - reference, 0.0, is_likeliest);
}

fn prediction(row: Row) -> u32 {
    return select(0xffffffffu, row.likeliest, row.is_finite);
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
    let position = params.first_image + image;
    let start = image * params.stride;
    let classes = params.classes;
    let label = info[position].label;

#for view in 0..VIEWS
    let row{{view}} = softmax{{view}}(start, classes, lane);
    if is_inside {
        for (var j = lane; j < params.stride; j += {{LANES}}u) {
            gradient{{view}}[start + j] = 0.0;
        }
    }
#end
#if VIEWS == 1
    let row1 = row0;
#end

    var total = 0.0;
    let count = terms[0];
    for (var term = 0u; term < count; term++) {
        let kind = terms[2u + 3u * term];
        let a = terms[3u + 3u * term];
        let b = terms[4u + 3u * term];
        let weight = bitcast<f32>(terms[2u + 3u * count + term * terms[1] + position]);
        let to_label = kind == TERM_CROSS_ENTROPY;
        let to_other = kind == TERM_KL;
        let shift_a = select(row0.shift, row1.shift, a == 1u);
        let shift_b = select(row0.shift, row1.shift, b == 1u);
        let top = start + select(row0.likeliest, row1.likeliest, a == 1u);
        let reference = select(0.0, log_p(a, top, shift_a) - log_p(b, top, shift_b), to_other);
        var own = 0.0;
        for (var j = lane; j < classes; j += {{LANES}}u) {
            let log_a = log_p(a, start + j, shift_a);
            let log_b = log_p(b, start + j, shift_b);
            own += exponential(log_a) * select(log_a, excess(log_a, log_b, reference, start + j == top), to_other);
        }
        let mean = lane_sum(own, lane);
        if to_label {
            total += weight * -log_p(a, start + label, shift_a);
        } else {
            total += weight * (select(natural_log(f32(classes)), reference, to_other) + mean);
        }
        if is_inside {
            for (var j = lane; j < classes; j += {{LANES}}u) {
                let at = start + j;
                let log_a = log_p(a, at, shift_a);
                let p = exponential(log_a);
                if to_label {
                    add_gradient(a, at, select(weight * p, weight * p - weight, j == label));
                } else if to_other {
                    let log_b = log_p(b, at, shift_b);
                    add_gradient(a, at, weight * p * (excess(log_a, log_b, reference, at == top) - mean));
                    add_gradient(b, at, weight * (exponential(log_b) - p));
                } else {
                    add_gradient(a, at, weight * p * (log_a - mean));
                }
            }
        }
    }
    if is_inside && lane == 0u {
        results[3u * position] = bitcast<u32>(total);
        results[3u * position + 1u] = prediction(row0);
        results[3u * position + 2u] = {{VIEWS - 1}}u * prediction(row1);
    }
}
