//! The attacks against the published code of AutoAttack and torchattacks, step by step (`tests/golden/attacks.py`).

use std::collections::VecDeque;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::apgd::{self, Apgd, Loss};
use super::cw::Cw;
use super::fab::Fab;
use super::geometry::{distance, project_onto_hyperplane};
use super::oracle::Oracle;
use super::square::{self, Draws, Square};
use crate::data::ImageShape;
use crate::engine::Norm;
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::model::{Architecture, Array, State};

/// Largest relative error of losses, step sizes and distances, as in `tests/pytorch`.
const TOLERANCE: f32 = 1e-4;
/// Largest difference of an image after a hundred steps, each of which multiplies the last one's rounding error: a fiftieth
/// of the radius. After three steps it is [`TOLERANCE`].
const AFTER_MANY: f64 = 1e-3;
const NORMS: [(Norm, &str); 2] = [(Norm::Linf, "linf"), (Norm::L2, "l2")];

struct Golden(Vec<u8>);

impl Golden {
    fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/attacks.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    /// Numbers of any type, exact in `f64`.
    fn get(&self, name: &str) -> Vec<f64> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|_| panic!("no '{name}'"));
        let data = view.data();
        match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            Dtype::U8 => data.iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.get(name).into_iter().map(|v| v as f32).collect()
    }

    fn u32(&self, name: &str) -> Vec<u32> {
        self.get(name).into_iter().map(|v| v as u32).collect()
    }

    fn network(&self) -> CandleEngine {
        let shape = ImageShape::new(1, 8, 8);
        let (mean, std, width) = (self.f32("mean"), self.f32("std"), self.get("width")[0] as usize);
        let network = Architecture::DigitsCnn.build(shape, 10, Some((&mean, &std)), Some(width));
        let file = self.file();
        let arrays = file.tensors().into_iter().filter_map(|(key, view)| {
            let name = key.strip_prefix("state.")?.to_owned();
            Some((name, Array { shape: view.shape().to_vec(), data: self.f32(&key) }))
        });
        CandleEngine::new(network, &State(arrays.collect()), CandleDevice::Cpu).unwrap()
    }

    fn images(&self) -> Vec<f32> {
        self.get("images").into_iter().map(|v| v as f32 / 255.0).collect()
    }

    /// The images whose results do not depend on rounding errors.
    fn steady(&self, run: &str) -> Vec<usize> {
        let strayed = self.get(&format!("{run}.float32_strayed"));
        let steady: Vec<usize> = (0..strayed.len()).filter(|i| strayed[*i] == 0.0).collect();
        assert!(steady.len() >= 5, "{run}: only {steady:?} can be compared");
        steady
    }
}

fn close(what: &str, found: f32, expected: f64) {
    let error = (f64::from(found) - expected).abs() / expected.abs().max(1.0);
    assert!(error <= f64::from(TOLERANCE), "{what}: {found}, expected {expected}");
}

