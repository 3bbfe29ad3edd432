// Bᵀ d.
#if M == 4
fn line_points(d: Line) -> Line {
    let even_near = d.p4 - 2.0 * d.p2;
    let odd_near = HALF_ROOT * d.p3 - ROOT * d.p1;
    let even_far = d.p4 - 0.5 * d.p2;
    let odd_far = ROOT * d.p3 - HALF_ROOT * d.p1;
#if FLIPPED
    return Line(
        d.p0 - 2.5 * d.p2 + d.p4,
        -2.0 * (even_near + odd_near),
        -2.0 * (even_near - odd_near),
        -0.5 * (even_far + odd_far),
        -0.5 * (even_far - odd_far),
        d.p1 - 2.5 * d.p3 + d.p5,
    );
#else
    return Line(
        d.p0 - 2.5 * d.p2 + d.p4,
        even_near + odd_near,
        even_near - odd_near,
        even_far + odd_far,
        even_far - odd_far,
        d.p1 - 2.5 * d.p3 + d.p5,
    );
#end
}
#else
fn line_points(d: Line) -> Line {
    return Line(d.p0 - d.p2, d.p1 + d.p2, d.p2 - d.p1, d.p3 - d.p1);
}
#end
