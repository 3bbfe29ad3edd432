// Gradient of an attack's objective, which is maximised, with respect to one logit, for p = softmax(z):
//
//   cross-entropy of the label y      p - e_y
//   towards the class t               e_t - p; if t = y, as away from the label
//   KL(p(clean) ‖ p)                  p - p(clean)
//   DLR (Croce and Hein 2020, eq. 6)  that of -(z_y - max_{i≠y} z_i) / (z_(1) - z_(3) + 1e-12)
//   margin                            e_i - e_y for the likeliest class i other than y
//   DLR towards the class t           that of -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)
//   margin of the class t             e_t - e_y
//
// A search needs only the direction, and the gradients of a confident network underflow. They are therefore computed
// relative to their largest term, and the positive factor to the true gradient is kept separately: it is omitted if the
// call uses a scale per image. One class, the pivot, gets minus the sum of the others, because p_y - 1 loses all digits
// long before the others do. The twin of src/engine/loss/search.rs.
//
// z is a row of logits0; the logits on the clean image are a row of logits1. Needs `call`, `params.classes`, LANES.
#let ROWS = 2
fn logit0(at: u32) -> f32 {
    return logits0[at];
}

fn logit1(at: u32) -> f32 {
    return logits1[at];
}

#import "shared/softmax.wgsl"
#import "shared/largest_beside.wgsl"
#import "shared/exponential_minus_one.wgsl"

// Values that all classes of an image share.
struct Aim {
    // The label, the target, or for KL the predicted class of z; and its gradient before the factor: minus the sum of
    // the others.
    pivot: u32,
    balance: f32,
    // From the values computed here to the gradient.
    factor: f32,
    // The logit that the others are relative to, and the logit of the same class on the clean image (KL only).
    top: vec2<f32>,
    // KL: the change of the pivot's logit from the clean one, log Σ p(clean) exp(change of the logit relative to that),
    // and log p - log p(clean) of the class of `top`.
    pivot_moved: f32,
    all_moved: f32,
    ahead: f32,
    // DLR: classes of the largest, second, third and fourth logit (the fourth is the third if DLR has no target), the
    // class of the largest logit other than the label, or the target, and the parts of the gradient through the numerator
    // (`straight`) and through the denominator.
    ranked: vec4<u32>,
    other: u32,
    straight: f32,
    through: f32,
    // Whether the search is towards the pivot.
    is_targeted: bool,
    // Whether all logits that were read are finite.
    is_finite: bool,
    // The predicted class of z.
    likeliest: u32,
}

// exp x for x ≤ 0, and 1 if x is positive by rounding. Negative numbers and NaN have larger bits than infinity.
fn share(x: f32) -> f32 {
    if bitcast<u32>(x) <= 0x7f800000u {
        return 1.0;
    }
    return exponential(x);
}

// exp a - exp b for a, b ≤ 0, given `ahead` = a - b up to rounding.
fn difference(a: f32, b: f32, ahead: f32) -> f32 {
    if abs(ahead) < 0.5 {
        return share(b) * exponential_minus_one(ahead);
    }
    return share(a) - share(b);
}

fn cross_entropy_aim(start: u32, row: Row, pivot: u32, lane: u32) -> Aim {
    var aim: Aim;
    let top = logits0[start + largest_beside(start, pivot, params.classes, lane)];
    aim.top = vec2<f32>(top, 0.0);
    aim.factor = exponential(log_softmax(top, row.shift));
    aim.pivot = pivot;
    return aim;
}

