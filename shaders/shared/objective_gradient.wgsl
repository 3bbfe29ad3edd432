// Gradient of an attack's objective, which is maximised, with respect to one logit, for p = softmax(z):
//
//   cross-entropy of the label y      p - e_y
//   towards the class t               e_t - p
//   KL(p(clean) ‖ p)                  p - p(clean)
//   DLR (Croce and Hein 2020, eq. 6)  that of -(z_y - max_{i≠y} z_i) / (z_(1) - z_(3) + 1e-12)
//
// z is a row of logits0, the logits on the clean image are one of logits1. Needs `call`, `params.classes`, LANES.
#let ROWS = 2
#import "shared/softmax.wgsl"

// What all classes of an image share.
struct Aim {
    label: u32,
    goal: u32,
    // What `log_softmax` subtracts from the logits, and from those of the clean image (KL only).
    shift: vec2<f32>,
    clean_shift: vec2<f32>,
    // Classes of the largest, second and third logit, the largest one beside the label, and the fraction (DLR only).
    ranked: vec3<u32>,
    other: u32,
    numerator: f32,
    denominator: f32,
    // Whether all logits that were read are finite.
    is_finite: bool,
}

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

// For the row of logits0 at `start` and that of logits1 at `clean_start`. Every lane calls it.
fn aim_at(start: u32, clean_start: u32, label: u32, goal: u32, lane: u32) -> Aim {
    let classes = params.classes;
    let row = softmax0(start, classes, lane);
    var is_finite = row.is_finite;
    var clean_shift = vec2<f32>(0.0);
    if call.objective == OBJECTIVE_KL_TO_CLEAN {
        let clean = softmax1(clean_start, classes, lane);
        is_finite = is_finite && clean.is_finite;
        clean_shift = clean.shift;
    }
    var ranked = vec3<u32>(0u);
    if call.objective == OBJECTIVE_DLR {
        ranked.x = largest_beside(start, classes, classes, lane);
        ranked.y = largest_beside(start, ranked.x, classes, lane);
        ranked.z = largest_beside(start, ranked.x, ranked.y, lane);
    }
    let other = select(ranked.x, ranked.y, ranked.x == label);
    let numerator = logits0[start + label] - logits0[start + other];
    let denominator = logits0[start + ranked.x] - logits0[start + ranked.z] + 1e-12;
    return Aim(label, goal, row.shift, clean_shift, ranked, other, numerator, denominator, is_finite);
}

// For class j, whose logits are logits0[at] and logits1[clean_at].
fn objective_gradient(aim: Aim, j: u32, at: u32, clean_at: u32) -> f32 {
    let p = exponential(log_softmax(logits0[at], aim.shift));
    if call.objective == OBJECTIVE_DLR {
        var g = 0.0;
        g -= select(0.0, 1.0 / aim.denominator, j == aim.label);
        g += select(0.0, 1.0 / aim.denominator, j == aim.other);
        g += select(0.0, aim.numerator / (aim.denominator * aim.denominator), j == aim.ranked.x);
        g -= select(0.0, aim.numerator / (aim.denominator * aim.denominator), j == aim.ranked.z);
        return g;
    }
    if call.objective == OBJECTIVE_KL_TO_CLEAN {
        return p - exponential(log_softmax(logits1[clean_at], aim.clean_shift));
    }
    if call.objective == OBJECTIVE_TARGETED {
        return select(-p, 1.0 - p, j == aim.goal);
    }
    return select(p, p - 1.0, j == aim.label);
}
