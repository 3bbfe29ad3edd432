"""Rules and losses of the methods where classes are few, many, absent, perfect, lost or equal."""

from types import SimpleNamespace

import numpy as np
import torch

from fair_tat import BASE_EPSILON
from methods import Bat, Cfa, Dafa, Faal, Fat, Frl, Seen, Trix, Wat

ROWS = 12
# Views of a loss by their keys in the file.
VIEWS = {"p": "clean", "q": "adversarial", "r": "last_clean"}
# Logits of the training batch that methods observe are bytes over this.
UNIT = 16
BUDGET = 2

METHODS = {
    "cfa": lambda k: Cfa(k, on_trades=True),
    "frl": lambda k: Frl(k, remargin=True),
    "fat": Fat,
    "bat": Bat,
    "wat": Wat,
    "dafa-at": lambda k: Dafa(k, on_trades=False),
    "dafa-trades": lambda k: Dafa(k, on_trades=True),
    "faal-at": lambda k: Faal(k, on_trades=False),
    "faal-trades": lambda k: Faal(k, on_trades=True),
    "trix": Trix,
}


def counts(images, right):
    """A confusion with these numbers of images and of right predictions a class; mistakes fall on the class after it."""
    confusion = np.diag(right).astype(np.int64)
    for k, mistakes in enumerate(np.asarray(images) - right):
        confusion[k, (k + 1) % len(right)] += mistakes
    return confusion


def counted(rng, classes, present, images, clean, robust):
    """A case. `present` are the classes of its batch. `clean` and `robust` hold two rows: how many of the `images` of
    each class are right before epoch 0 and before epoch 1."""
    out = {"images": np.array(images), "labels": rng.choice(present, ROWS)}
    p = rng.normal(0, 2, (ROWS, classes)).astype(np.float32)
    q = (p + rng.normal(0, 1, p.shape)).astype(np.float32)
    for epoch, right in enumerate(zip(clean, robust)):
        out |= {f"right.{epoch}.{what}": np.array(r) for what, r in zip(("clean", "robust"), right)}
    return out | {"p": p, "q": q}


def costs(rng, images, cross_entropy=None, divergence=None):
    """Sums over the images of each class of these mean costs, or of random ones."""
    out, drawn = {}, rng.uniform(0, 2, (2, len(images)))
    for what, given, random in zip(("cross_entropy", "divergence"), (cross_entropy, divergence), drawn):
        out[what] = np.float32(images * (random if given is None else np.array(given)))
    return out


def observed(rng, images, favour):
    """A batch in which every class has images, unless it is absent, and the budgets that their searches left.

    `favour(i)` gives the class that images of class i look like, and by how much.
    """
    there = np.flatnonzero(images)
    labels = there[np.arange(max(ROWS, len(there))) % len(there)]
    logits = rng.integers(0, 64, (len(labels), len(images)))
    for row, label in zip(logits, labels):
        like, much = favour(label)
        row[like] = min(row[like] + UNIT * much, 255)
    left = rng.integers(0, BUDGET + 1, len(labels))
    return {"labels": labels, "logits": logits.astype(np.uint8), "left": left}


def two_epochs(name, method, case):
    """Class-wise values of both epochs, then the loss of the second one with its gradients."""
    out = {}
    batch = {what: torch.from_numpy(case[f"observed.{what}"]) for what in ("labels", "logits", "left")}
    for epoch in range(2):
        clean, robust = (counts(case["images"], case[f"right.{epoch}.{what}"]) for what in ("clean", "robust"))
        of_class = {what: case[f"costs.{epoch}.{what}"].astype(float) for what in ("cross_entropy", "divergence")}
        seen = Seen(trained=robust, validated=(clean, robust), costs={"images": case["images"]} | of_class)
        method.plan(epoch, seen)
        z = {view: batch["logits"].double() / UNIT for view in method.views}
        method.observe(z, batch["labels"], SimpleNamespace(budget=BUDGET, left=batch["left"]))
        series = method.series()
        if not (method.epsilon == BASE_EPSILON).all() or name in ("cfa", "frl"):
            series |= {"epsilon": method.epsilon}
        out |= {f"{name}.{epoch}.{what}": v for what, v in series.items()}
    if name == "fat":
        return out
    z = {view: torch.from_numpy(case[key]).double().requires_grad_() for key, view in VIEWS.items()}
    y = torch.from_numpy(case["labels"])
    loss = method.loss(z, y)
    out[f"{name}.loss"] = loss.view(1)
    for key, view in VIEWS.items():
        if view in method.views:
            (out[f"{name}.grad_{key}"],) = torch.autograd.grad(loss, z[view], retain_graph=True)
    if isinstance(method, Faal):
        out[f"{name}.factors"] = method.factors(z, y)
    return out


def edges(rng, more):
    """The cases. `more` draws what is drawn in addition to counts, `p` and `q`."""
    some = [(18, 12, 17, 9), (19, 14, 15, 6)]
    right = rng.integers(5, 21, (4, 100))
    four = [0, 1, 2, 3]
    robust = [(9, 0, 12, 3), (11, 0, 7, 5)]
    cases = {
        "two": counted(rng, 2, [0, 1], [20, 10], [(19, 5), (18, 7)], [(12, 1), (11, 4)]),
        "absent": counted(rng, 4, [0, 2], [20, 0, 20, 20], [(18, 0, 17, 9), (19, 0, 15, 6)], robust),
        "perfect": counted(rng, 4, four, [20] * 4, [(20,) * 4] * 2, [(20,) * 4] * 2),
        "zero": counted(rng, 4, four, [20] * 4, some, robust),
        "lost": counted(rng, 4, four, [20] * 4, [(20, 20, 20, 0)] * 2, [(20, 0, 20, 0)] * 2),
        "hundred": counted(rng, 100, range(100), [20] * 100, right[:2], right[2:] * right[:2] // 20),
        "equal": counted(rng, 3, [0, 1, 2], [10] * 3, [(5,) * 3] * 2, [(1,) * 3] * 2),
    }
    # Mean costs of the classes: none; 12 under attack; 40 even without.
    given = {
        "perfect": {"cross_entropy": [0] * 4, "divergence": [0] * 4},
        "zero": {"divergence": [0.2, 12, 0.1, 1]},
        "lost": {"cross_entropy": [0.1, 0.2, 0.1, 40]},
    }
    # Images look like their class, more or less; those of class 1 like class 2; or all like class 0.
    favour = {"perfect": lambda i: (i, 12), "zero": lambda i: (2 if i == 1 else i, 3), "lost": lambda i: (0, 9)}
    for name, case in cases.items():
        case["r"] = (case["p"] + more.normal(0, 1, case["p"].shape)).astype(np.float32)
        if name in ("perfect", "lost"):
            # Certain of the true class, or of another one.
            case["r"][np.arange(ROWS), case["labels"]] += 20 if name == "perfect" else -20
        for epoch in range(2):
            sums = costs(more, case["images"], **given.get(name, {}))
            case |= {f"costs.{epoch}.{what}": v for what, v in sums.items()}
        batch = observed(more, case["images"], favour.get(name, lambda i: (i, 2)))
        case |= {f"observed.{what}": v for what, v in batch.items()}
        inputs = dict(case)
        for method, make in METHODS.items():
            case |= two_epochs(method, make(len(case["images"])), inputs)
    return cases
