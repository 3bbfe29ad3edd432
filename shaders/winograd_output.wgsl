// Winograd's F(M×M, 3×3), last of three kernels: the M × M pixels of each tile, Aᵀ m A, with an epilogue while they are
// in registers. FLIPPED as in winograd_input.wgsl.
// * ADD: adds `other`, a residual, or the gradient of another consumer.
// * STATISTICS: per block, count, mean and M2 of each channel, as in norm_statistics.
// * SUMS: the result is the gradient of the output of a batch norm: with RELU it is masked by the ReLU, and per block
//   the sums Σ g and Σ g · x̂ are written, as in norm_backward_sums.
//
// A workgroup computes a block of `lanes` tiles times `columns` quads of channels.
//
// m: slot × tile × C. result, other, norm_input: B × H × W × C. norm: scale, shift, mean, rstd, 4 × C.
#import "shared/grid.wgsl"
#import "shared/winograd_line.wgsl"
#import "shared/winograd_outputs.wgsl"
#if STATISTICS + SUMS
#import "shared/lanes.wgsl"
#end
#if SUMS * RELU
#import "shared/relu.wgsl"
#end
#let T = M + 2

struct Params {
    tiles: u32,
    first_tile: u32,
    across: u32,
    down: u32,
    height: u32,
    width: u32,
    quads: u32,
    channels: u32,
    columns: u32,
    column_tiles: u32,
    lanes: u32,
    first_block: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> m: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> result: array<vec4<f32>>;
#if ADD
@group(0) @binding(3) var<storage, read> other: array<vec4<f32>>;
#end
#if STATISTICS + SUMS
@group(0) @binding({{3 + ADD}}) var<storage, read_write> partials: array<vec4<f32>>;
#end
#if SUMS
@group(0) @binding({{4 + ADD}}) var<storage, read> norm: array<vec4<f32>>;
@group(0) @binding({{5 + ADD}}) var<storage, read> norm_input: array<vec4<f32>>;
#end

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_group(group, groups);
    let block = index / params.column_tiles;
    let quad = index % params.column_tiles * params.columns + lane % params.columns;
    let row = lane / params.columns;
    let local_tile = block * params.lanes + row;
    let live = row < params.lanes && local_tile < params.tiles && quad < params.quads;

    let size = params.tiles * params.quads;
    let at = select(0u, local_tile * params.quads + quad, live);
#for c in 0..T
    let column{{c}} = line_outputs(Line(
#for r in 0..T
#if FLIPPED * (M == 4)
#let from_r = (r == 0) * 5 + (r == 1) * 3 + (r == 2) * 4 + (r == 3) + (r == 4) * 2
#let from_c = (c == 0) * 5 + (c == 1) * 3 + (c == 2) * 4 + (c == 3) + (c == 4) * 2
        m[{{from_r * T + from_c}}u * size + at],
#else
#if FLIPPED
#let from_r = (r == 0) * 3 + (r == 1) + (r == 2) * 2
#let from_c = (c == 0) * 3 + (c == 1) + (c == 2) * 2
        m[{{from_r * T + from_c}}u * size + at],
#else
        m[{{r * T + c}}u * size + at],
#end
#end
#end
    ));
#end
#for r in 0..M
    let row{{r}} = line_outputs(Line(
#for c in 0..T
        column{{c}}.y{{r}},
#end
    ));
#end

    let tile = params.first_tile + local_tile;
    let x = tile % params.across * {{M}}u;
    let y = tile / params.across % params.down * {{M}}u;
    let first = ((tile / (params.across * params.down) * params.height + y) * params.width + x) * params.quads + quad;
    // Padding channels stay zero even if a NaN was multiplied by their zero weights.
    let real = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels);
    let none = vec4<f32>(0.0);
#if SUMS
    let safe_quad = select(0u, quad, live);
    let scale = norm[safe_quad];
    let shift = norm[params.quads + safe_quad];
    let mean = norm[2u * params.quads + safe_quad];
    let rstd = norm[3u * params.quads + safe_quad];
    var sums = Sums(none, none);
#end
#if STATISTICS
    var total = Sums(none, none);
#end
#for r in 0..M
#for c in 0..M
    let inside{{r}}_{{c}} = live && y + {{r}}u < params.height && x + {{c}}u < params.width;
    let at{{r}}_{{c}} = first + ({{r}}u * params.width + {{c}}u) * params.quads;
    var value{{r}}_{{c}} = none;
    if inside{{r}}_{{c}} {
        value{{r}}_{{c}} = select(none, row{{r}}.y{{c}}, real);
#if ADD
        value{{r}}_{{c}} += other[at{{r}}_{{c}}];
#end
#if SUMS
        let input = norm_input[at{{r}}_{{c}}];
#if RELU
        value{{r}}_{{c}} = relu_gate(scale * input + shift, value{{r}}_{{c}});
#end
        sums.a += value{{r}}_{{c}};
        sums.b += value{{r}}_{{c}} * ((input - mean) * rstd);
#end
#if STATISTICS
        total.a += value{{r}}_{{c}};
        total.b.x += 1.0;
#end
        result[at{{r}}_{{c}}] = value{{r}}_{{c}};
    }
#end
#end

#if STATISTICS
    // As in norm_statistics.wgsl: the second pass corrects the rounding errors of the first.
    let whole = sum_over_rows(total, lane, params.columns, params.lanes);
    let count = max(whole.b.x, 1.0);
    let mean = whole.a / count;
    var rest = Sums(none, none);
#for r in 0..M
#for c in 0..M
    if inside{{r}}_{{c}} {
        let d = value{{r}}_{{c}} - mean;
        rest.a += d;
        rest.b += d * d;
    }
#end
#end
    let left = sum_over_rows(rest, lane, params.columns, params.lanes);
    if live && row == 0u {
        let start = (params.first_block + block) * (2u * params.quads + 1u);
        if quad == 0u {
            partials[start] = vec4<f32>(count, 0.0, 0.0, 0.0);
        }
        partials[start + 1u + quad] = mean + left.a / count;
        partials[start + 1u + params.quads + quad] = left.b - left.a * left.a / count;
    }
#end
#if SUMS
    let all = sum_over_rows(sums, lane, params.columns, params.lanes);
    if live && row == 0u {
        let start = (params.first_block + block) * 2u * params.quads + quad;
        partials[start] = all.a;
        partials[start + params.quads] = all.b;
    }
#end
}
