"""FAAL's class distribution, from a convex solver, and to all digits from its optimality conditions."""

import cvxpy
import numpy as np


def worst_case(c, radius):
    """The q with sum 1 and KL(uniform || q) at most `radius` for which c · q is largest; uniform if all c are equal."""
    c = np.asarray(c, dtype=np.float64)
    uniform = np.full(len(c), 1 / len(c))
    if np.ptp(c) == 0:
        return uniform
    q = cvxpy.Variable(len(c))
    inside = [cvxpy.sum(q) == 1, cvxpy.sum(cvxpy.rel_entr(uniform, q)) <= radius]
    # Solvers expect numbers near one.
    scaled = (c - c.mean()) / np.ptp(c)
    problem = cvxpy.Problem(cvxpy.Maximize(scaled @ q), inside)
    problem.solve(solver=cvxpy.CLARABEL)
    multipliers = -inside[0].dual_value, inside[1].dual_value
    return polished(scaled, uniform, radius, q.value, *multipliers)


def polished(c, uniform, radius, q, nu, weight):
    """Newton's method on the optimality conditions, to all digits, from a solver's solution and multipliers."""
    solver = q
    for _ in range(20):
        # Stationarity of c · q + nu (1 - sum q) + weight (radius - KL), then the two constraints.
        residual = np.concatenate([
            c - nu + weight * uniform / q,
            [q.sum() - 1, uniform @ np.log(uniform / q) - radius],
        ])
        if np.abs(residual).max() < 1e-13:
            break
        slope = -uniform / q
        jacobian = np.block([
            [np.diag(weight * slope / q), -np.ones((len(q), 1)), -slope[:, None]],
            [np.ones(len(q)), 0, 0],
            [slope, 0, 0],
        ])
        step = np.linalg.solve(jacobian, -residual)
        q, nu, weight = q + step[:-2], nu + step[-2], weight + step[-1]
    assert np.abs(residual).max() < 1e-11 and weight > 0 and (q > 0).all(), "the conditions are not met"
    assert np.abs(q - solver).max() < 1e-4, "the solver is far from it"
    return q


def cases(rng):
    """Coefficients, radii and distributions: standard normal times 3, and some that are far apart or equal."""
    out = []
    for classes in (2, 3, 10, 100):
        for radius in (1e-3, 0.05, 0.5, 1, 2):
            out.append((3 * rng.normal(size=classes), radius))
        out.append((-rng.integers(1, 20, classes).astype(float), 0.5))
        apart = np.full(classes, -8.0)
        apart[rng.integers(classes)] = 3.0
        out.append((apart, 0.5))
    out.append((np.full(4, -2.0), 0.5))
    out.append((np.array([0.4]), 0.5))
    # Nine digits survive in JSON.
    out = [([float(f"{v:.9g}") for v in c], radius) for c, radius in out]
    return [{"c": c, "radius": radius, "q": [float(f"{v:.9g}") for v in worst_case(c, radius)]} for c, radius in out]
