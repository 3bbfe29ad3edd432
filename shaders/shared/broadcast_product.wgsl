        // One quad of the depth. Each of eight lanes of a subgroup has loaded it for every eighth row, and for each of
        // its own columns. The order of the sums is that of tile_product.wgsl.
#for i in 0..BM/8
#for s in 0..8
        let row{{8 * i + s}} = subgroupBroadcast(a{{i}}, {{s}}u);
#for j in 0..TN/4
        sum{{8 * i + s}}_{{j}} = fma(vec4<f32>(row{{8 * i + s}}.x), b0_{{j}}, sum{{8 * i + s}}_{{j}});
        sum{{8 * i + s}}_{{j}} = fma(vec4<f32>(row{{8 * i + s}}.y), b1_{{j}}, sum{{8 * i + s}}_{{j}});
        sum{{8 * i + s}}_{{j}} = fma(vec4<f32>(row{{8 * i + s}}.z), b2_{{j}}, sum{{8 * i + s}}_{{j}});
        sum{{8 * i + s}}_{{j}} = fma(vec4<f32>(row{{8 * i + s}}.w), b3_{{j}}, sum{{8 * i + s}}_{{j}});
#end
#end
#end
