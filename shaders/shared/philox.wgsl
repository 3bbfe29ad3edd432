// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2,
// 3", SC 2011). The twin of src/rng.rs, bit for bit.
#import "shared/logarithm.wgsl"

// The values of `Purpose` in src/rng.rs that kernels use.
const PURPOSE_AUGMENT: u32 = 3u;
const PURPOSE_TARGET: u32 = 5u;
const PURPOSE_ATTACK_NOISE: u32 = 11u;

// The random numbers of one sample for one purpose in one epoch.
struct Stream {
    key: vec2<u32>,
    id: u32,
    epoch: u32,
    purpose: u32,
}

// The high 32 bits of a · b. WGSL has no 64-bit integers.
fn mul_high(a: u32, b: u32) -> u32 {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let middle = a_high * b_low + ((a_low * b_low) >> 16u);
    let carry = a_low * b_high + (middle & 0xffffu);
    return a_high * b_high + (middle >> 16u) + (carry >> 16u);
}

fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
#for round in 0..10
    c = vec4<u32>(
        mul_high(0xCD9E8D57u, c.z) ^ c.y ^ k.x,
        0xCD9E8D57u * c.z,
        mul_high(0xD2511F53u, c.x) ^ c.w ^ k.y,
        0xD2511F53u * c.x,
    );
    k += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
#end
    return c;
}

// The words with the indices 4 · block to 4 · block + 3.
fn random_block(stream: Stream, block: u32) -> vec4<u32> {
    return philox(vec4<u32>(block, stream.id, stream.epoch, stream.purpose), stream.key);
}

// Uniform in [0, 1), a multiple of 2⁻²⁴, exact.
fn unit(word: u32) -> f32 {
    return f32(word >> 8u) * (1.0 / 16777216.0);
}

// Uniform in [0, 1), exact.
fn random_unit(stream: Stream, index: u32) -> f32 {
    let words = random_block(stream, index / 4u);
    return unit(words[index % 4u]);
}

// Uniform in [-1, 1), exact: 2 · unit - 1 is a multiple of 2⁻²³.
fn random_symmetric(stream: Stream, index: u32) -> f32 {
    return 2.0 * random_unit(stream, index) - 1.0;
}

// Standard normal (Box and Muller), from the words 2 · index and 2 · index + 1.
fn random_normal(stream: Stream, index: u32) -> f32 {
    let words = random_block(stream, index / 2u);
    let pair = select(words.xy, words.zw, index % 2u == 1u);
    // 1 - u lies in (0, 1], so the logarithm is finite.
    let radius = sqrt(-2.0 * natural_log(1.0 - unit(pair.x)));
    return radius * cosine(6.2831855 * unit(pair.y));
}

// cos(a) for a in [0, 2π]. The built-in function may be wrong by 2⁻¹¹, which would make noise differ between devices.
fn cosine(a: f32) -> f32 {
    let quarter = u32(a * 0.63661977 + 0.5);
    // π/2 in two parts; the first has few enough bits that its product is exact.
    let t = (a - f32(quarter) * 1.5703125) - f32(quarter) * 4.8382679e-4;
    let t2 = t * t;
    // Taylor series: for |t| ≤ π/4 the omitted terms are below 2e-9.
    let sine = t * (1.0 + t2 * (-1.0 / 6.0 + t2 * (1.0 / 120.0 + t2 * (-1.0 / 5040.0 + t2 * (1.0 / 362880.0)))));
    let cosine = 1.0 + t2 * (-0.5 + t2 * (1.0 / 24.0 + t2 * (-1.0 / 720.0 + t2 * (1.0 / 40320.0 - t2 / 3628800.0))));
    let odd = select(cosine, sine, quarter % 2u == 1u);
    // The quarters are cos t, -sin t, -cos t, sin t.
    return select(odd, -odd, (quarter + 1u) % 4u >= 2u);
}
