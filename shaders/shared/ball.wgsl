// Projections of a perturbation onto its ball, and of the image onto the box [0, 1]. NaN stays NaN.

// Clamps v to [low, high]; NaN stays NaN. NaN is detected by its bits, because compilers may turn a comparison and a
// select into a minimum or a maximum, which loses NaN.
fn between(v: vec4<f32>, low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    let raised = select(v, low, v < low);
    let inside = select(raised, high, raised > high);
    let is_nan = (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return select(inside, v, is_nan);
}

// The nearest perturbation whose values are at most epsilon in magnitude.
fn project_linf(delta: vec4<f32>, epsilon: f32) -> vec4<f32> {
    return between(delta, vec4<f32>(-epsilon), vec4<f32>(epsilon));
}

// The factor that limits the length of a perturbation to epsilon.
fn scale_l2(length: f32, epsilon: f32) -> f32 {
    if length > epsilon {
        return epsilon / length;
    }
    return 1.0;
}

// The nearest perturbation that keeps clean + delta in [0, 1].
fn clip(delta: vec4<f32>, clean: vec4<f32>) -> vec4<f32> {
    return between(delta, -clean, 1.0 - clean);
}
