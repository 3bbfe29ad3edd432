"""State dicts as other programs save them: every container, wrapper, prefix and type, and files that must be refused.

Writes `state-dicts/` beside this script: small networks with random parameters and running statistics, their logits for
four images, and `cases.json`, which says for each file how to read it and what to expect. Logits are computed in float64
from the numbers as stored. Nothing in a file is executed when the tests read it; the hostile ones would run a command
if Python loaded them.

    tests/golden/.venv/bin/python tests/golden/state_dicts.py
"""

import argparse
import collections
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import zipfile

import numpy
import safetensors.torch
import torch
from torch import nn

import networks

HERE = pathlib.Path(__file__).parent / "state-dicts"
WIDTHS = {"small-cnn": 2, "digits-cnn": 2, "resnet-20": 1}
CLASSES, CHANNELS, SIDE = 4, 3, 8
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]
# Exactly representable in every type, so that the buffers do not depend on it.
COARSE_MEAN, COARSE_STD = [0.5, 0.4375, 0.375], [0.25, 0.3125, 0.1875]

generator = torch.Generator().manual_seed(7)
images = torch.randint(0, 256, (4, CHANNELS, SIDE, SIDE), generator=generator, dtype=torch.uint8)
cases, refused = [], []


def network(name):
    """A network whose parameters and running statistics are float32 numbers."""
    built = networks.build(name, CHANNELS, CLASSES, WIDTHS[name])
    with torch.no_grad():
        for key, value in built.state_dict().items():
            if key.endswith("num_batches_tracked"):
                value.fill_(37)
            elif key.endswith("running_var") or value.ndim == 1 and key.endswith("weight"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            else:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return built.eval()


NETWORKS = {name: network(name) for name in WIDTHS}
SMALL = NETWORKS["small-cnn"]


def logits(name, state, normalisation):
    """Logits of the images, in float64."""
    built = networks.build(name, CHANNELS, CLASSES, WIDTHS[name]).double().eval()
    built.load_state_dict({key: value.double() for key, value in state.items()}, strict=False)
    mean, std = normalisation or ([0.0] * CHANNELS, [1.0] * CHANNELS)
    as_stored = lambda values: torch.tensor(values, dtype=torch.float32).double()
    built.set_normalisation(as_stored(mean), as_stored(std))
    with torch.no_grad():
        return built(images.double() / 255)


def state(name="small-cnn", dtype=torch.float32):
    """A copy of the state dict; floating point numbers have the given type."""
    found = NETWORKS[name].state_dict()
    cast = lambda value: value.to(dtype) if value.is_floating_point() else value
    return collections.OrderedDict((key, cast(value).clone()) for key, value in found.items())


def save(file, what, **options):
    torch.save(what, HERE / file, **options)


def case(file, what=None, *, arch="small-cnn", stored=None, normalisation=None, normalize=None, weights=None, extra=False,
         notes=(), **options):
    """A file that is read: `normalisation` is what its buffers say, `normalize` what the caller names."""
    if what is not None:
        save(file, what, **options)
    effective = normalisation or {"cifar10": (MEAN, STD), "none": None}[normalize or "none"]
    cases.append({
        "file": file, "arch": arch, "width": WIDTHS[arch], "weights": weights,
        "normalize": normalize if normalisation is None else None, "ignore_extra": extra, "notes": list(notes),
        "normalisation": effective,
        # Whether the numbers are those of `zip.pth`.
        "same": stored is None and arch == "small-cnn",
        "logits": logits(arch, stored if stored is not None else state(arch), effective).flatten().tolist(),
    })


def refuse(file, what, expected, *, arch="small-cnn", normalize="none", weights=None, **options):
    """A file that is refused with all the texts in `expected`."""
    if isinstance(what, bytes):
        (HERE / file).write_bytes(what)
    elif what is not None:
        save(file, what, **options)
        # A legacy file of a module names the directory of its source.
        path = HERE / file
        place = str(pathlib.Path(torch.__file__).parent.parent).encode()
        path.write_bytes(path.read_bytes().replace(place, b"/" + b"_" * (len(place) - 1)))
    refused.append({
        "file": file, "arch": arch, "width": WIDTHS.get(arch, 1), "weights": weights, "normalize": normalize,
        "expected": expected,
    })


def prefixed(prefix, of=None):
    return collections.OrderedDict((prefix + key, value) for key, value in (of or state()).items())


def buffers(mean, std, shape=(1, CHANNELS, 1, 1), values=(COARSE_MEAN, COARSE_STD)):
    return {mean: torch.tensor(values[0]).view(shape), std: torch.tensor(values[1]).view(shape)}


COARSE = (COARSE_MEAN, COARSE_STD)


def containers():
    case("zip.pth", state(), normalize="none")
    case("zip.pth", normalize="cifar10")
    case("legacy.pt", state(), normalize="cifar10", _use_new_zipfile_serialization=False)
    case("protocol-4.pth", state(), normalize="none", pickle_protocol=4)
    case("protocol-4-legacy.pt", state(), normalize="none", pickle_protocol=4, _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    case("no-check-sums.pth", state(), normalize="none")
    torch.serialization.set_crc32_options(True)
    for architecture in ("digits-cnn", "resnet-20"):
        case(f"{architecture}.pt", state(architecture), arch=architecture, normalize="cifar10",
             _use_new_zipfile_serialization=False)


def wrappers():
    other = collections.OrderedDict((key, value * 0.5) for key, value in state().items())
    for key in ("state_dict", "model_state_dict", "net", "model", "ema", "last"):
        case(f"wrapped-{key}.pt", {"epoch": 3, "acc": 0.5, key: state(), "optimizer": {"state": {}, "param_groups": []}},
             normalize="none", notes=[f"'{key}'"], _use_new_zipfile_serialization=False)
    case("wrapped-twice.pth", {"epoch": 3, "last": {"model": state(), "best": torch.tensor(0.5)}}, normalize="none",
         notes=["'last.model'"])
    both = {"net": state(), "ema": other, "epoch": 3}
    case("net-and-ema.pth", both, normalize="none", notes=["the state dict is 'net'", "'ema'", "--weights"])
    case("net-and-ema.pth", normalize="none", weights="ema", stored=other, notes=["the state dict is 'ema'"])
    shared = state()
    case("same-dict-twice.pth", {"model": shared, "ema": shared}, normalize="none", weights="ema")
    case("own-name.pt", {"student": state()}, normalize="none", notes=["'student'"],
         _use_new_zipfile_serialization=False)
    refuse("two-own-names.pt", {"student": state(), "teacher": other}, ["'student'", "'teacher'", "--weights"],
           _use_new_zipfile_serialization=False)
    refuse("net-and-ema.pth", None, ["'swa'", "'net'", "'ema'"], weights="swa")
    case("training-state.pth", training_state(), normalize="none", notes=["'state_dict'"])


def training_state():
    """SGD's momentum, a namespace and a scalar of numpy beside the parameters."""
    trained = networks.build("small-cnn", CHANNELS, CLASSES, WIDTHS["small-cnn"])
    trained.load_state_dict(state())
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)
    trained(images.float()).sum().backward()
    before = state()
    optimizer.step()
    return {"epoch": 9, "state_dict": before, "optimizer": optimizer.state_dict(), "best": numpy.float64(0.5),
            "args": argparse.Namespace(lr=0.1, model="small"), "history": [{"loss": 0.5}] * 3}


def prefixes():
    for name, prefix in {"module": "module.", "compiled": "_orig_mod.", "compiled-parallel": "module._orig_mod.",
                         "nested": "_orig_mod.model.net.backbone.module.1."}.items():
        case(f"prefix-{name}.pt", prefixed(prefix), normalize="none", notes=[f"'{prefix}'"],
             _use_new_zipfile_serialization=False)
    case("without-counters.pt", {k: v for k, v in state().items() if "num_batches" not in k}, normalize="none",
         _use_new_zipfile_serialization=False)


def normalisation():
    sequential = {**prefixed("module.1."), **buffers("module.0.mean", "module.0.std")}
    case("sequential.pth", sequential, normalisation=COARSE, notes=["'0.mean' and '0.std'"])
    for name, (mean, std, prefix, shape) in {
        "mu-sigma": ("mu", "sigma", "", (1, CHANNELS, 1, 1)),
        "normalizer": ("normalizer.mean", "normalizer.std", "model.", (CHANNELS, 1, 1)),
        "norm": ("module.norm.mean", "module.norm.std", "module.", (CHANNELS,)),
        "mean-std": ("mean", "std", "", (CHANNELS,)),
    }.items():
        case(f"buffers-{name}.pt", {**prefixed(prefix), **buffers(mean, std, shape)}, normalisation=COARSE,
             notes=[f"'{mean.removeprefix('module.')}'"], _use_new_zipfile_serialization=False)
    refuse("sequential.pth", None, ["normalises images by '0.mean' and '0.std'", "but none was named"])
    refuse("sequential.pth", None, ["0.4914"], normalize="cifar10")
    refuse("zip.pth", None, ["does not record how images are normalised", "--normalize", "cifar10"], normalize=None)
    refuse("half-a-normalisation.pt", {**state(), "mu": torch.ones(3)}, ["'mu' without 'sigma'"],
           _use_new_zipfile_serialization=False)


def types():
    for name, dtype in {"f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64}.items():
        stored = state(dtype=dtype)
        label = str(dtype).removeprefix("torch.")
        case(f"{name}.pth", stored, stored=stored, normalize="none", notes=[f"from {label}"])
        case(f"{name}-legacy.pt", stored, stored=stored, normalize="cifar10", notes=[f"from {label}"],
             _use_new_zipfile_serialization=False)
        safetensors.torch.save_file(stored, HERE / f"{name}.safetensors")
        case(f"{name}.safetensors", stored=stored, normalize="none", notes=[f"from {label}"])
    flat = {f"{key}.{name}": value for key, of in (("net", state()), ("ema", state())) for name, value in of.items()}
    flat = {key: value if key.startswith("ema") else value * 2 for key, value in flat.items()}
    safetensors.torch.save_file(flat, HERE / "flat.safetensors")
    case("flat.safetensors", normalize="none", weights="ema")
    huge = state(dtype=torch.float64)
    huge["linear.bias"][0] = 1e300
    refuse("overflow.pt", huge, ["'linear.bias'", "not finite"], _use_new_zipfile_serialization=False)
    whole = state()
    whole["linear.bias"] = whole["linear.bias"].to(torch.int32)
    refuse("integers.pt", whole, ["'linear.bias' holds int32"], _use_new_zipfile_serialization=False)


def views():
    """Arrays that are not contiguous, that begin within their storage, or that share one."""
    of, one = state(), state()
    for key, value in one.items():
        if value.ndim == 4:
            of[key] = value.contiguous(memory_format=torch.channels_last)
    of["linear.weight"] = one["linear.weight"].t().contiguous().t()
    case("strided.pth", of, normalize="none")
    of["conv2.weight"] = one["conv2.weight"].permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    case("strided-legacy.pt", of, normalize="none", _use_new_zipfile_serialization=False)
    keys = [key for key, value in one.items() if value.is_floating_point()]
    together = torch.cat([torch.zeros(5), *(one[key].flatten() for key in keys)])
    at = 5
    for key in keys:
        count = one[key].numel()
        one[key] = together[at:at + count].view(one[key].shape)
        at += count
    case("one-storage.pth", one, normalize="none")
    case("one-storage-legacy.pt", one, normalize="none", _use_new_zipfile_serialization=False)
    parameters = {key: nn.Parameter(value) if value.is_floating_point() else value for key, value in state().items()}
    case("parameters.pth", parameters, normalize="none")


def extras():
    trades = {**state(), **{f"sub_block1.{i}.weight": torch.ones(2) for i in range(14)}}
    case("extra.pt", trades, normalize="none", extra=True, notes=["left out", "'sub_block1.0.weight' [2]", "'sub_block1.9.weight' [2]"],
         _use_new_zipfile_serialization=False)
    refuse("extra.pt", None, ["not part of it (14)", "'sub_block1.0.weight' [2]", "'sub_block1.9.weight' [2]", "--ignore-extra"])
    wrong = state()
    del wrong["bn1.bias"], wrong["conv2.weight"]
    wrong["linear.weight"] = wrong["linear.weight"][:, :3].clone()
    wrong["head"] = torch.ones(1)
    refuse("everything-wrong.pt", wrong,
           ["missing (2): 'bn1.bias' [2]", "'conv2.weight'", "of another shape (1): 'linear.weight' [4, 3], expected [4, 8]",
            "not part of it (1): 'head' [1]"], _use_new_zipfile_serialization=False)


def twins():
    silu = {"init_conv.weight": torch.ones(1), "layer.0.block.0.batchnorm_0.weight": torch.ones(1),
            "logits.weight": torch.ones(1)}
    refuse("silu.pt", silu, ["SiLU"], _use_new_zipfile_serialization=False)


class Run:
    """Runs a function when Python loads it."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


def zipped(data, storages=(), name="archive"):
    """An archive like torch.save's with another pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{name}/data.pkl", data)
        for key, content in storages:
            archive.writestr(f"{name}/data/{key}", content)
    return file.getvalue()


def hostile():
    mark = "touch fairtat-was-here"
    refuse("os-system.pth", {"weight": torch.ones(1), "x": Run(os.system, mark)}, ["posix.system", "Nothing was executed"])
    refuse("eval.pt", {"weight": torch.ones(1), "x": Run(eval, f"__import__('os').system('{mark}')")},
           ["builtin", "eval", "Nothing was executed"], _use_new_zipfile_serialization=False)
    refuse("root-is-a-call.pth", zipped(pickle.dumps(Run(os.system, mark), 2)), ["Nothing was executed"])
    refuse("plain-pickle.pt", pickle.dumps({"a": 2 ** 70}, 2), ["not written by torch.save"])
    module = zipped(pickle.dumps(networks.BasicBlock, 2))
    refuse("a-class.pth", module, ["neither a dict nor tensors"])
    refuse("whole-module.pth", {"epoch": 3, "model": SMALL}, ["'epoch', 'model'", "networks.PlainCnn", "state_dict()"])
    refuse("module-legacy.pt", nn.Flatten(), ["torch.nn.modules.flatten.Flatten", "state_dict()"],
           _use_new_zipfile_serialization=False)
    refuse("no-tensors.pt", {"epoch": 3, "net": {}}, ["'epoch', 'net'"], _use_new_zipfile_serialization=False)
    refuse("single-tensor.pt", torch.ones(3), ["single tensor"], _use_new_zipfile_serialization=False)
    whole = (HERE / "zip.pth").read_bytes()
    refuse("cut.pth", whole[:len(whole) // 2], ["not a whole zip archive"])
    legacy = (HERE / "legacy.pt").read_bytes()
    refuse("cut-legacy.pt", legacy[:-100], ["the file ends within storage"])
    # A byte of conv1.weight.
    number = struct.pack("<f", SMALL.conv1.weight.flatten()[3].item())
    assert whole.count(number) == 1
    refuse("flipped.pth", whole.replace(number, number[::-1]), ["'conv1.weight' is damaged", "check sum"])
    # A storage of four bytes that claims to be the classifier, and shapes that no memory holds.
    names = [key for key in state() if "num_batches" not in key]
    claim = lambda shape, strides: {key: Claim(shape or tuple(state()[key].shape), strides or state()[key].stride())
                                    for key in names}
    for name, (shape, strides, expected) in {
        "huge-shape": ((1 << 40, 1 << 40), (1, 1), "of another shape"),
        "beyond-storage": (None, None, "does not lie within its storage of 1 numbers"),
    }.items():
        content = io.BytesIO()
        Claims(content, protocol=2).dump(claim(shape, strides))
        refuse(f"{name}.pth", zipped(content.getvalue(), [("0", b"\0" * 4)]), [expected])
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + b"\0" * 3_000_000)
    refuse("bomb.pth", bomb.getvalue(), ["compressed or encrypted"])


class Claim:
    def __init__(self, shape, strides):
        self.shape, self.strides = shape, strides

    def __reduce__(self):
        storage = Storage()
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.shape, self.strides, False, collections.OrderedDict())


class Storage:
    pass


class Claims(pickle._Pickler):
    def persistent_id(self, thing):
        return ("storage", torch.FloatStorage, "0", "cpu", 1) if isinstance(thing, Storage) else None


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for make in (containers, wrappers, prefixes, normalisation, types, views, extras, twins, hostile):
        make()
    description = {"classes": CLASSES, "shape": [CHANNELS, SIDE, SIDE], "images": images.flatten().tolist(),
                   "read": cases, "refused": refused}
    lines = json.dumps(description)
    for end in ('{"file"', '"images"', '"read"', '"refused"'):
        lines = lines.replace(end, "\n" + end)
    (HERE / "cases.json").write_text(lines + "\n")
    files = list(HERE.iterdir())
    print(f"{len(cases)} read, {len(refused)} refused; {len(files)} files, {sum(f.stat().st_size for f in files)} bytes")


if __name__ == "__main__":
    main()
