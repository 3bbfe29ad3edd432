"""Writes `statistics.json`: what SciPy gives for src/statistics.

Run again only when a definition changes (about two minutes):

    python3 -m venv /tmp/venv-scipy
    /tmp/venv-scipy/bin/pip install scipy numpy mpmath
    /tmp/venv-scipy/bin/python tests/golden/statistics.py

Exact results (all resamples, all permutations) are SciPy's for the enumerated distribution. Bootstrap intervals from random
resamples are the mean of RUNS runs of SciPy, with the standard deviation of one run: the test allows four of them.
Quantiles of t are from mpmath with 40 digits, next to SciPy's.
"""

import itertools
import json
import math
import pathlib
import warnings
from fractions import Fraction

import mpmath
import numpy as np
import scipy
from scipy import special, stats

RUNS = 40
RESAMPLES = 9_999
REFERENCE_PERMUTATIONS = 199_999

warnings.simplefilter("ignore")
rng = np.random.default_rng(20_260_727)


def number(value):
    """A float for JSON; null for NaN."""
    return None if math.isnan(value) else float(value)


def pearson_rows(x, y, axis=-1):
    """Pearson's correlation along the last axis; NaN where an input is constant."""
    return np.asarray(stats.pearsonr(x, y, axis=axis).statistic)


