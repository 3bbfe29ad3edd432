use bytemuck::Zeroable;

use super::*;
use crate::engine::loss::GradientScale;
use crate::engine::wgsl::harness::{Harness, pad, random, relative_error};
use crate::engine::wgsl::kernels::call::{Call, ImageInfo};
use crate::engine::{LossTerm, Objective, Reduction, Weights, loss as twin};

const CLASSES: [usize; 5] = [2, 3, 10, 100, 1000];

fn labels(n: usize, classes: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 7 % classes) as u32).collect()
}

/// Logits of seven images: small, ordinary, one class nearly certain, tied, and huge.
fn logits(classes: usize, sample: u32) -> Vec<f32> {
    let mut values = random(7 * classes, sample);
    for (i, row) in values.chunks_mut(classes).enumerate() {
        let scale = [0.1, 2.0, 2.0, 8.0, 1.0, 1.0, 1e30][i];
        row.iter_mut().for_each(|z| *z *= scale);
        match i {
            2 => row[classes / 2] += 30.0,
            4 => row.iter_mut().for_each(|z| *z = z.round()),
            5 => row.fill(1.5),
            _ => {}
        }
    }
    values
}

/// Largest difference of two values.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert!(a.len() == b.len() && a.iter().chain(b).all(|v| v.is_finite()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A grid with rows of three workgroups, so that some are beyond the last image.
fn folded(dispatch: Dispatch) -> Dispatch {
    let grid = [3, dispatch.grid[0] / 3 + 1, 1];
    Dispatch { grid, ..dispatch }
}

/// Gradients of an objective for all rows of `z`, in two ranges, and the flag.
fn gradients(
    h: &mut Harness,
    what: &Objective,
    z: &[f32],
    clean: &[f32],
    labels: &[u32],
    classes: usize,
) -> (Vec<f32>, u32) {
    assert_eq!(z.len(), labels.len() * classes);
    scaled_gradients(h, what, GradientScale::True, z, clean, labels)
}

/// The same with another scale.
pub(super) fn scaled_gradients(
    h: &mut Harness,
    what: &Objective,
    scale: GradientScale,
    z: &[f32],
    clean: &[f32],
    labels: &[u32],
) -> (Vec<f32>, u32) {
    let classes = z.len() / labels.len();
    let mut info = ImageInfo::for_labels(labels);
    ImageInfo::aim(&mut info, what);
    let call = h.input(&[Call::zeroed().with_objective(what).with_scale(scale)]);
    let (info, flag) = (h.input(&info), h.input(&[0u32]));
    let split = labels.len() / 3;
    let mut found = Vec::new();
    for (first, images) in [(0, split), (split, labels.len() - split)].into_iter().filter(|(_, n)| *n > 0) {
        let range = first * classes..(first + images) * classes;
        let [z, clean] = [z, clean].map(|values| h.input(&pad(&values[range.clone()], classes)));
        let out = h.output(images * padded(classes));
        h.run(&[folded(objective(images, first, classes, call, info, z, clean, out, flag))]);
        found.extend(h.read::<f32>(out));
    }
    (found, h.read::<u32>(flag)[0])
}

pub(super) fn objectives(labels: &[u32], classes: usize) -> Vec<Objective> {
    // Every third image has its own class as a target: it moves away from that.
    let target = |(i, label): (usize, &u32)| (label + u32::from(i % 3 != 2)) % classes as u32;
    let targets = labels.iter().enumerate().map(target).collect();
    let mut all = vec![Objective::CrossEntropy, Objective::Targeted(targets), Objective::KlToClean];
    if classes > 2 {
        all.push(Objective::Dlr);
    }
    all
}

