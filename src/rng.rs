//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2,
//! 3", SC 2011).
//!
//! A number is a pure function of seed, purpose, epoch, sample and index. There is no state from one draw to the next,
//! so a run can be resumed, replayed, split over threads or moved to another engine and still gets the same numbers.
//! Everything is 32-bit integer arithmetic (the high half of a product is computed from 16-bit halves), so that the
//! same function can be written in WGSL, which has no 64-bit integers.
//!
//! ```
//! use fairtat::rng::{Purpose, Stream};
//! let noise = Stream::new(7, Purpose::AttackStart, 3, 41);
//! let value = noise.symmetric(100);
//! assert!((-1.0..1.0).contains(&value));
//! assert_eq!(value, Stream::new(7, Purpose::AttackStart, 3, 41).symmetric(100));
//! ```

/// What a random number is used for. Part of the counter, so that no two uses share a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// Parameter initialisation; `sample` is the index of the parameter tensor.
    Initialise = 1,
    /// The order of the training images of an epoch.
    Shuffle = 2,
    /// Crop offset and flip of a training image.
    Augment = 3,
    /// The start of a training attack inside its ball.
    AttackStart = 4,
    /// The target class of a training image.
    Target = 5,
    /// The choice of the validation split.
    Split = 6,
    /// Drawing images of the data set `shapes`.
    Draw = 7,
    /// The start of an evaluation attack; `epoch` is the restart.
    EvaluationStart = 8,
    /// Random data for tests and benchmarks.
    Test = 9,
    /// A direction in the space of images, for a decision map.
    Direction = 10,
    /// Noise that each step of a training attack adds; the index continues over the steps.
    AttackNoise = 11,
    /// Everything random in an evaluation attack that runs on the host; `epoch` numbers attack, target and restart.
    Evaluation = 12,
    /// A common corruption of a test image; `epoch` combines corruption, severity and part.
    Corruption = 13,
    /// Resampling of the bootstrap and of permutation tests; `sample` is the number of the resample.
    Resample = 14,
}

/// The high 32 bits of `a × b`, from 16-bit halves as in WGSL.
#[inline]
const fn mul_high(a: u32, b: u32) -> u32 {
    let (a_low, a_high) = (a & 0xffff, a >> 16);
    let (b_low, b_high) = (b & 0xffff, b >> 16);
    let middle = a_high * b_low + ((a_low * b_low) >> 16);
    let carry = (a_low * b_high).wrapping_add(middle & 0xffff);
    a_high * b_high + (middle >> 16) + (carry >> 16)
}

/// Philox4x32 with ten rounds: four random words from a counter of four words and a key of two.
#[inline]
pub const fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const M0: u32 = 0xD251_1F53;
    const M1: u32 = 0xCD9E_8D57;
    const W0: u32 = 0x9E37_79B9;
    const W1: u32 = 0xBB67_AE85;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    let mut round = 0;
    while round < 10 {
        let (high0, low0) = (mul_high(M0, c0), M0.wrapping_mul(c0));
        let (high1, low1) = (mul_high(M1, c2), M1.wrapping_mul(c2));
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
        round += 1;
    }
    [c0, c1, c2, c3]
}

/// The random numbers of one sample for one purpose in one epoch, addressed by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    sample: u32,
    epoch: u32,
    purpose: u32,
}

impl Stream {
    /// The stream keyed by `seed`, with the counter words `[index / 4, sample, epoch, purpose]`.
    pub const fn new(seed: u64, purpose: Purpose, epoch: u32, sample: u32) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], sample, epoch, purpose: purpose as u32 }
    }

    /// The four words with the indices `4·block` to `4·block + 3`.
    #[inline]
    pub const fn block(&self, block: u32) -> [u32; 4] {
        philox4x32_10([block, self.sample, self.epoch, self.purpose], self.key)
    }

    /// The word with the given index.
    #[inline]
    pub const fn word(&self, index: u32) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻²⁴, exact in `f32`.
    #[inline]
    pub fn unit(&self, index: u32) -> f32 {
        unit(self.word(index))
    }

    /// Uniform in `[-1, 1)`.
    #[inline]
    pub fn symmetric(&self, index: u32) -> f32 {
        symmetric(self.word(index))
    }

    /// Fills `out` with uniform numbers in `[-1, 1)`, the same as [`Self::symmetric`] at `0..out.len()`.
    pub fn fill_symmetric(&self, out: &mut [f32]) {
        for (block, chunk) in out.chunks_mut(4).enumerate() {
            let words = self.block(block as u32);
            for (value, word) in chunk.iter_mut().zip(words) {
                *value = symmetric(word);
            }
        }
    }

    /// Standard normal (Box and Muller), from the two words `2·index` and `2·index + 1`.
    pub fn normal(&self, index: u32) -> f32 {
        let words = self.block(index / 2);
        let pair = (index % 2 * 2) as usize;
        // 1 - u is in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - unit(words[pair])).ln()).sqrt();
        radius * (std::f32::consts::TAU * unit(words[pair + 1])).cos()
    }

    /// Fills `out` with a point that is uniform in the Euclidean ball of `radius` around zero: in `d` dimensions
    /// `radius · u^(1/d) · n / ‖n‖`, with `n` the values of [`Self::normal`] at `0..d` and `1 - u` the value of
    /// [`Self::unit`] at `2d`.
    pub fn fill_ball(&self, radius: f32, out: &mut [f32]) {
        let count = out.len() as u32;
        out.iter_mut().enumerate().for_each(|(i, value)| *value = self.normal(i as u32));
        let length = out.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-30);
        let share = ((1.0 - self.unit(count.wrapping_mul(2))).ln() / count as f32).exp();
        let factor = radius * share / length as f32;
        out.iter_mut().for_each(|value| *value *= factor);
    }

    /// Reads the stream sequentially from its start. For code that runs only on the CPU.
    pub const fn sequence(self) -> Sequence {
        Sequence { stream: self, next: 0 }
    }
}

