"""Small runs of the methods: the training loop and the passes over the validation images."""

import numpy as np
import torch

from fair_tat import BASE_EPSILON, clip, draw_target, sgd
from methods import Batch, Seen, ce, class_accuracy
from philox import ATTACK_NOISE, ATTACK_START, EVALUATION_START, SHUFFLE, TARGET, Stream
from search import ascend, away, kl

STEPS = 10
EVALUATION_STEPS, EVALUATION_STEP_SIZE = 5, 4 / 255


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


def random_images(x, draw):
    """For each image a tensor of its shape from `draw(image, values)`."""
    drawn = np.stack([draw(i, x[0].numel()) for i in range(len(x))])
    return torch.from_numpy(drawn).to(x.dtype).view_as(x)


def start_noise(x, method, seed, purpose, epoch):
    def draw(i, values):
        stream = Stream(seed, purpose, epoch, i)
        return stream.normal(values) if method.normal_start else stream.symmetric(values)

    return random_images(x, draw)


def step_noise(x, deviation, seed, epoch):
    """The noise of every step. Step t = 1, 2, ... has the numbers from t · values on."""

    def of_step(t):
        return random_images(x, lambda i, n: Stream(seed, ATTACK_NOISE, epoch, i).normal((t + 1) * n)[t * n :])

    return torch.stack([deviation * of_step(t) if deviation else torch.zeros_like(x) for t in range(1, STEPS + 1)])


def validate(network, x, y, seed, counter):
    """Confusions on unperturbed images and under PGD-5, in eval mode."""
    network.eval()
    noise = random_images(x, lambda i, values: Stream(seed, EVALUATION_START, 0, i).symmetric(values))
    epsilon = torch.full((len(x),), BASE_EPSILON, dtype=x.dtype)
    start = clip(noise * BASE_EPSILON, x)
    delta = ascend(network, x, start, epsilon, EVALUATION_STEP_SIZE, EVALUATION_STEPS, away(y))
    with torch.no_grad():
        return [counter.count(network(images), y) for images in (x, x + delta)]


def costs(network, method, x, y, seed, epoch):
    """Sums of CE and KL over the images of each class, under the search of training, in eval mode."""
    noise = start_noise(x, method, seed, EVALUATION_START, epoch)
    radius = torch.from_numpy(method.epsilon).to(x.dtype)[y]
    views, _ = method.search(network, Batch(epoch, x, y, radius, y, noise, None))
    network.eval()
    with torch.no_grad():
        p, q = network(x), network(x + views["adversarial"])

    def summed(values):
        return np.bincount(y.numpy(), values.double().numpy(), method.classes)

    images = np.bincount(y.numpy(), minlength=method.classes)
    return {"images": images, "cross_entropy": summed(ce(p, y)), "divergence": summed(kl(p, q))}


def draw_targets(method, labels, seed, epoch):
    """The target of each image, and how near a random number came to the step between two. A class without targets has
    itself."""
    of_class, targets, nearest = method.targets_of(), [], 1.0
    for i, label in enumerate(labels):
        target, distance = label, 1.0
        if of_class[label] is not None:
            target, distance = draw_target(Stream(seed, TARGET, epoch, i).unit(1)[0], label, of_class[label])
        targets.append(target)
        nearest = min(nearest, distance)
    return torch.tensor(targets), nearest


def run(network, method, images, labels, validation, seed, epochs, batch, lr):
    """A run without augmentation and without extra forward passes. `validation` is images and labels, or None.

    Returns a dict of what is known of each epoch, and the smallest margin of any decision by a threshold.
    """
    dtype = next(network.parameters()).dtype
    count = len(images)

    def as_images(pixels):
        return torch.from_numpy(pixels).to(dtype) / 255

    x, y = as_images(images), torch.from_numpy(labels)
    if validation is not None:
        validation = as_images(validation[0]), torch.from_numpy(validation[1])
    optimiser, counter = sgd(network, lr), Counter(method.classes)
    out, trained = {}, None
    for epoch in range(epochs + 1):
        seen = Seen(trained)
        if method.validates:
            seen.validated = validate(network, *validation, seed, counter)
            out |= {f"epoch.{epoch}.validation.{what}": v for what, v in zip(("clean", "robust"), seen.validated)}
        if method.needs_costs and epoch > 0:
            seen.costs = costs(network, method, *validation, seed, epoch - 1)
            out |= {f"epoch.{epoch}.costs.{what}": v for what, v in seen.costs.items()}
        method.plan(epoch, seen)
        out[f"epoch.{epoch}.epsilon"] = method.epsilon
        if method.pi is not None:
            out[f"epoch.{epoch}.pi"] = method.pi
        out |= {f"epoch.{epoch}.{what}": v for what, v in method.series().items()}
        if epoch == epochs:
            break

        order = Stream(seed, SHUFFLE, epoch, 0).permutation(count)
        noise = start_noise(x, method, seed, ATTACK_START, epoch)
        steps = step_noise(x, method.step_deviation, seed, epoch)
        radius = torch.from_numpy(method.epsilon).to(dtype)[y]
        targets = torch.zeros_like(y)
        if method.targets_of() is not None:
            targets, nearest = draw_targets(method, labels, seed, epoch)
            counter.margin = min(counter.margin, nearest)
            out[f"epoch.{epoch}.targets"] = targets.numpy()

        trained, clean_counts = np.zeros((2, method.classes, method.classes), dtype=np.int64)
        predictions, losses, perturbations = torch.zeros(count, dtype=torch.int64), [], torch.zeros_like(x)
        network.train()
        for start in range(0, count, batch):
            i = order[start : start + batch]
            found, rule = method.search(
                network, Batch(epoch, x[i], y[i], radius[i], targets[i], noise[i], steps[:, i])
            )
            if rule is not None:
                counter.margin = min(counter.margin, rule.margin)
            found |= {"clean": torch.zeros_like(x[i])}
            z = {view: network(x[i] + found[view]) for view in method.views}
            loss = method.loss(z, y[i])
            optimiser.zero_grad()
            loss.backward()
            if not losses and epoch == 0:
                out |= {f"gradient.{k}": p.grad.clone() for k, p in network.named_parameters()}
            optimiser.step()

            method.observe(z, y[i], rule)
            perturbations[i], predictions[i] = found["adversarial"], z["adversarial"].argmax(dim=1)
            trained += counter.count(z["adversarial"], y[i])
            if "clean" in z:
                clean_counts += counter.count(z["clean"], y[i])
            losses.append(float(loss.detach()))
        out |= {f"epoch.{epoch}.{what}": v for what, v in method.series().items()}
        out |= {
            f"epoch.{epoch}.order": np.array(order),
            f"epoch.{epoch}.delta": perturbations.numpy(),
            f"epoch.{epoch}.predictions": predictions.numpy(),
            f"epoch.{epoch}.confusion": trained,
            f"epoch.{epoch}.batch_losses": np.array(losses),
        }
        if "clean" in method.views:
            out[f"epoch.{epoch}.clean_accuracy"] = class_accuracy(clean_counts)
    return out, counter.margin