/// Measured difference: 8.4e-7, for gradients of up to 1.
#[test]
fn objectives_are_those_of_the_twin() {
    let mut farthest = 0.0f32;
    for mut h in Harness::both() {
        for classes in CLASSES {
            let labels = labels(7, classes);
            let (z, clean) = (logits(classes, 1), logits(classes, 2));
            let mut all = objectives(&labels, classes);
            // Objectives of gradients outside of searches, towards another class than the label.
            let others: Vec<u32> = labels.iter().map(|label| (label + 1) % classes as u32).collect();
            if classes > 3 {
                all.push(Objective::DlrTowards(others.clone()));
            }
            all.push(Objective::MarginTo(others));
            for what in all {
                let (found, flag) = gradients(&mut h, &what, &z, &clean, &labels, classes);
                let (_, expected) = twin::objective(&what, &z, &labels, classes, Some(&clean)).unwrap();
                let expected = pad(&expected, classes);
                // The gradient of DLR is unbounded as logits become equal.
                let scale = |row: &[f32]| row.iter().fold(1.0f32, |most, g| most.max(g.abs()));
                let rows = found.chunks(padded(classes)).zip(expected.chunks(padded(classes)));
                for (i, (found, expected)) in rows.enumerate() {
                    let error = distance(found, expected) / scale(expected);
                    assert!(error <= 3e-6, "{what:?}, {classes} classes, image {i}: {error:e}");
                    farthest = farthest.max(error);
                    assert!(found[classes..].iter().all(|g| *g == 0.0));
                }
                assert_eq!(flag, 0, "{what:?}");
            }
        }
    }
    println!("objectives: {farthest:.2e} apart");
}

/// Away from kinks: the ranks that DLR compares do not change.
#[test]
fn objective_gradients_match_finite_differences() {
    let classes = 5;
    let labels = labels(7, classes);
    let mut z = random(7 * classes, 4);
    for row in z.chunks_mut(classes) {
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|a, b| row[*a].total_cmp(&row[*b]));
        order.iter().enumerate().for_each(|(rank, j)| row[*j] += 0.5 * rank as f32);
    }
    let clean = random(7 * classes, 5);
    for mut h in Harness::both() {
        for what in objectives(&labels, classes) {
            let (found, _) = gradients(&mut h, &what, &z, &clean, &labels, classes);
            for j in 0..classes {
                let at = |step: f32| {
                    let mut moved = z.clone();
                    moved.iter_mut().skip(j).step_by(classes).for_each(|z| *z += step);
                    twin::objective(&what, &moved, &labels, classes, Some(&clean)).unwrap().0
                };
                for (i, (up, down)) in at(1e-2).iter().zip(at(-1e-2)).enumerate() {
                    let (numeric, found) = ((up - down) / 2e-2, found[i * padded(classes) + j]);
                    assert!((numeric - found).abs() < 2e-3, "{what:?}, image {i}, {j}: {numeric} {found}");
                }
            }
        }
    }
}

/// A single step (FGSM) on a linear network increases the objective.
#[test]
fn a_step_along_the_gradient_raises_the_objective() {
    use crate::data::ImageShape;
    use crate::engine::wgsl::kernels::attack::{gradient_flags_bytes, pgd_step};
    let (classes, shape, n) = (10, ImageShape::new(4, 2, 3), 7);
    let (weights, images) = (random(shape.len() * classes, 1), random(n * shape.len(), 2));
    let images: Vec<f32> = images.iter().map(|v| 0.5 + 0.1 * v.clamp(-3.0, 3.0)).collect();
    let forward = |images: &[f32]| -> Vec<f32> {
        let logit = |x: &[f32], j: usize| x.iter().enumerate().map(|(i, x)| x * weights[i * classes + j]).sum();
        images.chunks(shape.len()).flat_map(|x| (0..classes).map(move |j| logit(x, j))).collect()
    };
    let (z, labels) = (forward(&images), labels(n, classes));
    let clean: Vec<f32> = z.iter().zip(random(n * classes, 3)).map(|(z, r)| z + r).collect();
    for mut h in Harness::both() {
        for what in objectives(&labels, classes) {
            let (dz, _) = gradients(&mut h, &what, &z, &clean, &labels, classes);
            let dx: Vec<f32> = dz
                .chunks(padded(classes))
                .flat_map(|dz| {
                    weights.chunks(classes).map(move |w| w.iter().zip(dz).map(|(w, dz)| w * dz).sum::<f32>())
                })
                .collect();
            for norm in 0..2 {
                let mut info = ImageInfo::for_labels(&labels);
                info.iter_mut().for_each(|image| (image.epsilon, image.step_size) = (0.003, 0.003));
                let call = h.input(&[Call { norm, ..Call::zeroed() }]);
                let (info, x, g) = (h.input(&info), h.input(&images), h.input(&dx));
                let (delta, out) = (h.input(&vec![0.0f32; images.len()]), h.output(images.len()));
                let flags = h.input(&vec![0u8; gradient_flags_bytes(n) as usize]);
                let stopped = h.input(&[0u32]);
                h.run(&[pgd_step(n, 0, shape, call, info, x, g, delta, out, stopped, flags)]);
                let after = forward(&h.read::<f32>(out));
                let value = |z: &[f32]| twin::objective(&what, z, &labels, classes, Some(&clean)).unwrap().0;
                for (i, (before, after)) in value(&z).iter().zip(value(&after)).enumerate() {
                    assert!(after > *before, "{what:?}, norm {norm}, image {i}: {before} {after}");
                }
            }
        }
    }
}

