"""Writes the golden files beside it. README.md says how to run it and what every file holds."""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from torch.nn import functional as F

import method_edges
import method_runs
import philox
import worst_case
from fair_tat import sgd, state, targeted_pgd, train
from methods import METHODS
from networks import ARCHITECTURES, build, parameter_count
from search import kl

HERE = Path(__file__).parent
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
GREY_MEAN, GREY_STD = (0.4734,), (0.2516,)

# architecture: (width, image shape, parameter gradients?, attack iterates and gradients to keep in each mode)
# Widths and what is kept are small so that a file stays below 700 kB.
ALL, FEW, FIRST = range(11), (0, 1, 2, 5, 10), (0,)
CASES = {
    "digits-cnn": (16, (1, 8, 8), True, None),
    "small-cnn": (8, (3, 16, 16), True, {"train": (ALL, ALL), "eval": (ALL, FIRST)}),
    "resnet-20": (4, (3, 16, 16), True, None),
    "preact-resnet-18": (4, (3, 16, 16), True, {"train": (FEW, FIRST), "eval": (FEW, FIRST)}),
    "wide-resnet-28-10": (1, (3, 16, 16), False, None),
}


def save(name, tensors):
    """float64 becomes float32 here and nowhere earlier; integers keep their type.

    One entry of metadata only: safetensors writes several in any order, and the same numbers should be the same file.
    """
    plain = {}
    for key, value in tensors.items():
        value = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        plain[key] = np.ascontiguousarray(value.astype(np.float32) if value.dtype == np.float64 else value)
    path = HERE / f"{name}.safetensors"
    safetensors.numpy.save_file(plain, path, {"made_by": f"make.py, torch {torch.__version__.split('+')[0]}"})
    path.chmod(0o644)
    print(f"{path.name}: {len(plain)} tensors, {path.stat().st_size:,} bytes")


def prefixed(prefix, tensors):
    return {f"{prefix}.{k}": v for k, v in tensors.items()}


def smooth_images(rng, count, shape):
    """Blurred noise with contrast enough to touch 0 and 255, so that clipping to [0, 1] is met."""
    coarse = torch.from_numpy(rng.normal(0.5, 0.35, (count, shape[0], 5, 5)))
    smooth = F.interpolate(coarse, shape[1:], mode="bilinear", align_corners=False).numpy()
    pixels = smooth + rng.normal(0, 0.04, smooth.shape)
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)


def random_network(architecture, images, classes, width, seed, mean, std):
    """PyTorch's initialisation, batch normalisation made unlike its default; every value a float32, held in float64.

    Running statistics lie round those of `images`, as after training: with others the activations of a deep network
    shrink from layer to layer until its logits in eval mode are those of the last bias.
    """
    torch.manual_seed(seed)
    network = build(architecture, images.shape[1], classes, width)
    network.set_normalisation(np.float32(mean), np.float32(std))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    drawn = []
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.1)
            drawn.append((norm.running_mean.normal_(0, 0.1).clone(), norm.running_var.uniform_(0.5, 1.5).clone()))
            norm.momentum = 1.0
        network.train()(torch.from_numpy(images).float() / 255)
        for norm, (shift, scale) in zip(norms, drawn):
            norm.running_mean += shift * norm.running_var.sqrt()
            norm.running_var *= scale
            norm.momentum = 0.1
    return network.double()


