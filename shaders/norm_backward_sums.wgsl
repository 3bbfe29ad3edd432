// The sums in the backward pass of batch norm, for each channel over blocks of 256 rows: Σ g and Σ g · x̂, with
// x̂ = (x - mean) · rstd and g = dy; with RELU, g is zero where the ReLU after it masks y = scale · x + shift.
//
// x, dy: rows × C. affine: scale, shift, mean, rstd, 4 × C. partials: for each block C times Σ g, C times Σ g · x̂.
#import "shared/norm_rows.wgsl"
#import "shared/relu.wgsl"

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> affine: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partials: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(linear_group(group, groups), lane);
    let first = at.block * 256u;
    let none = vec4<f32>(0.0);

    var sums = Sums(none, none);
    if at.live {
#if RELU
        let scale = affine[at.quad];
        let shift = affine[params.quads + at.quad];
#end
        let mean = affine[2u * params.quads + at.quad];
        let rstd = affine[3u * params.quads + at.quad];
#for i in 0..HELD
        let row{{i}} = at.row + {{i}}u * params.lanes;
        if row{{i}} < at.end {
            let i{{i}} = (first + row{{i}}) * params.quads + at.quad;
            let x{{i}} = x[i{{i}}];
#if RELU
            let g{{i}} = relu_gate(scale * x{{i}} + shift, dy[i{{i}}]);
#else
            let g{{i}} = dy[i{{i}}];
#end
            sums.a += g{{i}};
            sums.b += g{{i}} * ((x{{i}} - mean) * rstd);
        }
#end
    }
    let total = sum_over_rows(sums, lane, params.columns, params.lanes);

    if at.live && at.row == 0u {
        let start = (params.first_block + at.block) * 2u * params.quads + at.quad;
        partials[start] = total.a;
        partials[start + params.quads] = total.b;
    }
}
