// Whether x ≤ 0; false for NaN. From the bits, because compilers may turn a comparison and a select into a maximum,
// which loses NaN. As integers, zero is 0, and -infinity to -0.0 are at most -0x800000; NaNs with a sign are above
// that.
fn not_above_zero(x: vec4<f32>) -> vec4<bool> {
    let bits = bitcast<vec4<i32>>(x);
    return (bits == vec4<i32>(0)) | (bits <= vec4<i32>(-0x800000));
}

// max(x, 0); NaN stays NaN.
fn relu(x: vec4<f32>) -> vec4<f32> {
    return select(x, vec4<f32>(0.0), not_above_zero(x));
}

// dy where ReLU passes y, else 0.
fn relu_gate(y: vec4<f32>, dy: vec4<f32>) -> vec4<f32> {
    return select(dy, vec4<f32>(0.0), not_above_zero(y));
}