def make_case(name, seed):
    width, shape, with_parameters, kept = CASES[name]
    rng = np.random.default_rng(seed)
    mean, std = (CIFAR_MEAN, CIFAR_STD) if shape[0] == 3 else (GREY_MEAN, GREY_STD)
    images, labels = smooth_images(rng, 8, shape), rng.permutation(10)[:8].astype(np.int64)
    network = random_network(name, images, 10, width, seed, mean, std)
    out = {"images": images, "labels": labels, "mean": np.float32(mean), "std": np.float32(std)}
    out |= prefixed("state", state(network)) | {"width": np.array([width])}

    x, y = torch.from_numpy(images).double() / 255, torch.from_numpy(labels)
    for mode in ("eval", "train"):
        net = copy.deepcopy(network).train(mode == "train")
        image = x.clone().requires_grad_()
        logits = net(image)
        loss = F.cross_entropy(logits, y, reduction="none")
        out |= {f"logits_{mode}": logits, f"loss_{mode}": loss}
        (out[f"input_grad_{mode}"],) = torch.autograd.grad(loss.sum(), image, retain_graph=True)
        if mode == "train":
            out |= prefixed("after_forward", {k: v for k, v in state(net).items() if "running" in k})
            if with_parameters:
                loss.mean().backward()
                out |= prefixed("param_grad", {k: p.grad for k, p in net.named_parameters()})
    if kept:
        out |= attack(network, x[:4], y[:4], rng, kept)
    save(name, out)
    if kept:
        save(f"{name}-sgd", three_steps(network, x, y))


def attack(network, x, y, rng, kept):
    """Targeted PGD-10 on the first four images in both modes, and how far float32 strays from it."""
    noise = rng.uniform(-1, 1, x.shape).astype(np.float32)
    epsilon = np.float32(np.array([4, 6, 9, 12]) / 255)
    targets = (y + torch.from_numpy(rng.integers(1, 10, len(y)))) % 10
    out = {"pgd.noise": noise, "pgd.epsilon": epsilon, "pgd.targets": targets}
    for mode in ("train", "eval"):
        runs = []
        for dtype in (torch.float64, torch.float32):
            net = copy.deepcopy(network).to(dtype).train(mode == "train")
            arguments = (torch.from_numpy(a).to(dtype) for a in (epsilon, noise))
            runs.append(targeted_pgd(net, x.to(dtype), targets, *arguments))
            if dtype == torch.float64:
                out |= prefixed(f"pgd.{mode}.after", {k: v for k, v in state(net).items() if "running" in k})
        (deltas, grads), (single, _) = runs
        for what, values, steps in zip(("delta", "grad"), (deltas, grads), kept[mode]):
            out |= {f"pgd.{mode}.{what}.{t}": v for t, v in enumerate(values) if t in steps}
        strayed = ((deltas[-1] - single[-1].double()).abs() > 1e-5).double().mean().item()
        out[f"pgd.{mode}.float32_strayed"] = np.array([strayed])
        print(f"  pgd.{mode}: float32 ends elsewhere in {strayed:.2%} of the pixels")
    return out


def three_steps(network, x, y):
    """Three SGD steps on the same batch, and the average that an epoch after each of them would give."""
    net = copy.deepcopy(network).train()
    optimiser = sgd(net, lr=0.1)
    out, losses, ema = {}, [], None
    for step in (1, 2, 3):
        loss = F.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        now = state(net)
        ema = now if ema is None else {k: 0.85 * ema[k] + 0.15 * now[k] for k in now}
        if step != 2:
            out |= prefixed(f"sgd.{step}", now)
    return out | prefixed("ema", ema) | {"sgd.losses": np.array(losses)}


def class_images(rng, count, classes, shape, contrast=1):
    """Each class a smooth pattern plus noise; each odd class is close to the one before it, so that mistakes are made."""
    base = rng.normal(0, 1, (classes, shape[0], 3, 3))
    base[1::2] = 0.75 * base[0::2] + 0.45 * base[1::2]
    pattern = F.interpolate(torch.from_numpy(base), shape[1:], mode="bilinear", align_corners=True).numpy()
    labels = np.arange(count) % classes
    pixels = 0.5 + contrast * (0.12 * pattern[labels] + rng.normal(0, 0.06, (count, *shape)))
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8), labels.astype(np.int64)


def spread(reference, other):
    """Largest difference of two states, relative to the largest value of each tensor."""
    return max(float((reference[k] - other[k]).abs().max() / reference[k].abs().max()) for k in reference)


