// exp x for x ≤ 0; NaN stays NaN. The built-in function may have an error of (3 + 2|x|) ULP, and some drivers never
// return subnormal numbers.
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
    // log 2 in two parts; the first has few enough bits that its product is exact.
    let r = (x - n * 0.693359375) + n * 2.1219444e-4;
    // Taylor series; the first omitted term is below 6e-9.
    let tail = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)));
    let series = 1.0 + (r + r * r * (0.5 + r * (1.0 / 6.0 + r * tail)));
    // In two factors, because 2^n alone may be subnormal.
    let part = i32(n) / 2;
    let rest = i32(n) - part;
    return series * bitcast<f32>(u32(127 + part) << 23u) * bitcast<f32>(u32(127 + rest) << 23u);
}
