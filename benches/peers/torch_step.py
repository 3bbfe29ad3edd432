"""How fast PyTorch takes the FAIR-TAT step: targeted PGD in train mode, one SGD update, the class statistics.

    python torch_step.py --threads 4 --json torch.json
    python torch_step.py --device cuda --batch 128 --batch 512 --compile reduce-overhead --amp bf16

It is given what helps it: the attack asks for the gradient of the image alone, cuDNN picks its kernels by trial, the
faster of the two memory layouts is found first (--layout best), SGD updates all parameters at once, nothing is read
back to the host inside a step. Half precision (--amp) and --compile are off unless asked for: fairtat's numbers are
float32 (--tf32 says whether a GPU may round products to TF32, PyTorch's default for convolutions).

On a CPU that other programs use too, set OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0: threads that spin while they wait for
one that was interrupted have made the small networks up to thirty times slower.

Warm-up is not counted; every step ends with a synchronisation; the median step is reported.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "golden"))
from networks import ARCHITECTURES, build  # noqa: E402

CLASSES = 10
STEP_SIZE = 2 / 255
DEFAULT = ["digits-cnn", "small-cnn", "resnet-20", "preact-resnet-18"]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


class Clock:
    """Seconds between marks: events on a GPU, so that measuring does not make it wait inside a step."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"
        self.marks = []

    def mark(self):
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def spans(self):
        if not self.cuda:
            return [b - a for a, b in zip(self.marks, self.marks[1:])]
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in zip(self.marks, self.marks[1:])]


class Step:
    """One architecture, batch and layout, ready to be stepped."""

    def __init__(self, architecture, batch, layout, device, options):
        self.device, self.options = device, options
        self.layout = LAYOUTS[layout]
        self.shape = (1, 8, 8) if architecture == "digits-cnn" else (3, 32, 32)
        torch.manual_seed(0)
        channels = self.shape[0]
        network = build(architecture, channels, CLASSES).set_normalisation([0.5] * channels, [0.25] * channels)
        self.network = network.to(device, memory_format=self.layout).train()
        self.forward = self.network
        if options.compile != "none":
            self.forward = torch.compile(self.network, mode=None if options.compile == "default" else options.compile)
        self.parameters = list(self.network.parameters())
        fast = {"fused": True} if device.type == "cuda" else {"foreach": True}
        self.optimiser = torch.optim.SGD(self.parameters, lr=0.01, momentum=0.9, weight_decay=5e-4, **fast)
        self.image = torch.rand(batch, *self.shape).to(device).contiguous(memory_format=self.layout)
        self.label = torch.randint(CLASSES, (batch,)).to(device)
        self.target = (self.label + torch.randint(1, CLASSES, (batch,)).to(device)) % CLASSES
        self.epsilon = torch.linspace(4 / 255, 12 / 255, batch, device=device).view(-1, 1, 1, 1)
        self.confusion = torch.zeros(CLASSES * CLASSES, dtype=torch.int64, device=device)
        self.ones = torch.ones(batch, dtype=torch.int64, device=device)

    def precision(self):
        if self.options.amp == "none":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def logits(self, image):
        with self.precision():
            return self.forward(image)

    def perturb(self):
        # Both the ball and the box are the same bounds on the adversarial image for all steps.
        low, high = (self.image - self.epsilon).clamp_(min=0), (self.image + self.epsilon).clamp_(max=1)
        start = torch.empty_like(self.image).uniform_(-1, 1).mul_(self.epsilon).add_(self.image)
        adversarial = start.clamp_(low, high)
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        for _ in range(self.options.steps):
            adversarial.requires_grad_(True)
            loss = F.cross_entropy(self.logits(adversarial), self.target, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, adversarial)
            adversarial = adversarial.detach().sub_(gradient.sign_(), alpha=STEP_SIZE).clamp_(low, high)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        return adversarial

    def update(self, adversarial):
        logits = self.logits(adversarial)
        self.optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(logits, self.label).backward()
        self.optimiser.step()
        return logits.detach()

    def count(self, logits):
        self.confusion.index_add_(0, self.label * CLASSES + logits.argmax(dim=1), self.ones)

    def __call__(self):
        """Seconds of the attack, the update and the statistics."""
        clock = Clock(self.device)
        clock.mark()
        adversarial = self.perturb()
        clock.mark()
        logits = self.update(adversarial)
        clock.mark()
        self.count(logits)
        clock.mark()
        return clock.spans()


