// The stem of a network: the colours are normalised, then convolved with stride 1. Pixels outside of the image are zero
// after the normalisation.
//
//   y[v, u, o] = Σ over ky, kx, c of (scale[c] · x[v + ky - p, u + kx - p, c] + shift[c]) · w[ky, kx, c, o]
//
// Sums are in the order of conv_gemm. With STATISTICS, also n, mean and M2 of each channel of y over the pixels of each
// block, as in norm_statistics.
//
// x: B × H × W × 4, of which COLOURS are used. y: B × H' × W' × C. weight: tap × 4 × C. normalization: scale, shift,
// mean, rstd, 4 × 4. partials: for each block a quad (n, 0, 0, 0), C means, C times M2.
//
// A block is HELD × lanes pixels of an image. A workgroup computes `columns` quads of it, a lane HELD pixels of one
// quad. The pixels of x that a workgroup reads, at most TILE, are in workgroup memory.
#import "shared/grid.wgsl"
#if STATISTICS
#import "shared/lanes.wgsl"
#end

struct Params {
    images: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    channels: u32,
    quads: u32,
    columns: u32,
    // Workgroups that cover all quads of a block.
    tiles: u32,
    lanes: u32,
    // Blocks per image.
    blocks: u32,
    first_block: u32,
    // The first workgroup of this dispatch.
    first_group: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> normalization: array<vec4<f32>, 4>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
#if STATISTICS
@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>;
#end

var<workgroup> tile: array<vec4<f32>, {{TILE}}>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = params.first_group + linear_group(group, groups);
    let block = index / params.tiles;
    // Surplus workgroups recompute the last image without writing.
    let image = min(block / params.blocks, params.images - 1u);
    let is_inside = block / params.blocks < params.images;
    let pixels = params.out_height * params.out_width;
    let first = block % params.blocks * {{HELD}}u * params.lanes;
    let end = min(first + {{HELD}}u * params.lanes, pixels);
    let first_row = first / params.out_width;
    let last_row = (end - 1u) / params.out_width;

    let tile_width = params.out_width + {{KERNEL - 1}}u;
    let tile_pixels = (last_row - first_row + {{KERNEL}}u) * tile_width;
    for (var i = lane; i < tile_pixels; i += 256u) {
        let row = u32(i32(first_row + i / tile_width) - {{PADDING}});
        let column = u32(i32(i % tile_width) - {{PADDING}});
        var value = vec4<f32>(0.0);
        // Positions before the first row or column wrap to large numbers and fail the test too.
        if row < params.height && column < params.width {
            let pixel = (image * params.height + row) * params.width + column;
            value = normalization[0] * x[pixel] + normalization[1];
        }
        tile[i] = value;
    }
    workgroupBarrier();

    let row = lane / params.columns;
    let quad = index % params.tiles * params.columns + lane % params.columns;
    let works = is_inside && row < params.lanes && quad < params.quads;
    let weight_quad = min(quad, params.quads - 1u);
#for i in 0..HELD
    let pixel{{i}} = first + row + {{i}}u * params.lanes;
    let place{{i}} = min(pixel{{i}}, end - 1u);
    let at{{i}} = (place{{i}} / params.out_width - first_row) * tile_width + place{{i}} % params.out_width;
    var sum{{i}} = vec4<f32>(0.0);
#end
    for (var ky = 0u; ky < {{KERNEL}}u; ky++) {
        for (var kx = 0u; kx < {{KERNEL}}u; kx++) {
            let start = (ky * {{KERNEL}}u + kx) * 4u * params.quads + weight_quad;
            let reach = ky * tile_width + kx;
#for c in 0..COLOURS
            let w{{c}} = weight[start + {{c}}u * params.quads];
#end
#for i in 0..HELD
            let value{{i}} = tile[at{{i}} + reach];
#for c in 0..COLOURS
            sum{{i}} = fma(vec4<f32>(value{{i}}[{{c}}]), w{{c}}, sum{{i}});
#end
#end
        }
    }

    // Padding channels stay zero even if a NaN was multiplied by their zero weights.
    let real = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels);
#for i in 0..HELD
    sum{{i}} = select(vec4<f32>(0.0), sum{{i}}, real);
    let writes{{i}} = works && pixel{{i}} < end;
    if writes{{i}} {
        y[(image * pixels + pixel{{i}}) * params.quads + quad] = sum{{i}};
    }
#end
#if STATISTICS

    // Two passes; the second corrects the rounding errors of the first (norm_statistics).
    let none = vec4<f32>(0.0);
    var all = none;
#for i in 0..HELD
    all += select(none, sum{{i}}, writes{{i}});
#end
    let count = f32(end - first);
    let mean = sum_over_rows(Sums(all, none), lane, params.columns, params.lanes).a / count;
    var sums = Sums(none, none);
#for i in 0..HELD
    let d{{i}} = select(none, sum{{i}} - mean, writes{{i}});
    sums.a += d{{i}};
    sums.b += d{{i}} * d{{i}};
#end
    let total = sum_over_rows(sums, lane, params.columns, params.lanes);
    if works && row == 0u {
        let to = (params.first_block + block) * (2u * params.quads + 1u);
        if quad == 0u {
            partials[to] = vec4<f32>(count, 0.0, 0.0, 0.0);
        }
        partials[to + 1u + quad] = mean + total.a / count;
        partials[to + 1u + params.quads + quad] = total.b - total.a * total.a / count;
    }
#end
}
