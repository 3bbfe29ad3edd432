//! Tests beside SciPy, and of properties with closed forms.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Golden {
    runs: f64,
    resamples: usize,
    correlations: Vec<Pairs>,
    means: Vec<Values>,
}

#[derive(Deserialize)]
struct Pairs {
    name: String,
    x: Vec<f64>,
    y: Vec<f64>,
    pearson: Option<f64>,
    spearman: Option<f64>,
    fisher: Option<[f64; 2]>,
    pearson_bootstrap: Option<Bootstrap>,
    spearman_bootstrap: Option<Bootstrap>,
    pearson_permutation: Option<Permutation>,
    spearman_permutation: Option<Permutation>,
}

/// `deviation` and `skipped_deviation` are standard deviations of one run; `None` for all resamples.
#[derive(Deserialize)]
struct Bootstrap {
    interval: [f64; 2],
    deviation: Option<[f64; 2]>,
    skipped: f64,
    skipped_deviation: Option<f64>,
}

#[derive(Deserialize)]
struct Permutation {
    p: f64,
    permutations: usize,
    exact: bool,
}

#[derive(Deserialize)]
struct Values {
    name: String,
    values: Vec<f64>,
    mean: f64,
    t: [f64; 2],
    percentile: [f64; 2],
    percentile_deviation: Option<[f64; 2]>,
    bca: Option<[f64; 2]>,
    bca_deviation: Option<[f64; 2]>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/statistics.json")).unwrap()
}

/// Difference of two intervals relative to the larger of 1 and their ends.
fn difference(a: [f64; 2], b: [f64; 2]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
}

/// The larger distance of two ends in standard errors of one random run minus the mean of `runs`.
fn standard_errors(ours: [f64; 2], mean: [f64; 2], deviation: [f64; 2], runs: f64) -> f64 {
    let distance = |at: usize| {
        let error = deviation[at] * (1.0 + 1.0 / runs).sqrt();
        // Intervals can end in a value of the sample in every run.
        if error < 1e-12 { (ours[at] - mean[at]).abs() * 1e12 } else { (ours[at] - mean[at]).abs() / error }
    };
    distance(0).max(distance(1))
}

fn normals(draws: &mut Sequence, n: usize) -> Vec<f64> {
    (0..n).map(|_| f64::from(draws.normal())).collect()
}

#[test]
fn correlations_and_fisher_intervals_match_scipy() {
    let (mut worst, mut worst_fisher) = (0.0f64, 0.0f64);
    for case in golden().correlations {
        for (ours, scipy) in [(pearson(&case.x, &case.y), case.pearson), (spearman(&case.x, &case.y), case.spearman)] {
            assert_eq!(ours.is_some(), scipy.is_some(), "{}", case.name);
            let difference = ours.zip(scipy).map_or(0.0, |(ours, scipy)| (ours - scipy).abs());
            assert!(difference < 1e-14, "{}: {ours:?}, SciPy {scipy:?}", case.name);
            worst = worst.max(difference);
        }
        let ours = fisher_interval(&case.x, &case.y);
        assert_eq!(ours.is_some(), case.fisher.is_some(), "{}", case.name);
        let difference = ours.zip(case.fisher).map_or(0.0, |(ours, scipy)| difference(ours, scipy));
        assert!(difference < 1e-13, "{}: {ours:?}, SciPy {:?}", case.name, case.fisher);
        worst_fisher = worst_fisher.max(difference);
    }
    println!("correlation: {worst:.1e}, Fisher interval: {worst_fisher:.1e}");
}

