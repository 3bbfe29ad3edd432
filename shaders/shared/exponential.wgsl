// exp x for x ≤ 0; NaN passes. The built-in function may be wrong by (3 + 2|x|) units in the last place, and some drivers
// never go below the smallest normal number.
//
// exp x = 2^n · exp r with n = round(x / log 2), |r| < 0.347.
fn exponential(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return x;
    }
    if x < -104.0 {
        return 0.0;
    }
    let n = floor(x * 1.442695 + 0.5);
    // log 2 in two parts, the first of which has so few bits that its product is exact.
    let r = (x - n * 0.693359375) + n * 2.1219444e-4;
    // Taylor series, the first term left out is below 6e-9.
    let tail = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)));
    let series = 1.0 + (r + r * r * (0.5 + r * (1.0 / 6.0 + r * tail)));
    // In two steps, because 2^n alone may be below the smallest normal number.
    let part = i32(n) / 2;
    let rest = i32(n) - part;
    return series * bitcast<f32>(u32(127 + part) << 23u) * bitcast<f32>(u32(127 + rest) << 23u);
}
