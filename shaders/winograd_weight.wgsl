// Transforms the weights of a 3×3 convolution for Winograd's F(M×M, 3×3): U = G g Gᵀ for every pair of channels. An
// invocation computes one input channel and one quad of output channels.
//
// weight: tap × C_in × C_out. u: (M + 2)² × C_in × C_out, slot (row, column) of U first.
#import "shared/grid.wgsl"
#import "shared/winograd_line.wgsl"
#let T = M + 2

struct Params {
    // Quads of one tap.
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> u: array<vec4<f32>>;

// G g.
fn line_weights(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> Line {
#if M == 4
    let even_near = (a + 0.5 * c) / -1.5;
    let odd_near = HALF_ROOT * b / -1.5;
    let even_far = (a + 2.0 * c) / 6.0;
    let odd_far = ROOT * b / 6.0;
    return Line(a, even_near + odd_near, even_near - odd_near, even_far + odd_far, even_far - odd_far, c);
#else
    return Line(a, 0.5 * (a + b + c), 0.5 * (a - b + c), c);
#end
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(group, groups) * 64u + lane;
    if i < params.quads {
#for x in 0..3
        let column{{x}} = line_weights(
            weight[{{x}}u * params.quads + i],
            weight[{{3 + x}}u * params.quads + i],
            weight[{{6 + x}}u * params.quads + i],
        );
#end
#for r in 0..T
        let row{{r}} = line_weights(column0.p{{r}}, column1.p{{r}}, column2.p{{r}});
#for c in 0..T
        u[{{r * T + c}}u * params.quads + i] = row{{r}}.p{{c}};
#end
#end
    }
}
