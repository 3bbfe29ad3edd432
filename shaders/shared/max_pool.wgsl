// Windows of `size` × `size` that do not overlap, in planes of `height` × `width` × `quads`.
struct Params {
    // Windows of all images, times quads: one invocation each.
    count: u32,
    quads: u32,
    height: u32,
    width: u32,
    size: u32,
    // Windows in a plane.
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

// Whether `value` takes the place of the largest before it: it is larger, or NaN. NaN is found by its bits because
// compilers may take comparisons for those of numbers.
fn takes_over(value: vec4<f32>, best: vec4<f32>) -> vec4<bool> {
    let nan = (bitcast<vec4<u32>>(value) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return (value > best) | nan;
}
