"""The training methods: searches, losses and rules, plainly, in any floating-point type."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch.nn import functional as F

from fair_tat import BASE_EPSILON, STEP_SIZE, cfps, softmax
from search import Friendly, away, kl, pgd, towards, trades_search
from worst_case import worst_case


@dataclass
class Batch:
    """The images of a search: radius, target and start of each, and the noise of each step."""

    epoch: int
    x: torch.Tensor
    y: torch.Tensor
    epsilon: torch.Tensor
    target: torch.Tensor
    noise: torch.Tensor
    step_noise: torch.Tensor


@dataclass
class Seen:
    """What is known before an epoch, None where nothing is."""

    # Confusion of the last training pass.
    trained: np.ndarray = None
    # Confusions on the validation images, clean and robust.
    validated: tuple = None
    # Sums over the validation images of each class: their number, CE and KL under the training search.
    costs: dict = None


def of_images(values, y, like):
    """For each image the value of its class."""
    return torch.as_tensor(values).to(like.dtype)[y]


def ce(z, y):
    return F.cross_entropy(z, y, reduction="none")


def trades_loss(beta, p, q, y):
    return ce(p, y).mean() + beta * kl(p, q).mean()


def class_loss(beta, p, q, y):
    """Mean of (CE(p) + beta_y KL(p || q)) / (1 + beta_y), with a beta for each class."""
    beta = of_images(beta, y, p)
    return ((ce(p, y) + beta * kl(p, q)) / (1 + beta)).mean()


def class_accuracy(confusion):
    """0 for a class without images."""
    return np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1)


ADVERSARIAL_ONLY, BOTH = ("adversarial",), ("clean", "adversarial")


class Method:
    """What a training method decides. This one decides nothing: TRADES, with one beta and one radius."""

    # Views of the loss, in the order of their forward passes.
    views = BOTH
    normal_start, validates, needs_costs = True, False, False
    beta, pi, step_deviation = 6.0, None, 0.0

    def __init__(self, classes, scaled=False):
        self.classes, self.scaled = classes, scaled
        self.epsilon = np.full(classes, BASE_EPSILON)

    def plan(self, epoch, seen):
        """Before an epoch. Whatever `observe` summed up is of the last one, and begins anew."""

    def series(self):
        """Class-wise values, as far as the epoch's batches have been observed."""
        return {}

    def targets_of(self):
        """For each class the distribution of its targets; None without targets."""
        return None if self.pi is None else [self.pi] * self.classes

    def search(self, network, batch):
        """The views that it finds, each a perturbation, and its rule if images stop early."""
        return {"adversarial": trades_search(network, batch)}, None

    def loss(self, z, y):
        """From the logits of the views."""
        if self.scaled:
            return class_loss(np.full(self.classes, self.beta), z["clean"], z["adversarial"], y)
        return trades_loss(self.beta, z["clean"], z["adversarial"], y)

    def observe(self, z, y, rule):
        """After a batch."""


class Cfa(Method):
    """Radius, and on TRADES beta, of each class from its accuracy under the training attack; without a warm-up."""

    def __init__(self, classes, on_trades):
        super().__init__(classes)
        self.normal_start, self.betas = on_trades, np.full(classes, self.beta)
        self.views = BOTH if on_trades else ADVERSARIAL_ONLY
        self.lambda_1 = 0.3 if on_trades else 0.5

    def plan(self, epoch, seen):
        if seen.trained is not None:
            accuracy = class_accuracy(seen.trained)
            self.epsilon = (self.lambda_1 + accuracy) * BASE_EPSILON
            self.betas = (0.5 + accuracy) * self.beta

    def series(self):
        return {"beta": self.betas} if self.normal_start else {}

    def search(self, network, batch):
        delta = trades_search(network, batch) if self.normal_start else pgd(network, batch, away(batch.y))
        return {"adversarial": delta}, None

    def loss(self, z, y):
        if self.normal_start:
            return class_loss(self.betas, z["clean"], z["adversarial"], y)
        return F.cross_entropy(z["adversarial"], y)


