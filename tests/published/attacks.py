"""Runs the published AutoAttack and torchattacks on a fairtat checkpoint and compares image by image.

Run by hand; nothing in the build or the tests needs it. README.md says how.
"""

import argparse
import json
import os
import sys
import time
import tomllib
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "golden"))
from networks import ARCHITECTURES, build  # noqa: E402

# Parts of the official AutoAttack, one restart each as in its standard version, and `standard`, all of it.
OFFICIAL = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square", "standard")
TORCHATTACKS = ("cw", "pgd", "fgsm")
# fairtat's name of the combined result.
FILES = {"standard": ("autoattack", "standard")}


def number(text):
    """`8/255` or `0.03`."""
    return float(Fraction(text))


def without_prefixes(state):
    """State dicts of other programs: no batch counters, no `module.`, no normalisation layer in front."""
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    for prefix in ("module.", "1."):
        if prefix == "1." and any(k.startswith("1.") for k in state):
            state = {k: v for k, v in state.items() if not k.startswith("0.")}
        if all(k.startswith(prefix) for k in state):
            state = {k[len(prefix) :]: v for k, v in state.items()}
    return state


def load(path, arch, mean, std):
    """The network in eval mode, and the attack settings that its experiment trained with."""
    settings = {}
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}
            text = (file.metadata() or {}).get("fairtat")
        if text:
            stored = json.loads(text)
            experiment = tomllib.loads(stored["experiment"])
            settings = experiment.get("attack", {})
            arch = arch or experiment["model"]["arch"]
            mean, std = (given or json.loads(stored[key]) for given, key in ((mean, "mean"), (std, "std")))
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
    state = without_prefixes(state)
    if arch is None or mean is None or std is None:
        sys.exit(f"{path} does not name its architecture or normalisation: give --arch, --mean and --std")
    width, channels = state["conv1.weight"].shape[:2]
    head = next(k for k in ("linear.bias", "fc.bias") if k in state)
    network = build(arch, channels, len(state[head]), width).set_normalisation(mean, std)
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    if missing or unexpected:
        sys.exit(f"{path} is no {arch}: missing {missing}, unexpected {unexpected}")
    return network.eval().requires_grad_(False), settings


def images_and_labels(images, labels):
    x, y = np.load(images), np.load(labels)
    if x.ndim != 4 or len(x) != len(y):
        sys.exit(f"expected images [N, C, H, W] and N labels, found {x.shape} and {y.shape}")
    x = torch.from_numpy(x)
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if x.min() < 0 or x.max() > 1:
        sys.exit(f"expected values from 0 to 1, found {x.min()} to {x.max()}")
    return x.contiguous(), torch.from_numpy(y.astype(np.int64))


def official(name, network, x, y, arguments, seed):
    """Which images are still right. The images that it returns are right where it failed."""
    from autoattack import AutoAttack

    version = {"version": "standard"} if name == "standard" else {"version": "custom", "attacks_to_run": [name]}
    norm = {"linf": "Linf", "l2": "L2"}[arguments.norm]
    attack = AutoAttack(
        network, norm=norm, eps=arguments.epsilon, seed=seed, verbose=arguments.verbose, device="cpu", **version
    )
    attack.apgd.n_restarts = attack.fab.n_restarts = 1
    # Its own nine targets are an index error with fewer than ten classes.
    targets = min(9, network(x[:1]).shape[1] - 1)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
    adv, found = attack.run_standard_evaluation(x, y, bs=arguments.batch_size, return_labels=True)
    return found == y, adv


def from_torchattacks(name, network, x, y, arguments, seed):
    """The same for attacks that change every image. CW knows no radius: it fools whatever its distance."""
    import torchattacks

    torch.manual_seed(seed)
    epsilon = arguments.epsilon
    if name == "cw":
        attack = torchattacks.CW(network, c=arguments.cw_c, kappa=0, steps=arguments.cw_steps, lr=arguments.cw_lr)
    elif name == "fgsm" and arguments.norm == "linf":
        attack = torchattacks.FGSM(network, eps=epsilon)
    elif name == "pgd" and arguments.norm == "linf":
        attack = torchattacks.PGD(network, eps=epsilon, alpha=arguments.step_size, steps=arguments.steps)
    elif name == "pgd":
        attack = torchattacks.PGDL2(network, eps=epsilon, alpha=arguments.step_size, steps=arguments.steps)
    else:
        return None, None
    batches = [attack(*batch) for batch in zip(x.split(arguments.batch_size), y.split(arguments.batch_size))]
    adv = torch.cat(batches)
    with torch.no_grad():
        right = torch.cat([network(a).argmax(dim=1) for a in adv.split(arguments.batch_size)]) == y
    return right, adv