const BAD: [f32; 4] = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

#[test]
fn logits_that_are_not_finite_are_flagged() {
    for mut h in Harness::both() {
        for classes in [2, 10, 1000] {
            let labels = labels(3, classes);
            let fine = random(3 * classes, 1);
            for (bad, at) in BAD.into_iter().zip([0, classes - 1, 2 * classes, 3 * classes - 1]) {
                let mut z = fine.clone();
                z[at] = bad;
                for what in objectives(&labels, classes) {
                    let flag =
                        |h: &mut Harness, z: &[f32], clean: &[f32]| gradients(h, &what, z, clean, &labels, classes).1;
                    assert_eq!(flag(&mut h, &z, &fine), 1, "{bad} at {at}, {what:?}");
                    // Only KL reads the clean logits.
                    assert_eq!(flag(&mut h, &fine, &z), u32::from(what == Objective::KlToClean), "{bad} at {at}");
                }
                let loss = two_views(3);
                let found = Outer::run(&mut h, &loss, &[fine.clone(), z], &labels, classes);
                let row = |i: usize| (found.predictions(0)[i] == u32::MAX, found.predictions(1)[i] == u32::MAX);
                let expected = (0..3).map(|i| (false, i == at / classes)).collect::<Vec<_>>();
                assert_eq!((0..3).map(row).collect::<Vec<_>>(), expected, "{bad} at {at}");
            }
            let huge = [f32::MAX, -f32::MAX, 1e38].repeat(classes);
            let found = Outer::run(&mut h, &LossSpec::cross_entropy(View::Clean), &[huge], &labels, classes);
            assert!(found.predictions(0).iter().all(|p| *p != u32::MAX));
        }
    }
}

/// The results of `outer_loss`.
struct Outer {
    results: Vec<u32>,
    /// Words per image.
    words: usize,
    gradients: Vec<Vec<f32>>,
}

impl Outer {
    /// In two ranges of images.
    fn run(h: &mut Harness, loss: &LossSpec, z: &[Vec<f32>], labels: &[u32], classes: usize) -> Self {
        let (n, views) = (labels.len(), z.len());
        let words = result_words(views);
        let (info, results) = (h.input(&ImageInfo::for_labels(labels)), h.input(&vec![77u32; words * n]));
        let terms = h.input(&encode_terms(loss, &loss.views(), labels));
        let mut gradients = vec![Vec::new(); views];
        let split = n / 3;
        for (first, images) in [(0, split), (split, n - split)].into_iter().filter(|(_, n)| *n > 0) {
            let range = first * classes..(first + images) * classes;
            let (stride, size) = (view_stride(images, classes), images * padded(classes));
            let mut all = Vec::new();
            for z in z {
                all.extend(pad(&z[range.clone()], classes));
                all.resize(all.len().next_multiple_of(stride), f32::NAN);
            }
            let (logits, dlogits) = (h.input(&all), h.output(views * stride));
            h.run(&[folded(outer_loss(images, first, classes, views, info, terms, logits, dlogits, results))]);
            let found = h.read::<f32>(dlogits);
            gradients.iter_mut().zip(found.chunks(stride)).for_each(|(all, part)| all.extend(&part[..size]));
        }
        Self { results: h.read(results), words, gradients }
    }

    fn losses(&self) -> Vec<f32> {
        self.results.iter().step_by(self.words).map(|bits| f32::from_bits(*bits)).collect()
    }

    fn predictions(&self, view: usize) -> Vec<u32> {
        self.results.iter().skip(1 + view).step_by(self.words).copied().collect()
    }
}

fn term(term: Term, n: usize, sample: u32) -> LossTerm {
    let weights = match sample % 2 {
        0 => return LossTerm::mean(sample as f32 + 0.5, term),
        _ => Weights::PerImage((0..n).map(|i| ((i + sample as usize) % 4) as f32 * 0.7).collect()),
    };
    let reduction = if sample % 4 == 1 { Reduction::Sum } else { Reduction::WeightedMean };
    LossTerm { term, factor: 0.9, weights, reduction }
}