#[test]
fn bootstraps_of_correlations_match_scipy() {
    let golden = golden();
    let (mut worst, mut worst_error) = (0.0f64, 0.0f64);
    for case in golden.correlations {
        for (kind, scipy) in
            [(Correlation::Pearson, case.pearson_bootstrap), (Correlation::Spearman, case.spearman_bootstrap)]
        {
            let ours = bootstrap_correlation(kind, &case.x, &case.y, golden.resamples, 1);
            let (Some(ours), Some(scipy)) = (ours, &scipy) else {
                assert_eq!(ours.is_some(), scipy.is_some(), "{} {kind:?}", case.name);
                continue;
            };
            let n = case.x.len();
            let all = if n <= ENUMERATED { n.pow(n as u32) } else { golden.resamples };
            assert_eq!(ours.resamples + ours.skipped, all);
            let skipped = (ours.skipped as f64 - scipy.skipped).abs();
            if let Some(deviation) = scipy.deviation {
                assert!(!ours.exact);
                let errors = standard_errors(ours.interval, scipy.interval, deviation, golden.runs);
                assert!(errors < 4.0, "{} {kind:?}: {ours:?}, SciPy {:?}", case.name, scipy.interval);
                assert!(skipped <= 4.0 * scipy.skipped_deviation.unwrap() + 1.0, "{}: {ours:?}", case.name);
                worst_error = worst_error.max(errors);
            } else {
                let difference = difference(ours.interval, scipy.interval);
                assert!(ours.exact && skipped == 0.0, "{} {kind:?}: {ours:?}", case.name);
                assert!(difference < 1e-14, "{} {kind:?}: {ours:?}, SciPy {:?}", case.name, scipy.interval);
                worst = worst.max(difference);
            }
        }
    }
    println!("bootstrap of a correlation: exact {worst:.1e}, random {worst_error:.1} standard errors");
}

#[test]
fn permutation_tests_match_scipy() {
    let golden = golden();
    let (mut worst, mut worst_error) = (0.0f64, 0.0f64);
    for case in golden.correlations {
        for (kind, scipy) in
            [(Correlation::Pearson, case.pearson_permutation), (Correlation::Spearman, case.spearman_permutation)]
        {
            let ours = permutation_test(kind, &case.x, &case.y, golden.resamples, 1);
            let (Some(ours), Some(scipy)) = (ours, &scipy) else {
                assert_eq!(ours.is_some(), scipy.is_some(), "{} {kind:?}", case.name);
                continue;
            };
            assert_eq!((Some(ours.statistic), ours.exact), (kind.of(&case.x, &case.y), scipy.exact));
            let difference = (ours.p - scipy.p).abs();
            if scipy.exact {
                assert_eq!(ours.permutations, scipy.permutations);
                assert!(difference < 1e-15, "{} {kind:?}: {ours:?}, SciPy {}", case.name, scipy.p);
                worst = worst.max(difference);
            } else {
                // Twice a binomial share; one more permutation in each for p-values near 0.
                let half = scipy.p / 2.0;
                let counts = 1.0 / golden.resamples as f64 + 1.0 / scipy.permutations as f64;
                let error = 2.0 * (half * (1.0 - half) * counts).sqrt() + counts;
                assert!(difference < 4.0 * error, "{} {kind:?}: {ours:?}, SciPy {}", case.name, scipy.p);
                worst_error = worst_error.max(difference / error);
            }
        }
    }
    println!("permutation test: exact {worst:.1e}, random {worst_error:.1} standard errors");
}

#[test]
fn intervals_of_means_match_scipy() {
    let golden = golden();
    let (mut worst, mut worst_bca, mut worst_t, mut worst_error) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for case in golden.means {
        let ours = bootstrap_mean(&case.values, golden.resamples, 1).unwrap();
        assert!((ours.mean - case.mean).abs() < 1e-13, "{}", case.name);
        let t = difference(t_interval(&case.values).unwrap(), case.t);
        assert!(t < 1e-13, "{}: t interval", case.name);
        worst_t = worst_t.max(t);
        assert_eq!(ours.bca.is_some(), case.bca.is_some(), "{}", case.name);
        let bca = ours.bca.zip(case.bca);
        if let (Some(percentile), Some(deviation)) = (case.percentile_deviation, case.bca_deviation) {
            let errors = standard_errors(ours.percentile, case.percentile, percentile, golden.runs);
            let of_bca = bca.map_or(0.0, |(ours, scipy)| standard_errors(ours, scipy, deviation, golden.runs));
            assert!(errors < 4.0 && of_bca < 4.0 && !ours.exact, "{}: {errors} and {of_bca}", case.name);
            worst_error = worst_error.max(errors).max(of_bca);
        } else {
            let n = case.values.len();
            assert!(ours.exact && ours.resamples == n.pow(n as u32));
            let percentile = difference(ours.percentile, case.percentile);
            let bca = bca.map_or(0.0, |(ours, scipy)| difference(ours, scipy));
            assert!(percentile < 1e-14, "{}: {ours:?}, SciPy {:?}", case.name, case.percentile);
            assert!(bca < 1e-13, "{}: {ours:?}, SciPy {:?}", case.name, case.bca);
            (worst, worst_bca) = (worst.max(percentile), worst_bca.max(bca));
        }
    }
    println!("mean: percentile {worst:.1e}, BCa {worst_bca:.1e}, t {worst_t:.1e}, random {worst_error:.1} errors");
}