def fairtat_flags(directory, name, count):
    """`NAME.npy` of fairtat, or nothing if it did not run that attack."""
    for file in FILES.get(name, (name,)):
        path = directory / f"{file}.npy"
        if path.exists():
            flags = np.load(path).reshape(-1)
            if len(flags) != count:
                sys.exit(f"{path} has {len(flags)} flags, expected {count}: were the same images attacked?")
            return flags.astype(bool)
    return None


def fairtat_seconds(directory):
    """Seconds of each attack, as far as report.json tells them."""
    try:
        attacks = json.loads((directory / "report.json").read_text())["results"]
        return {str(a.get("name")).lower(): a.get("seconds") for a in attacks}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def compared(reference, other):
    """Both are flags: robust accuracy of `other`, and where the two differ."""
    return {
        "robust": float(other.mean()),
        "difference_points": float(100 * (other.mean() - reference.mean())),
        "agree": float((other == reference).mean()),
        "only_reference_fools": int((other & ~reference).sum()),
        "only_other_fools": int((reference & ~other).sum()),
    }


def cell(value, form):
    return "" if value is None else format(value, form)


HEADER = (
    "attack", "compared", "official %", "other %", "difference", "agree %", "only official fools",
    "only other fools", "official s", "other s",
)  # fmt: skip