/// Every term on one view; a view's divergence from itself is zero, with its gradient.
fn one_view(n: usize) -> LossSpec {
    let view = View::Adversarial;
    let terms =
        [Term::CrossEntropy(view), Term::KlToUniform(view), Term::Kl { from: view, to: view }, Term::Margin(view)];
    LossSpec::of(terms.into_iter().zip(0..).map(|(what, sample)| term(what, n, sample)).collect())
}

/// Every term that two views allow.
fn two_views(n: usize) -> LossSpec {
    let (clean, adversarial) = (View::Clean, View::Adversarial);
    let terms = [
        Term::CrossEntropy(clean),
        Term::Kl { from: clean, to: adversarial },
        Term::Kl { from: adversarial, to: clean },
        Term::KlToUniform(adversarial),
        Term::CrossEntropy(adversarial),
    ];
    LossSpec::of(terms.into_iter().zip(0..).map(|(what, sample)| term(what, n, sample)).collect())
}

/// Every view, with the terms of Balance Adversarial Training and others.
fn four_views(n: usize) -> LossSpec {
    let terms = [
        Term::CrossEntropy(View::LastClean),
        Term::Kl { from: View::Clean, to: View::FirstAdversarial },
        Term::KlToUniform(View::LastClean),
        Term::Kl { from: View::FirstAdversarial, to: View::Adversarial },
        Term::Margin(View::FirstAdversarial),
        Term::CrossEntropy(View::Adversarial),
    ];
    LossSpec::of(terms.into_iter().zip(0..).map(|(what, sample)| term(what, n, sample)).collect())
}

fn with(what: Term, factor: f32, n: usize) -> LossSpec {
    LossSpec::of(vec![LossTerm {
        term: what,
        factor: 1.0,
        weights: Weights::PerImage(vec![factor; n]),
        reduction: Reduction::Sum,
    }])
}

/// The formulas in `f64`: value of a term for one image, and its gradient for each view.
fn exact(term: Term, views: &[View], rows: &[&[f32]], label: u32) -> (f64, Vec<Vec<f64>>) {
    let log_p = |view: usize| -> Vec<f64> {
        let largest = rows[view].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted: Vec<f64> = rows[view].iter().map(|z| f64::from(*z) - f64::from(largest)).collect();
        let sum: f64 = shifted.iter().map(|z| z.exp()).sum();
        shifted.iter().map(|z| z - sum.ln()).collect()
    };
    let at = |view: View| views.iter().position(|v| *v == view).unwrap();
    let mut gradients: Vec<Vec<f64>> = rows.iter().map(|z| vec![0.0; z.len()]).collect();
    let value = match term {
        Term::CrossEntropy(view) => {
            let (v, y) = (at(view), label as usize);
            gradients[v] = log_p(v).iter().map(|l| l.exp()).collect();
            gradients[v][y] -= 1.0;
            -log_p(v)[y]
        }
        Term::Margin(view) => {
            let (v, y) = (at(view), label as usize);
            let largest = |best: usize, j: usize| if rows[v][j] > rows[v][best] { j } else { best };
            let other = (0..rows[v].len()).filter(|j| *j != y).reduce(largest).unwrap();
            (gradients[v][other], gradients[v][y]) = (1.0, -1.0);
            f64::from(rows[v][other]) - f64::from(rows[v][y])
        }
        Term::KlToUniform(view) => {
            let (v, log_p) = (at(view), log_p(at(view)));
            let mean: f64 = log_p.iter().map(|l| l.exp() * l).sum();
            gradients[v] = log_p.iter().map(|l| l.exp() * (l - mean)).collect();
            (log_p.len() as f64).ln() + mean
        }
        Term::Kl { from, to } => {
            let (log_a, log_b) = (log_p(at(from)), log_p(at(to)));
            let pairs = || log_a.iter().zip(&log_b);
            let kl: f64 = pairs().map(|(a, b)| a.exp() * (a - b)).sum();
            for (j, (a, b)) in pairs().enumerate() {
                gradients[at(from)][j] += a.exp() * (a - b - kl);
                gradients[at(to)][j] += b.exp() - a.exp();
            }
            kl
        }
    };
    (value, gradients)
}

