// Softmax of rows of logits, each by all LANES invocations of a workgroup. ROWS functions logit0, logit1 … return them:
// log p_j = (z_j - max z) - log Σ exp(z - max z). The twin of src/engine/loss.rs, which first adds max and logarithm
// and therefore loses digits if logits are large.
#import "shared/across_lanes.wgsl"
#import "shared/first_largest.wgsl"
#import "shared/exponential.wgsl"
#import "shared/logarithm.wgsl"

struct Row {
    // max z and log Σ exp(z - max z), which `log_softmax` subtracts.
    shift: vec2<f32>,
    // The first class with the largest logit.
    likeliest: u32,
    is_finite: bool,
}

// Maps the bits of numbers to unsigned integers of the same order; -0 is before 0.
fn total_order(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

// The same with -0 equal to 0.
fn order(bits: u32) -> u32 {
    return total_order(select(bits, 0u, bits == 0x80000000u));
}

fn log_softmax(z: f32, shift: vec2<f32>) -> f32 {
    return (z - shift.x) - shift.y;
}

#for row in 0..ROWS
// The row of logit{{row}} that starts at `start`.
fn softmax{{row}}(start: u32, classes: u32, lane: u32) -> Row {
    // Lanes without a class use the last one, which does not change either result.
    let own = min(lane, classes - 1u);
    let first = bitcast<u32>(logit{{row}}(start + own));
    var largest = Candidate(order(first), own);
    var farthest = Candidate(first & 0x7fffffffu, own);
    for (var j = lane + {{LANES}}u; j < classes; j += {{LANES}}u) {
        let bits = bitcast<u32>(logit{{row}}(start + j));
        let next = Candidate(order(bits), j);
        if better(next, largest) {
            largest = next;
        }
        farthest.key = max(farthest.key, bits & 0x7fffffffu);
    }
    largest = lane_first_largest(largest, lane);
    farthest = lane_first_largest(farthest, lane);
    let highest = logit{{row}}(start + largest.index);
    var sum = 0.0;
    for (var j = lane; j < classes; j += {{LANES}}u) {
        sum += exponential(logit{{row}}(start + j) - highest);
    }
    let shift = vec2<f32>(highest, natural_log(lane_sum(sum, lane)));
    return Row(shift, largest.index, farthest.key < 0x7f800000u);
}
#end