#[inline]
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[inline]
fn symmetric(word: u32) -> f32 {
    unit(word).mul_add(2.0, -1.0)
}

/// A [`Stream`] that is read sequentially.
#[derive(Debug, Clone)]
pub struct Sequence {
    stream: Stream,
    next: u32,
}

impl Sequence {
    /// The next word.
    pub fn word(&mut self) -> u32 {
        let word = self.stream.word(self.next);
        self.next = self.next.wrapping_add(1);
        word
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        unit(self.word())
    }

    /// Uniform in `[low, high)`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..bound`, without bias (Lemire's rejection). 0 if `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.word()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.unit()).cos()
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of the authors' Random123 library, the lines `philox4x32 10`.
    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox4x32_10([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn high_half_of_a_product_is_exact() {
        let mut s = Stream::new(1, Purpose::Test, 0, 0).sequence();
        for _ in 0..10_000 {
            let (a, b) = (s.word(), s.word());
            assert_eq!(mul_high(a, b), ((u64::from(a) * u64::from(b)) >> 32) as u32);
        }
        assert_eq!(mul_high(u32::MAX, u32::MAX), u32::MAX - 1);
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let n = 200_000;
        let s = Stream::new(3, Purpose::Test, 1, 2);
        let mut filled = vec![0.0; n];
        s.fill_symmetric(&mut filled);
        assert!((0..n as u32).step_by(997).all(|i| filled[i as usize] == s.symmetric(i)));
        let mean = |v: &[f64], p: i32| v.iter().map(|x| x.powi(p)).sum::<f64>() / v.len() as f64;
        let uniform: Vec<f64> = filled.iter().map(|v| f64::from(*v)).collect();
        // Five standard errors of each moment's mean.
        assert!(mean(&uniform, 1).abs() < 5.0 * (1.0f64 / 3.0 / n as f64).sqrt());
        assert!((mean(&uniform, 2) - 1.0 / 3.0).abs() < 5.0 * (4.0f64 / 45.0 / n as f64).sqrt());
        let normal: Vec<f64> = (0..n as u32).map(|i| f64::from(s.normal(i))).collect();
        assert!(mean(&normal, 1).abs() < 5.0 / (n as f64).sqrt());
        assert!((mean(&normal, 2) - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
        assert!((mean(&normal, 4) - 3.0).abs() < 5.0 * (96.0 / n as f64).sqrt());
    }

    /// In `d` dimensions the distance from the centre is at most `r` with probability `(r / radius)^d`: its mean is
    /// `d / (d + 1)` of the radius. Signs are even, and no axis is longer than another.
    #[test]
    fn points_are_uniform_in_the_ball() {
        let (n, radius) = (4000u32, 0.5);
        for d in [1usize, 2, 3, 7, 48] {
            let (mut mean, mut inner, mut squares, mut signs) = (0.0, 0u32, vec![0.0; d], 0i64);
            let mut point = vec![0.0; d];
            for sample in 0..n {
                Stream::new(8, Purpose::AttackStart, d as u32, sample).fill_ball(radius, &mut point);
                let length = point.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() / f64::from(radius);
                assert!(length <= 1.0 + 1e-6, "{length}");
                mean += length / f64::from(n);
                inner += u32::from(length < 0.5f64.powf(1.0 / d as f64));
                squares
                    .iter_mut()
                    .zip(&point)
                    .for_each(|(sum, v)| *sum += f64::from(v / radius).powi(2) / f64::from(n));
                signs += point.iter().map(|v| v.signum() as i64).sum::<i64>();
            }
            let (d, n) = (d as f64, f64::from(n));
            let variance = d / (d + 2.0) - (d / (d + 1.0)).powi(2);
            assert!((mean - d / (d + 1.0)).abs() < 5.0 * (variance / n).sqrt(), "{d} dimensions: mean {mean}");
            // Half of the points are in the ball of half the volume.
            assert!((f64::from(inner) - n / 2.0).abs() < 5.0 * (n / 4.0).sqrt(), "{d} dimensions: {inner} inside");
            assert!(squares.iter().all(|s| (s * (d + 2.0) - 1.0).abs() < 5.0 * (2.0 / n).sqrt()), "{squares:?}");
            assert!((signs as f64).abs() < 5.0 * (n * d).sqrt(), "{d} dimensions: {signs}");
        }
    }

    #[test]
    fn below_is_unbiased_and_shuffle_is_a_permutation() {
        let mut s = Stream::new(5, Purpose::Test, 0, 0).sequence();
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[s.below(7) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|c| (f64::from(*c) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi2 < 27.9, "chi-squared {chi2} with 6 degrees of freedom, p < 1e-4");
        let mut items: Vec<u32> = (0..1000).collect();
        s.shuffle(&mut items);
        assert_ne!(items, (0..1000).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = Stream::new(1, Purpose::Target, 2, 3);
        for other in [
            Stream::new(2, Purpose::Target, 2, 3),
            Stream::new(1 << 32 | 1, Purpose::Target, 2, 3),
            Stream::new(1, Purpose::AttackStart, 2, 3),
            Stream::new(1, Purpose::Target, 3, 3),
            Stream::new(1, Purpose::Target, 2, 4),
        ] {
            assert_ne!(base.block(0), other.block(0));
        }
    }
}
