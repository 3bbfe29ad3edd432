"""Writes attacks.safetensors: what the published AutoAttack and torchattacks do to ten images, step by step.

Their code is imported, not copied. What they keep to themselves (step sizes, accepted squares) is read from the local
variables of the running attack, in the forward pass that it calls. README.md says how to run it and what it writes.
"""

import argparse
import contextlib
import copy
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import make
from fair_tat import sgd, state

WIDTH, CLASSES, SHAPE, SAMPLES, STEPS = 4, 10, (1, 8, 8), 10, 100
NORMS = {"linf": "Linf", "l2": "L2"}
# A radius of each norm at which some of the ten images hold.
EPSILON = {"linf": float(np.float32(12 / 255)), "l2": float(np.float32(0.35))}
KEPT_ITERATES = (0, 1, 2, 3, 22, 23, 50, 100)
SQUARE_QUERIES = 300


def locals_of(function):
    """Local variables of the innermost running `function`, and its frame, which outlives the call if it is held."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return (frame.f_locals, frame) if frame else (None, None)


@contextlib.contextmanager
def precision(dtype):
    """Everything in `dtype`, also where the published code asks for float32."""
    before, single = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(dtype)
    torch.Tensor.float = lambda self, *_, **__: self.to(dtype)
    try:
        yield
    finally:
        torch.Tensor.float = single
        torch.set_default_dtype(before)


@contextlib.contextmanager
def random_numbers(**functions):
    """`torch.rand` and `torch.randn` replaced."""
    before = {name: getattr(torch, name) for name in functions}
    for name, function in functions.items():
        setattr(torch, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch, name, function)


def small_network(seed):
    """digits-cnn of width 4, trained a little on perturbed images, and ten images of which it gets nine right."""
    rng = np.random.default_rng(seed)
    images, labels = make.class_images(rng, 400, CLASSES, SHAPE, contrast=1.6)
    network = make.random_network("digits-cnn", images[:100], CLASSES, WIDTH, seed, make.GREY_MEAN, make.GREY_STD)
    x, y = torch.from_numpy(images).double() / 255, torch.from_numpy(labels)
    optimiser = sgd(network, lr=0.1)
    network.train()
    for epoch in range(40):
        for batch in np.array_split(rng.permutation(300), 4):
            clean = x[batch].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(clean), y[batch], reduction="sum"), clean)
            moved = (clean + EPSILON["linf"] * gradient.sign()).clamp(0, 1).detach()
            optimiser.zero_grad()
            F.cross_entropy(network(moved), y[batch]).backward()
            optimiser.step()
    network = network.float().double().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    held = np.arange(300, 400)
    with torch.no_grad():
        ranked = network(x[held]).sort(dim=1, descending=True).indices
    right, second = ((ranked[:, rank] == y[held]).numpy() for rank in (0, 1))
    print(f"  seed {seed}: {right.mean():.0%} of the held-out images right")
    # DLR is the constant 1 where the true class has the third logit: its gradient is rounding, which nobody reproduces.
    chosen = np.sort(np.concatenate([held[right][:9], held[second][:1]]))
    return network, images[chosen], labels[chosen]


def start_noise(rng):
    shape = (SAMPLES, *SHAPE)
    uniform, normal = rng.uniform(-1, 1, shape).astype(np.float32), rng.normal(0, 1, shape).astype(np.float32)
    return {"linf": uniform, "l2": normal}


def apgd(published, network, x, y, norm, loss, noise, target):
    """One run of APGD on all images, with its start given."""
    iterates, steps, losses = [], [], []

    def model(image):
        variables, _ = locals_of("attack_single_run")
        iterates.append(image.detach().clone())
        if "step_size" in variables:
            steps.append(variables["step_size"].flatten().clone())
            losses.append(variables["loss_steps"])
        return network(image)

    kind = published.APGDAttack_targeted if loss == "dlr-t" else published.APGDAttack
    attack = kind(model, n_iter=STEPS, norm=NORMS[norm], eps=EPSILON[norm], device="cpu")
    if loss == "dlr-t":
        attack.y_target = target
    else:
        attack.loss = loss
    checkpoints, oscillates = [], attack.check_oscillation

    def check(found, i, k, best, k3):
        checkpoints.append(i + 1)
        return oscillates(found, i, k, best, k3)

    attack.check_oscillation = check
    attack.init_hyperparam(x)
    t = torch.from_numpy(noise).to(x.dtype)
    with random_numbers(rand=lambda *_: (t + 1) / 2, randn=lambda *_: t.clone()):
        best, kept_right, best_loss, best_adv = attack.attack_single_run(x, y)
    out = {f"iterate.{i}": iterates[i] for i in KEPT_ITERATES}
    # Row i of what the attack steps with is what the rule after step i - 1 left; no rule follows the last step.
    steps = torch.stack([*steps[1:], steps[-1]])
    out |= {"step_sizes": steps, "losses": losses[0], "checkpoints": np.array(checkpoints)}
    out |= {"x_best": best, "loss_best": best_loss, "x_best_adv": best_adv, "success": ~kept_right}
    return out


def fab(published, network, x, y, norm, rank):
    """One run of FAB on all images; towards the class of the `rank`-th largest clean logit if that is given."""
    before, after, moves, norms, classes, frames = [], [], [], [], [], []

    def model(image):
        variables, frame = locals_of("attack_single_run")
        if "counter_iter" in variables:
            frames[:] = [frame]
            if image.requires_grad:
                before.append(image.detach().clone())
                if variables["counter_iter"]:
                    norms.append(variables["res2"].clone())
            else:
                after.append(image.detach().clone())
                moves.append({name: variables[name].clone() for name in ("d1", "d2", "alpha")})
                classes.append(variables["ind"].clone())
        return network(image)

    attack = published.FABAttack_PT(model, norm=NORMS[norm], n_iter=STEPS, eps=EPSILON[norm], device="cpu")
    attack.target_class = rank
    adv = attack.attack_single_run(x, y, use_rand_start=False, is_targeted=rank is not None)
    norms.append(frames[0].f_locals["res2"].clone())
    attacked = frames[0].f_locals["pred"]
    assert len(before) == len(after) == len(norms) == STEPS
    out = {f"iterate.{i}": before[i] for i in (0, 1, 2, 3, 50)}
    for i in (0, 1, 2):
        out |= {f"moved.{i}": after[i], f"d1.{i}": moves[i]["d1"], f"d2.{i}": moves[i]["d2"]}
        out[f"alpha.{i}"] = moves[i]["alpha"].flatten()
    out |= {"attacked": attacked, "best_norms": torch.stack(norms), "x_adv": adv}
    if rank is None:
        out["classes"] = torch.stack(classes)
    return out


def whole_fab(published, network, x, y, norm, targeted):
    """FAB as AutoAttack runs it: nine targets or none, success only within the radius."""
    attack = published.FABAttack_PT(network, norm=NORMS[norm], n_iter=STEPS, eps=EPSILON[norm], device="cpu")
    attack.targeted = targeted
    adv = attack.perturb(x, y)
    return {"x_adv": adv, "robust": network(adv).argmax(dim=1) == y}


def projection_cases(rng, size=12):
    """Points, hyperplanes and what is hard about them: rows of t, w, b."""
    rows = []

    def add(t, w, b):
        rows.append((np.float32(t), np.float32(w), np.float32(b)))

    def reach(t, w, up):
        """The least and the largest w · v for v in the box, minus w · t."""
        return sum(wi * ((wi > 0) - ti if up else (wi < 0) - ti) for wi, ti in zip(w, t))

    for case in range(8):  # both signs, near and far
        t, w = rng.uniform(0, 1, size), rng.normal(0, 1, size)
        add(t, w, w @ t + (0.1, 0.5, 0.9, 0.99)[case // 2] * reach(t, w, case % 2))
    for up in (0, 1):  # beyond the box
        t, w = rng.uniform(0, 1, size), rng.normal(0, 1, size)
        add(t, w, w @ t + 1.5 * reach(t, w, up))
    for up in (0, 1):  # values on the box's edge
        t, w = rng.integers(0, 2, size).astype(float), rng.normal(0, 1, size)
        t[:3] = (0.25, 0.5, 0.75)
        add(t, w, w @ t + 0.6 * reach(t, w, up))
    for up in (0, 1):  # zero weights, one of them at an edge
        t, w = rng.uniform(0, 1, size), rng.normal(0, 1, size)
        w[::3], t[0], t[3] = 0, 0, 1
        add(t, w, w @ t + 0.7 * reach(t, w, up))
    t = rng.uniform(0, 1, size)
    add(t, np.zeros(size), 0.5)  # all weights zero, hyperplane nowhere
    add(t, np.zeros(size), 0.0)  # all weights zero, hyperplane everywhere
    w = np.zeros(size)
    w[5] = -0.5
    add(t, w, w @ t + 0.05)  # one weight, reachable
    add(t, w, w @ t + 5)  # one weight, out of reach
    add(t, 1e-9 * rng.normal(0, 1, size), 1e-3)  # weights below the 1e-8 of the L2 rule
    add(t, 1e-4 * rng.normal(0, 1, size), 0.0)  # small weights
    equal = np.full(size, 0.5)
    add(equal, np.ones(size), 5.0)  # all rooms equal
    add(equal, np.ones(size), 6.0)  # already on the hyperplane
    t, w = np.full(size, 0.5), np.ones(size)
    t[:6] = 0
    add(t, w, 1.0)  # half of the coordinates without room
    return (np.stack(column) for column in zip(*rows))


def square(published, network, x, y, norm, draws):
    """Square with given positions, signs and transpositions."""
    margins, frames = [], []
    tried = torch.zeros(SQUARE_QUERIES, SAMPLES, dtype=x.dtype)
    asked = {"int": 0, "sign": 0}

    def active():
        variables, _ = locals_of("attack_single_run")
        index = variables["idx_to_fool"]
        return index.reshape(-1)

    def model(image):
        variables, frame = locals_of("attack_single_run")
        if variables is not None:
            frames[:] = [frame]
            if "i_iter" in variables and variables["i_iter"]:
                margins.append(variables["margin_min"].clone())
        logits = network(image)
        if variables is not None and "i_iter" in variables:
            index = active()
            own = F.one_hot(y[index], CLASSES).bool()
            margin = logits[own] - logits.masked_fill(own, -torch.inf).amax(dim=1)
            tried[variables["i_iter"], index] = margin.detach()
        return logits

    attack = published.SquareAttack(
        model, norm=NORMS[norm], n_queries=SQUARE_QUERIES, eps=EPSILON[norm], resc_schedule=False, device="cpu"
    )
    places, signs, first_signs = (torch.from_numpy(draws[k]) for k in ("places", "signs", "first_signs"))

    def random_int(low=0, high=1, shape=(1,)):
        variables, _ = locals_of("attack_single_run")
        i, which = variables["i_iter"], asked["int"] % places.shape[1]
        asked["int"] += 1
        # The given number is in [0, 1) and is scaled as the published code scales its own.
        return (low + (high - low) * places[i, which].double()).long().reshape(1)

    def random_choice(shape):
        variables, _ = locals_of("attack_single_run")
        if "i_iter" not in variables:
            drawn = first_signs if norm == "linf" else first_signs[asked["sign"]]
            asked["sign"] += 1
            return drawn.to(x.dtype).reshape(shape)
        drawn = signs[variables["i_iter"]]
        return (drawn if norm == "linf" else drawn[active()]).to(x.dtype).reshape(shape)

    def turn(*_):
        variables, _ = locals_of("attack_single_run")
        if "i_iter" not in variables:
            return torch.zeros(1)
        return torch.from_numpy(draws["turns"])[variables["i_iter"]].to(x.dtype).reshape(1)

    attack.random_int, attack.random_choice = random_int, random_choice
    attack.init_hyperparam(x)
    with random_numbers(rand=turn):
        queries, best = attack.attack_single_run(x, y)
    margins.append(frames[0].f_locals["margin_min"].clone())
    assert len(margins) == SQUARE_QUERIES, "every image is fooled too soon: choose a smaller radius"
    return {"tried": tried, "margins": torch.stack(margins), "queries": queries.long(), "x_best": best}


def square_draws(rng, norm):
    """Numbers in [0, 1) for positions, signs as ±1; for L2 also transpositions (above one half: transposed)."""
    sign = lambda *shape: rng.choice(np.float32([-1, 1]), shape)
    channels, height, width = SHAPE
    if norm == "linf":
        first, signs, places = sign(SAMPLES, channels, 1, width), sign(SQUARE_QUERIES, channels, 1, 1), 2
    else:
        # The first tiling asks for a sign of each of 8 × 8 tiles, the last row and column of which lie outside.
        first, signs, places = sign(height * width, SAMPLES, channels), sign(SQUARE_QUERIES, SAMPLES, channels), 4
    out = {"first_signs": first, "signs": signs}
    out["places"] = rng.uniform(0, 1, (SQUARE_QUERIES, places)).astype(np.float32)
    if norm == "l2":
        out["turns"] = rng.uniform(0, 1, SQUARE_QUERIES).astype(np.float32)
    return out


def square_sides(published, norm, size):
    """The side of the square in each of 5,000 iterations, on an image that is never fooled."""
    sides = []

    def model(image):
        variables, _ = locals_of("attack_single_run")
        if "i_iter" in variables:
            sides.append(variables["s"])
        return torch.tensor([[1.0, 0.0]]).repeat(len(image), 1)

    attack = published.SquareAttack(
        model, norm=NORMS[norm], n_queries=5000, eps=0.1, resc_schedule=False, device="cpu"
    )
    x = torch.full((1, 1, size, size), 0.5)
    attack.init_hyperparam(x)
    attack.attack_single_run(x, torch.zeros(1, dtype=torch.int64))
    return np.array(sides, dtype=np.uint8)


def square_constants(published):
    """What does not depend on a network."""
    out = {}
    attack = published.SquareAttack(None, norm="L2", n_queries=5000, eps=1.0, resc_schedule=False, device="cpu")
    out["schedule"] = np.array([attack.p_selection(i) for i in range(5000)])
    attack.n_queries, attack.rescale_schedule = 1000, True
    out["schedule.rescaled"] = np.array([attack.p_selection(i) for i in range(1000)])
    for norm in NORMS:
        for size in (8, 32):
            out[f"{norm}.sides.{size}"] = square_sides(published, norm, size)
    with random_numbers(rand=lambda *_: torch.zeros(1)):
        for size in (1, 2, 3, 4, 5, 6, 7, 8, 13):
            out[f"eta.{size}"] = attack.eta(size)
            if size > 1:
                out[f"rectangles.{size}"] = attack.eta_rectangles(size // 2, size)
    return out


def checkpoints(published, steps):
    """After which steps, counted from one, APGD applies its rule."""
    attack = published.APGDAttack(lambda x: x[:, 0, 0] * 1.0, n_iter=steps, eps=0.1, device="cpu")
    found, oscillates = [], attack.check_oscillation
    attack.check_oscillation = lambda x, i, *rest, **more: (found.append(i + 1), oscillates(x, i, *rest, **more))[1]
    x = torch.full((1, 1, 1, 4), 0.5)
    attack.init_hyperparam(x)
    attack.attack_single_run(x, torch.zeros(1, dtype=torch.int64))
    return np.array(found)


def cw(published, network, x, y, c):
    """Carlini-Wagner of torchattacks: images before each of its steps, and the best."""
    iterates = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, image):
            iterates.append(image.detach().clone())
            return self.network(image)

    attack = published.CW(Model().eval(), c=c, kappa=0, steps=50, lr=0.01)
    adv = attack(x, y)
    distances = torch.stack([(i - x).flatten(1).square().sum(dim=1) for i in iterates])
    success = network(adv).argmax(dim=1) != y
    out = {f"iterate.{i}": iterates[i] for i in (0, 1, 2, 10) if i < len(iterates)}
    norms = (adv - x).flatten(1).norm(dim=1)
    return out | {"distances": distances, "x_adv": adv, "norms": norms, "success": success}


class Published:
    """The published classes under one name."""

    def __init__(self, path):
        sys.path.insert(0, str(path))
        from autoattack.autopgd_base import APGDAttack, APGDAttack_targeted
        from autoattack.fab_projections import projection_l2, projection_linf
        from autoattack.fab_pt import FABAttack_PT
        from autoattack.square import SquareAttack
        from torchattacks import CW

        self.APGDAttack, self.APGDAttack_targeted = APGDAttack, APGDAttack_targeted
        self.FABAttack_PT, self.SquareAttack, self.CW = FABAttack_PT, SquareAttack, CW
        self.projections = {"linf": projection_linf, "l2": projection_l2}


def everything(published, network, images, labels, given, dtype, whole=True):
    """All runs in `dtype`, with FAB's nine targets and untargeted FAB of AutoAttack only if `whole`."""
    network = copy.deepcopy(network).to(dtype).eval()
    x, y = torch.from_numpy(images).to(dtype) / 255, torch.from_numpy(labels)
    out = {}
    with precision(dtype):
        with torch.no_grad():
            logits = network(x)
        ranked = logits.sort(dim=1, descending=True).indices
        # The wrong class of the largest logit: the second, and the first of the image that is misclassified.
        target = torch.where(ranked[:, 0] == y, ranked[:, 1], ranked[:, 0])
        out |= {"logits": logits, "ranked": ranked, "apgd.target": target}
        for norm in NORMS:
            for loss in ("ce", "dlr", "dlr-t"):
                run = apgd(published, network, x, y, norm, loss, given["noise"][norm], target)
                out |= make.prefixed(f"apgd.{norm}.{loss}", run)
            out |= make.prefixed(f"fab.{norm}.untargeted", fab(published, network, x, y, norm, None))
            out |= make.prefixed(f"fab.{norm}.targeted", fab(published, network, x, y, norm, 2))
            if whole:
                out |= make.prefixed(f"fab.{norm}.whole", whole_fab(published, network, x, y, norm, False))
                out |= make.prefixed(f"fab.{norm}.whole-t", whole_fab(published, network, x, y, norm, True))
            out |= make.prefixed(
                f"square.{norm}", square(published, network, x, y, norm, given["draws"][norm])
            )
            points = (torch.from_numpy(a).to(dtype) for a in given["projection"])
            out[f"projection.{norm}"] = published.projections[norm](*points)
        for c in (1, 10):
            out |= make.prefixed(f"cw.{c}", cw(published, network, x, y, c))
    plain = {k: v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for k, v in out.items()}
    return {k: v.astype(np.uint8) if v.dtype == bool else v for k, v in plain.items()}