def table(results):
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for result in results:
        for label, other in result["others"].items() or [("", {})]:
            cells = [
                result["attack"], label, cell(100 * result["robust"], ".2f"),
                cell(other and 100 * other["robust"], ".2f") if other else "",
                cell(other.get("difference_points"), "+.2f"), cell(100 * other["agree"], ".2f") if other else "",
                cell(other.get("only_reference_fools"), "d"), cell(other.get("only_other_fools"), "d"),
                cell(result["seconds"], ".1f"), cell(other.get("seconds"), ".1f"),
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help=".safetensors or .pth")
    parser.add_argument("--arch", choices=ARCHITECTURES, help="default: that of the checkpoint's experiment")
    parser.add_argument("--mean", type=float, nargs="+", help="default: the checkpoint's")
    parser.add_argument("--std", type=float, nargs="+", help="default: the checkpoint's")
    parser.add_argument("--images", type=Path, required=True, help="npy, uint8 or float32, [N, C, H, W]")
    parser.add_argument("--labels", type=Path, required=True, help="npy, [N]")
    parser.add_argument("--limit", type=int, help="only the first N images (and flags)")
    parser.add_argument("--flags", type=Path, help="folder of fairtat's NAME.npy, autoattack.npy, report.json")
    parser.add_argument("--epsilon", type=number, required=True, help="8/255 or a decimal")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--attacks", default="standard", help=f"of {','.join(OFFICIAL + TORCHATTACKS)}, or all")
    parser.add_argument("--seeds", default="0", help="the first is compared with fairtat, others with the first")
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--steps", type=int, default=20, help="of PGD")
    parser.add_argument("--step-size", type=number, help="of PGD; default: that of the checkpoint's experiment")
    parser.add_argument("--cw-c", type=float, default=1.0)
    parser.add_argument("--cw-steps", type=int, default=50)
    parser.add_argument("--cw-lr", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--autoattack", default=os.environ.get("AUTOATTACK"), help="folder of fra31/auto-attack")
    parser.add_argument("--save", type=Path, help="folder for the first seed's flags, in the form of --flags")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    parser.add_argument("--verbose", action="store_true", help="let the published code print its progress")
    arguments = parser.parse_args()
    known = OFFICIAL + TORCHATTACKS
    arguments.attacks = list(known) if arguments.attacks == "all" else arguments.attacks.split(",")
    if unknown := [a for a in arguments.attacks if a not in known]:
        parser.error(f"unknown attacks {unknown}, expected some of {known}")
    arguments.seeds = [int(seed) for seed in arguments.seeds.split(",")]
    return arguments


def main():
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.autoattack:
        sys.path.insert(0, str(arguments.autoattack))
    network, settings = load(arguments.checkpoint, arguments.arch, arguments.mean, arguments.std)
    x, y = images_and_labels(arguments.images, arguments.labels)
    total = len(x)
    x, y = x[: arguments.limit], y[: arguments.limit]
    if arguments.step_size is None:
        own = settings.get("norm", "linf") == arguments.norm and "step_size" in settings
        step = number(settings["step_size"]) if own else 0.0
        # A step of the experiment counts if it can cross the ball, as in `fairtat eval`.
        crosses = step * arguments.steps >= 2 * arguments.epsilon
        arguments.step_size = step if crosses else 2.5 * arguments.epsilon / arguments.steps
    with torch.no_grad():
        clean = torch.cat([network(b).argmax(dim=1) for b in x.split(arguments.batch_size)]) == y
    print(f"{len(x)} images, {clean.float().mean():.2%} right without an attack")
    print(f"{arguments.norm}, epsilon {arguments.epsilon:.5f}")
    seconds = fairtat_seconds(arguments.flags) if arguments.flags else {}
    results = []
    for name in arguments.attacks:
        runs = []
        for seed in arguments.seeds:
            start, busy = time.perf_counter(), time.process_time()
            run = official if name in OFFICIAL else from_torchattacks
            right, adv = run(name, network, x, y, arguments, seed)
            if right is None:
                print(f"{name}: torchattacks has none for {arguments.norm}")
                break
            distance = (adv - x).flatten(1)
            distance = distance.abs().amax(dim=1) if arguments.norm == "linf" else distance.norm(dim=1)
            spent = time.perf_counter() - start, time.process_time() - busy
            runs.append((right.numpy(), spent, distance, (adv - x).flatten(1).norm(dim=1)))
        if not runs:
            continue
        flags, took, distance, length = runs[0]
        fooled = ~flags & clean.numpy()
        # Seconds of the clock, and of all threads together: the second says more on a machine that others use.
        result = {"attack": name, "robust": float(flags.mean()), "seconds": took[0], "cpu_seconds": took[1]}
        result["others"] = {}
        result["largest_distance"] = float(distance.max())
        result["median_l2_of_fooled"] = float(length[torch.from_numpy(fooled)].median()) if fooled.any() else None
        if arguments.flags:
            found = fairtat_flags(arguments.flags, name, total)
            if found is None:
                print(f"{name}: no flags in {arguments.flags}")
            else:
                other = compared(flags, found[: len(x)])
                spent = next((seconds[k] for k in FILES.get(name, (name,)) if k in seconds), None)
                result["others"]["fairtat"] = other | {"seconds": spent}
        for seed, (other, spent, *_) in zip(arguments.seeds[1:], runs[1:]):
            result["others"][f"official, seed {seed}"] = compared(flags, other) | {"seconds": spent[0]}
        results.append(result)
        print("\n".join(table([result]).splitlines()[2:]), flush=True)
        if arguments.save:
            arguments.save.mkdir(parents=True, exist_ok=True)
            np.save(arguments.save / f"{FILES.get(name, (name,))[0]}.npy", flags.astype(np.uint8))
    text = table(results)
    print("\n" + text)
    if arguments.save:
        timed = [{"name": r["attack"], "seconds": r["seconds"]} for r in results]
        (arguments.save / "report.json").write_text(json.dumps({"results": timed}, indent=1) + "\n")
    if arguments.out:
        about = {
            "checkpoint": str(arguments.checkpoint), "images": len(x), "clean": float(clean.float().mean()),
            "epsilon": arguments.epsilon, "norm": arguments.norm, "seeds": arguments.seeds,
            "threads": arguments.threads, "batch_size": arguments.batch_size,
            "pgd": {"steps": arguments.steps, "step_size": arguments.step_size},
            "cw": {"c": arguments.cw_c, "steps": arguments.cw_steps, "lr": arguments.cw_lr}, "torch": torch.__version__,
        }  # fmt: skip
        Path(f"{arguments.out}.json").write_text(json.dumps(about | {"attacks": results}, indent=1) + "\n")
        Path(f"{arguments.out}.md").write_text(text)


if __name__ == "__main__":
    main()
