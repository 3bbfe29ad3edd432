// Statistics of batch norm, for each channel over blocks of 256 rows (a row is a pixel of an image): n, mean = Σ x / n,
// M2 = Σ (x - mean)². norm_finalize merges them.
//
// x: rows × C. partials: for each block a quad (n, 0, 0, 0), C means, C times M2.
//
// Two passes; the second corrects the rounding errors of the first (Chan, Golub, LeVeque: Algorithms for Computing the
// Sample Variance, The American Statistician 37, 1983):
// m = Σ x / n, d = x - m, mean = m + Σ d / n, M2 = Σ d² - (Σ d)² / n.
// x is loaded only once for both passes: a lane keeps its HELD quads in registers.
#import "shared/norm_rows.wgsl"

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partials: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(linear_group(group, groups), lane);
    let first = at.block * 256u;
    let none = vec4<f32>(0.0);

    var sum = none;
#for i in 0..HELD
    let row{{i}} = at.row + {{i}}u * params.lanes;
    var x{{i}} = none;
    if row{{i}} < at.end {
        x{{i}} = x[(first + row{{i}}) * params.quads + at.quad];
        sum += x{{i}};
    }
#end
    let count = max(f32(at.end), 1.0);
    let mean = sum_over_rows(Sums(sum, none), lane, params.columns, params.lanes).a / count;

    var sums = Sums(none, none);
#for i in 0..HELD
    if row{{i}} < at.end {
        let d{{i}} = x{{i}} - mean;
        sums.a += d{{i}};
        sums.b += d{{i}} * d{{i}};
    }
#end
    let total = sum_over_rows(sums, lane, params.columns, params.lanes);

    if at.live && at.row == 0u {
        let start = (params.first_block + at.block) * (2u * params.quads + 1u);
        if at.quad == 0u {
            partials[start] = vec4<f32>(count, 0.0, 0.0, 0.0);
        }
        partials[start + 1u + at.quad] = mean + total.a / count;
        partials[start + 1u + params.quads + at.quad] = total.b - total.a * total.a / count;
    }
}
