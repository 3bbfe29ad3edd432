"""Measures fairtat and its peers in turns, and makes one table of ratios. `run.sh` finds the programs and calls this.

    python3 rounds.py OUT [options]

Environment variables name the programs: FAIRTAT, BURN_STEP, CANDLE_STEP, PYTHON (one that has torch); a program whose
variable is not set is left out. Peers start once per case and stay warm; then all programs are measured one after the
other in several rounds, each of which starts with a different program. Ratios are taken within a round, between
measurements with the machine in about the same state; the table has the median over rounds and the range.

Needs only Python's standard library.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Threads that spin while they wait would slow down the next measurement.
PATIENT = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
SOFTWARE = ("llvmpipe", "lavapipe", "swiftshader", "basic render")


@dataclass(frozen=True)
class Case:
    architecture: str
    width: int | None
    batch: int

    @staticmethod
    def parse(text):
        architecture, width, batch = (text.split(":") + ["", ""])[:3]
        try:
            return Case(architecture, int(width) if width else None, int(batch or 128))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected ARCHITECTURE:WIDTH:BATCH, found {text}") from None

    def arguments(self):
        width = ["--width", str(self.width)] if self.width else []
        return ["--arch", self.architecture, *width, "--batch", str(self.batch)]

    def __str__(self):
        width = f" width {self.width}" if self.width else ""
        return f"{self.architecture}{width} batch {self.batch}"

    def file_name(self):
        return f"{self.architecture}-{self.width or 'published'}-{self.batch}"


class Failed(Exception):
    """A program returned no numbers; the message says why."""


class Program:
    """A command that measures the step and writes the JSON of `fairtat bench`."""

    def __init__(self, name, command, options, on_gpu):
        self.name, self.command, self.options, self.on_gpu = name, command, options, on_gpu

    def start(self, case):
        log = self.options.out / "logs"
        log.mkdir(parents=True, exist_ok=True)
        self.case, self.log = case, log / f"{self.name}-{case.file_name()}.log".replace(" ", "-")
        self.log.unlink(missing_ok=True)

    def arguments(self):
        o = self.options
        return [*self.command, *self.case.arguments(), "--steps", str(o.steps), "--seconds", str(o.seconds)]

    def environment(self):
        threads = self.options.threads
        named = {"RAYON_NUM_THREADS": str(threads), "LP_NUM_THREADS": str(threads)} if threads else {}
        return {**os.environ, **PATIENT, **named}

    def failed(self, status):
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return Failed(lines[-1] if lines else f"it ended with status {status}, without an answer and without a message")

    def stop(self):
        pass


class Once(Program):
    """Starts a new process for every measurement."""

    def measure(self):
        answer = self.log.with_suffix(".json")
        answer.unlink(missing_ok=True)
        try:
            with self.log.open("a") as log:
                subprocess.run(
                    [*self.arguments(), "--json", str(answer)],
                    env=self.environment(),
                    stdout=log,
                    stderr=log,
                    timeout=self.options.limit,
                    check=True,
                )
            return json.loads(answer.read_text())
        except subprocess.TimeoutExpired:
            raise Failed(f"no answer within {self.options.limit:.0f} s") from None
        except OSError as error:
            raise Failed(str(error)) from None
        except subprocess.CalledProcessError as error:
            raise self.failed(error.returncode) from None


class Serving(Program):
    """Starts once per case; answers each empty line on standard input with a line of JSON."""

    process = None

    def measure(self):
        if self.process is None:
            with self.log.open("a") as log:
                try:
                    self.process = subprocess.Popen(
                        [*self.arguments(), "--least", str(self.options.least), "--serve"],
                        env=self.environment(),
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                    )
                except OSError as error:
                    raise Failed(str(error)) from None
        late = threading.Event()
        alarm = threading.Timer(self.options.limit, lambda: (late.set(), self.process.kill()))
        alarm.start()
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
        if late.is_set():
            raise Failed(f"no answer within {self.options.limit:.0f} s")
        if not line:
            raise self.failed(self.process.wait())
        return json.loads(line)

    def stop(self):
        if self.process is None:
            return
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process = None


def hardware_adapter(fairtat):
    """Whether fairtat finds a hardware adapter, and whether it finds a discrete one."""
    try:
        text = subprocess.run([fairtat, "engines", "--json", "/dev/stdout"], capture_output=True, text=True).stdout
        kinds = [adapter["kind"] for adapter in json.loads(text[text.index("{") :])["wgsl"]]
    except (OSError, ValueError, KeyError):
        return False, False
    return any(kind != "software" for kind in kinds), "discrete" in kinds


def torch_devices(python):
    """Whether this Python has torch, and whether torch finds a CUDA device."""
    code = "import torch; print(torch.cuda.is_available())"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError:
        return False, False
    return answer.returncode == 0, answer.stdout.strip() == "True"


def find_programs(options):
    """Programs in the order of the first round, and whether the machine has a discrete GPU."""
    programs, notes, discrete = [], [], False
    environment = os.environ.get
    fairtat, burn, candle = environment("FAIRTAT"), environment("BURN_STEP"), environment("CANDLE_STEP")
    gpu = False
    if fairtat:
        gpu, discrete = hardware_adapter(fairtat)
        adapter = ["--adapter", options.adapter] if options.adapter else []
        programs.append(Once("fairtat wgsl", [fairtat, "bench", "--engine", "wgsl", *adapter], options, gpu))
        programs.append(Once("fairtat candle", [fairtat, "bench", "--engine", "candle"], options, False))
    else:
        notes.append("fairtat: not built, and FAIRTAT names no program")
    if burn:
        programs.append(Serving("burn", [burn], options, gpu))
    else:
        notes.append("burn: not built, and BURN_STEP names no program")
    if candle:
        programs.append(Serving("candle", [candle], options, False))
    else:
        notes.append("candle: not built, and CANDLE_STEP names no program")
    python = environment("PYTHON")
    torch, cuda = torch_devices(python) if python else (False, False)
    if torch:
        sweep = [] if options.no_sweep else ["--sweep"]
        threads = ["--threads", str(options.threads)] if options.threads else []
        for device in ["cuda", "cpu"] if cuda else ["cpu"]:
            command = [python, str(HERE / "torch_step.py"), "--device", device, *sweep, *threads]
            programs.append(Serving(f"pytorch {device}", command, options, device == "cuda"))
    else:
        notes.append("pytorch: no Python with torch; set PYTHON to one")
    if options.only:
        known = {program.name for program in programs}
        for name in set(options.only) - known:
            notes.append(f"{name}: requested, but not available")
        programs = [program for program in programs if program.name in options.only]
    return programs, notes, discrete or cuda


def label(program, row):
    """The name of a row of the table: a program in one of its variants."""
    return f"{program.name} {row['variant']}" if "variant" in row else program.name


def runs_on_cpu(program, device, row):
    software = any(name in device.lower() for name in SOFTWARE)
    return software or row["engine"].endswith("cpu") or (program.name in ("fairtat wgsl", "burn") and not program.on_gpu)


def measure_case(case, programs, options, save):
    """All rounds of a case. Calls `save` with the results so far after each round."""
    rows, failures, loads = {}, {}, []
    for program in programs:
        program.start(case)
    try:
        for turn in range(options.rounds):
            start = turn % len(programs)
            for program in programs[start:] + programs[:start]:
                if program.name in failures:
                    continue
                print(f"{case}, round {turn + 1} of {options.rounds}: {program.name} …", file=sys.stderr, flush=True)
                loads.append(os.getloadavg()[0])
                try:
                    report = program.measure()
                except Failed as reason:
                    failures[program.name] = str(reason)
                    print(f"  {program.name}: {reason}", file=sys.stderr)
                    program.stop()
                    continue
                for failure in report.get("failures", []):
                    failures[f"{program.name} {failure['variant']}"] = failure["error"]
                for row in report["results"]:
                    entry = rows.setdefault(
                        label(program, row),
                        {
                            "program": report["program"],
                            "engine": row["engine"],
                            "device": report["device"],
                            "threads": report["threads"],
                            "on_cpu": runs_on_cpu(program, report["device"], row),
                            "precision": row.get("precision", "f32"),
                            "width": row.get("width", case.width),
                            "warm_up_seconds": row.get("warm_up_seconds"),
                            "images_per_second": [None] * options.rounds,
                            "seconds": [None] * options.rounds,
                            "repeats": [None] * options.rounds,
                        },
                    )
                    for key in ("images_per_second", "seconds", "repeats"):
                        entry[key][turn] = row[key]
            save(summary(case, rows, failures, loads, options))
    finally:
        for program in programs:
            program.stop()
    return summary(case, rows, failures, loads, options)


def spread(values):
    """Median, minimum and maximum of the measurements."""
    values = [value for value in values if value is not None]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def ratios(row, reference):
    pairs = zip(row["images_per_second"], reference["images_per_second"])
    return spread([a / b for a, b in pairs if a is not None and b is not None])


def fastest(rows, wanted):
    found = [name for name, row in rows.items() if wanted(name, row)]
    return max(found, key=lambda name: spread(rows[name]["images_per_second"])["median"], default=None)


def summary(case, rows, failures, loads, options):
    """Rows with their ratios. The reference is PyTorch's fastest float32 row on the same kind of device."""
    references = {}
    for on_cpu in (True, False):
        here = fastest(
            rows,
            lambda name, row: name.startswith("pytorch") and row["precision"] == "f32" and row["on_cpu"] == on_cpu,
        )
        references["cpu" if on_cpu else "gpu"] = here
    out = {}
    for name, row in rows.items():
        pytorch = references["cpu" if row["on_cpu"] else "gpu"]
        out[name] = {
            **row,
            "images_per_second_spread": spread(row["images_per_second"]),
            "to_pytorch": ratios(row, rows[pytorch]) if pytorch else None,
            "to_burn": ratios(row, rows["burn"]) if "burn" in rows else None,
        }
    order = sorted(out, key=lambda name: -out[name]["images_per_second_spread"]["median"])
    return {
        "case": str(case),
        "architecture": case.architecture,
        "batch": case.batch,
        "attack_steps": options.steps,
        "rounds": options.rounds,
        "pytorch_reference": references,
        "load_average": spread(loads),
        "rows": {name: out[name] for name in order},
        "failures": failures,
    }


