// One dimension of Winograd's F(M, 3): M outputs of a correlation with three taps from M + 2 products (Lavin, Gray:
// Fast Algorithms for Convolutional Neural Networks, CVPR 2016). The points are 0, ±1/√2, ±√2, ∞ for M = 4, which lose
// half as many digits as integer points, and 0, ±1, ∞ for M = 2:
//
//     y = Aᵀ ((G g) ⊙ (Bᵀ d))
//
// The same transformed weights serve the input gradient, whose taps are reversed: (G reversed g)ᵢ = sᵢ (G g)ₚᵢ, because
// the points come in pairs x, 1/x. With FLIPPED, line_points scales by sᵢ, and the caller writes entry i to slot pᵢ: p
// = 5 3 4 1 2 0, s = 1 -2 -2 -½ -½ 1 for M = 4, and p = 3 1 2 0, s = 1 for M = 2.
#let T = M + 2
const ROOT: f32 = 1.4142135623730951;
const HALF_ROOT: f32 = 0.7071067811865476;

struct Line {
#for i in 0..T
    p{{i}}: vec4<f32>,
#end
}
