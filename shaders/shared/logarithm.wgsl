// log v for positive, normal v; NaN and infinity are returned unchanged. The built-in function may have an error of
// 2⁻²¹ around one, which is many times the logarithm itself there.
//
// v = f · 2^e with f in [√½, √2), log f = 2 artanh s with s = (f - 1) / (f + 1), |s| < 0.1716.
fn natural_log(v: f32) -> f32 {
    let bits = bitcast<u32>(v);
    if bits >= 0x7f800000u {
        return v;
    }
    // 0x3f3504f3 are the bits of √½.
    let exponent = (i32(bits) - 0x3f3504f3) >> 23u;
    let f = bitcast<f32>(bits - (bitcast<u32>(exponent) << 23u));
    let s = (f - 1.0) / (f + 1.0);
    let s2 = s * s;
    // The first omitted term is s¹⁰/11, below 2e-9.
    let series = 1.0 + s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0))));
    return f32(exponent) * 0.69314718 + 2.0 * s * series;
}

// log(1 + v) for v > -1, with the same relative accuracy for small v.
fn natural_log_one_plus(v: f32) -> f32 {
    if abs(v) > 0.25 {
        return natural_log(1.0 + v);
    }
    // As above, with f = 1 + v.
    let s = v / (2.0 + v);
    let s2 = s * s;
    return 2.0 * s * (1.0 + s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0)))));
}
