// Sums over the lanes of a workgroup of 256, in an order that depends only on their number.
struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
}

var<workgroup> lanes_a: array<vec4<f32>, 256>;
var<workgroup> lanes_b: array<vec4<f32>, 256>;

// The lanes form `rows` rows of `columns`; every lane gets the sums over the rows of its column. Lanes after the last
// row contribute nothing, but must call this too.
fn sum_over_rows(value: Sums, lane: u32, columns: u32, rows: u32) -> Sums {
    // Other lanes may still read the result of an earlier call.
    workgroupBarrier();
    lanes_a[lane] = value.a;
    lanes_b[lane] = value.b;
    workgroupBarrier();
    let row = lane / columns;
    var left = rows;
    while left > 1u {
        let half = (left + 1u) / 2u;
        if row + half < left {
            lanes_a[lane] += lanes_a[lane + half * columns];
            lanes_b[lane] += lanes_b[lane + half * columns];
        }
        workgroupBarrier();
        left = half;
    }
    let column = lane % columns;
    return Sums(lanes_a[column], lanes_b[column]);
}
