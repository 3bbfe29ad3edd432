// Images in [0, 1] from bytes: x = byte / 255 of the randomly cropped and mirrored image. The twin of `Batch::prepare`.
// pixels: N × C × H × W bytes, four in a word; clean: B × H × W × C4, from the first image of the range on.
#import "shared/grid.wgsl"
#import "shared/call.wgsl"
#import "shared/image_info.wgsl"
#import "shared/philox.wgsl"

struct Params {
    images: u32,
    first_image: u32,
    channels: u32,
    height: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> call: Call;
@group(0) @binding(2) var<storage, read> info: array<ImageInfo>;
@group(0) @binding(3) var<storage, read> pixels: array<u32>;
@group(0) @binding(4) var<storage, read_write> clean: array<vec4<f32>>;

// byte / 255, correctly rounded without a division, whose rounding WGSL does not specify. In base two, the fraction
// repeats the eight bits of the byte periodically. The first 24 significant bits are kept; the next one rounds.
fn scale(byte: u32) -> f32 {
    let bits = byte * 0x01010101u;
    let zeros = min(countLeadingZeros(bits), 7u);
    let mantissa = (bits >> (8u - zeros)) + ((bits >> (7u - zeros)) & 1u);
    return f32(mantissa) * bitcast<f32>((103u - zeros) << 23u);
}

// The row or column of the original image at `position` of the padded image; -1 for a black one.
fn source(position: u32, size: u32) -> i32 {
    let at = i32(position) - i32(call.padding);
    if (at >= 0 && at < i32(size)) || call.augment == AUGMENT_NONE {
        return at;
    }
    if call.augment != AUGMENT_REFLECT {
        return -1;
    }
    let period = max(2 * (i32(size) - 1), 1);
    let folded = ((at % period) + period) % period;
    return min(min(folded, period - folded), i32(size) - 1);
}

// Uniform from 0 to 2 · padding, by multiplication and shift.
fn offset(word: u32) -> u32 {
    return ((word >> 16u) * (2u * call.padding + 1u)) >> 16u;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quads = (params.channels + 3u) / 4u;
    let plane = params.height * params.width;
    let index = linear_group(group, groups) * 256u + lane;
    if index >= params.images * plane * quads {
        return;
    }
    let quad = index % quads;
    let pixel = index / quads % plane;
    let image = params.first_image + index / quads / plane;
    var row = i32(pixel / params.width);
    var column = i32(pixel % params.width);
    if call.augment != AUGMENT_NONE {
        let words = random_block(Stream(call.seed, info[image].id, call.epoch, PURPOSE_AUGMENT), 0u);
        if call.flip != 0u && words.z >= 0x80000000u {
            column = i32(params.width) - 1 - column;
        }
        row = source(u32(row) + offset(words.x), params.height);
        column = source(u32(column) + offset(words.y), params.width);
    }
    var x = vec4<f32>(0.0);
    if row >= 0 && column >= 0 {
#for lane in 0..4
        if 4u * quad + {{lane}}u < params.channels {
            let plane_index = image * params.channels + 4u * quad + {{lane}}u;
            let byte = plane_index * plane + u32(row) * params.width + u32(column);
            x[{{lane}}] = scale((pixels[byte / 4u] >> (8u * (byte % 4u))) & 0xffu);
        }
#end
    }
    clean[index] = x;
}
