// Winograd's F(M×M, 3×3), second of three kernels: a matrix product for each slot, m[slot] = v[slot] · u[slot], or with
// TRANSPOSED v[slot] · u[slot]ᵀ. A workgroup computes BM × BN of one product, a thread TM × TN of it, BK of the depth
// at a time.
//
// v: slot × row × depth, m: slot × row × column, both in quads along the last. u: slot × depth × quads of columns, or
// with TRANSPOSED slot × column × quads of the depth; slots of u are never split, rows may be.
#let KQ = BK / 4
#let NQ = BN / 4
#let THREADS_X = BN / TN
#let THREADS_Y = BM / TM
#let THREADS = THREADS_X * THREADS_Y
#let ROW = KQ + 1
#let A_SLOTS = BM * KQ / THREADS
#let A_STEP = THREADS / KQ
#let B_SLOTS = (BK * NQ + THREADS - 1) / THREADS
// Blocks of 4 × 4 weights that are transposed when they are stored to the tile.
#let BLOCKS = KQ * NQ
#let BLOCK_SLOTS = (BLOCKS + THREADS - 1) / THREADS
#import "shared/winograd_gemm.wgsl"

// The extra quad in each row avoids bank conflicts.
var<workgroup> a_tile: array<vec4<f32>, {{BM * ROW}}>;
var<workgroup> b_tile: array<vec4<f32>, {{BK * NQ}}>;

@compute @workgroup_size({{THREADS}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = params.row_tiles * params.column_tiles;
    let index = linear_group(group, groups);
    // Uniform for all lanes, so that no lane waits at a barrier.
    if index >= tiles * params.slots {
        return;
    }
    let slot = index / tiles;
    let tile = index % tiles;
    let first_row = tile / params.column_tiles * {{BM}}u;
    let first_column = tile % params.column_tiles * {{NQ}}u;
    let v_start = slot * params.rows * params.depth_quads;
    let u_start = slot * 4u * params.depth_quads * params.column_quads;
    let m_start = slot * params.rows * params.column_quads;

    let load_quad = lane % {{KQ}}u;
    let load_row = lane / {{KQ}}u;
    let thread_x = lane % {{THREADS_X}}u;
    let thread_y = lane / {{THREADS_X}}u;
#for i in 0..TM
#for j in 0..TN/4
    var sum{{i}}_{{j}} = vec4<f32>();
#end
#end

    for (var done = 0u; done < params.depth_quads; done += {{KQ}}u) {
        // Loads are before the barrier and branch-free, so that they overlap with the computation of other threads.
        let quad = done + load_quad;
#for i in 0..A_SLOTS
        let at{{i}} = first_row + load_row + {{i * A_STEP}}u;
        let inside{{i}} = quad < params.depth_quads && at{{i}} < params.rows;
        let a{{i}} = select(vec4<f32>(), v[select(0u, v_start + at{{i}} * params.depth_quads + quad, inside{{i}})], inside{{i}});
#end
#if TRANSPOSED
#for i in 0..BLOCK_SLOTS
        let block{{i}} = lane + {{i * THREADS}}u;
        let block_quad{{i}} = done + block{{i}} % {{KQ}}u;
        let column{{i}} = first_column + block{{i}} / {{KQ}}u;
        let loads{{i}} = block{{i}} < {{BLOCKS}}u && block_quad{{i}} < params.depth_quads && column{{i}} < params.column_quads;
        let from{{i}} = select(0u, u_start + 4u * column{{i}} * params.depth_quads + block_quad{{i}}, loads{{i}});
        let step{{i}} = select(0u, params.depth_quads, loads{{i}});
#for e in 0..4
        let w{{i}}_{{e}} = select(vec4<f32>(), u[from{{i}} + {{e}}u * step{{i}}], loads{{i}});
#end
#end
#else
#for i in 0..B_SLOTS
        let slot{{i}} = lane + {{i * THREADS}}u;
        let depth{{i}} = 4u * done + slot{{i}} / {{NQ}}u;
        let column{{i}} = first_column + slot{{i}} % {{NQ}}u;
        let loads{{i}} = depth{{i}} < 4u * params.depth_quads && column{{i}} < params.column_quads;
        let b{{i}} = select(vec4<f32>(), u[select(0u, u_start + depth{{i}} * params.column_quads + column{{i}}, loads{{i}})], loads{{i}});
#end
#end

        workgroupBarrier();
#for i in 0..A_SLOTS
        a_tile[(load_row + {{i * A_STEP}}u) * {{ROW}}u + load_quad] = a{{i}};
#end
#if TRANSPOSED
#for i in 0..BLOCK_SLOTS
        if block{{i}} < {{BLOCKS}}u {
            let to = block{{i}} % {{KQ}}u * {{4 * NQ}}u + block{{i}} / {{KQ}}u;
            b_tile[to] = vec4<f32>(w{{i}}_0.x, w{{i}}_1.x, w{{i}}_2.x, w{{i}}_3.x);
            b_tile[to + {{NQ}}u] = vec4<f32>(w{{i}}_0.y, w{{i}}_1.y, w{{i}}_2.y, w{{i}}_3.y);
            b_tile[to + {{2 * NQ}}u] = vec4<f32>(w{{i}}_0.z, w{{i}}_1.z, w{{i}}_2.z, w{{i}}_3.z);
            b_tile[to + {{3 * NQ}}u] = vec4<f32>(w{{i}}_0.w, w{{i}}_1.w, w{{i}}_2.w, w{{i}}_3.w);
        }
#end
#else
#for i in 0..B_SLOTS
        if slot{{i}} < {{BK * NQ}}u {
            b_tile[slot{{i}}] = b{{i}};
        }
#end
#end
        workgroupBarrier();

#import "shared/tile_product.wgsl"
    }

#for i in 0..TM
    let row{{i}} = first_row + thread_y + {{i * THREADS_Y}}u;
#for j in 0..TN/4
    if row{{i}} < params.rows && first_column + thread_x + {{j * THREADS_X}}u < params.column_quads {
        m[m_start + row{{i}} * params.column_quads + first_column + thread_x + {{j * THREADS_X}}u] = sum{{i}}_{{j}};
    }
#end
#end
}