def spearman_rows(x, y, axis=-1):
    return pearson_rows(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


ROWS = {"pearson": pearson_rows, "spearman": spearman_rows}


def correlations(name, x, y):
    n = len(x)
    case = {"name": name, "x": x.tolist(), "y": y.tolist()}
    pearson = stats.pearsonr(x, y)
    case["pearson"] = number(pearson.statistic)
    case["spearman"] = number(stats.spearmanr(x, y).statistic)
    if n >= 4 and case["pearson"] is not None:
        case["fisher"] = list(map(float, pearson.confidence_interval(0.95)))
    if case["pearson"] is None:
        return case
    for kind, rows in ROWS.items():
        case[f"{kind}_bootstrap"] = correlation_bootstrap(x, y, rows)
        case[f"{kind}_permutation"] = permutation(x, y, rows)
    return case


def percentiles(values):
    return np.quantile(values[~np.isnan(values)], [0.025, 0.975])


def correlation_bootstrap(x, y, rows):
    n = len(x)
    if n <= 6:
        indices = np.array(list(itertools.product(range(n), repeat=n)))
        values = rows(x[indices], y[indices])
        return {"interval": percentiles(values).tolist(), "skipped": int(np.isnan(values).sum())}
    runs, skipped = [], []
    for _ in range(RUNS):
        indices = rng.integers(0, n, (RESAMPLES, n))
        values = rows(x[indices], y[indices])
        runs.append(percentiles(values))
        skipped.append(np.isnan(values).sum())
    return {
        "interval": np.mean(runs, axis=0).tolist(),
        "deviation": np.std(runs, axis=0, ddof=1).tolist(),
        "skipped": float(np.mean(skipped)),
        "skipped_deviation": float(np.std(skipped, ddof=1)),
    }


def permutation(x, y, rows):
    """SciPy's p-value: exact up to eight pairs, otherwise from many random permutations."""
    n = len(x)
    resamples = np.inf if n <= 8 else REFERENCE_PERMUTATIONS
    # Ranks of a permutation are the permuted ranks.
    if rows is spearman_rows:
        x, y = stats.rankdata(x), stats.rankdata(y)
    statistic = lambda y, axis=-1: pearson_rows(x, y)
    result = stats.permutation_test(
        (y,), statistic, permutation_type="pairings", vectorized=True, n_resamples=resamples, batch=10_000, axis=-1, rng=rng
    )
    return {"p": float(result.pvalue), "permutations": len(result.null_distribution), "exact": n <= 8}


def means(name, values):
    """Intervals of the mean. The values are multiples of 1/1024, so that sums are exact and ties do not depend on rounding."""
    assert np.all(values * 1024 == np.round(values * 1024))
    n = len(values)
    case = {"name": name, "values": values.tolist(), "mean": float(values.mean())}
    case["t"] = list(map(float, stats.ttest_1samp(values, 0.0).confidence_interval(0.95)))
    if np.ptp(values) == 0:
        case["t"] = [float(values[0])] * 2
    if n <= 6:
        indices = np.array(list(itertools.product(range(n), repeat=n)))
        given = stats.bootstrap((values,), np.mean, n_resamples=2, rng=rng)
        given = type(given)(None, values[indices].mean(axis=-1), None)
        for method in ["percentile", "BCa"]:
            interval = stats.bootstrap(
                (values,), np.mean, n_resamples=0, method=method, bootstrap_result=given
            ).confidence_interval
            case[method.lower()] = None if math.isnan(interval.low) else [float(interval.low), float(interval.high)]
        return case
    for method in ["percentile", "BCa"]:
        runs = [
            stats.bootstrap((values,), np.mean, n_resamples=RESAMPLES, method=method, rng=rng).confidence_interval
            for _ in range(RUNS)
        ]
        case[method.lower()] = np.mean(runs, axis=0).tolist()
        case[f"{method.lower()}_deviation"] = np.std(runs, axis=0, ddof=1).tolist()
    return case


def decimal_means(name, texts):
    """BCa of decimal values with ties: z₀ and the acceleration from exact fractions, where SciPy's z₀ depends on rounding."""
    exact = [Fraction(text) for text in texts]
    n = len(exact)
    mean = sum(exact) / n
    resampled = sorted(sum(r) / n for r in itertools.product(exact, repeat=n))
    below = sum(m < mean for m in resampled)
    tied = sum(m == mean for m in resampled)
    bias = special.ndtri((below + tied / 2) / len(resampled))
    deviations = [value - mean for value in exact]
    acceleration = float(sum(d**3 for d in deviations)) / (6 * float(sum(d**2 for d in deviations)) ** 1.5)
    ends = [bias + z for z in (special.ndtri(0.025), special.ndtri(0.975))]
    shares = [special.ndtr(bias + end / (1 - acceleration * end)) for end in ends]
    floats = np.array([float(m) for m in resampled])
    values = np.array([float(value) for value in exact])
    return {
        "name": name,
        "values": values.tolist(),
        "mean": float(mean),
        "t": list(map(float, stats.ttest_1samp(values, 0.0).confidence_interval(0.95))),
        "percentile": np.quantile(floats, [0.025, 0.975]).tolist(),
        "bca": np.quantile(floats, shares).tolist(),
    }


def t_exact(p, freedom):
    """Quantile of t with 40 digits, from SciPy's as the first guess."""
    mpmath.mp.dps = 40
    if p == 0.5:
        return 0.0
    v, tail = mpmath.mpf(freedom), mpmath.mpf(min(p, 1 - p))
    upper = lambda t: mpmath.betainc(v / 2, 0.5, 0, v / (v + t * t), regularized=True) / 2
    t = mpmath.mpf(abs(stats.t.ppf(p, freedom)))
    for _ in range(6):
        density = mpmath.gamma((v + 1) / 2) / (mpmath.sqrt(v * mpmath.pi) * mpmath.gamma(v / 2))
        density *= (1 + t * t / v) ** (-(v + 1) / 2)
        t += (upper(t) - tail) / density
    return float(t if p > 0.5 else -t)


def rounded(values):
    """To multiples of 1/1024."""
    return np.round(np.asarray(values) * 1024) / 1024


def normal_pair(n, slope):
    x = rng.normal(size=n)
    return x, slope * x + rng.normal(size=n)


correlation_cases = [
    correlations("3 pairs", np.array([0.31, 0.12, 0.58]), np.array([1.1, 1.7, 0.4])),
    correlations("3 pairs, tie", np.array([1.0, 1.0, 2.0]), np.array([0.3, 0.7, 0.9])),
    correlations("3 pairs, perfect", np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 9.0])),
    correlations("2 pairs", np.array([1.0, 2.0]), np.array([3.0, -5.0])),
    correlations("4 pairs", *normal_pair(4, 1.0)),
    correlations("4 pairs, constant x", np.full(4, 0.1), np.arange(4.0)),
    correlations("4 pairs, constant y", np.arange(4.0), np.full(4, 0.1)),
    correlations("5 pairs", *normal_pair(5, -2.0)),
    correlations("5 pairs, ties", np.array([1.0, 2, 2, 3, 3]), np.array([2.0, 1, 1, 5, 4])),
    correlations("5 pairs, monotonic", np.arange(5.0), np.exp(np.arange(5.0))),
    correlations("6 pairs", *normal_pair(6, 0.5)),
    correlations("8 pairs", *normal_pair(8, 0.7)),
    correlations("8 pairs, ties", np.array([1.0, 1, 2, 2, 3, 3, 4, 5]), np.array([2.0, 1, 3, 3, 3, 2, 5, 9])),
    correlations("8 pairs, large mean", *[v + 1e6 for v in normal_pair(8, 0.4)]),
    correlations("10 pairs", *normal_pair(10, -0.6)),
    correlations("10 pairs, ties", rng.integers(0, 4, 10).astype(float), rng.integers(0, 4, 10).astype(float)),
    correlations("10 pairs, one differs", np.array([0.0] * 9 + [1.0]), rng.normal(size=10)),
    correlations("10 pairs, perfect", np.arange(10.0), 3 - 0.1 * np.arange(10.0)),
    correlations("30 pairs", *normal_pair(30, 0.3)),
    correlations("30 pairs, ties", np.repeat(np.arange(10.0), 3), rng.integers(0, 5, 30).astype(float)),
    correlations("150 pairs", *normal_pair(150, 0.12)),
    correlations("150 pairs, strong", *normal_pair(150, -1.5)),
    correlations("5 pairs, tiny", *[v * 1e-200 for v in normal_pair(5, 1.0)]),
    correlations("5 pairs, huge", *[v * 1e200 for v in normal_pair(5, 1.0)]),
]

