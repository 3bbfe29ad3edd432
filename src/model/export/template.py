"""Loads a checkpoint of fairtat in plain PyTorch: {{ARCHITECTURE}} for images of {{SHAPE}}, {{CLASSES}} classes.

    from load_in_pytorch import load
    network = load("best.safetensors")  # or the .pth file of `fairtat export`
    logits = network(images)            # images in [0, 1], N x C x H x W; {{NORMALISED}}

Needs `torch`, and `safetensors` for .safetensors files. Written by fairtat for every checkpoint of the same run.

    python load_in_pytorch.py [FILE ...]

compares this network with the program that trained it: it computes the logits of {{COUNT}} probe images and compares them
with those that each file stores. Without arguments it checks the files beside it.
"""

import json
import sys
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

SHAPE = ({{DIMENSIONS}})  # channels, height, width
PROBE_IMAGES = {{COUNT}}
TOLERANCE = 1e-4  # of the largest logit


{{NETWORK}}


def load(path):
    """The network with the weights of a .safetensors or .pth file, in evaluation mode."""
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    if any(name.startswith("1.") for name in state):
        # Written with --sequential: module 0 is the normalisation, module 1 the network.
        state = {name[2:]: value for name, value in state.items() if name.startswith("1.")}
    network = Network()
    network.load_state_dict(state)
    return network.eval()


def facts(path):
    """What the file records about itself, as strings: epoch, experiment, class_names, probe_logits and others."""
    if Path(path).suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("fairtat", "{}")
    else:
        with zipfile.ZipFile(path) as file:
            name = "archive/extra/fairtat.json"
            text = file.read(name) if name in file.namelist() else "{}"
    return json.loads(text)


def probe_images():
    """The probe images. Their values are multiples of 1/256, so that they are the same numbers in every language."""
    channels, height, width = SHAPE
    n = torch.arange(PROBE_IMAGES).view(-1, 1)
    i = torch.arange(channels * height * width)
    values = i * (i + 2 * n + 1) % 251
    return (values.to(torch.float32) / 256).view(-1, channels, height, width)


def check(path):
    """Compares the logits of the probe images with the stored ones. None if the file stores none."""
    stored = facts(path).get("probe_logits")
    if stored is None:
        print(f"{path}: stores no logits of probe images, not checked")
        return None
    stored = torch.tensor(json.loads(stored))
    with torch.no_grad():
        logits = load(path)(probe_images())
    difference, largest = (logits - stored).abs().max().item(), stored.abs().max().item()
    # Written so that NaN fails.
    passed = difference <= TOLERANCE * largest
    print(f"{path}: largest difference {difference:.2e}, largest logit {largest:.4g}: {'ok' if passed else 'FAILED'}")
    return passed


def main():
    paths = sys.argv[1:]
    if not paths:
        here = Path(__file__).resolve().parent
        paths = sorted(path for ending in ("safetensors", "pth") for path in here.glob(f"*.{ending}"))
        # The state of the training itself, under other names.
        paths = [path for path in paths if path.name != "resume.safetensors"]
    results = [check(path) for path in paths]
    if False in results or True not in results:
        sys.exit("the logits differ" if False in results else "no file was checked")


if __name__ == "__main__":
    main()
