"""TRADES, CFA, FRL and FAIR-TAT on TRADES: search, losses, rules and small runs, plainly, in any floating-point type."""

import numpy as np
import torch
from torch.nn import functional as F

from fair_tat import BASE_EPSILON, STEP_SIZE, cfps, clip, draw_target, sgd, softmax
from philox import ATTACK_START, EVALUATION_START, SHUFFLE, TARGET, Stream

START_DEVIATION = 0.001
EVALUATION_STEPS, EVALUATION_STEP_SIZE = 5, 4 / 255


def kl(p_logits, q_logits):
    """KL(p || q) a sample, of softmaxed logits."""
    log_p, log_q = p_logits.log_softmax(dim=1), q_logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def ascend(network, image, start, epsilon, step_size, steps, objective):
    """The perturbation after sign steps from `start` up the sum of `objective(logits)`; the start is taken as it is."""
    epsilon = epsilon.view(-1, 1, 1, 1)
    delta = start
    for _ in range(steps):
        delta = delta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(network(image + delta)).sum(), delta)
        moved = delta.detach() + step_size * gradient.sign()
        delta = clip(torch.minimum(torch.maximum(moved, -epsilon), epsilon), image)
    return delta


def away(label):
    """CE of the true class."""
    return lambda logits: F.cross_entropy(logits, label, reduction="none")


def pgd(network, image, label, epsilon, noise):
    """Untargeted PGD-10 from noise × epsilon, in the mode that the network is in."""
    start = clip(noise * epsilon.view(-1, 1, 1, 1), image)
    return ascend(network, image, start, epsilon, STEP_SIZE, 10, away(label))


def trades_search(network, image, epsilon, noise, step_size=STEP_SIZE, target=None):
    """The search of TRADES, in eval mode: up KL(p(image) || p(x)), or down the CE of a target. Leaves train mode on."""
    network.eval()
    with torch.no_grad():
        clean = network(image)

    def objective(logits):
        return kl(clean, logits) if target is None else -F.cross_entropy(logits, target, reduction="none")

    delta = ascend(network, image, START_DEVIATION * noise, epsilon, step_size, 10, objective)
    network.train()
    return delta


def class_loss(beta, p, q, y):
    """Mean of (CE(p) + beta_y KL(p || q)) / (1 + beta_y), with a beta for each class."""
    beta = torch.from_numpy(beta).to(p.dtype)[y]
    return ((F.cross_entropy(p, y, reduction="none") + beta * kl(p, q)) / (1 + beta)).mean()


def class_accuracy(confusion):
    """0 for a class without images."""
    return np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1)


class Method:
    """What a training method decides. This one decides nothing: TRADES, with one beta and one radius."""

    on_trades, validates = True, False
    beta, pi = 6.0, None

    def __init__(self, classes, scaled=False):
        self.classes, self.scaled = classes, scaled
        self.epsilon = np.full(classes, BASE_EPSILON)

    def plan(self, epoch, trained, validated):
        """Before an epoch: confusion of the epoch before (None before the first), confusions on the validation images."""

    def series(self):
        return {}

    def search(self, network, x, y, radius, noise, target):
        return trades_search(network, x, radius, noise)

    def loss(self, p, q, y):
        if self.scaled:
            return class_loss(np.full(self.classes, self.beta), p, q, y)
        return F.cross_entropy(p, y) + self.beta * kl(p, q).mean()


class Cfa(Method):
    """Radius, and on TRADES beta, of each class from its accuracy under the training attack; without a warm-up."""

    def __init__(self, classes, on_trades):
        super().__init__(classes)
        self.on_trades, self.betas = on_trades, np.full(classes, self.beta)

    def plan(self, epoch, trained, validated):
        if trained is not None:
            accuracy = class_accuracy(trained)
            self.epsilon = ((0.3 if self.on_trades else 0.5) + accuracy) * BASE_EPSILON
            self.betas = (0.5 + accuracy) * self.beta

    def series(self):
        return {"beta": self.betas} if self.on_trades else {}

    def search(self, network, x, y, radius, noise, target):
        return trades_search(network, x, radius, noise) if self.on_trades else pgd(network, x, y, radius, noise)

    def loss(self, p, q, y):
        return class_loss(self.betas, p, q, y) if self.on_trades else F.cross_entropy(q, y)


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

    def plan(self, epoch, trained, validated):
        clean, robust = validated
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

    def search(self, network, x, y, radius, noise, target):
        return trades_search(network, x, radius, noise, radius.max() / 4 if self.remargin else STEP_SIZE)

    def loss(self, p, q, y):
        w0, w1 = (torch.from_numpy(w).to(p.dtype)[y] for w in self.series().values())
        clean = (w0 * F.cross_entropy(p, y, reduction="none")).sum() / w0.sum()
        return clean + self.beta * (w1 * kl(p, q)).sum() / w1.sum()


