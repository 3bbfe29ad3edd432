struct Outputs {
#for i in 0..M
    y{{i}}: vec4<f32>,
#end
}

// Aᵀ m.
fn line_outputs(m: Line) -> Outputs {
#if M == 4
    let near = m.p1 + m.p2;
    let far = m.p3 + m.p4;
    let odd_near = HALF_ROOT * (m.p1 - m.p2);
    let odd_far = ROOT * (m.p3 - m.p4);
    return Outputs(
        m.p0 + near + far,
        odd_near + odd_far,
        0.5 * near + 2.0 * far,
        0.5 * odd_near + 2.0 * odd_far + m.p5,
    );
#else
    return Outputs(m.p0 + m.p1 + m.p2, m.p1 - m.p2 + m.p3);
#end
}
