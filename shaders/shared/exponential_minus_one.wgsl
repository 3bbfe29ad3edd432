// exp x - 1 for |x| ≤ 0.5, where computing the difference would lose the digits of x below the precision of 1. NaN
// stays NaN.
//
// Taylor series; the first omitted term is below 6e-10 of the result.
fn exponential_minus_one(x: f32) -> f32 {
    let tail = 1.0 / 120.0 + x * (1.0 / 720.0 + x * (1.0 / 5040.0 + x * (1.0 / 40320.0 + x * (1.0 / 362880.0))));
    return x + x * x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * tail)));
}
