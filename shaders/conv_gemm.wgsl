// Convolution as an implicit matrix product, forward and for the gradient of its input.
//
// Forward (TRANSPOSED = 0), zero where a tap leaves the image:
//
//     y[n, v, u, o] = Σ over ky, kx, c of x[n, s·v - p + ky, s·u - p + kx, c] · w[ky, kx, c, o]
//
// Input gradient (TRANSPOSED = 1):
//
//     dx[n, v, u, c] = Σ over ky, kx, o of dy[n, (v + p - ky) / s, (u + p - kx) / s, o] · w[ky, kx, c, o]
//
// over the taps for which s divides both numerators. These taps are the same for all pixels with the same (v mod s, u
// mod s), a phase. Each of the s² phases is a dense convolution with the taps ky = (v + p) mod s + s·t, so that no
// product with a zero is computed. A phase without taps (1×1, stride 2) writes zeros.
//
// The matrix product: rows M are pixels of the result, columns N its channels, the depth K runs over (tap, channel of
// the source). A workgroup computes BM × BN, a thread TM × TN of it, BK of the depth at a time.
//
// STATISTICS (forward): per block of BM rows, count, mean and M2 of each channel of the result, as in norm_statistics.
// Shapes: activations B × H × W × C quads, weights tap × C_in × C_out, both channel counts in whole quads.
#let KQ = BK / 4
#let NQ = BN / 4
#let THREADS_X = BN / TN
#let THREADS_Y = BM / TM
#let THREADS = THREADS_X * THREADS_Y
#let ROW = KQ + 1
#let A_SLOTS = BM * KQ / THREADS
#let A_STEP = THREADS / KQ
#let B_SLOTS = (BK * NQ + THREADS - 1) / THREADS
#import "shared/conv_gemm.wgsl"

// The indices of each row of the tile (`place`).
var<workgroup> rows: array<vec4<i32>, {{BM}}>;
// Rows × quads of the depth; the extra quad in each row avoids bank conflicts.
var<workgroup> a_tile: array<vec4<f32>, {{BM * ROW}}>;
// Depth × quads of the columns.
var<workgroup> b_tile: array<vec4<f32>, {{BK * NQ}}>;

#if STATISTICS
// Every thread gets the sum over the threads with the same columns. Uses the memory of the source's tile.
fn sum_over_rows(value: vec4<f32>, lane: u32) -> vec4<f32> {
    workgroupBarrier();
    a_tile[lane] = value;
    workgroupBarrier();
    for (var rows_left = {{THREADS_Y / 2}}u; rows_left > 0u; rows_left /= 2u) {
        if lane < rows_left * {{THREADS_X}}u {
            a_tile[lane] += a_tile[lane + rows_left * {{THREADS_X}}u];
        }
        workgroupBarrier();
    }
    return a_tile[lane % {{THREADS_X}}u];
}

#end
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = params.first_tile + group.x;
    let first_column = tile % params.column_tiles * {{NQ}}u;
    let row_tile = tile / params.column_tiles;
#if TRANSPOSED
    // Adjacent tiles are the phases of the same pixels, because they read the same source.
    let phases = params.stride * params.stride;
    let pixels = pixels_of(row_tile % phases);
    let first_row = row_tile / phases * {{BM}}u;
#else
    let pixels = all_pixels();
    let first_row = row_tile * {{BM}}u;
#end
    for (var row = lane; row < {{BM}}u; row += {{THREADS}}u) {
        rows[row] = place(pixels, first_row + row);
    }
    workgroupBarrier();

    // A thread loads the same quad of the depth for A_SLOTS rows.
    let load_quad = lane % {{KQ}}u;
    let load_row = lane / {{KQ}}u;
#for i in 0..A_SLOTS
    let at{{i}} = rows[load_row + {{i * A_STEP}}u];
#end
    // Its position in the depth: channel quad and tap.
    var quad = load_quad;
    var tap = vec2<u32>(0u, 0u);

    let thread_x = lane % {{THREADS_X}}u;
    let thread_y = lane / {{THREADS_X}}u;
#for i in 0..TM
#for j in 0..TN/4
    var sum{{i}}_{{j}} = vec4<f32>();
