"""Checks exported files with the programs that they are for. Run by hand, as it needs PyTorch and ONNX Runtime:

    python3 -m venv ~/venv
    ~/venv/bin/pip install torch numpy safetensors onnx onnxruntime
    for format in safetensors pth onnx; do
        fairtat export runs/digits-60s --format $format --out exports/digits/best.$format
    done
    ~/venv/bin/python tests/published/exports.py exports

Looks into every directory under the given ones. Of each it

* runs load_in_pytorch.py, which compares logits with those that the program stored,
* reads each .pth file with `torch.load(weights_only=True)`, also with memory mapping, and compares it with the
  .safetensors file beside it,
* checks each .onnx file with ONNX's own checker, with full shape inference, runs it with ONNX Runtime on one and on four
  images, and compares the logits with the stored ones; with PyTorch's on other images if a loader is beside it.

Differences are relative to the largest logit; above 1e-4 they are failures.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file

TOLERANCE = 1e-4
LOADER = "load_in_pytorch.py"


class Checks:
    """Prints results and counts them."""

    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, passed, what):
        self.passed, self.failed = self.passed + bool(passed), self.failed + (not passed)
        print(f"{'ok    ' if passed else 'FAILED'} {what}", flush=True)

    def close(self, found, expected, what):
        found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        if found.shape != expected.shape:
            return self(False, f"{what}: shape {found.shape}, expected {expected.shape}")
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        return self(difference <= TOLERANCE, f"{what}: largest difference {difference:.1e} of the largest logit")


def probe_images(shape, count=4):
    """The formula of the program, a second time: value i of image n is (i (i + 2 n + 1) mod 251) / 256."""
    i, n = np.arange(np.prod(shape), dtype=np.int64), np.arange(count)[:, None]
    return (i * (i + 2 * n + 1) % 251 / 256).astype(np.float32).reshape(count, *shape)


def module(path):
    spec = importlib.util.spec_from_file_location(f"loader_{abs(hash(path))}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def check_loader(path, check):
    """The script as users run it, with all files beside it and with each one."""
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    for line in (done.stdout + done.stderr).strip().splitlines():
        print(f"       {line}")
    check(done.returncode == 0, f"{path}: exit status {done.returncode}")
    loader = module(path)
    check(np.array_equal(loader.probe_images().numpy(), probe_images(loader.SHAPE)), f"{path}: probe images")
    network = loader.Network()
    buffers = {name for name in network.state_dict() if name in ("mean", "std")}
    check(not buffers, f"{path}: the normalisation is not part of the state dict")
    # The tolerance notices what is wrong.
    for file in sorted(path.parent.glob("*.pth"))[:1]:
        wrong = loader.load(file)
        with torch.no_grad():
            logits = wrong(loader.probe_images())
            means = [values for name, values in wrong.state_dict().items() if name.endswith("running_mean")]
            means[-1] += 0.01 * (1 + means[-1].abs())
            moved = (wrong(loader.probe_images()) - logits).abs().max() / logits.abs().max()
        check(moved > TOLERANCE, f"{path}: a running mean that is off by 1 % moves the logits by {moved:.1e}")


def check_pth(path, check):
    state = torch.load(path, weights_only=True)
    mapped = torch.load(path, weights_only=True, mmap=True)
    same = list(state) == list(mapped) and all(torch.equal(state[name], mapped[name]) for name in state)
    check(same, f"{path}: read whole and mapped, {len(state)} tensors")
    check(all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in state.values()), f"{path}: float32")
    beside = path.with_suffix(".safetensors")
    if not beside.exists():
        return
    expected = load_file(beside)
    plain = {name[2:]: tensor for name, tensor in state.items() if name.startswith("1.")} or state
    same = plain.keys() == expected.keys() and all(torch.equal(plain[name], expected[name]) for name in expected)
    check(same, f"{path}: the arrays of {beside.name}")


def check_onnx(path, check):
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    check(True, f"{path}: valid, operator set {model.opset_import[0].version}, IR {model.ir_version}")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    named = (images.name, logits.name, images.shape[0], logits.shape[0]) == ("images", "logits", "batch", "batch")
    check(named, f"{path}: {images.name} {images.shape} to {logits.name} {logits.shape}")
    probes = probe_images(images.shape[1:])
    found = session.run(["logits"], {"images": probes})[0]
    check.close(found, json.loads(facts["probe_logits"]), f"{path}: ONNX Runtime and the program")
    single = session.run(["logits"], {"images": probes[:1]})[0]
    check.close(single, found[:1], f"{path}: one image and four")
    loader, weights = path.with_name(LOADER), path.with_suffix(".pth")
    if not (loader.exists() and weights.exists()):
        return
    noise = np.random.default_rng(1).random((8, *images.shape[1:]), dtype=np.float32)
    with torch.no_grad():
        expected = module(loader).load(weights)(torch.from_numpy(noise)).numpy()
    found = session.run(["logits"], {"images": noise})[0]
    check.close(found, expected, f"{path}: ONNX Runtime and PyTorch on noise")
    names = {initializer.name for initializer in model.graph.initializer}
    state = {name.removeprefix("1.") for name in torch.load(weights, weights_only=True) if not name.startswith("0.")}
    own = {"normalize.mean", "normalize.std"}
    check(names - own == state, f"{path}: initialisers have the names of the state dict")



def main():
    check = Checks()
    for root in sys.argv[1:]:
        files = [path for path in sorted(Path(root).rglob("*")) if path.is_file()]
        for path in files:
            if path.name == LOADER:
                check_loader(path, check)
            elif path.suffix == ".pth":
                check_pth(path, check)
            elif path.suffix == ".onnx":
                check_onnx(path, check)
    print(f"{check.passed} passed, {check.failed} failed")
    if check.failed or not check.passed:
        sys.exit(1)


if __name__ == "__main__":
    main()