class FairTatOnTrades(Method):
    """Targets and radii of FAIR-TAT; the loss of TRADES, scaled."""

    def __init__(self, classes):
        super().__init__(classes, scaled=True)
        self.pi = np.full(classes, 1 / classes)

    def plan(self, epoch, trained, validated):
        if trained is not None:
            self.pi = softmax(2 * cfps(trained))
            self.epsilon = (0.5 + class_accuracy(trained)) * BASE_EPSILON

    def search(self, network, x, y, radius, noise, target):
        return trades_search(network, x, radius, noise, target=target)


METHODS = {
    "trades": lambda k: Method(k),
    "trades-scaled": lambda k: Method(k, scaled=True),
    "cfa-at": lambda k: Cfa(k, on_trades=False),
    "cfa-trades": lambda k: Cfa(k, on_trades=True),
    "frl-reweight": lambda k: Frl(k, remargin=False),
    "frl-remargin": lambda k: Frl(k, remargin=True),
    "fair-tat-trades": lambda k: FairTatOnTrades(k),
}


class Counter:
    """Confusions, and the smallest distance of any logit from the largest one of its row."""

    def __init__(self, classes):
        self.classes, self.margin = classes, 1.0

    def count(self, logits, labels):
        top = logits.detach().topk(2).values
        self.margin = min(self.margin, float((top[:, 0] - top[:, 1]).min()))
        confusion = np.zeros((self.classes, self.classes), dtype=np.int64)
        np.add.at(confusion, (labels.numpy(), logits.argmax(dim=1).numpy()), 1)
        return confusion


def validate(network, x, y, seed, counter):
    """Confusions on unperturbed images and under PGD-5, in eval mode."""
    network.eval()
    noise = np.stack([Stream(seed, EVALUATION_START, 0, i).symmetric(x[0].numel()) for i in range(len(x))])
    noise = torch.from_numpy(noise).to(x.dtype).view_as(x)
    epsilon = torch.full((len(x),), BASE_EPSILON, dtype=x.dtype)
    start = clip(noise * BASE_EPSILON, x)
    delta = ascend(network, x, start, epsilon, EVALUATION_STEP_SIZE, EVALUATION_STEPS, away(y))
    with torch.no_grad():
        return [counter.count(network(images), y) for images in (x, x + delta)]


def run(network, method, images, labels, validation, seed, epochs, batch, lr):
    """A run without augmentation and without extra forward passes. `validation` is images and labels, or None.

    Returns a dict of what is known of each epoch, and the smallest margin of any decision by a threshold.
    """
    dtype = next(network.parameters()).dtype
    count, shape = len(images), images.shape[1:]
    values = int(np.prod(shape))

    def as_images(pixels):
        return torch.from_numpy(pixels).to(dtype) / 255

    x, y = as_images(images), torch.from_numpy(labels)
    optimiser, counter = sgd(network, lr), Counter(method.classes)
    out, trained = {}, None
    for epoch in range(epochs + 1):
        validated = None
        if validation is not None:
            validated = validate(network, as_images(validation[0]), torch.from_numpy(validation[1]), seed, counter)
            out |= {f"epoch.{epoch}.validation.{what}": v for what, v in zip(("clean", "robust"), validated)}
        method.plan(epoch, trained, validated)
        out |= {f"epoch.{epoch}.{what}": v for what, v in method.series().items()}
        out[f"epoch.{epoch}.epsilon"] = method.epsilon
        if method.pi is not None:
            out[f"epoch.{epoch}.pi"] = method.pi
        if epoch == epochs:
            break

        order = Stream(seed, SHUFFLE, epoch, 0).permutation(count)
        streams = [Stream(seed, ATTACK_START, epoch, i) for i in range(count)]
        noise = np.stack([s.normal(values) if method.on_trades else s.symmetric(values) for s in streams])
        noise = torch.from_numpy(noise).to(dtype).view(count, *shape)
        radius = torch.from_numpy(method.epsilon).to(dtype)[y]
        targets = torch.zeros_like(y)
        if method.pi is not None:
            drawn = [
                draw_target(Stream(seed, TARGET, epoch, i).unit(1)[0], labels[i], method.pi) for i in range(count)
            ]
            targets = torch.tensor([t for t, _ in drawn])
            counter.margin = min(counter.margin, *(d for _, d in drawn))
            out[f"epoch.{epoch}.targets"] = targets.numpy()

        trained, clean_counts = np.zeros((2, method.classes, method.classes), dtype=np.int64)
        predictions, losses, perturbations = torch.zeros(count, dtype=torch.int64), [], torch.zeros_like(x)
        network.train()
        for start in range(0, count, batch):
            i = order[start : start + batch]
            delta = method.search(network, x[i], y[i], radius[i], noise[i], targets[i])
            clean = network(x[i]) if method.on_trades else None
            adversarial = network(x[i] + delta)
            loss = method.loss(clean, adversarial, y[i])
            optimiser.zero_grad()
            loss.backward()
            if not losses and epoch == 0:
                out |= {f"gradient.{k}": p.grad.clone() for k, p in network.named_parameters()}
            optimiser.step()

            perturbations[i], predictions[i] = delta, adversarial.argmax(dim=1)
            trained += counter.count(adversarial, y[i])
            if method.on_trades:
                clean_counts += counter.count(clean, y[i])
            losses.append(float(loss.detach()))
        out |= {
            f"epoch.{epoch}.order": np.array(order),
            f"epoch.{epoch}.delta": perturbations.numpy(),
            f"epoch.{epoch}.predictions": predictions.numpy(),
            f"epoch.{epoch}.confusion": trained,
            f"epoch.{epoch}.batch_losses": np.array(losses),
        }
        if method.on_trades:
            out[f"epoch.{epoch}.clean_accuracy"] = class_accuracy(clean_counts)
    return out, counter.margin