def strayed(truth, other):
    """For each run (`apgd.linf.ce`): in which images `other` differs from it by more than 1e-4, or in any integer."""
    out = {}
    for key, value in truth.items():
        family, *rest = key.split(".")
        if family not in ("apgd", "fab", "square", "cw") or key == "apgd.target" or key not in other:
            continue
        run = ".".join([family, *rest[: 1 if family in ("square", "cw") else 2]])
        found = out.setdefault(run, np.zeros(SAMPLES, dtype=bool))
        if key.endswith(("checkpoints", "attacked")):
            assert np.array_equal(value, other[key]), key
            continue
        # FAB keeps rows of the images that it attacks; the runs of an image are along the second axis.
        by_image = key.endswith(("step_sizes", "losses", "best_norms", "classes", "tried", "margins", "distances"))
        value, compared = (np.moveaxis(a, 1, 0) if by_image else a for a in (value, other[key]))
        index = truth[f"{run}.attacked"] if len(value) < SAMPLES else np.arange(SAMPLES)
        if value.shape != compared.shape:
            found[:] = True
            continue
        value, compared = (a.reshape(len(a), -1).astype(np.float64) for a in (value, compared))
        found[index] |= (np.abs(value - compared) > 1e-4 * np.maximum(1, np.abs(value))).any(axis=1)
    return out


