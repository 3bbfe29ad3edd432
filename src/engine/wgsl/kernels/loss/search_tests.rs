//! Gradients of objectives for confident networks.

use super::tests::{objectives, scaled_gradients};
use super::*;
use crate::engine::Objective;
use crate::engine::loss::{GradientScale, objective_gradient};
use crate::engine::wgsl::harness::{Harness, pad, random};

const CLASSES: [usize; 4] = [2, 3, 10, 100];
/// Margins of the likeliest class. From 104 on, gradients underflow.
const MARGINS: [f32; 9] = [0.0, 1.0, 10.0, 17.0, 60.0, 87.0, 104.0, 1e3, 1e4];

/// One row per margin; the likeliest class follows from the index of the image.
fn certain(classes: usize, more: f32, sample: u32) -> Vec<f32> {
    let mut z = random(MARGINS.len() * classes, sample);
    for (i, (row, margin)) in z.chunks_mut(classes).zip(MARGINS).enumerate() {
        row[i % classes] = 4.0 + margin * more;
    }
    z
}

/// Clean predictions close to those of `z`, and of less and more confident networks.
fn clean_predictions(z: &[f32], classes: usize) -> [Vec<f32>; 3] {
    let near = z.iter().zip(random(z.len(), 9)).map(|(z, r)| z + 0.1 * r).collect();
    [near, certain(classes, 0.5, 10), certain(classes, 1.1, 11)]
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, v| most.max(v.abs()))
}

/// Measured difference: 2.9e-6 of the largest value of an image.
#[test]
fn gradients_are_those_of_the_twin_at_any_margin() {
    let mut farthest = 0.0f32;
    for mut h in Harness::both() {
        for classes in CLASSES {
            let z = certain(classes, 1.0, 1);
            // The likeliest class, and another one.
            for other in [0, 1] {
                let labels: Vec<u32> = (0..MARGINS.len()).map(|i| ((i + other) % classes) as u32).collect();
                for (what, clean) in objectives(&labels, classes)
                    .into_iter()
                    .flat_map(|what| clean_predictions(&z, classes).map(|clean| (what.clone(), clean)))
                {
                    for scale in [GradientScale::PerImage, GradientScale::True] {
                        let (found, flag) = scaled_gradients(&mut h, &what, scale, &z, &clean, &labels);
                        assert_eq!(flag, 0);
                        let expected = objective_gradient(&what, scale, &z, &labels, classes, Some(&clean)).unwrap();
                        let expected = pad(&expected, classes);
                        let rows = found.chunks(padded(classes)).zip(expected.chunks(padded(classes)));
                        for ((found, expected), margin) in rows.zip(MARGINS) {
                            let size = largest(expected);
                            let what = format!("{what:?}, {scale:?}, {classes} classes, margin {margin}");
                            if scale == GradientScale::PerImage {
                                assert!(size > 1e-3 && size <= classes as f32, "{what}: {size:e}");
                            }
                            if size < 1e-30 {
                                // Values that a device may flush to zero.
                                assert!(largest(found) <= 2e-30, "{what}");
                                continue;
                            }
                            let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                            assert!(apart <= 1e-5 * size, "{what}: {:e}", apart / size);
                            farthest = farthest.max(apart / size);
                        }
                    }
                }
            }
        }
    }
    println!("gradients: {farthest:.2e} of the largest value apart");
}

#[test]
fn gradients_do_not_depend_on_the_size_of_the_logits() {
    for mut h in Harness::both() {
        for classes in CLASSES {
            let labels: Vec<u32> = (0..7).map(|i| i % classes as u32).collect();
            for scale in [1e-30f32, 1e-6, 1e6, 1e30] {
                let [z, clean] =
                    [1, 2].map(|sample| random(7 * classes, sample).iter().map(|z| z * scale).collect::<Vec<_>>());
                for what in objectives(&labels, classes) {
                    let per_image = GradientScale::PerImage;
                    let (found, _) = scaled_gradients(&mut h, &what, per_image, &z, &clean, &labels);
                    let expected = pad(
                        &objective_gradient(&what, per_image, &z, &labels, classes, Some(&clean)).unwrap(),
                        classes,
                    );
                    let rows = found.chunks(padded(classes)).zip(expected.chunks(padded(classes)));
                    for (found, expected) in rows {
                        let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        let size = largest(expected);
                        assert!(
                            size > 0.0 && apart <= 1e-5 * size,
                            "{what:?}, {classes}, {scale:e}: {apart:e} {size:e}"
                        );
                    }
                }
            }
            // The divergence of unchanged predictions is exactly zero.
            let z = certain(classes, 1.0, 3);
            let labels = vec![0; MARGINS.len()];
            let (found, _) = scaled_gradients(&mut h, &Objective::KlToClean, GradientScale::PerImage, &z, &z, &labels);
            assert!(found.iter().all(|g| *g == 0.0));
            // Ties, where the true gradient can be unbounded, give finite gradients that are not zero.
            for what in objectives(&labels, classes) {
                let tied = vec![1.5; z.len()];
                let (found, _) = scaled_gradients(&mut h, &what, GradientScale::PerImage, &tied, &z, &labels);
                assert!(found.iter().all(|g| g.is_finite()) && found.iter().any(|g| *g != 0.0), "{what:?}");
            }
        }
    }
}
