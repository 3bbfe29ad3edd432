"""The attack, the optimiser step and one small FAIR-TAT run, plainly, in any floating-point type."""

import numpy as np
import torch
from torch.nn import functional as F

from philox import ATTACK_START, SHUFFLE, TARGET, Stream

BASE_EPSILON = 8 / 255
STEP_SIZE = 2 / 255


def clip(delta, image):
    """Keeps image + delta inside [0, 1]."""
    return torch.minimum(torch.maximum(delta, -image), 1 - image)


def targeted_pgd(network, image, target, epsilon, noise, steps=10):
    """Descends CE towards `target` from noise × epsilon, in the mode that the network is in.

    Returns the perturbations (steps + 1 of them) and the gradient of the sum of CE at each but the last.
    """
    epsilon = epsilon.view(-1, 1, 1, 1)
    deltas, gradients = [clip(noise * epsilon, image)], []
    for _ in range(steps):
        delta = deltas[-1].detach().requires_grad_()
        loss = F.cross_entropy(network(image + delta), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        gradients.append(gradient)
        moved = delta.detach() - STEP_SIZE * gradient.sign()
        deltas.append(clip(torch.minimum(torch.maximum(moved, -epsilon), epsilon), image))
    return deltas, gradients


def sgd(network, lr):
    """Weight decay on every parameter, those of batch normalisation included."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)


def state(network):
    """Parameters and running statistics as float64 copies; the batch counter is left out."""
    entries = network.state_dict().items()
    return {k: v.detach().double().clone() for k, v in entries if not k.endswith("num_batches_tracked")}


def cfps(confusion):
    """Share of all mistakes that fell on each class; uniform where there are none."""
    mistakes = confusion - np.diag(np.diag(confusion))
    total = mistakes.sum()
    return mistakes.sum(axis=0) / total if total else np.full(len(confusion), 1 / len(confusion))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def draw_target(u, label, pi):
    """Inverse CDF in class order of P(j | y) = pi_j / (1 - pi_y), and how near u came to a step of it."""
    others = [j for j in range(len(pi)) if j != label]
    steps = np.cumsum([pi[j] / (1 - pi[label]) for j in others])
    distance = np.abs(steps[:-1] - u).min()
    return next((j for j, s in zip(others, steps) if u < s), others[-1]), distance


def train(network, images, labels, classes, seed, epochs, batch, lr):
    """FAIR-TAT as in the paper's final code, without augmentation and without extra clean forward passes.

    Batch normalisation stays in train mode throughout: its running statistics move at every attack pass too. Returns a
    dict of what is known at the end of each epoch, and the smallest margin of any decision by a threshold.
    """
    dtype = next(network.parameters()).dtype
    count, shape = len(images), images.shape[1:]
    x = torch.from_numpy(images).to(dtype) / 255
    y = torch.from_numpy(labels)
    optimiser = sgd(network, lr)
    network.train()
    pi, epsilon = np.full(classes, 1 / classes), np.full(classes, BASE_EPSILON)
    out, margin = {}, 1.0
    for epoch in range(epochs):
        order = Stream(seed, SHUFFLE, epoch, 0).permutation(count)
        drawn = [draw_target(Stream(seed, TARGET, epoch, i).unit(1)[0], labels[i], pi) for i in range(count)]
        targets = torch.tensor([t for t, _ in drawn])
        margin = min(margin, *(d for _, d in drawn))
        noise = np.stack([Stream(seed, ATTACK_START, epoch, i).symmetric(int(np.prod(shape))) for i in range(count)])
        noise = torch.from_numpy(noise).to(dtype).view(count, *shape)
        radius = torch.from_numpy(epsilon).to(dtype)[y]

        confusion = np.zeros((classes, classes), dtype=np.int64)
        predictions, losses = torch.zeros(count, dtype=torch.int64), []
        perturbations = torch.zeros_like(x)
        for start in range(0, count, batch):
            i = order[start : start + batch]
            deltas, _ = targeted_pgd(network, x[i], targets[i], radius[i], noise[i])
            perturbations[i] = deltas[-1]
            logits = network(x[i] + deltas[-1])
            loss = F.cross_entropy(logits, y[i])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

            predictions[i] = logits.argmax(dim=1)
            np.add.at(confusion, (labels[i], predictions[i].numpy()), 1)
            top = logits.detach().topk(2).values
            margin = min(margin, float((top[:, 0] - top[:, 1]).min()))
            losses.append(float(loss.detach()))

        scores, accuracy = cfps(confusion), np.diag(confusion) / confusion.sum(axis=1)
        out |= {
            f"epoch.{epoch}.order": np.array(order),
            f"epoch.{epoch}.targets": targets.numpy(),
            f"epoch.{epoch}.delta": perturbations.numpy(),
            f"epoch.{epoch}.predictions": predictions.numpy(),
            f"epoch.{epoch}.pi": pi,
            f"epoch.{epoch}.epsilon": epsilon,
            f"epoch.{epoch}.confusion": confusion,
            f"epoch.{epoch}.cfps": scores,
            f"epoch.{epoch}.robust_accuracy": accuracy,
            f"epoch.{epoch}.batch_losses": np.array(losses),
            f"epoch.{epoch}.train_loss": np.array([np.mean(losses)]),
        }
        pi, epsilon = softmax(2 * scores), (0.5 + accuracy) * BASE_EPSILON
    return out | {f"epoch.{epochs}.pi": pi, f"epoch.{epochs}.epsilon": epsilon}, margin