/// These losses, and single terms.
fn losses(n: usize) -> Vec<LossSpec> {
    let mut all = vec![one_view(n), two_views(n), four_views(n)];
    all.extend(one_view(n).terms.into_iter().map(|term| LossSpec::of(vec![term])));
    let (clean, adversarial) = (View::Clean, View::Adversarial);
    all.extend([(clean, adversarial), (adversarial, clean)].map(|(from, to)| with(Term::Kl { from, to }, 1.0, n)));
    all
}

/// Value and gradients of a loss for image `i`: by [`exact`], and by engine/loss.rs.
fn expected(loss: &LossSpec, rows: &[&[f32]], labels: &[u32], i: usize) -> [(f64, Vec<Vec<f64>>); 2] {
    let (views, stride) = (loss.views(), padded(rows[0].len()));
    let mut both = [0; 2].map(|_| (0.0, vec![vec![0.0; stride]; rows.len()]));
    let owned: Vec<Vec<f32>> = rows.iter().map(|row| row.to_vec()).collect();
    for loss_term in &loss.terms {
        let (term, weight) = (&loss_term.term, loss_term.image_weights(labels)[i]);
        let (value, gradients) = exact(*term, &views, rows, labels[i]);
        let (value_f32, gradients_f32) =
            twin::outer(&with(*term, weight, 1), &views, &owned, &labels[i..=i], rows[0].len());
        both[0].0 += f64::from(weight) * value;
        both[1].0 += value_f32;
        for view in 0..rows.len() {
            for j in 0..rows[0].len() {
                both[0].1[view][j] += f64::from(weight) * gradients[view][j];
                both[1].1[view][j] += f64::from(gradients_f32[view][j]);
            }
        }
    }
    both
}

/// Largest difference of two rows, relative to the largest value where that is above one.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert!(found.len() == expected.len() && found.iter().all(|v| v.is_finite()));
    let most = expected.iter().fold(1.0f64, |most, g| most.max(g.abs()));
    let errors = found.iter().zip(expected).map(|(found, expected)| (f64::from(*found) - expected).abs() / most);
    errors.fold(0.0, f64::max)
}

/// Measured differences from `f64`: 1.6e-6 for losses and 1.6e-7 for gradients. From engine/loss.rs: 7.9e-5 and 1.7e-6,
/// which is that module's own error, because it adds 1000 classes sequentially.
#[test]
fn outer_losses_are_those_of_the_twins() {
    const LIMITS: [[f64; 2]; 2] = [[5e-6, 6e-7], [3e-4, 6e-6]];
    let mut farthest = [[0.0f64; 2]; 2];
    for mut h in Harness::both() {
        for classes in CLASSES {
            let (n, stride) = (7, padded(classes));
            let labels = labels(n, classes);
            for loss in losses(n) {
                let z: Vec<Vec<f32>> = (1..).map(|v| logits(classes, v)).take(loss.views().len()).collect();
                let found = Outer::run(&mut h, &loss, &z, &labels, classes);
                for i in 0..n {
                    let rows: Vec<&[f32]> = z.iter().map(|z| &z[i * classes..][..classes]).collect();
                    for (twin, (value, gradients)) in expected(&loss, &rows, &labels, i).into_iter().enumerate() {
                        let mut errors = [error(&found.losses()[i..=i], &[value]), 0.0];
                        for (found, expected) in found.gradients.iter().zip(&gradients) {
                            let found = &found[i * stride..][..stride];
                            errors[1] = errors[1].max(error(found, expected));
                            assert!(found[classes..].iter().all(|g| *g == 0.0));
                        }
                        for kind in 0..2 {
                            let (error, limit) = (errors[kind], LIMITS[twin][kind]);
                            farthest[twin][kind] = farthest[twin][kind].max(error);
                            let what = ["loss", "gradient"][kind];
                            assert!(error <= limit, "{what}, {loss:?}, {classes} classes, image {i}: {error:e}");
                        }
                    }
                }
                for (view, z) in z.iter().enumerate() {
                    assert_eq!(found.predictions(view), z.chunks(classes).map(twin::argmax).collect::<Vec<_>>());
                }
            }
        }
    }
    println!("losses and gradients: {farthest:?} apart");
}

