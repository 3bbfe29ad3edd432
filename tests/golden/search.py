"""Searches for a perturbation, plainly, in any floating-point type."""

import torch
from torch.nn import functional as F

from fair_tat import STEP_SIZE, clip

START_DEVIATION = 0.001


def kl(p_logits, q_logits):
    """KL(p || q) a sample, of softmaxed logits."""
    log_p, log_q = p_logits.log_softmax(dim=1), q_logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def away(label):
    """CE of the true class."""
    return lambda logits: F.cross_entropy(logits, label, reduction="none")


def towards(target):
    """Minus CE of a target class."""
    return lambda logits: -F.cross_entropy(logits, target, reduction="none")


class Friendly:
    """Friendly adversarial training's rule for the images of a batch.

    A step from a misclassified iterate costs 1 of the budget. An image without budget stops when it is misclassified, or
    at once if `spent`.
    """

    def __init__(self, label, budget, spent):
        self.label, self.budget, self.spent = label, budget, spent
        self.left = torch.full_like(label, budget)
        self.stopped = torch.zeros_like(label, dtype=torch.bool)
        self.ever_wrong = self.stopped.clone()
        self.last_clean = None
        self.margin = 1.0

    def look(self, logits, delta):
        """Whether each image takes a step from `delta`, where it has these logits."""
        own = logits.gather(1, self.label[:, None])[:, 0]
        other = logits.scatter(1, self.label[:, None], -torch.inf).max(dim=1).values
        self.margin = min(self.margin, float((own - other).abs().min()))
        wrong = other > own
        # The last iterate before the first mistake, or the start if that is one.
        begins = self.last_clean is None
        keeps = ~self.ever_wrong & (~wrong | begins)
        self.last_clean = torch.where(keeps.view(-1, 1, 1, 1), delta, delta if begins else self.last_clean)
        self.ever_wrong |= wrong

        empty = self.left == 0
        self.stopped |= empty if self.spent else wrong & empty
        self.left -= (wrong & ~self.stopped).long()
        return ~self.stopped


def ascend(network, image, start, epsilon, step_size, steps, objective, rule=None, noise=None):
    """The perturbation after sign steps from `start` up the sum of `objective(logits)`; the start is taken as it is.

    `rule` says which images take a step; `noise`, a tensor for each step, is added before the projection.
    """
    epsilon = epsilon.view(-1, 1, 1, 1)
    delta = start
    for step in range(steps):
        delta = delta.detach().requires_grad_()
        logits = network(image + delta)
        (gradient,) = torch.autograd.grad(objective(logits).sum(), delta)
        delta = delta.detach()
        moved = delta + step_size * gradient.sign()
        if noise is not None:
            moved = moved + noise[step]
        moved = clip(torch.minimum(torch.maximum(moved, -epsilon), epsilon), image)
        moves = rule.look(logits.detach(), delta) if rule else torch.ones(len(image), dtype=torch.bool)
        delta = torch.where(moves.view(-1, 1, 1, 1), moved, delta)
    return delta


def pgd(network, batch, objective, rule=None, noise=None):
    """PGD-10 from noise × epsilon, in the mode that the network is in."""
    start = clip(batch.noise * batch.epsilon.view(-1, 1, 1, 1), batch.x)
    return ascend(network, batch.x, start, batch.epsilon, STEP_SIZE, 10, objective, rule, noise)


def trades_search(network, batch, objective=None, step_size=STEP_SIZE, rule=None, clips_start=False):
    """The search of TRADES, in eval mode, up `objective` or KL(p(image) || p(x)). Leaves train mode on."""
    network.eval()
    if objective is None:
        with torch.no_grad():
            clean = network(batch.x)

        def objective(logits):
            return kl(clean, logits)

    start = START_DEVIATION * batch.noise
    if clips_start:
        start = clip(start, batch.x)
    delta = ascend(network, batch.x, start, batch.epsilon, step_size, 10, objective, rule)
    network.train()
    return delta