class Frl(Method):
    """Weights, and with `remargin` radii, from multipliers that grow with the errors on the validation images.

    The steps are larger than the authors', so that two epochs show what they do.
    """

    validates = True
    beta, limit, alpha_1, alpha_2 = 1.5, 0.5, 0.5, 0.5

    def __init__(self, classes, remargin):
        super().__init__(classes)
        self.remargin, self.tau = remargin, 0.07 if remargin else 0.1
        self.l0, self.l1, self.l2 = np.zeros((3, classes))

    def project(self, multipliers):
        multipliers = np.maximum(multipliers, 0)
        return multipliers * min(1, self.limit / max(multipliers.sum(), 1e-300))

    def plan(self, epoch, seen):
        clean, robust = seen.validated
        c_k, r_k = class_accuracy(clean), class_accuracy(robust)
        c, r = (np.trace(counts) / counts.sum() for counts in (clean, robust))
        there = clean.sum(axis=1) > 0
        g0 = there * ((1 - c_k) - (1 - c) - self.tau)
        g1 = there * ((c_k - r_k) - (c - r) - self.tau)
        self.l0 = self.project(self.l0 + self.alpha_1 * g0)
        self.l1 = self.project(self.l1 + 2 * self.alpha_1 * g1)
        if self.remargin:
            self.l2 = self.l2 + self.alpha_2 * g1
            self.epsilon = np.clip(np.exp(2 * self.l2), 0.98, 3) * BASE_EPSILON

    def series(self):
        weights = (1 / self.classes + l - l.mean() for l in (self.l0, self.l1))
        return dict(zip(("clean_weight", "boundary_weight"), weights))

    def search(self, network, batch):
        step_size = batch.epsilon.max() / 4 if self.remargin else STEP_SIZE
        return {"adversarial": trades_search(network, batch, step_size=step_size)}, None

    def loss(self, z, y):
        p, q = z["clean"], z["adversarial"]
        w0, w1 = (of_images(w, y, p) for w in self.series().values())
        return (w0 * ce(p, y)).sum() / w0.sum() + self.beta * (w1 * kl(p, q)).sum() / w1.sum()


class FairTatOnTrades(Method):
    """Targets and radii of FAIR-TAT; the loss of TRADES, scaled."""

    def __init__(self, classes):
        super().__init__(classes, scaled=True)
        self.pi = np.full(classes, 1 / classes)

    def plan(self, epoch, seen):
        if seen.trained is not None:
            self.pi = softmax(2 * cfps(seen.trained))
            self.epsilon = (0.5 + class_accuracy(seen.trained)) * BASE_EPSILON

    def search(self, network, batch):
        return {"adversarial": trades_search(network, batch, towards(batch.target))}, None


class Fat(Method):
    """Friendly adversarial training: a search that stops early, and the mean CE of where it ends."""

    views, normal_start, tau, spent, eval_mode = ADVERSARIAL_ONLY, False, (1,), True, False

    def __init__(self, classes):
        super().__init__(classes)
        self.forget()

    def forget(self):
        self.used, self.images = np.zeros((2, self.classes))

    def plan(self, epoch, seen):
        self.forget()

    def tau_at(self, epoch):
        """The next value from each epoch on: 1, 2, ..."""
        return self.tau[min(epoch, len(self.tau) - 1)]

    def series(self):
        return {"budget_used": self.used / np.maximum(self.images, 1)}

    def objective(self, batch):
        return away(batch.y)

    def rule(self, batch):
        return Friendly(batch.y, self.tau_at(batch.epoch), self.spent)

    def search(self, network, batch):
        network.train(not self.eval_mode)
        rule = self.rule(batch)
        delta = pgd(network, batch, self.objective(batch), rule, batch.step_noise if self.step_deviation else None)
        network.train()
        return {"adversarial": delta}, rule

    def loss(self, z, y):
        return F.cross_entropy(z["adversarial"], y)

    def observe(self, z, y, rule):
        np.add.at(self.used, y.numpy(), (rule.budget - rule.left).numpy())
        np.add.at(self.images, y.numpy(), 1)


class OriginalFat(Fat):
    """The authors' form: eval mode, noise in every step, a budget that grows."""

    tau, spent, eval_mode, step_deviation = (0, 1), False, True, 0.001


class FatOnTrades(Fat):
    """FAT for TRADES: the search by KL, from a clipped start, and the loss of TRADES."""

    views, normal_start, spent = BOTH, True, False

    def search(self, network, batch):
        rule = self.rule(batch)
        return {"adversarial": trades_search(network, batch, rule=rule, clips_start=True)}, rule

    def loss(self, z, y):
        return trades_loss(self.beta, z["clean"], z["adversarial"], y)