def moved(network, repeat):
    """A copy whose parameters are off by a few float32 rounding errors: 2, 4 or 8."""
    other = copy.deepcopy(network)
    torch.manual_seed(repeat)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + torch.empty_like(parameter).uniform_(-1, 1) * 2.0 ** (-24 + repeat))
    return other


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--autoattack", type=Path, default=os.environ.get("AUTOATTACK"))
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--repeats", type=int, default=4, help="runs in float32 to compare with")
    arguments.add_argument("--dry", action="store_true", help="write nothing")
    arguments = arguments.parse_args()
    if arguments.autoattack is None:
        sys.exit("Say where github.com/fra31/auto-attack lies: --autoattack DIR or AUTOATTACK=DIR")
    torch.set_num_threads(1)
    published = Published(arguments.autoattack)
    network, images, labels = small_network(arguments.seed)
    rng = np.random.default_rng(arguments.seed + 1)
    given = {"noise": start_noise(rng), "projection": list(projection_cases(rng))}
    given["draws"] = {norm: square_draws(rng, norm) for norm in NORMS}
    truth = everything(published, network, images, labels, given, torch.float64)
    for key in (k for k in truth if k.endswith(("success", "robust", "queries", "attacked"))):
        print(f"  {key}: {truth[key].tolist()}")
    stray = {}
    for repeat in range(arguments.repeats):
        other = moved(network, repeat) if repeat else network
        single = everything(published, other, images, labels, given, torch.float32, whole=repeat == 0)
        for run, found in strayed(truth, single).items():
            stray[run] = stray.get(run, False) | found
    for run, found in stray.items():
        print(f"  {run}: float32 strays in {np.flatnonzero(found).tolist()}")
    if arguments.dry:
        return
    out = {"images": images, "labels": labels, "mean": np.float32(make.GREY_MEAN), "std": np.float32(make.GREY_STD)}
    out |= make.prefixed("state", state(network)) | {"width": np.array([WIDTH])}
    out |= {f"epsilon.{norm}": np.array([EPSILON[norm]]) for norm in NORMS}
    out |= make.prefixed("noise", given["noise"])
    out |= dict(zip(("projection.t", "projection.w", "projection.b"), given["projection"]))
    for norm, draws in given["draws"].items():
        out |= make.prefixed(f"square.{norm}", draws)
    out |= truth | make.prefixed("square", square_constants(published))
    out |= {f"checkpoints.{steps}": checkpoints(published, steps) for steps in (100, 20, 5)}
    out |= {f"{run}.float32_strayed": found.astype(np.uint8) for run, found in stray.items()}
    make.save("attacks", out)


if __name__ == "__main__":
    main()
