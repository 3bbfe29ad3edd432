// From the gradient of the logits, in `logits0`, to that of x. Adds in the order of linear_input_gradient and
// global_pool_backward.
//
// With NORM = 1, batch norm used batch statistics: `gradient` is that of scale · x + shift, the input of its backward
// pass, and `partials` receives the results of norm_backward_sums with one block per image: C times Σ g, C times Σ g ·
// x̂. With NORM = 2 the statistics were constants, and `gradient` is that of x.
//
// Needs `weight`, `gradient`; `affine` with NORM; `x` with RELU or NORM = 1; `partials` with NORM = 1.
#let LINES = 256 / COLUMNS
#let TILES = (FEATURES + COLUMNS - 1) / COLUMNS

// Writes the gradient of the means to `features`.
fn back_to_features(lane: u32) {
    for (var c = lane; c < {{4 * FEATURES}}u; c += 256u) {
        var sum = 0.0;
        for (var k = 0u; k < {{CLASSES}}u; k++) {
            sum += dot(logit_quad(k), weight[c * {{CLASSES}}u + k]);
        }
        // Padding channels stay zero even if a NaN was multiplied by their zero weights.
        features[c] = select(0.0, sum, c < params.channels);
    }
    workgroupBarrier();
}

// Distributes the gradient of the mean to the pixels. `is_inside`: whether this is an image of the dispatch.
fn spread(image: u32, lane: u32, is_inside: bool) {
    let pixels = params.height * params.width;
    let line = lane / {{COLUMNS}}u;
#for t in 0..TILES
    let quad{{t}} = {{t * COLUMNS}}u + lane % {{COLUMNS}}u;
    let works{{t}} = is_inside && line < {{LINES}}u && quad{{t}} < {{FEATURES}}u;
#if NORM == 1
    var sum{{t}} = vec4<f32>(0.0);
    var product{{t}} = vec4<f32>(0.0);
#end
    if works{{t}} {
        let share = feature_quad(quad{{t}}) / f32(pixels);
#if NORM
        let scale = affine[quad{{t}}];
        let shift = affine[{{FEATURES}}u + quad{{t}}];
#end
#if NORM == 1
        let mean = affine[{{2 * FEATURES}}u + quad{{t}}];
        let rstd = affine[{{3 * FEATURES}}u + quad{{t}}];
#end
        for (var pixel = line; pixel < pixels; pixel += {{LINES}}u) {
            let at = (image * pixels + pixel) * {{FEATURES}}u + quad{{t}};
#if RELU
#if NORM
            let g = relu_gate(scale * x[at] + shift, share);
#else
            let g = relu_gate(x[at], share);
#end
#else
            let g = share;
#end
#if NORM == 2
            gradient[at] = scale * g;
#else
            gradient[at] = g;
#end
#if NORM == 1
            sum{{t}} += g;
            product{{t}} += g * ((x[at] - mean) * rstd);
#end
        }
    }
#if NORM == 1
    let total{{t}} = sum_over_lines(sum{{t}}, lane, {{COLUMNS}}u, {{LINES}}u);
    let products{{t}} = sum_over_lines(product{{t}}, lane, {{COLUMNS}}u, {{LINES}}u);
    if works{{t}} && line == 0u {
        let start = (params.first_block + image) * {{2 * FEATURES}}u + quad{{t}};
        partials[start] = total{{t}};
        partials[start + {{FEATURES}}u] = products{{t}};
    }
#end
#end
}
