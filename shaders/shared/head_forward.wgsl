// Mean and linear layer. Needs `x`, `weight`, `bias`, and `affine` with NORM. Adds in the order of global_pool and
// linear_forward.
#let LINES = 256 / COLUMNS
#let TILES = (FEATURES + COLUMNS - 1) / COLUMNS

fn activation(at: u32, quad: u32) -> vec4<f32> {
#if NORM
    let value = affine[quad] * x[at] + affine[{{FEATURES}}u + quad];
#else
    let value = x[at];
#end
#if RELU
    return relu(value);
#else
    return value;
#end
}

// Writes the means over the pixels to `features`: sums each row first, LINES rows in parallel, then adds the sums of
// the rows.
fn pool(image: u32, lane: u32) {
    let pixels = params.height * params.width;
    let line = lane / {{COLUMNS}}u;
#for t in 0..TILES
    let quad{{t}} = {{t * COLUMNS}}u + lane % {{COLUMNS}}u;
    let works{{t}} = line < {{LINES}}u && quad{{t}} < {{FEATURES}}u;
    var sum{{t}} = vec4<f32>(0.0);
    for (var top = 0u; top < params.height; top += {{LINES}}u) {
        var across = vec4<f32>(0.0);
        if works{{t}} && top + line < params.height {
            var at = (image * pixels + (top + line) * params.width) * {{FEATURES}}u + quad{{t}};
            for (var column = 0u; column < params.width; column++) {
                across += activation(at, quad{{t}});
                at += {{FEATURES}}u;
            }
        }
        lines[lane] = across;
        workgroupBarrier();
        if lane < {{COLUMNS}}u {
            for (var i = 0u; i < min({{LINES}}u, params.height - top); i++) {
                sum{{t}} += lines[i * {{COLUMNS}}u + lane];
            }
        }
        workgroupBarrier();
    }
    if lane < {{COLUMNS}}u && works{{t}} {
        let mean = sum{{t}} / f32(pixels);
#for e in 0..4
        features[4u * quad{{t}} + {{e}}u] = mean[{{e}}];
#end
    }
#end
    workgroupBarrier();
}

// Writes the logits to `logits0`: four quads at a time, for each of which 64 lanes share the sum over C.
fn linear(lane: u32) {
    for (var first = 0u; first < {{CLASSES}}u; first += 4u) {
        let k = first + lane % 4u;
        var sum = vec4<f32>(0.0);
        if k < {{CLASSES}}u {
            for (var c = lane / 4u; c < {{FEATURES}}u; c += 64u) {
                let value = feature_quad(c);
                let w = 4u * c * {{CLASSES}}u + k;
                sum += value.x * weight[w];
                sum += value.y * weight[w + {{CLASSES}}u];
                sum += value.z * weight[w + {{2 * CLASSES}}u];
                sum += value.w * weight[w + {{3 * CLASSES}}u];
            }
        }
        let total = sum_over_lines(sum, lane, 4u, 64u);
        if lane < 4u && k < {{CLASSES}}u {
            let z = total + bias[k];
#for e in 0..4
            logits0[4u * k + {{e}}u] = z[{{e}}];
#end
        }
    }
    workgroupBarrier();
}