#[test]
fn undefined_inputs_have_no_result() {
    let (line, nan) = ([1.0, 2.0, 3.0, 4.0], [1.0, f64::NAN, 3.0, 4.0]);
    for other in [&[][..], &[1.0], &[1.0, 2.0], &[0.1; 4], &nan] {
        for kind in [Correlation::Pearson, Correlation::Spearman] {
            assert_eq!(kind.of(&line, other), None);
            assert_eq!(kind.of(other, &line), None);
            assert_eq!(bootstrap_correlation(kind, &line, other, 9, 0), None);
            assert_eq!(permutation_test(kind, &line, other, 9, 0), None);
        }
        assert_eq!(fisher_interval(&line, other), None);
    }
    for kind in [Correlation::Pearson, Correlation::Spearman] {
        assert_eq!(kind.of(&[], &[]), None);
        assert_eq!(kind.of(&[1.0], &[1.0]), None);
    }
    let infinite = [1.0, 2.0, f64::INFINITY, 3.0];
    assert_eq!(pearson(&line, &infinite), None);
    assert!((spearman(&line, &infinite).unwrap() - 0.8).abs() < 1e-15);
    assert_eq!(fisher_interval(&line[..3], &[1.0, 3.0, 2.0]), None);
    for values in [&[][..], &[1.0], &nan, &infinite] {
        assert_eq!(t_interval(values), None);
        assert_eq!(bootstrap_mean(values, 99, 0), None);
    }
    assert_eq!(bootstrap_mean(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0, 0), None, "no resamples");
    let constant = bootstrap_mean(&[0.1; 7], 99, 0).unwrap();
    assert!(constant.bca.is_none() && difference(constant.percentile, [0.1; 2]) < 1e-15);
}

/// With `r = 0` and ties, half of the other permutations are on either side: p is 1.
#[test]
fn ties_at_zero_count_on_both_sides() {
    let (x, y) = ([0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.1, 0.2, 0.1, 0.3]);
    for kind in [Correlation::Pearson, Correlation::Spearman] {
        let test = permutation_test(kind, &x, &y, 0, 0).unwrap();
        assert!(test.statistic.abs() < 1e-15 && test.p == 1.0, "{test:?}");
    }
}

/// Of ten pairs, one order in 3,628,800 is as extreme as the observed one: only the observed one counts.
#[test]
fn p_is_never_zero() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
    for y in [x, x.map(|value: f64| -value)] {
        let test = permutation_test(Correlation::Spearman, &x, &y, 199, 0).unwrap();
        assert!(test.p == 2.0 / 200.0 && test.permutations == 199 && !test.exact, "{test:?}");
    }
}

/// Exact p-values of `n` pairs without ties are `2k / n!` with equal probability; random ones `2k / (permutations + 1)`.
#[test]
fn permutation_p_is_uniform_under_independence() {
    let mut draws = draws(3, 0);
    for (n, permutations, runs) in [(5, 0, 4000), (12, 199, 4000)] {
        let p: Vec<f64> = (0..runs)
            .map(|seed| {
                let (x, y) = (normals(&mut draws, n), normals(&mut draws, n));
                permutation_test(Correlation::Pearson, &x, &y, permutations, seed).unwrap().p
            })
            .collect();
        for level in [0.05, 0.1, 0.3, 0.5, 0.8] {
            let share = p.iter().filter(|p| **p <= level + 1e-9).count() as f64 / runs as f64;
            let error = (level * (1.0 - level) / runs as f64).sqrt();
            assert!((share - level).abs() < 4.0 * error, "n = {n}: {share} at most {level}");
        }
    }
}