def repeat(step, seconds):
    """At least three steps, and as many as fill `seconds`."""
    spans, end = [], time.perf_counter() + seconds
    while len(spans) < 3 or time.perf_counter() < end:
        spans.append(step())
    return spans


def total(spans):
    return statistics.median(sum(s) for s in spans)


def measure(architecture, batch, device, options):
    candidates = list(LAYOUTS) if options.layout == "best" else [options.layout]
    timed = {}
    for layout in candidates:
        step = Step(architecture, batch, layout, device, options)
        for _ in range(options.warm_up):
            step()
        timed[layout] = (repeat(step, options.seconds), step)
    layout = min(timed, key=lambda name: total(timed[name][0]))
    spans, step = timed[layout]
    parts = [statistics.median(s[i] for s in spans) for i in range(3)]
    return {
        "architecture": architecture,
        "engine": f"pytorch-{device.type}",
        "batch": batch,
        "image": "x".join(map(str, step.shape)),
        "classes": CLASSES,
        "attack_steps": options.steps,
        "images_per_second": batch / total(spans),
        "seconds": dict(zip(("perturb", "update", "statistics"), parts)),
        "repeats": len(spans),
        "layout": layout,
        "compile": options.compile,
        "amp": options.amp,
    }


def device_name(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return torch.backends.cpu.get_cpu_capability()


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--arch", action="append", choices=ARCHITECTURES, help=f"repeatable; default {' '.join(DEFAULT)}")
    p.add_argument("--batch", action="append", type=int, help="repeatable; default 128")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    p.add_argument("--steps", type=int, default=10, help="attack steps")
    p.add_argument("--seconds", type=float, default=5.0, help="least time spent on one measurement")
    p.add_argument("--warm-up", type=int, default=2, help="steps before it")
    p.add_argument("--threads", type=int, help="CPU threads; default PyTorch's")
    p.add_argument("--layout", choices=["best", *LAYOUTS], default="best")
    p.add_argument("--compile", choices=["none", "default", "reduce-overhead", "max-autotune"], default="none")
    p.add_argument("--amp", choices=["none", "bf16"], default="none")
    p.add_argument("--tf32", choices=["on", "off"], default="on")
    p.add_argument("--json", type=Path, metavar="FILE")
    return p.parse_args()


def main():
    options = parse()
    cuda = torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        sys.exit("--device cuda: this PyTorch sees no CUDA device; use --device cpu, or install a build with CUDA")
    device = torch.device("cuda" if options.device != "cpu" and cuda else "cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options.tf32 == "on"

    report = {
        "program": f"pytorch {torch.__version__}",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "tf32": device.type == "cuda" and options.tf32 == "on",
        "results": [],
    }
    print(f"{report['program']} on {report['device']}, {report['threads']} threads, PGD-{options.steps}")
    print("architecture       batch   images/s   perturb    update  statist. repeats  layout")
    for architecture in options.arch or DEFAULT:
        for batch in options.batch or [128]:
            result = measure(architecture, batch, device, options)
            report["results"].append(result)
            perturb, update, counting = (f"{s * 1000:.2f}ms" for s in result["seconds"].values())
            print(
                f"{architecture:<18} {batch:>5} {result['images_per_second']:>10.1f} {perturb:>9} {update:>9} {counting:>9}"
                f" {result['repeats']:>7}  {result['layout']}",
                flush=True,
            )
            if options.json:
                options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
