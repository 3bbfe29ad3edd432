        // BK of the depth: a_tile is rows × quads of the depth, b_tile depth × quads of the columns.
        for (var k = 0u; k < {{KQ}}u; k += 1u) {
#for e in 0..4
#for j in 0..TN/4
            let b{{e}}_{{j}} = b_tile[k * {{4 * NQ}}u + {{e * NQ + j * THREADS_X}}u + thread_x];
#end
#end
#for i in 0..TM
            let row{{i}} = a_tile[(thread_y + {{i * THREADS_Y}}u) * {{ROW}}u + k];
#for j in 0..TN/4
            sum{{i}}_{{j}} = fma(vec4<f32>(row{{i}}.x), b0_{{j}}, sum{{i}}_{{j}});
            sum{{i}}_{{j}} = fma(vec4<f32>(row{{i}}.y), b1_{{j}}, sum{{i}}_{{j}});
            sum{{i}}_{{j}} = fma(vec4<f32>(row{{i}}.z), b2_{{j}}, sum{{i}}_{{j}});
            sum{{i}}_{{j}} = fma(vec4<f32>(row{{i}}.w), b3_{{j}}, sum{{i}}_{{j}});
#end
#end
        }
