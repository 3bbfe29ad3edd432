// Writes the affine of batch norm for one quad of channels: scale = weight · rstd, shift = bias - mean · scale, mean
// and rstd = 1 / sqrt(variance + epsilon). Padding channels get zeros.
fn write_affine(quad: u32, mean: vec4<f32>, variance: vec4<f32>) {
    let real = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels);
    let none = vec4<f32>(0.0);
    let rstd = select(none, 1.0 / sqrt(variance + params.epsilon), real);
    let scale = weight[quad] * rstd;
    affine[quad] = scale;
    affine[params.quads + quad] = bias[quad] - mean * scale;
    affine[2u * params.quads + quad] = mean;
    affine[3u * params.quads + quad] = rstd;
}
