// Non-overlapping windows of `size` × `size` in feature maps of `height` × `width` × `quads`.
struct Params {
    // Windows of all images times quads: one invocation each.
    count: u32,
    quads: u32,
    height: u32,
    width: u32,
    size: u32,
    // Windows of a feature map.
    down: u32,
    across: u32,
}

struct Window {
    image: u32,
    oy: u32,
    ox: u32,
    quad: u32,
}

fn window(i: u32) -> Window {
    let across = i / params.quads;
    let down = across / params.across;
    return Window(down / params.down, down % params.down, across % params.across, i % params.quads);
}

// Index of a pixel's quad.
fn pixel(w: Window, y: u32, x: u32) -> u32 {
    return ((w.image * params.height + y) * params.width + x) * params.quads + w.quad;
}

// Whether `value` replaces the maximum so far: it is larger, or NaN. NaN is detected by its bits because compilers may
// assume that comparisons have no NaN.
fn takes_over(value: vec4<f32>, best: vec4<f32>) -> vec4<bool> {
    let nan = (bitcast<vec4<u32>>(value) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return (value > best) | nan;
}