def cell(spread, digits=2):
    if spread is None:
        return "–"
    median, least, most = (f"{spread[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({least}–{most})"


def markdown(report):
    lines = [
        "# fairtat and its peers: one FAIR-TAT step",
        "",
        f"{report['machine']}, {report['processors']} processors. Median over rounds (minimum–maximum).",
        "A ratio above 1 means faster than the reference.",
    ]
    for case in report["cases"]:
        load = case["load_average"]
        lines += ["", f"## {case['case']}, PGD-{case['attack_steps']}", ""]
        lines += ["| program | on | images/s | × PyTorch | × burn | warm-up |", "|---|---|---:|---:|---:|---:|"]
        for name, row in case["rows"].items():
            warm = f"{row['warm_up_seconds']:.0f} s" if row["warm_up_seconds"] is not None else "–"
            rate = cell(row["images_per_second_spread"], 2 if row["images_per_second_spread"]["median"] < 100 else 0)
            ratio = f"{cell(row['to_pytorch'])} | {cell(row['to_burn'])}"
            lines.append(f"| {name} | {row['device']} | {rate} | {ratio} | {warm} |")
        for name, reason in case["failures"].items():
            reason = reason.replace("|", "\\|")
            lines.append(f"| {name} | failed: {reason} | – | – | – | – |")
        named = {device: name for device, name in case["pytorch_reference"].items() if name}
        lines.append("")
        if named:
            lines.append("PyTorch is its fastest float32 row: " + ", ".join(f"{n} ({d})" for d, n in named.items()) + ".")
        if load:
            lines.append(f"Load average while measuring {load['min']:.1f} to {load['max']:.1f}.")
    versions = sorted({row["program"] for case in report["cases"] for row in case["rows"].values()})
    threads = sorted({row["threads"] for case in report["cases"] for row in case["rows"].values()})
    lines += ["", f"Programs: {'; '.join(versions)}. CPU threads: {', '.join(map(str, threads))}."]
    lines += [f"Left out: {note}." for note in report["notes"]]
    return "\n".join(lines) + "\n"


def machine():
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        for line in cpu.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def parse():
    p = argparse.ArgumentParser(prog="run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path, metavar="OUT", help="directory for peers.md, peers.json and logs")
    p.add_argument("--case", type=Case.parse, action="append", metavar="ARCHITECTURE:WIDTH:BATCH", help="repeatable")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=3.0, help="minimum time of one measurement")
    p.add_argument("--least", type=int, default=1, help="minimum steps of a peer per measurement (fairtat: three)")
    p.add_argument("--steps", type=int, default=10, help="attack steps")
    p.add_argument("--threads", type=int, help="CPU threads of every program; default: its own choice")
    p.add_argument("--adapter", help="adapter of fairtat's WGSL engine")
    p.add_argument("--only", action="append", metavar="PROGRAM", help="repeatable; the table's names, such as 'pytorch cpu'")
    p.add_argument("--no-sweep", action="store_true", help="only PyTorch's default variant, in its better layout")
    p.add_argument("--limit", type=float, default=1800.0, help="timeout of a measurement in seconds")
    options = p.parse_args()
    for name in ("rounds", "least", "steps"):
        if getattr(options, name) < 1:
            p.error(f"--{name}: expected at least 1, found {getattr(options, name)}")
    return options


def main():
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    programs, notes, discrete = find_programs(options)
    for note in notes:
        print(note, file=sys.stderr)
    if not programs:
        sys.exit("nothing to measure: build fairtat, or name programs in FAIRTAT, BURN_STEP, CANDLE_STEP and PYTHON")
    # A network of published size takes minutes per step on a CPU, so only programs that use the GPU measure it.
    small = [Case("small-cnn", None, 64), Case("preact-resnet-18", 32, 16)]
    cases = [(case, False) for case in options.case or small]
    if not options.case and discrete:
        cases.append((Case("preact-resnet-18", 64, 128), True))
    report = {
        "machine": machine(),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "notes": notes,
        "cases": [],
    }
    done, on_cpu = [], {}

    def save(case):
        """Writes the results so far, so that an interrupted run keeps its finished rounds."""
        report["cases"] = [*done, case]
        (options.out / "peers.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.out / "peers.md").write_text(markdown(report))

    for case, gpu_only in cases:
        chosen = [p for p in programs if not (gpu_only and on_cpu.get(p.name, not p.on_gpu))]
        if not chosen:
            continue
        result = measure_case(case, chosen, options, save)
        for program in chosen:
            rows = [row for name, row in result["rows"].items() if name.startswith(program.name)]
            if rows:
                on_cpu[program.name] = all(row["on_cpu"] for row in rows)
        save(result)
        done.append(result)
    print((options.out / "peers.md").read_text())
    sys.exit(1 if any(case["failures"] for case in done) else 0)


if __name__ == "__main__":
    main()
