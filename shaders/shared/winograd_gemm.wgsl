// Bindings of the products of Winograd's slots (winograd_gemm.wgsl and winograd_gemm_broadcast.wgsl).
#import "shared/grid.wgsl"

struct Params {
    rows: u32,
    depth_quads: u32,
    column_quads: u32,
    row_tiles: u32,
    column_tiles: u32,
    slots: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> u: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> m: array<vec4<f32>>;