#end
#end

    let depth = pixels.taps.x * pixels.taps.y * params.source_quads;
    for (var done = 0u; done < depth; done += {{KQ}}u) {
        while quad >= params.source_quads {
            quad -= params.source_quads;
            tap.x += 1u;
            if tap.x == pixels.taps.x {
                tap.x = 0u;
                tap.y += 1u;
            }
        }
        let within = tap.y < pixels.taps.y;
        let c = coefficients(select(0u, quad, within), params.source_quads);
        // Loads are before the barrier and branch-free, so that they overlap with the computation of other threads.
#for i in 0..A_SLOTS
        let a{{i}} = source_at(at{{i}}, tap, quad, c, within);
#end
#if TRANSPOSED
        // A block of four channels of the result times four of the source, transposed when it is stored to the tile.
        let column = first_column + load_row;
        let loads = within && load_row < {{NQ}}u && column < params.result_quads;
        let block = (weight_tap(pixels, tap) * params.result_quads + column) * 4u * params.source_quads + quad;
#for e in 0..4
        let w{{e}} = select(vec4<f32>(), weight[select(0u, block + {{e}}u * params.source_quads, loads)], loads);
#end
#else
#for i in 0..B_SLOTS
        let slot{{i}} = lane + {{i * THREADS}}u;
        let depth{{i}} = 4u * done + slot{{i}} / {{NQ}}u;
        let column{{i}} = first_column + slot{{i}} % {{NQ}}u;
        let loads{{i}} = depth{{i}} < 4u * depth && column{{i}} < params.result_quads;
        let b{{i}} = select(vec4<f32>(), weight[select(0u, depth{{i}} * params.result_quads + column{{i}}, loads{{i}})], loads{{i}});
#end
#end
        quad += {{KQ}}u;

        workgroupBarrier();
#for i in 0..A_SLOTS
        a_tile[(load_row + {{i * A_STEP}}u) * {{ROW}}u + load_quad] = a{{i}};
#end
#if TRANSPOSED
        if load_row < {{NQ}}u {
            let to = load_quad * {{4 * NQ}}u + load_row;
            b_tile[to] = vec4<f32>(w0.x, w1.x, w2.x, w3.x);
            b_tile[to + {{NQ}}u] = vec4<f32>(w0.y, w1.y, w2.y, w3.y);
            b_tile[to + {{2 * NQ}}u] = vec4<f32>(w0.z, w1.z, w2.z, w3.z);
            b_tile[to + {{3 * NQ}}u] = vec4<f32>(w0.w, w1.w, w2.w, w3.w);
        }
#else
#for i in 0..B_SLOTS
#if BK * NQ < (i + 1) * THREADS
        if slot{{i}} < {{BK * NQ}}u {
            b_tile[slot{{i}}] = b{{i}};
        }
#else
        b_tile[slot{{i}}] = b{{i}};
#end
#end
#end
        workgroupBarrier();

#import "shared/tile_product.wgsl"
    }

#for i in 0..TM
    let to{{i}} = rows[thread_y + {{i * THREADS_Y}}u].w;
#for j in 0..TN/4
    if to{{i}} >= 0 && first_column + thread_x + {{j * THREADS_X}}u < params.result_quads {
        sum{{i}}_{{j}} = write(to{{i}}, first_column + thread_x + {{j * THREADS_X}}u, sum{{i}}_{{j}});
    }
#end
#end

#if STATISTICS
    // As in norm_statistics.wgsl: the second pass corrects the rounding errors of the first.
    let live = f32(min({{BM}}u, pixels.count - first_row));
    let block = (params.first_block + row_tile) * (2u * params.result_quads + 1u);
    if lane == 0u && first_column == 0u {
        partials[block] = vec4<f32>(live, 0.0, 0.0, 0.0);
    }
#for j in 0..TN/4
    var total{{j}} = vec4<f32>();
#for i in 0..TM
    total{{j}} += select(vec4<f32>(), sum{{i}}_{{j}}, to{{i}} >= 0);
#end
    let mean{{j}} = sum_over_rows(total{{j}}, lane) / live;
    var rest{{j}} = vec4<f32>();
    var squares{{j}} = vec4<f32>();
#for i in 0..TM
    let d{{i}}_{{j}} = select(vec4<f32>(), sum{{i}}_{{j}} - mean{{j}}, to{{i}} >= 0);
    rest{{j}} += d{{i}}_{{j}};
    squares{{j}} += d{{i}}_{{j}} * d{{i}}_{{j}};
#end
    let left{{j}} = sum_over_rows(rest{{j}}, lane);
    let squared{{j}} = sum_over_rows(squares{{j}}, lane);
    let quad{{j}} = first_column + thread_x + {{j * THREADS_X}}u;
    if thread_y == 0u && quad{{j}} < params.result_quads {
        partials[block + 1u + quad{{j}}] = mean{{j}} + left{{j}} / live;
        partials[block + 1u + params.result_quads + quad{{j}}] = squared{{j}} - left{{j}} * left{{j}} / live;
    }
#end
#end
}
