// The index of the largest key over the LANES invocations of a workgroup; of equal keys, the first index.

struct Candidate {
    key: u32,
    index: u32,
}

var<workgroup> lane_candidates: array<Candidate, {{LANES}}>;

fn better(a: Candidate, b: Candidate) -> bool {
    return a.key > b.key || (a.key == b.key && a.index < b.index);
}

// Every lane must call it with its own candidate, and every lane gets the result.
fn lane_first_largest(candidate: Candidate, lane: u32) -> Candidate {
    // Other lanes may still read the result of an earlier reduction.
    workgroupBarrier();
    lane_candidates[lane] = candidate;
    workgroupBarrier();
    for (var reach = {{LANES / 2}}u; reach > 0u; reach >>= 1u) {
        if lane < reach {
            let other = lane_candidates[lane + reach];
            if better(other, lane_candidates[lane]) {
                lane_candidates[lane] = other;
            }
        }
        workgroupBarrier();
    }
    return lane_candidates[0];
}
