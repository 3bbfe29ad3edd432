// Which index has the largest key, the first of equals, over the LANES invocations of a workgroup.

struct Candidate {
    key: u32,
    index: u32,
}

var<workgroup> lane_candidates: array<Candidate, {{LANES}}>;

fn better(a: Candidate, b: Candidate) -> bool {
    return a.key > b.key || (a.key == b.key && a.index < b.index);
}

// Every lane calls it with its own candidate, and every lane gets the result.
fn lane_first_largest(candidate: Candidate, lane: u32) -> Candidate {
    // What an earlier reduction left may still be read.
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