fn kl_aim(start: u32, clean_start: u32, row: Row, clean: Row, lane: u32) -> Aim {
    let classes = params.classes;
    let pivot = row.likeliest;
    let pivot_moved = logits0[start + pivot] - logits1[clean_start + pivot];
    let log_q_pivot = log_softmax(logits1[clean_start + pivot], clean.shift);
    var own = 0.0;
    var largest = Candidate(0u, classes);
    for (var j = lane; j < classes; j += {{LANES}}u) {
        let z = logits0[start + j];
        let w = logits1[clean_start + j];
        let log_q = log_softmax(w, clean.shift);
        own += difference((z - row.shift.x) + log_q_pivot, log_q, (z - w) - pivot_moved);
        let next = Candidate(total_order(bitcast<u32>(max(log_softmax(z, row.shift), log_q))), j);
        if j != pivot && better(next, largest) {
            largest = next;
        }
    }
    // Σ q exp(moved) - 1, where the sum is q / p of the pivot.
    let growth = lane_sum(own, lane);
    let top = min(lane_first_largest(largest, lane).index, classes - 1u);
    var aim: Aim;
    aim.pivot = pivot;
    aim.pivot_moved = pivot_moved;
    aim.all_moved = log_q_pivot + row.shift.y;
    if growth > -0.5 {
        aim.all_moved = natural_log_one_plus(growth);
    }
    aim.top = vec2<f32>(logits0[start + top], logits1[clean_start + top]);
    aim.ahead = ((aim.top.x - aim.top.y) - pivot_moved) - aim.all_moved;
    aim.factor = share(max(log_softmax(aim.top.x, row.shift), log_softmax(aim.top.y, clean.shift)));
    // The factor is at least 1 / 2K whenever this is used.
    aim.balance = difference(-row.shift.y, log_q_pivot, -aim.all_moved) / aim.factor;
    return aim;
}

fn dlr_aim(start: u32, label: u32, lane: u32) -> Aim {
    let classes = params.classes;
    var aim: Aim;
    aim.pivot = label;
    aim.ranked.x = largest_beside(start, classes, classes, lane);
    aim.ranked.y = largest_beside(start, aim.ranked.x, classes, lane);
    aim.ranked.z = largest_beside(start, aim.ranked.x, aim.ranked.y, lane);
    aim.ranked.w = aim.ranked.z;
    aim.other = select(aim.ranked.x, aim.ranked.y, aim.ranked.x == label);
    let numerator = logits0[start + label] - logits0[start + aim.other];
    let denominator = logits0[start + aim.ranked.x] - logits0[start + aim.ranked.z] + 1e-12;
    let size = abs(numerator);
    aim.straight = 1.0;
    aim.through = numerator / denominator;
    aim.factor = 1.0 / denominator;
    if label == aim.ranked.z {
        // What remains of both parts: their difference would lose all digits.
        aim.through = 0.0;
        aim.factor = 1e-12 / denominator / denominator;
    } else if size > denominator {
        aim.straight = denominator / size;
        aim.through = sign(numerator);
        aim.factor = size / denominator / denominator;
    }
    return aim;
}

fn dlr_towards_aim(start: u32, label: u32, goal: u32, lane: u32) -> Aim {
    let classes = params.classes;
    var aim: Aim;
    aim.pivot = label;
    aim.other = goal;
    aim.ranked.x = largest_beside(start, classes, classes, lane);
    aim.ranked.y = largest_beside(start, aim.ranked.x, classes, lane);
    aim.ranked.z = largest_beside(start, aim.ranked.x, aim.ranked.y, lane);
    aim.ranked.w = largest_beside_three(start, aim.ranked.xyz, lane);
    let numerator = logits0[start + label] - logits0[start + goal];
    let below = 0.5 * logits0[start + aim.ranked.z] + 0.5 * logits0[start + aim.ranked.w];
    let denominator = logits0[start + aim.ranked.x] - below + 1e-12;
    let size = abs(numerator);
    aim.straight = 1.0;
    aim.through = numerator / denominator;
    aim.factor = 1.0 / denominator;
    if size > denominator {
        aim.straight = denominator / size;
        aim.through = sign(numerator);
        aim.factor = size / denominator / denominator;
    }
    return aim;
}

fn margin_to_aim(label: u32, goal: u32) -> Aim {
    var aim: Aim;
    aim.pivot = label;
    aim.other = goal;
    aim.straight = 1.0;
    aim.factor = 1.0;
    return aim;
}

