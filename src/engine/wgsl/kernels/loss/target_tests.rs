use bytemuck::Zeroable;

use super::*;
use crate::engine::wgsl::harness::Harness;
use crate::engine::wgsl::kernels::call::{Call, ImageInfo};
use crate::fairness::TargetDistribution;
use crate::rng::{Purpose, Stream};

fn labels(n: usize, classes: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 7 % classes) as u32).collect()
}

/// Distributions with all or nearly all weight on one class, and others.
fn skewed(classes: usize) -> Vec<TargetDistribution> {
    let mut nearly_certain = vec![1e-9 / (classes - 1) as f64; classes];
    nearly_certain[classes / 2] = 1.0 - 1e-9;
    let mut none = vec![0.0; classes];
    none[classes - 1] = 1.0;
    let gaps: Vec<f64> = (0..classes).map(|j| if j % 3 == 1 { 0.0 } else { (j * j + 1) as f64 }).collect();
    let spread: Vec<f64> = (0..classes).map(|j| (j as f64 * 0.7).sin().abs()).collect();
    vec![
        TargetDistribution::uniform(classes),
        TargetDistribution::softmax(&spread, 10.0),
        TargetDistribution::proportional(&gaps),
        TargetDistribution::proportional(&nearly_certain),
        TargetDistribution::proportional(&none),
    ]
}

#[test]
fn targets_are_those_of_the_distribution() {
    const SEED: u64 = 0xabc_0000_0009;
    for mut h in Harness::both() {
        for classes in [2, 3, 10, 50] {
            let n = 2000;
            let (labels, ids) = (labels(n, classes), (0..n as u32).map(|i| i * 977).collect::<Vec<_>>());
            let mut info = ImageInfo::for_labels(&labels);
            info.iter_mut().zip(&ids).for_each(|(image, id)| image.id = *id);
            let call = Call { seed: [SEED as u32, (SEED >> 32) as u32], epoch: 4, ..Call::zeroed() };
            let call = h.input(&[call]);
            for pi in skewed(classes) {
                let thresholds = h.input(pi.table().thresholds());
                let uploaded = h.input(&info);
                let ranges = [(1000, 0), (n - 1000, 1000)];
                h.run(
                    &ranges.map(|(images, first)| sample_targets(images, first, classes, call, thresholds, uploaded)),
                );
                let found: Vec<ImageInfo> = h.read(uploaded);
                let targets: Vec<u32> = found.iter().map(|image| image.target).collect();
                assert_eq!(targets, pi.sample(&labels, &ids, SEED, 4), "{pi:?}");
                assert!(found.iter().zip(&info).all(|(a, b)| ImageInfo { target: b.target, ..*a } == *b));
            }
        }
    }
}

/// A number that equals a threshold belongs to the next class.
#[test]
fn a_target_lies_strictly_below_its_threshold() {
    let classes = 64;
    let ids: Vec<u32> = (0..classes as u32).collect();
    let wanted: Vec<u32> = ids.iter().map(|id| id * 7 % classes as u32).collect();
    let drawn = |id: u32| Stream::new(0, Purpose::Target, 0, id).word(0) >> 8;
    let row = |(id, wanted): (&u32, &u32)| (0..classes as u32).map(|j| drawn(*id) + u32::from(j >= *wanted)).collect();
    let thresholds: Vec<Vec<u32>> = ids.iter().zip(&wanted).map(row).collect();
    let mut info = ImageInfo::for_labels(&ids);
    info.iter_mut().zip(&ids).for_each(|(image, id)| image.id = *id);
    for mut h in Harness::both() {
        let (call, thresholds) = (h.input(&[Call::zeroed()]), h.input(&thresholds.concat()));
        let uploaded = h.input(&info);
        h.run(&[sample_targets(classes, 0, classes, call, thresholds, uploaded)]);
        let found: Vec<u32> = h.read::<ImageInfo>(uploaded).iter().map(|image| image.target).collect();
        assert_eq!(found, wanted);
    }
}

#[test]
fn confusion_counts_match_counts_by_hand() {
    for mut h in Harness::both() {
        for (classes, views, n) in [(2, 1, 1), (3, 2, 130), (10, 2, 64), (100, 1, 300)] {
            let stream = Stream::new(2, Purpose::Test, 0, classes as u32);
            let labels = labels(n, classes);
            let draw = |i: usize| match stream.word(i as u32) % (classes as u32 + 1) {
                none if none == classes as u32 => u32::MAX,
                class => class,
            };
            let results: Vec<u32> = (0..(1 + views) * n).map(draw).collect();
            let mut expected = vec![5u32; views * classes * classes];
            for (i, label) in labels.iter().enumerate() {
                for view in 0..views {
                    let predicted = results[(1 + views) * i + 1 + view];
                    if predicted != u32::MAX {
                        expected[(view * classes + *label as usize) * classes + predicted as usize] += 1;
                    }
                }
            }
            let (info, results) = (h.input(&ImageInfo::for_labels(&labels)), h.input(&results));
            let counts = h.input(&vec![5u32; expected.len()]);
            let ranges = [(n / 2, 0), (n - n / 2, n / 2)].into_iter().filter(|(images, _)| *images > 0);
            let count = |(images, first)| confusion(images, first, classes, views, info, results, counts);
            h.run(&ranges.map(count).collect::<Vec<_>>());
            assert_eq!(h.read::<u32>(counts), expected, "{classes} classes, {views} views, {n} images");
        }
    }
}
