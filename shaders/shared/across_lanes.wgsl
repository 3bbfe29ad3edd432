// Tree reductions over the LANES invocations of a workgroup, in a fixed order. Every lane must call them and every lane
// gets the result.
//
// Bits of numbers, so that one array in workgroup memory serves both types.
var<workgroup> lane_values: array<u32, {{LANES}}>;

fn lane_sum(value: f32, lane: u32) -> f32 {
    // Other lanes may still read the result of an earlier reduction.
    workgroupBarrier();
    lane_values[lane] = bitcast<u32>(value);
    workgroupBarrier();
    for (var reach = {{LANES / 2}}u; reach > 0u; reach >>= 1u) {
        if lane < reach {
            let sum = bitcast<f32>(lane_values[lane]) + bitcast<f32>(lane_values[lane + reach]);
            lane_values[lane] = bitcast<u32>(sum);
        }
        workgroupBarrier();
    }
    return bitcast<f32>(lane_values[0]);
}

fn lane_max(value: u32, lane: u32) -> u32 {
    workgroupBarrier();
    lane_values[lane] = value;
    workgroupBarrier();
    for (var reach = {{LANES / 2}}u; reach > 0u; reach >>= 1u) {
        if lane < reach {
            lane_values[lane] = max(lane_values[lane], lane_values[lane + reach]);
        }
        workgroupBarrier();
    }
    return lane_values[0];
}