fn margin_aim(start: u32, label: u32, lane: u32) -> Aim {
    var aim: Aim;
    aim.pivot = label;
    aim.other = largest_beside(start, label, params.classes, lane);
    aim.straight = 1.0;
    aim.factor = 1.0;
    return aim;
}

// Whether the objective is a function of single logits, not of a softmax.
fn is_of_logits() -> bool {
    return call.objective >= OBJECTIVE_DLR;
}

// The gradient without the factor for class j, whose logits are logits0[at] and logits1[clean_at]. For the pivot it is
// valid only with DLR and the margin.
fn relative_gradient(aim: Aim, j: u32, at: u32, clean_at: u32) -> f32 {
    if is_of_logits() {
        var g = 0.0;
        g -= select(0.0, aim.straight, j == aim.pivot);
        g += select(0.0, aim.straight, j == aim.other);
        g += select(0.0, aim.through, j == aim.ranked.x);
        g -= select(0.0, 0.5 * aim.through, j == aim.ranked.z);
        g -= select(0.0, 0.5 * aim.through, j == aim.ranked.w);
        return g;
    }
    if call.objective == OBJECTIVE_KL_TO_CLEAN {
        let z = logits0[at];
        let w = logits1[clean_at];
        let log_p = (z - aim.top.x) + min(aim.ahead, 0.0);
        let log_q = (w - aim.top.y) - max(aim.ahead, 0.0);
        return difference(log_p, log_q, ((z - w) - aim.pivot_moved) - aim.all_moved);
    }
    let p = exponential(logits0[at] - aim.top.x);
    return select(p, -p, aim.is_targeted);
}

// The shared values for the row of logits0 at `start` and that of logits1 at `clean_start`. Every lane must call it.
fn aim_at(start: u32, clean_start: u32, label: u32, goal: u32, lane: u32) -> Aim {
    let classes = params.classes;
    let row = softmax0(start, classes, lane);
    var aim: Aim;
    var is_finite = row.is_finite;
    if call.objective == OBJECTIVE_DLR {
        aim = dlr_aim(start, label, lane);
    } else if call.objective == OBJECTIVE_MARGIN {
        aim = margin_aim(start, label, lane);
    } else if call.objective == OBJECTIVE_DLR_TOWARDS {
        aim = dlr_towards_aim(start, label, goal, lane);
    } else if call.objective == OBJECTIVE_MARGIN_TO {
        aim = margin_to_aim(label, goal);
    } else if call.objective == OBJECTIVE_KL_TO_CLEAN {
        let clean = softmax1(clean_start, classes, lane);
        is_finite = is_finite && clean.is_finite;
        aim = kl_aim(start, clean_start, row, clean, lane);
    } else {
        let is_targeted = call.objective == OBJECTIVE_TARGETED && goal != label;
        aim = cross_entropy_aim(start, row, select(label, goal, is_targeted), lane);
        aim.is_targeted = is_targeted;
    }
    // If the pivot of KL is not close to certain, its own formula is more accurate than the sum of many others.
    let has_own = call.objective == OBJECTIVE_KL_TO_CLEAN && row.shift.y > 0.7;
    aim.is_finite = is_finite;
    aim.likeliest = row.likeliest;
    if call.gradient_scale == GRADIENT_PER_IMAGE {
        aim.factor = 1.0;
    }
    if !is_of_logits() {
        var own = 0.0;
        for (var j = lane; j < classes; j += {{LANES}}u) {
            if j != aim.pivot {
                own += relative_gradient(aim, j, start + j, clean_start + j);
            }
        }
        aim.balance = select(-lane_sum(own, lane), aim.balance, has_own);
    }
    return aim;
}

// The gradient for class j, whose logits are logits0[at] and logits1[clean_at].
fn objective_gradient(aim: Aim, j: u32, at: u32, clean_at: u32) -> f32 {
    var g = aim.balance;
    if j != aim.pivot || is_of_logits() {
        g = relative_gradient(aim, j, at, clean_at);
    }
    // Zero stays zero if the factor overflows.
    return select(aim.factor * g, 0.0, g == 0.0);
}