class CfaOnFat(Fat):
    """Radii of CFA."""

    def plan(self, epoch, seen):
        super().plan(epoch, seen)
        if seen.trained is not None:
            self.epsilon = (0.7 + class_accuracy(seen.trained)) * BASE_EPSILON


class FairTatOnFat(Fat):
    """Targets and radii of FAIR-TAT."""

    def __init__(self, classes):
        super().__init__(classes)
        self.pi = np.full(classes, 1 / classes)

    def plan(self, epoch, seen):
        super().plan(epoch, seen)
        if seen.trained is not None:
            self.pi = softmax(2 * cfps(seen.trained))
            self.epsilon = (0.5 + class_accuracy(seen.trained)) * BASE_EPSILON

    def objective(self, batch):
        return towards(batch.target)


class Bat(Method):
    """Two iterates of one search: the last one before the first mistake, and where FAT with a budget of 1 ends."""

    views = ("last_clean", "adversarial", "clean")

    def search(self, network, batch):
        rule = Friendly(batch.y, budget=1, spent=False)
        delta = trades_search(network, batch, rule=rule, clips_start=True)
        last_clean = torch.where(rule.ever_wrong.view(-1, 1, 1, 1), rule.last_clean, delta)
        return {"last_clean": last_clean, "adversarial": delta}, rule

    def loss(self, z, y):
        uniform = torch.zeros_like(z["clean"])
        balance = kl(z["last_clean"], uniform).mean() + kl(z["adversarial"], uniform).mean()
        return ce(z["last_clean"], y).mean() + self.beta * kl(z["clean"], z["adversarial"]).mean() + balance


class Wat(Method):
    """Hedge over the classes and their average, by costs on the validation images."""

    needs_costs = True

    def __init__(self, classes, eta=0.1):
        super().__init__(classes)
        self.eta, self.sums = eta, None

    def plan(self, epoch, seen):
        if seen.costs is None:
            return
        images = seen.costs["images"]
        costs = seen.costs["cross_entropy"] + self.beta * seen.costs["divergence"]
        average = costs.sum() / max(images.sum(), 1)
        mean = np.append(np.where(images > 0, costs / np.maximum(images, 1), average), average)
        self.sums = mean if self.sums is None else self.sums + mean

    def series(self):
        experts = np.ones(self.classes + 1) if self.sums is None else self.classes * softmax(self.eta * self.sums)
        return {"weight": experts[:-1] + experts[-1]}

    def loss(self, z, y):
        p, q = z["clean"], z["adversarial"]
        return (of_images(self.series()["weight"], y, p) * (ce(p, y) + self.beta * kl(p, q))).mean()


class Dafa(Method):
    """Radius, step and loss weight of each class from its similarity to the others, measured in epoch 0."""

    warmup, strength, minimum = 1, 1.0, 0.01

    def __init__(self, classes, on_trades):
        super().__init__(classes)
        self.on_trades, self.views = on_trades, BOTH if on_trades else ADVERSARIAL_ONLY
        self.weights, self.images, self.probabilities = np.ones(classes), np.zeros(classes), np.zeros((classes, classes))

    def observe(self, z, y, rule):
        """Sums of the probabilities on adversarial images."""
        p = z["adversarial"].detach().softmax(dim=1).double().numpy()
        np.add.at(self.probabilities, y.numpy(), p)
        np.add.at(self.images, y.numpy(), 1)

    def plan(self, epoch, seen):
        if epoch == self.warmup:
            s = self.probabilities / np.maximum(self.images, 1)[:, None]
            own = np.diag(s)
            harder = own[:, None] < own[None, :]
            change = np.where(harder, s * own[None, :], -s.T * own[:, None])
            np.fill_diagonal(change, 0)
            self.weights = np.maximum(1 + self.strength * change.sum(axis=1), self.minimum)
            self.epsilon = self.weights * BASE_EPSILON
        self.images, self.probabilities = np.zeros(self.classes), np.zeros((self.classes, self.classes))

    def series(self):
        return {"weight": self.weights}

    def search(self, network, batch):
        step_size = of_images(self.weights, batch.y, batch.x).view(-1, 1, 1, 1) * STEP_SIZE
        objective = None if self.on_trades else away(batch.y)
        return {"adversarial": trades_search(network, batch, objective, step_size)}, None

    def loss(self, z, y):
        q = z["adversarial"]
        w = of_images(self.weights, y, q)
        if not self.on_trades:
            return (w * ce(q, y)).mean()
        return (w * ce(z["clean"], y)).mean() + self.beta * kl(z["clean"], q).mean()