mean_cases = [
    means("2 values", np.array([0.5, 1.25])),
    means("3 values", rounded([0.51, 0.77, 1.52])),
    means("3 values, tie", rounded([0.25, 0.25, -1.5])),
    means("3 values, equal steps", np.array([1.0, 2.0, 3.0])),
    means("3 values, constant", np.full(3, 0.5)),
    means("4 values", rounded(rng.normal(size=4))),
    means("5 values", rounded(rng.normal(1, 2, size=5))),
    means("5 values, skewed", np.array([0.0, 0.0, 0.125, 0.25, 8.0])),
    means("6 values", rounded(rng.normal(size=6))),
    decimal_means("3 decimals, equal steps", ["0.1", "0.2", "0.3"]),
    decimal_means("5 decimals, ties", ["0.1", "0.2", "0.3", "0.3", "0.7"]),
    decimal_means("4 decimals, large mean", ["81.34", "81.37", "81.31", "81.46"]),
    means("10 values", rounded(rng.normal(0.5, 1, size=10))),
    means("10 values, ties", rng.integers(-2, 3, 10).astype(float)),
    means("30 values, skewed", rounded(rng.exponential(size=30))),
    means("150 values", rounded(rng.normal(3, 2, size=150))),
]

points = [-37.5, -30.0, -20.0, -12.0, -8.0, -5.0, -3.0, -2.5, -2.0000001, -2.0, -1.9999999, -1.5, -1.0, -0.5, -0.1, -1e-5, 0.0]
points += [1e-9, 0.3, 0.6745, 1.0, 1.5, 1.96, 2.0, 2.5, 3.0, 5.0, 8.0]
probabilities = [1e-300, 1e-100, 1e-20, 1e-10, 1e-5, 0.001, 0.005, 0.025, 0.05, 0.1, 0.25, 0.4, 0.4999, 0.5, 0.50001]
probabilities += [0.6, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9999, 1 - 1e-9]
t_probabilities = [1e-12, 1e-6, 0.005, 0.025, 0.3, 0.4999, 0.5, 0.51, 0.6, 0.75, 0.9, 0.975, 0.995, 0.9999, 1 - 1e-9]
freedoms = [0.5, 1, 2, 2.5, 3, 4, 5, 7, 9, 10, 29, 30, 31, 60, 99, 149, 1000, 20_000, 99_999, 100_000, 10_000_000]

golden = {
    "versions": {"scipy": scipy.__version__, "numpy": np.__version__, "mpmath": mpmath.__version__},
    "runs": RUNS,
    "resamples": RESAMPLES,
    "correlations": correlation_cases,
    "means": mean_cases,
    "normal_cdf": [[x, float(special.ndtr(x))] for x in points],
    "normal_quantile": [[p, float(special.ndtri(p))] for p in probabilities],
    # Probability, degrees of freedom, SciPy, 40 digits.
    "t_quantile": [
        [p, v, float(stats.t.ppf(p, v)), t_exact(p, v)] for v in freedoms for p in t_probabilities
    ],
}
path = pathlib.Path(__file__).with_name("statistics.json")
path.write_text(json.dumps(golden, indent=1, allow_nan=False) + "\n")
worst = max(abs(s - e) / max(1, abs(e)) for _, _, s, e in golden["t_quantile"])
print(f"{path}: SciPy's t.ppf differs from 40 digits by at most {worst:.1e}")