def counts(images, right):
    """A confusion with these numbers of images and of right predictions a class; mistakes fall on the class after it."""
    confusion = np.diag(right).astype(np.int64)
    for k, mistakes in enumerate(np.asarray(images) - right):
        confusion[k, (k + 1) % len(right)] += mistakes
    return confusion


def edges(rng):
    """Losses of FRL and of CFA on TRADES after two steps of their rules, where classes are few, many, absent or perfect.

    Each case: its number of classes, the classes of its batch, and images and right predictions of each class.
    """

    def case(classes, present, images, clean, robust):
        """`clean` and `robust` hold two rows: what is counted before epoch 0 and before epoch 1."""
        out = {"images": np.array(images), "labels": rng.choice(present, 12)}
        p = rng.normal(0, 2, (12, classes)).astype(np.float32)
        q = (p + rng.normal(0, 1, p.shape)).astype(np.float32)
        out |= {"p": p, "q": q}
        y = torch.from_numpy(out["labels"])
        cfa, frl = Cfa(classes, on_trades=True), Frl(classes, remargin=True)
        for epoch, right in enumerate(zip(clean, robust)):
            validated = [counts(images, r) for r in right]
            out |= {f"right.{epoch}.{what}": np.array(r) for what, r in zip(("clean", "robust"), right)}
            for name, method in (("cfa", cfa), ("frl", frl)):
                method.plan(epoch, validated[1], validated)
                series = method.series() | {"epsilon": method.epsilon.copy()}
                out |= {f"{name}.{epoch}.{what}": v for what, v in series.items()}
        for name, method in (("cfa", cfa), ("frl", frl)):
            logits = [torch.from_numpy(a).double().requires_grad_() for a in (p, q)]
            loss = method.loss(*logits, y)
            gradients = torch.autograd.grad(loss, logits)
            out |= {f"{name}.loss": loss.view(1), f"{name}.grad_p": gradients[0], f"{name}.grad_q": gradients[1]}
        return out

    some = [(18, 12, 17, 9), (19, 14, 15, 6)]
    right = rng.integers(5, 21, (4, 100))
    return {
        "two": case(2, [0, 1], [20, 10], [(19, 5), (18, 7)], [(12, 1), (11, 4)]),
        "absent": case(4, [0, 2], [20, 0, 20, 20], [(18, 0, 17, 9), (19, 0, 15, 6)], [(9, 0, 12, 3), (11, 0, 7, 5)]),
        "perfect": case(4, [0, 1, 2, 3], [20] * 4, [(20,) * 4] * 2, [(20,) * 4] * 2),
        "zero": case(4, [0, 1, 2, 3], [20] * 4, some, [(9, 0, 12, 3), (11, 0, 7, 5)]),
        "lost": case(4, [0, 1, 2, 3], [20] * 4, [(20, 20, 20, 0)] * 2, [(20, 0, 20, 0)] * 2),
        "hundred": case(100, range(100), [20] * 100, right[:2], right[2:] * right[:2] // 20),
    }