/// Every logit of every view shifted up and down, as the images of one batch.
#[test]
fn outer_gradients_match_finite_differences_of_the_values() {
    const STEP: f32 = 1e-2;
    let classes = 5;
    let base = [random(classes, 1), random(classes, 2)];
    for mut h in Harness::both() {
        for (views, terms) in [(1, one_view(1).terms), (2, two_views(1).terms)] {
            for LossTerm { term, .. } in terms {
                let mut rows = vec![base[..views].to_vec()];
                for view in 0..views {
                    for j in 0..classes {
                        for step in [STEP, -STEP] {
                            let mut moved = base[..views].to_vec();
                            moved[view][j] += step;
                            rows.push(moved);
                        }
                    }
                }
                let n = rows.len();
                let z: Vec<Vec<f32>> =
                    (0..views).map(|v| rows.iter().flat_map(|row| row[v].clone()).collect()).collect();
                // A term of weight zero on each view keeps their order.
                let mut loss = with(Term::CrossEntropy(View::Clean), 0.0, n);
                loss.terms.extend(with(Term::CrossEntropy(View::Adversarial), 0.0, n).terms);
                loss.terms.truncate(views);
                if views == 1 {
                    loss = with(Term::CrossEntropy(View::Adversarial), 0.0, n);
                }
                loss.terms.extend(with(term, 1.0, n).terms);
                let found = Outer::run(&mut h, &loss, &z, &vec![3; n], classes);
                let values = found.losses();
                for view in 0..views {
                    for j in 0..classes {
                        let at = 1 + 2 * (view * classes + j);
                        let numeric = (values[at] - values[at + 1]) / (2.0 * STEP);
                        let gradient = found.gradients[view][j];
                        assert!((numeric - gradient).abs() < 2e-4, "{term:?} {view} {j}: {numeric} {gradient}");
                    }
                }
            }
        }
    }
}

/// If one prediction is nearly certain, KL and the log ratio of its likeliest class agree in all digits of `f32`.
/// Measured difference from the exact gradient: 2.5e-7.
#[test]
fn kl_near_certainty_keeps_its_gradient() {
    let (classes, n) = (3, 4);
    let mut rows = [Vec::new(), Vec::new()];
    for i in 0..n {
        rows[0].extend([12.0 + 2.0 * i as f32, 0.0, -1.0]);
        rows[1].extend([0.5, 1.0, -0.25]);
    }
    let term = Term::Kl { from: View::Clean, to: View::Adversarial };
    let loss = with(term, 1.0, n);
    let mut farthest = 0.0f64;
    for mut h in Harness::both() {
        let found = Outer::run(&mut h, &loss, &rows, &vec![0; n], classes);
        for i in 0..n {
            let [a, b] = rows.each_ref().map(|z| &z[i * classes..][..classes]);
            let (_, exact) = exact(term, &loss.views(), &[a, b], 0);
            let exact: Vec<f32> = exact[0].iter().map(|g| *g as f32).collect();
            let error = relative_error(&found.gradients[0][4 * i..][..3], &exact);
            farthest = farthest.max(error);
            assert!(error <= 1e-6, "image {i}: {error:e}");
        }
    }
    println!("KL near certainty: {farthest:.2e} off");
}

#[test]
fn the_first_of_equal_logits_is_predicted() {
    for mut h in Harness::both() {
        for (row, first) in [
            ([1.0, 3.0, 3.0], 1),
            ([0.0; 3], 0),
            ([-0.0, 0.0, -1.0], 0),
            ([-2.0, -1.0, -1.0], 1),
            ([-1e30, -2e30, -1e30], 0),
        ] {
            let found = Outer::run(&mut h, &LossSpec::cross_entropy(View::Clean), &[row.to_vec()], &[0], 3);
            assert_eq!(found.predictions(0), [first], "{row:?}");
        }
        // Across lanes, and in one lane's share of the classes.
        let mut row = vec![0.0; 200];
        for j in [70, 134, 71, 199] {
            row[j] = 5.0;
        }
        let found = Outer::run(&mut h, &LossSpec::cross_entropy(View::Clean), &[row], &[0], 200);
        assert_eq!(found.predictions(0), [70]);
    }
}

#[test]
fn the_same_logits_give_the_same_bits() {
    let (classes, n) = (1000, 7);
    let z = [logits(classes, 1), logits(classes, 2)];
    for mut h in Harness::both() {
        let found = [0; 2].map(|_| {
            let found = Outer::run(&mut h, &two_views(n), &z, &labels(n, classes), classes);
            let bits: Vec<u32> = found.gradients.concat().iter().map(|g| g.to_bits()).collect();
            (found.results, bits)
        });
        assert!(found[0] == found[1]);
    }
}
