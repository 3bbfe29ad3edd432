// Winograd's F(M×M, 3×3), first of three kernels: transforms each tile of (M + 2)² pixels to V = Bᵀ d B. Tiles overlap
// by two pixels. Pixels outside of the image are zero. An invocation computes one tile of one quad of channels.
//
// source: B × H × W × C. v: slot × tile × C; the (M + 2)² slots are those of the transformed weights (see
// shared/winograd_line.wgsl for FLIPPED); tiles are ordered by image, row and column.
#import "shared/grid.wgsl"
#import "shared/winograd_line.wgsl"
#import "shared/winograd_points.wgsl"
#let T = M + 2
#let MEANS = BACKWARD * BATCH
#let INPUT = BACKWARD * (1 - (RELU + BATCH == 0))

struct Params {
    // Number of tiles of this dispatch, and the first of them.
    tiles: u32,
    first_tile: u32,
    // Tiles per image.
    across: u32,
    down: u32,
    height: u32,
    width: u32,
    quads: u32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> v: array<vec4<f32>>;
#if NORM + BACKWARD
@group(0) @binding(3) var<storage, read> norm: array<vec4<f32>>;
#end
#if INPUT
@group(0) @binding(4) var<storage, read> norm_input: array<vec4<f32>>;
#end
#if MEANS
@group(0) @binding(5) var<storage, read> norm_means: array<vec4<f32>>;
#end
#import "shared/read.wgsl"

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 128u + lane;
    if i >= params.tiles * params.quads {
        return;
    }
    let quad = i % params.quads;
    let tile = params.first_tile + i / params.quads;
    let image = tile / (params.across * params.down);
    // Negative positions wrap to numbers beyond every image.
    let x = tile % params.across * {{M}}u - params.padding;
    let y = tile / params.across % params.down * {{M}}u - params.padding;
    let pixels = image * params.height * params.width;
    let c = coefficients(quad, params.quads);
#for c in 0..T
    let column{{c}} = line_points(Line(
#for r in 0..T
        pixel(pixels, y + {{r}}u, x + {{c}}u, quad, c),
#end
    ));
#end
    let size = params.tiles * params.quads;
#for r in 0..T
    let row{{r}} = line_points(Line(
#for c in 0..T
        column{{c}}.p{{r}},
#end
    ));
#for c in 0..T
#if FLIPPED * (M == 4)
#let to_r = (r == 0) * 5 + (r == 1) * 3 + (r == 2) * 4 + (r == 3) + (r == 4) * 2
#let to_c = (c == 0) * 5 + (c == 1) * 3 + (c == 2) * 4 + (c == 3) + (c == 4) * 2
    v[{{to_r * T + to_c}}u * size + i] = row{{r}}.p{{c}};
#else
#if FLIPPED
#let to_r = (r == 0) * 3 + (r == 1) + (r == 2) * 2
#let to_c = (c == 0) * 3 + (c == 1) + (c == 2) * 2
    v[{{to_r * T + to_c}}u * size + i] = row{{r}}.p{{c}};
#else
    v[{{r * T + c}}u * size + i] = row{{r}}.p{{c}};
#end
#end
#end
#end
}

fn pixel(pixels: u32, y: u32, x: u32, quad: u32, c: Coefficients) -> vec4<f32> {
    let inside = y < params.height && x < params.width;
    let index = (pixels + y * params.width + x) * params.quads + quad;
    return select(vec4<f32>(), value_at(select(quad, index, inside), c), inside);
}