/// Share of samples of standard normal values whose interval contains 0.
fn coverage(n: usize, runs: usize, interval: impl Fn(&[f64]) -> [f64; 2]) -> f64 {
    let mut draws = draws(4, n);
    let covered = |_: &usize| {
        let [low, high] = interval(&normals(&mut draws, n));
        low <= 0.0 && 0.0 <= high
    };
    (0..runs).filter(covered).count() as f64 / runs as f64
}

#[test]
fn t_intervals_cover_and_bootstrap_intervals_of_three_values_do_not() {
    let runs = 20_000;
    for n in [2, 3, 5, 30] {
        let share = coverage(n, runs, |values| t_interval(values).unwrap());
        assert!((share - 0.95).abs() < 4.0 * (0.95 * 0.05 / runs as f64).sqrt(), "n = {n}: {share}");
    }
    let bootstrap = |values: &[f64]| bootstrap_mean(values, 0, 0).unwrap();
    let percentile = coverage(3, runs, |values| bootstrap(values).percentile);
    let bca = coverage(3, runs, |values| bootstrap(values).bca.unwrap());
    println!("coverage with n = 3: percentile {percentile:.3}, BCa {bca:.3}");
    let limit = 0.75 + 4.0 * (0.75 * 0.25 / runs as f64).sqrt();
    assert!(percentile < limit && bca < limit, "{percentile} and {bca}");
    assert!((percentile - 0.67).abs() < 0.02 && (bca - 0.69).abs() < 0.02, "{percentile} and {bca}");
    let range = |values: &[f64]| values.iter().fold([0.0f64; 2], |[low, high], v| [low.min(*v), high.max(*v)]);
    for seed in 0..100 {
        let values = normals(&mut draws(5, seed), 3);
        let ([low, high], result) = (range(&values), bootstrap(&values));
        for interval in [result.percentile, result.bca.unwrap()] {
            assert!(interval[0] >= low && interval[1] <= high && interval[0] < interval[1]);
        }
    }
}

/// For 150 normal values both bootstrap intervals are close to `mean ± 1.96 s / √n`, `s` with `n`.
#[test]
fn bootstrap_of_many_values_is_normal() {
    let values = normals(&mut draws(6, 0), 150);
    let result = bootstrap_mean(&values, 20_000, 2).unwrap();
    let deviation = (values.iter().map(|v| (v - result.mean).powi(2)).sum::<f64>() / 150.0).sqrt();
    let width = 2.0 * 1.96 * deviation / 150f64.sqrt();
    for [low, high] in [result.percentile, result.bca.unwrap()] {
        assert!(((high - low) / width - 1.0).abs() < 0.03, "{} for {width}", high - low);
    }
    assert_eq!(bootstrap_mean(&values, 20_000, 2), Some(result), "same seed");
    assert_ne!(bootstrap_mean(&values, 20_000, 3), Some(result), "other seed");
}

#[test]
fn every_permutation_and_every_resample_is_visited_once() {
    for n in 1..=6usize {
        let mut seen = std::collections::HashSet::new();
        let mut items: Vec<f64> = (0..n).map(|i| i as f64).collect();
        let mut calls = 0;
        for_each_permutation(&mut items, &mut |items| {
            calls += 1;
            seen.insert(items.iter().map(|v| *v as u8).collect::<Vec<_>>());
        });
        assert_eq!((calls, seen.len()), ((1..=n).product(), (1..=n).product()));
        let mut seen = std::collections::HashSet::new();
        assert!(for_each_resample(n, 0, 0, |indices| assert!(seen.insert(indices.to_vec()))));
        assert_eq!(seen.len(), n.pow(n as u32));
    }
}