fn farthest(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

fn rows_close(what: &str, found: &[f32], expected: &[f64]) {
    let farthest = farthest(found, expected);
    assert!(farthest <= f64::from(TOLERANCE), "{what}: off by {farthest:e}");
}

#[test]
fn apgd_takes_the_published_steps() {
    let golden = Golden::load();
    let (images, labels) = (golden.images(), golden.u32("labels"));
    for steps in [100, 20, 5] {
        assert_eq!(apgd::checkpoints(steps), golden.u32(&format!("checkpoints.{steps}")));
    }
    let mut engine = golden.network();
    for (norm, name) in NORMS {
        let epsilon = golden.f32(&format!("epsilon.{name}"))[0];
        let noise = golden.f32(&format!("noise.{name}"));
        for (loss, kind) in
            [(Loss::CrossEntropy, "ce"), (Loss::Dlr, "dlr"), (Loss::DlrTowards(golden.u32("apgd.target")), "dlr-t")]
        {
            let run = format!("apgd.{name}.{kind}");
            let starts: Vec<f32> = images
                .chunks(64)
                .zip(noise.chunks(64))
                .flat_map(|(image, noise)| apgd::start(norm, epsilon, image, noise))
                .collect();
            let mut tick = |_| true;
            let mut oracle = Oracle::new(&mut engine, 10, &mut tick);
            let search = Apgd { norm, epsilon, steps: 100, loss: &loss, stop_at_success: false };
            let mut seen: Vec<Vec<(f32, f32)>> = Vec::new();
            let mut first: Vec<Vec<f32>> = Vec::new();
            let found = search
                .run(&mut oracle, &images, &labels, starts.clone(), &|share| share, &mut |step, state| {
                    assert!(state.iter().enumerate().all(|(i, iterate)| iterate.image == i));
                    if (1..4).contains(&step) {
                        first.push(state.iter().flat_map(|iterate| iterate.x.to_vec()).collect());
                    }
                    seen.push(state.iter().map(|iterate| (iterate.step, iterate.loss)).collect());
                })
                .unwrap();
            for (step, x) in [1usize, 2, 3].into_iter().zip(&first) {
                let expected = golden.get(&format!("{run}.iterate.{step}"));
                for i in golden.steady(&run) {
                    let what = format!("{run}, image {i} after {step} steps");
                    rows_close(&what, &x[i * 64..][..64], &expected[i * 64..][..64]);
                }
            }
            let (sizes, losses) = (golden.get(&format!("{run}.step_sizes")), golden.get(&format!("{run}.losses")));
            let expected_start = golden.get(&format!("{run}.iterate.0"));
            rows_close(&format!("{run} start"), &starts, &expected_start);
            let success = golden.get(&format!("{run}.success"));
            let (reviews, mut forked) = (apgd::checkpoints(100), 0);
            for i in golden.steady(&run) {
                let column = |values: &[f64], step: usize| values[step * 10 + i];
                let differs = |step: &usize| (f64::from(seen[step + 1][i].0) - column(&sizes, *step)).abs() > 1e-6;
                let fork = (0..100).find(differs);
                for step in 0..fork.unwrap_or(100) {
                    close(&format!("{run}, image {i}, step {step}"), seen[step + 1][i].1, column(&losses, step));
                }
                if let Some(step) = fork {
                    // A comparison of two losses came out otherwise: they must have been equal up to rounding.
                    let window = &reviews[..=reviews.iter().position(|at| *at as usize == step + 1).unwrap()];
                    let first = window.len().checked_sub(2).map_or(1, |before| window[before] as usize);
                    let tie = (first.max(1)..=step).any(|c| (column(&losses, c) - column(&losses, c - 1)).abs() < 1e-4);
                    assert!(tie, "{run}, image {i}: another step size after step {step}");
                    forked += 1;
                    continue;
                }
                assert_eq!(found.fooled[i], success[i] != 0.0, "{run}, image {i}");
                for (what, found, key) in
                    [("best", &found.best, "x_best"), ("adversarial", &found.adversarial, "x_best_adv")]
                {
                    let expected = &golden.get(&format!("{run}.{key}"))[i * 64..][..64];
                    // Without success the published code returns the start, which it never uses.
                    if what == "best" || success[i] != 0.0 {
                        let off = farthest(&found[i * 64..][..64], expected);
                        assert!(off <= AFTER_MANY, "{run}, image {i}, {what}: off by {off:e}");
                    }
                }
                close(&format!("{run}, image {i}"), found.best_loss[i], golden.get(&format!("{run}.loss_best"))[i]);
            }
            assert!(golden.steady(&run).len() >= 5 + forked, "{run}: {forked} images went another way");
        }
    }
}

#[test]
fn projections_are_the_published_ones() {
    let golden = Golden::load();
    let (t, w, b) = (golden.f32("projection.t"), golden.f32("projection.w"), golden.get("projection.b"));
    for (norm, name) in NORMS {
        let expected = golden.get(&format!("projection.{name}"));
        for (row, b) in b.iter().enumerate() {
            let found = project_onto_hyperplane(norm, &t[row * 12..][..12], &w[row * 12..][..12], *b);
            rows_close(&format!("{name}, row {row}"), &found, &expected[row * 12..][..12]);
        }
    }
}

#[test]
fn fab_finds_the_published_distances() {
    let golden = Golden::load();
    let (images, labels) = (golden.images(), golden.u32("labels"));
    let ranked = golden.u32("ranked");
    let targets: Vec<u32> = (0..10).map(|i| ranked[i * 10 + 1]).collect();
    let mut engine = golden.network();
    for (norm, name) in NORMS {
        for (kind, targets) in [("untargeted", None), ("targeted", Some(&targets))] {
            let run = format!("fab.{name}.{kind}");
            let attacked: Vec<usize> = golden.get(&format!("{run}.attacked")).iter().map(|i| *i as usize).collect();
            let (norms, x) = (golden.get(&format!("{run}.best_norms")), golden.get(&format!("{run}.x_adv")));
            let part: Vec<f32> = attacked.iter().flat_map(|i| images[i * 64..][..64].to_vec()).collect();
            let of = |values: &[u32]| attacked.iter().map(|i| values[*i]).collect::<Vec<u32>>();
            let (labels, targets) = (of(&labels), targets.map(|targets| of(targets)));
            for steps in [1u32, 2, 3, 10, 50, 100] {
                let mut tick = |_| true;
                let mut oracle = Oracle::new(&mut engine, 10, &mut tick);
                let search = Fab { norm, epsilon: 0.0, steps, targets: targets.as_deref(), stop_at_success: false };
                let found = search.run(&mut oracle, &part, &labels, part.clone(), &|share| share).unwrap();
                for i in golden.steady(&run) {
                    let Some(row) = attacked.iter().position(|image| *image == i) else { continue };
                    let expected = norms[(steps as usize - 1) * attacked.len() + row];
                    if expected > 1e9 {
                        assert!(found.distance[row].is_infinite(), "{run}, image {i}, {steps} steps");
                        continue;
                    }
                    close(&format!("{run}, image {i}, {steps} steps"), found.distance[row], expected);
                    if steps == 100 {
                        rows_close(&format!("{run}, image {i}"), &found.nearest[row * 64..][..64], &x[i * 64..][..64]);
                    }
                }
            }
        }
    }
}

#[test]
fn square_follows_the_published_schedule() {
    let golden = Golden::load();
    for (query, expected) in golden.get("square.schedule").iter().enumerate() {
        assert_eq!(square::share(query as u32) as f32, *expected as f32, "query {query}");
    }
    for (norm, name) in NORMS {
        for size in [8, 32] {
            let shape = ImageShape::new(1, size, size);
            let found: Vec<f64> = (0..5000).map(|query| square::side(norm, query, shape) as f64).collect();
            assert_eq!(found, golden.get(&format!("square.{name}.sides.{size}")), "{name}, {size}");
        }
    }
    for side in [1, 2, 3, 4, 5, 6, 7, 8, 13] {
        rows_close(&format!("bumps {side}"), &square::bumps(side, false), &golden.get(&format!("square.eta.{side}")));
    }
}

#[test]
fn square_takes_the_published_steps() {
    let golden = Golden::load();
    let (images, labels) = (golden.images(), golden.u32("labels"));
    let mut engine = golden.network();
    for (norm, name) in NORMS {
        let run = format!("square.{name}");
        let get = |key: &str| golden.f32(&format!("{run}.{key}"));
        let (places, signs, first) = (get("places"), get("signs"), get("first_signs"));
        let queries = golden.get(&format!("{run}.tried")).len() / 10;
        let each = places.len() / queries;
        let draws = |i: usize| {
            let mut values = VecDeque::new();
            match norm {
                Norm::Linf => values.extend(&first[i * 8..][..8]),
                Norm::L2 => {
                    // The last row and column of tiles lie outside.
                    for tile in (0..64).filter(|tile| tile / 8 < 7 && tile % 8 < 7) {
                        values.extend([0.0, first[tile * 10 + i]]);
                    }
                }
            }
            for step in 0..queries {
                values.extend(&places[step * each..][..each]);
                match norm {
                    Norm::Linf => values.push_back(signs[step]),
                    Norm::L2 => values.extend([get("turns")[step], signs[step * 10 + i]]),
                }
            }
            Draws::Given(values)
        };
        let epsilon = golden.f32(&format!("epsilon.{name}"))[0];
        let mut tick = |_| true;
        let mut oracle = Oracle::new(&mut engine, 10, &mut tick);
        let search = Square { norm, epsilon, queries: queries as u32 };
        let draws = (0..10).map(draws).collect();
        let found = search.run(&mut oracle, &images, &labels, draws, &|share| share).unwrap();
        let (needed, expected) = (golden.get(&format!("{run}.queries")), golden.get(&format!("{run}.x_best")));
        for i in golden.steady(&run) {
            rows_close(&format!("{run}, image {i}"), &found.best[i * 64..][..64], &expected[i * 64..][..64]);
            assert_eq!(found.fooled[i], needed[i] < queries as f64 + 1.0, "{run}, image {i}");
        }
    }
}

/// torchattacks leaves black and white pixels where they are; the distances agree nevertheless.
#[test]
fn cw_finds_images_as_near_as_published() {
    let golden = Golden::load();
    let (images, labels) = (golden.images(), golden.u32("labels"));
    let mut engine = golden.network();
    for c in [1, 10] {
        let run = format!("cw.{c}");
        let (norms, success) = (golden.get(&format!("{run}.norms")), golden.get(&format!("{run}.success")));
        let mut tick = |_| true;
        let mut oracle = Oracle::new(&mut engine, 10, &mut tick);
        // It ends a whole batch early, which an image here does not know.
        let steps = golden.get(&format!("{run}.distances")).len() as u32 / 10;
        let found = Cw { steps, searches: 1, c: c as f32 }.run(&mut oracle, &images, &labels, &|share| share).unwrap();
        for i in golden.steady(&run) {
            assert_eq!(found.distance[i].is_finite(), success[i] != 0.0, "{run}, image {i}");
            if success[i] != 0.0 {
                let (own, other) = (f64::from(found.distance[i]), norms[i]);
                assert!((own - other).abs() <= 0.02 * other + 1e-6, "{run}, image {i}: {own}, expected {other}");
                let measured = distance(Norm::L2, &found.nearest[i * 64..][..64], &images[i * 64..][..64]);
                assert!((measured - found.distance[i]).abs() < 1e-6);
            }
        }
    }
}