class Faal(Method):
    """Class weights that are worst for each batch, in a ball round equal ones."""

    radius = 0.5

    def __init__(self, classes, on_trades):
        super().__init__(classes)
        self.normal_start, self.views = on_trades, BOTH if on_trades else ADVERSARIAL_ONLY
        self.plan(0, Seen())

    def plan(self, epoch, seen):
        self.sums, self.batches = np.zeros((2, self.classes))

    def series(self):
        return {"weight": np.where(self.batches > 0, self.sums / np.maximum(self.batches, 1), 1)}

    def search(self, network, batch):
        delta = trades_search(network, batch) if self.normal_start else pgd(network, batch, away(batch.y))
        return {"adversarial": delta}, None

    def factors(self, z, y):
        """For each class its factor in this batch; 0 for those without images."""
        p = z["adversarial"].detach().double().softmax(dim=1)
        own = p.gather(1, y[:, None])[:, 0]
        margins = (p.scatter(1, y[:, None], -torch.inf).max(dim=1).values - own).numpy()
        there = np.unique(y.numpy())
        sums = [margins[y.numpy() == k].sum() for k in there]
        factors = np.zeros(self.classes)
        factors[there] = len(there) * worst_case(sums, self.radius)
        return factors

    def loss(self, z, y):
        q = z["adversarial"]
        w = of_images(self.factors(z, y), y, q)
        if not self.normal_start:
            return (w * ce(q, y)).mean()
        return (w * (ce(z["clean"], y) + self.beta * kl(z["clean"], q))).mean()

    def observe(self, z, y, rule):
        factors = self.factors(z, y)
        self.sums += factors
        self.batches += factors > 0


class Trix(Method):
    """Strong classes search towards uniform targets, weak ones away from themselves; class-wise radii and weights."""

    views, normal_start = ADVERSARIAL_ONLY, False

    def __init__(self, classes):
        super().__init__(classes)
        self.weights, self.strong = np.ones(classes), np.zeros(classes, dtype=bool)

    def plan(self, epoch, seen):
        if epoch < 1 or seen.trained is None:
            return
        r = class_accuracy(seen.trained)
        # In whole numbers: a class that is exactly the mean is strong.
        exact = [Fraction(int(row[k]), max(int(row.sum()), 1)) for k, row in enumerate(seen.trained)]
        self.strong = np.array([value * self.classes >= sum(exact) for value in exact])
        self.epsilon = (0.5 + r) * BASE_EPSILON
        errors = 1 - r
        self.weights = errors / errors.mean() if errors.any() else np.ones(self.classes)

    def series(self):
        return {"weight": self.weights, "targeted": self.strong.astype(float)}

    def targets_of(self):
        """Weak classes have none, which counts as the class itself."""
        return [np.full(self.classes, 1 / self.classes) if strong else None for strong in self.strong]

    def search(self, network, batch):
        aims = torch.from_numpy(self.strong)[batch.y]

        def objective(logits):
            return torch.where(aims, towards(batch.target)(logits), away(batch.y)(logits))

        return {"adversarial": pgd(network, batch, objective)}, None

    def loss(self, z, y):
        q = z["adversarial"]
        return (of_images(self.weights, y, q) * ce(q, y)).mean()


METHODS = {
    "trades": lambda k: Method(k),
    "trades-scaled": lambda k: Method(k, scaled=True),
    "cfa-at": lambda k: Cfa(k, on_trades=False),
    "cfa-trades": lambda k: Cfa(k, on_trades=True),
    "cfa-fat": CfaOnFat,
    "frl-reweight": lambda k: Frl(k, remargin=False),
    "frl-remargin": lambda k: Frl(k, remargin=True),
    "fair-tat-trades": FairTatOnTrades,
    "fair-tat-fat": FairTatOnFat,
    "fat-spent": Fat,
    "fat-original": OriginalFat,
    "fat-kl": FatOnTrades,
    "bat": Bat,
    # Ten times the authors' step, so that two epochs show what it does.
    "wat": lambda k: Wat(k, eta=1.0),
    "dafa-at": lambda k: Dafa(k, on_trades=False),
    "dafa-trades": lambda k: Dafa(k, on_trades=True),
    "faal-at": lambda k: Faal(k, on_trades=False),
    "faal-trades": lambda k: Faal(k, on_trades=True),
    "trix": Trix,
}
