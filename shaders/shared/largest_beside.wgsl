// Needs `params.classes`, `logit0` and the imports of shared/softmax.wgsl.

// The class with the largest logit other than three; there must be such a class.
fn largest_beside_three(start: u32, beside: vec3<u32>, lane: u32) -> u32 {
    var largest = Candidate(0u, params.classes);
    for (var j = lane; j < params.classes; j += {{LANES}}u) {
        let next = Candidate(total_order(bitcast<u32>(logit0(start + j))), j);
        if all(vec3<u32>(j) != beside) && better(next, largest) {
            largest = next;
        }
    }
    return min(lane_first_largest(largest, lane).index, params.classes - 1u);
}

// The class with the largest logit other than a and b; there must be such a class.
fn largest_beside(start: u32, a: u32, b: u32, lane: u32) -> u32 {
    return largest_beside_three(start, vec3<u32>(a, b, params.classes), lane);
}
