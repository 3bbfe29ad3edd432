"""Speed of PyTorch on the FAIR-TAT step: targeted PGD in train mode, one SGD update, the class statistics.

    python torch_step.py --threads 4 --json torch.json
    python torch_step.py --arch preact-resnet-18 --width 32 --batch 16 --threads 2
    python torch_step.py --device cuda --batch 128 --sweep --json torch.json

PyTorch is configured for speed: the attack computes the gradient of the image alone, cuDNN benchmarks its kernels, the
faster of the two memory layouts is found first (--layout best), SGD updates all parameters at once, nothing is read
back to the host inside a step. Half precision (--amp) and --compile are off by default: fairtat's numbers are float32
(--tf32 says whether a GPU may round products to TF32, PyTorch's default for convolutions).

--sweep measures a row for every combination that the device supports: float32, on a GPU also TF32 and bfloat16, in both
layouts, with and without torch.compile. Options given as flags stay fixed. A row that fails is reported and the others
continue.

On a CPU that other programs use too, set OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0: threads that spin while they wait
for a preempted one have made the small networks up to thirty times slower.

Warm-up is not counted, but its time is reported; every step ends with a synchronisation; the median step is reported.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch._dynamo
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "golden"))
from networks import ARCHITECTURES, build  # noqa: E402

CLASSES = 10
STEP_SIZE = 2 / 255
DEFAULT = ["digits-cnn", "small-cnn", "resnet-20", "preact-resnet-18"]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
PRECISIONS = ["f32", "tf32", "bf16"]


@dataclass(frozen=True)
class Variant:
    """A way of computing the same step."""

    layout: str
    precision: str
    compile: str

    def __str__(self):
        return f"{self.precision} {self.layout}" + ("" if self.compile == "none" else f" compile={self.compile}")

    def prepare(self):
        """These settings are global in PyTorch, so they are set before each measurement."""
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.precision != "f32"


class Clock:
    """Seconds between marks: events on a GPU, so that the measurement does not synchronise inside a step."""

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
    """One architecture, batch and variant, ready to run steps."""

    def __init__(self, architecture, batch, variant, device, options):
        self.device, self.variant, self.attack_steps = device, variant, options.steps
        self.layout = LAYOUTS[variant.layout]
        self.shape = (1, 8, 8) if architecture == "digits-cnn" else (3, 32, 32)
        torch.manual_seed(0)
        channels = self.shape[0]
        network = build(architecture, channels, CLASSES, options.width)
        network = network.set_normalisation([0.5] * channels, [0.25] * channels)
        self.network = network.to(device, memory_format=self.layout).train()
        self.forward = self.network
        if variant.compile != "none":
            self.forward = torch.compile(self.network, mode=None if variant.compile == "default" else variant.compile)
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
        if self.variant.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def logits(self, image):
        with self.precision():
            return self.forward(image)

    def perturb(self):
        # The ball and the box together give the same bounds on the adversarial image for all steps.
        low, high = (self.image - self.epsilon).clamp_(min=0), (self.image + self.epsilon).clamp_(max=1)
        start = torch.empty_like(self.image).uniform_(-1, 1).mul_(self.epsilon).add_(self.image)
        adversarial = start.clamp_(low, high)
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        for _ in range(self.attack_steps):
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


def repeat(step, options):
    """At least --least steps, and as many as fit into --seconds."""
    spans, end = [], time.perf_counter() + options.seconds
    while len(spans) < options.least or time.perf_counter() < end:
        spans.append(step())
    return spans


class Warm:
    """A step after its warm-up, in which cuDNN and torch.compile choose their kernels."""

    def __init__(self, architecture, batch, variant, device, options):
        self.architecture, self.batch, self.variant, self.options = architecture, batch, variant, options
        variant.prepare()
        start = time.perf_counter()
        self.step = Step(architecture, batch, variant, device, options)
        for _ in range(options.warm_up):
            self.step()
        self.warm_up_seconds = time.perf_counter() - start

    def measure(self):
        self.variant.prepare()
        spans = repeat(self.step, self.options)
        parts = [statistics.median(s[i] for s in spans) for i in range(3)]
        return {
            "architecture": self.architecture,
            "engine": f"pytorch-{self.step.device.type}",
            "batch": self.batch,
            "width": self.options.width or ARCHITECTURES[self.architecture][0],
            "image": "x".join(map(str, self.step.shape)),
            "classes": CLASSES,
            "attack_steps": self.options.steps,
            "images_per_second": self.batch / statistics.median(sum(s) for s in spans),
            "seconds": dict(zip(("perturb", "update", "statistics"), parts)),
            "repeats": len(spans),
            "warm_up_seconds": self.warm_up_seconds,
            "variant": str(self.variant),
            "layout": self.variant.layout,
            "precision": self.variant.precision,
            "compile": self.variant.compile,
        }


def cpu_has_bf16():
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and any(flag in cpu.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def variants(options, device):
    """The variants to measure: without --sweep only one, but in both layouts for --layout best."""
    layouts = list(LAYOUTS) if options.layout in (None, "best") else [options.layout]
    if options.amp == "bf16":
        precisions = ["bf16"]
    elif device.type == "cpu":
        precisions = ["f32", "bf16"] if options.sweep and options.amp is None and cpu_has_bf16() else ["f32"]
    elif options.tf32 is not None:
        precisions = ["tf32" if options.tf32 == "on" else "f32"]
    else:
        precisions = ["tf32"] if not options.sweep else PRECISIONS if options.amp is None else ["f32", "tf32"]
    compiles = [options.compile] if options.compile else ["none", "default"] if options.sweep else ["none"]
    return [Variant(layout, precision, compile) for precision in precisions for compile in compiles for layout in layouts]


class Case:
    """One architecture and batch in all variants; kept warm for repeated measurements."""

    def __init__(self, architecture, batch, device, options):
        self.best_only = not options.sweep
        self.warm, self.failures = [], []
        for variant in variants(options, device):
            try:
                self.warm.append(Warm(architecture, batch, variant, device, options))
            except Exception as error:
                lines = str(error).strip().splitlines() or [""]
                self.failures.append({"variant": str(variant), "error": f"{type(error).__name__}: {lines[0]}"})
                print(f"{architecture} batch {batch} {variant}: {type(error).__name__}: {lines[0]}", file=sys.stderr)
        if not self.warm:
            sys.exit(f"{architecture} batch {batch}: no variant ran; the lines above say why")

    def measure(self):
        rows = [warm.measure() for warm in self.warm]
        if self.best_only and len(rows) > 1:
            best = max(range(len(rows)), key=lambda i: rows[i]["images_per_second"])
            rows, self.warm = [rows[best]], [self.warm[best]]
        return rows


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
    p.add_argument("--width", type=int, help="channels after the first convolution; default the published number")
    p.add_argument("--steps", type=int, default=10, help="attack steps")
    p.add_argument("--seconds", type=float, default=5.0, help="minimum time of one measurement")
    p.add_argument("--least", type=int, default=3, help="minimum number of measured steps")
    p.add_argument("--warm-up", type=int, default=2, help="steps before the measurement")
    p.add_argument("--threads", type=int, help="CPU threads; default PyTorch's")
    p.add_argument("--sweep", action="store_true", help="a row for every variant that the device supports")
    p.add_argument("--layout", choices=["best", *LAYOUTS], help="default best")
    p.add_argument("--compile", choices=["none", "default", "reduce-overhead", "max-autotune"], help="default none")
    p.add_argument("--amp", choices=["none", "bf16"], help="default none")
    p.add_argument("--tf32", choices=["on", "off"], help="default on")
    p.add_argument("--json", type=Path, metavar="FILE")
    p.add_argument(
        "--serve",
        action="store_true",
        help="measure once for each line on standard input and answer with the results as one line of JSON",
    )
    return p.parse_args()


def serve(report, device, options):
    """The first line warms up the case, which then stays warm."""
    if len(options.arch or []) != 1 or len(options.batch or []) != 1:
        sys.exit("--serve measures one network: expected one --arch and one --batch")
    case = None
    for _ in sys.stdin:
        case = case or Case(options.arch[0], options.batch[0], device, options)
        print(json.dumps({**report, "results": case.measure(), "failures": case.failures}), flush=True)


def main():
    options = parse()
    cuda = torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        sys.exit("--device cuda: this PyTorch sees no CUDA device; use --device cpu, or install a build with CUDA")
    device = torch.device("cuda" if options.device != "cpu" and cuda else "cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    # Every variant compiles the same `forward` for the attack and for the update; beyond the limit it would run
    # eagerly.
    torch._dynamo.config.recompile_limit = 64

    report = {
        "program": f"pytorch {torch.__version__}",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "results": [],
        "failures": [],
    }
    if options.serve:
        return serve(report, device, options)
    print(f"{report['program']} on {report['device']}, {report['threads']} threads, PGD-{options.steps}")
    print("architecture       batch width   images/s   perturb    update  statist. repeats  variant")
    for architecture in options.arch or DEFAULT:
        for batch in options.batch or [128]:
            case = Case(architecture, batch, device, options)
            rows = case.measure()
            report["results"] += rows
            report["failures"] += case.failures
            for row in rows:
                perturb, update, counting = (f"{s * 1000:.2f}ms" for s in row["seconds"].values())
                print(
                    f"{architecture:<18} {batch:>5} {row['width']:>5} {row['images_per_second']:>10.1f} {perturb:>9}"
                    f" {update:>9} {counting:>9} {row['repeats']:>7}  {row['variant']}",
                    flush=True,
                )
            if options.json:
                options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