def reproduced(network, run, subject, repeats=15):
    """What `run(network)` gives in float64 with the state it leaves, and how far float32 strays from that state.

    Refuses what float32 does not reproduce, count for count. The sign of a gradient near zero makes any rounding error a
    step of 4/255, and one such step changes all that comes after. Only a small run with a lucky seed meets no such
    gradient.
    """
    truth_network = copy.deepcopy(network)
    truth, margin = run(truth_network)
    truth_state = state(truth_network)
    spreads = []
    for repeat in range(repeats):
        # Another engine rounds elsewhere: all repeats but the first start from parameters that are moved by up to 2, 4,
        # 8 ... 128 times float32's rounding error.
        moved = 2.0 ** (-24 + (repeat + 1) // 2) if repeat else 0.0
        single = copy.deepcopy(network).float()
        torch.manual_seed(repeat)
        with torch.no_grad():
            for p in single.parameters():
                p.mul_(1 + torch.empty_like(p).uniform_(-1, 1) * moved)
        result, _ = run(single)
        for key, value in truth.items():
            if value.dtype == np.int64:
                assert (result[key] == value).all(), f"float32 gives another {key}: choose another seed"
            if key.endswith(".delta"):
                assert (np.abs(result[key] - value) < 1e-5).all(), f"float32 strays in {key} (repeat {repeat}): choose another seed"
        spreads.append(spread(truth_state, state(single)))
        assert spreads[-1] < 1e-4 and margin > 1e-4, "too near to chaos for an expected value"
    print(f"  {subject}: smallest margin {margin:.1e}, float32 strays by {', '.join(f'{s:.1e}' for s in spreads)}")
    return truth, truth_state, spreads


def save_run(name, settings, network, truth, truth_state, spreads):
    out = {key: np.array([value]) if np.isscalar(value) else value for key, value in settings.items()}
    out |= {"float32_spread": np.array([spreads[0]]), "float32_spread_perturbed": np.array([max(spreads)])}
    out |= prefixed("state", state(network)) | truth | prefixed("final", truth_state)
    save(name, out)


def make_run(seed=142, count=32, classes=4, shape=(1, 8, 8), width=8, lr=0.05, epochs=2, batch=16):
    """The small FAIR-TAT run; its seed was searched for."""
    rng = np.random.default_rng(seed)
    images, labels = class_images(rng, count, classes, shape)
    mean, std = np.float32(GREY_MEAN), np.float32(GREY_STD)
    network = random_network("small-cnn", images, classes, width, seed, mean, std)
    found = reproduced(network, lambda n: train(n, images, labels, classes, seed, epochs, batch, lr), f"seed {seed}")
    for epoch in range(epochs):
        confusion, loss = (found[0][f"epoch.{epoch}.{what}"].tolist() for what in ("confusion", "train_loss"))
        print(f"  epoch {epoch}: confusion {confusion}, loss {loss}")
    settings = {"images": images, "labels": labels, "mean": mean, "std": std}
    settings |= {"seed": seed, "batch": batch, "lr": lr, "width": width}
    save_run("fair_tat_epoch", settings, network, *found)


# method: (seed that was searched for, learning rate, epochs on clean images that its network has behind it)
METHOD_RUNS = {
    "trades": (304, 0.02, 4),
    "trades-scaled": (305, 0.05, 4),
    "cfa-at": (303, 0.05, 4),
    "cfa-trades": (313, 0.05, 4),
    "frl-reweight": (310, 0.01, 4),
    "frl-remargin": (308, 0.01, 4),
    "fair-tat-trades": (300, 0.05, 4),
    "fat-spent": (308, 0.05, 4),
    "fat-original": (304, 0.05, 4),
    "fat-kl": (308, 0.02, 4),
    "cfa-fat": (308, 0.05, 4),
    "fair-tat-fat": (306, 0.05, 4),
    "bat": (307, 0.02, 4),
    "wat": (307, 0.01, 4),
    "dafa-at": (306, 0.05, 4),
    "dafa-trades": (307, 0.02, 4),
    "faal-at": (322, 0.05, 4),
    "faal-trades": (308, 0.02, 4),
    "trix": (308, 0.05, 4),
}


def trained_network(network, images, labels, epochs):
    """The network after some epochs on clean images in one batch each, every value a float32 again."""
    optimiser = sgd(network, lr=0.1)
    network.train()
    x, y = torch.from_numpy(images).double() / 255, torch.from_numpy(labels)
    for _ in range(epochs):
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
    return network.float().double()


def make_method_run(name, seed, lr, trained, count=32, classes=4, shape=(1, 8, 8), width=4, epochs=2, batch=16):
    """Two epochs of a method."""
    rng = np.random.default_rng(seed)
    everything, all_labels = class_images(rng, count + 24, classes, shape, contrast=1.6)
    images, labels = everything[:count], all_labels[:count]
    mean, std = np.float32(GREY_MEAN), np.float32(GREY_STD)
    network = random_network("small-cnn", images, classes, width, seed, mean, std)
    network = trained_network(network, images, labels, trained)
    validation = None
    settings = {"images": images, "labels": labels, "mean": mean, "std": std}
    settings |= {"seed": seed, "batch": batch, "lr": lr, "width": width}
    method = METHODS[name](classes)
    if method.validates or method.needs_costs:
        # Six, five, four and three images of the classes: the mean over images is not that over classes.
        kept = count + np.array([i for i in range(24) if i // classes < 6 - i % classes])
        validation = everything[kept], all_labels[kept]
        settings |= {"validation_images": validation[0], "validation_labels": validation[1]}

    def run(network):
        return method_runs.run(
            network, METHODS[name](classes), images, labels, validation, seed, epochs, batch, lr
        )

    found = reproduced(network, run, f"{name}, seed {seed}")
    for key, value in found[0].items():
        if key.startswith("epoch.") and value.size <= classes**2 and "order" not in key:
            print(f"  {key}: {np.round(value, 4).tolist()}")
    save_run(name, settings, network, *found)


def make_method_losses(seed=7):
    cases = method_edges.edges(np.random.default_rng(seed), np.random.default_rng(seed + 1))
    save("method-losses", {f"{name}.{key}": value for name, case in cases.items() for key, value in case.items()})


def make_worst_case(seed=11):
    write_json("worst-case", {f"{i}": case for i, case in enumerate(worst_case.cases(np.random.default_rng(seed)))})


def dlr(z, y):
    """AutoAttack's difference of logits ratio: -(z_y - max other) / (z_(1) - z_(3))."""
    ranked = z.sort(dim=1, descending=True).values
    own = z.gather(1, y[:, None])
    other = z.masked_fill(F.one_hot(y, z.shape[1]).bool(), -torch.inf).max(dim=1).values
    return -(own[:, 0] - other) / (ranked[:, 0] - ranked[:, 2] + 1e-12)


def targeted_dlr(z, y, t):
    ranked = z.sort(dim=1, descending=True).values
    own, target = z.gather(1, y[:, None])[:, 0], z.gather(1, t[:, None])[:, 0]
    return -(own - target) / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2 + 1e-12)


def make_losses(seed=5, count=32, classes=10):
    rng = np.random.default_rng(seed)
    p = rng.normal(0, 2, (count, classes)).astype(np.float32)
    q = (p + rng.normal(0, 1, p.shape)).astype(np.float32)
    # The last four rows are far apart: a softmax that does not subtract the maximum overflows on them.
    p[-4:], q[-4:] = p[-4:] * 40, q[-4:] * 40
    y = rng.integers(0, classes, count)
    # Every second sample is predicted correctly: DLR takes its other branch.
    y[::2] = p[::2].argmax(axis=1)
    t = (y + rng.integers(1, classes, count)) % classes
    out = {"p": p, "q": q, "labels": y, "targets": t}
    p, q = (torch.from_numpy(a).double().requires_grad_() for a in (p, q))
    y, t = torch.from_numpy(y), torch.from_numpy(t)
    share = 6 / 7
    losses = {
        "ce": F.cross_entropy(p, y, reduction="none"),
        "kl": kl(p, q),
        "kl_uniform": kl(p, torch.zeros_like(p)),
        "dlr": dlr(p, y),
        "targeted_dlr": targeted_dlr(p, y, t),
        "trades": (1 - share) * F.cross_entropy(p, y, reduction="none") + share * kl(p, q),
    }
    for name, loss in losses.items():
        grads = torch.autograd.grad(loss.sum(), (p, q), allow_unused=True, retain_graph=True)
        out[name] = loss
        out |= {f"{name}.grad_{view}": g for view, g in zip("pq", grads) if g is not None}
    save("losses", out)


def make_schedules(epochs=40, steps=120):
    """Learning rates as PyTorch's schedulers give them: entry i is what step (or epoch) i is taken with."""

    def rates(count, make):
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        scheduler, out = make(optimiser), []
        for _ in range(count):
            out.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            if len(out) < count:
                scheduler.step()
        return out

    lr = torch.optim.lr_scheduler
    schedules = {
        "one_cycle": {
            "max_lr": 0.2,
            "steps": steps,
            "pct_start": 0.3,
            "div_factor": 25.0,
            "final_div_factor": 1e4,
            "rates": rates(steps, lambda o: lr.OneCycleLR(o, max_lr=0.2, total_steps=steps, cycle_momentum=False)),
        },
        "cosine": {"lr": 0.1, "epochs": epochs, "rates": rates(epochs, lambda o: lr.CosineAnnealingLR(o, epochs))},
        "multi_step": {
            "lr": 0.1,
            "epochs": epochs,
            "milestones": [epochs // 2, epochs * 3 // 4],
            "gamma": 0.1,
            "rates": rates(epochs, lambda o: lr.MultiStepLR(o, [epochs // 2, epochs * 3 // 4])),
        },
        "step": {
            "lr": 0.1,
            "epochs": epochs,
            "every": 10,
            "gamma": 0.96,
            "rates": rates(epochs, lambda o: lr.StepLR(o, 10, 0.96)),
        },
    }
    write_json("schedules", schedules)


def make_architectures():
    """Name and shape of every entry of every state dict at full size, ten classes."""
    out = {}
    for name, (width, _) in ARCHITECTURES.items():
        channels = 1 if name == "digits-cnn" else 3
        with torch.device("meta"):
            ten, hundred = build(name, channels, 10), build(name, channels, 100)
        shapes = {k: list(v.shape) for k, v in ten.state_dict().items() if not k.endswith("num_batches_tracked")}
        out[name] = {
            "channels": channels,
            "width": width,
            "parameters": {"10": parameter_count(ten), "100": parameter_count(hundred)},
            "state": shapes,
        }
        print(f"  {name}: {parameter_count(ten):,} parameters")
    write_json("architectures", out)


def write_json(name, value):
    """One line for each innermost list or object: small, and still readable in a diff."""
    text = "{\n" + ",\n".join(f' "{k}": {json.dumps(v)}' for k, v in value.items()) + "\n}\n"
    (HERE / f"{name}.json").write_text(text)
    print(f"{name}.json: {len(text):,} bytes")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("only", nargs="*", help="names of the files to make, without extension; default all")
    only = arguments.parse_args().only
    torch.set_num_threads(1)
    philox.check_known_answers()
    makers = {name: lambda name=name, seed=100 + i: make_case(name, seed) for i, name in enumerate(CASES)}
    makers |= {"fair_tat_epoch": make_run, "losses": make_losses}
    makers |= {n: lambda n=n, settings=settings: make_method_run(n, *settings) for n, settings in METHOD_RUNS.items()}
    makers |= {"method-losses": make_method_losses, "worst-case": make_worst_case}
    makers |= {"schedules": make_schedules, "architectures": make_architectures}
    for name in only or makers:
        makers[name]()


if __name__ == "__main__":
    main()
