"""Everything to be known of a GPU, in one command of some eight minutes.

    python -m bench.gpu                        # medium and large, random weights made on the card
    python -m bench.gpu --shape medium --json out.json
    python -m bench.gpu --rehearse             # all of its code on a CPU, with small shapes; its figures say nothing

It prints a table, and writes JSON where --json says. The exit code is 1 if anything is not right: a kernel refused, a
row whose bits depend on its neighbours, graphs, or the process; half precision further from single precision than
audiocraft's; steps that run eagerly or are captured within requests; a fault that is not got over. Figures of speed are
no reason: they stand beside what `bench.speed.roofline` predicts, and beside the goals for an H100.

In a rehearsal ATen's operations stand in for the kernels.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # an installed package is called tests, too

import looper  # noqa: E402, F401  (it lets audiocraft be imported without PyAV)
from bench.gpu import exactness, faults, speed  # noqa: E402
from bench.gpu.setting import Finding, Setting, engine, kernels_set_to, real, rehearsal  # noqa: E402
from looper.generation.generator import Generator  # noqa: E402
from testkit import checkpoints  # noqa: E402


def versions(setting: Setting) -> Finding:
    figures: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    figures["triton"] = _version("triton")
    if setting.on_gpu:
        properties = torch.cuda.get_device_properties(0)
        figures |= {"card": properties.name, "memory_gb": properties.total_memory / 1e9}
        figures |= {"capability": f"{properties.major}.{properties.minor}", "cuda": torch.version.cuda}
    return Finding("machine", "versions", None, figures)


def _version(package: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def measure(setting: Setting, note: Callable[[Finding], None]) -> None:
    """Find everything out, in order; a section that fails is a finding."""
    note(versions(setting))
    copy_gb_s = 0.0
    for name in setting.shapes:
        copy_gb_s = of_model(name, copy_gb_s, setting, note)
        if setting.on_gpu:
            torch.cuda.empty_cache()


def of_model(name: str, copy_gb_s: float, setting: Setting, note: Callable[[Finding], None]) -> float:
    """All of one model; the bandwidth of a copy, which the first one finds."""
    started = time.perf_counter()
    model = checkpoints.random_model(setting.shapes[name], setting.device)
    made = time.perf_counter() - started
    started = time.perf_counter()
    ours = engine(model, True, setting)
    figures = {"model_s": made, "engine_with_check_s": time.perf_counter() - started}
    note(Finding("machine", f"{name}: set-up", None, figures))
    plain = engine(model, False, setting)
    if not copy_gb_s:
        (bandwidth,) = ours.call(lambda: speed.machine(setting, ours))
        copy_gb_s = bandwidth.figures["copy_gb_s"]
        note(bandwidth)
    with kernels_set_to("off"):
        generator = Generator(model)
    generator.engine = ours
    sections: dict[str, Callable[[], Sequence[Finding]]] = {
        "exactness": lambda: exactness.all_findings(name, model, (ours, plain), setting),
        "steps": lambda: speed.steps(name, ours, copy_gb_s, setting),
        "profile": lambda: [speed.profiled(name, ours, setting)],
        "requests": lambda: speed.against_audiocraft(name, generator, setting),
        "serving": lambda: speed.served(name, generator, setting),
        "faults": lambda: faults.all_findings(name, model, ours, plain, setting),
    }
    for section, find in sections.items():
        plain.release()  # two engines' slots are more than a card may have
        if setting.on_gpu:
            torch.cuda.empty_cache()
        try:
            for finding in find():
                note(finding)
        except Exception as error:
            told = {"error": f"{type(error).__name__}: {error}"[:500]}
            note(Finding(section, f"{name}: could be done", False, told))
    return copy_gb_s


def shown(finding: Finding) -> str:
    """A line of the table."""
    mark = {True: "right", False: "WRONG", None: ""}[finding.ok]
    told = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
    figures = "  ".join(f"{key} {told(value)}" for key, value in finding.figures.items() if value is not None)
    return f"{finding.section:10} {mark:6} {finding.name:48} {figures}"


def run(setting: Setting, to: Path | None) -> int:
    """Measure and report; the exit code."""
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        print(shown(finding), flush=True)
        if to is not None:  # what was found stays, whatever happens next
            to.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")

    started = time.perf_counter()
    measure(setting, note)
    wrong = [finding.name for finding in found if finding.ok is False]
    right = sum(finding.ok is True for finding in found)
    print(f"{right} right, {len(wrong)} wrong, in {time.perf_counter() - started:.0f} s")
    return int(bool(wrong))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=("medium", "large"), action="append", help="default: both")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearse", action="store_true", help="small shapes on a CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings there")
    parser.add_argument("--digest", metavar="SHAPE", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.rehearse and not torch.cuda.is_available():
        parser.error("no GPU that PyTorch can use is here; --rehearse runs this on a CPU")
    shapes = args.shape or ["medium", "large"]
    setting = rehearsal(shapes) if args.rehearse else real(args.device, shapes)
    if args.digest:
        model = checkpoints.random_model(setting.shapes[args.digest], setting.device)
        print(exactness.digest(model, engine(model, True, setting), setting))
        return 0
    return run(setting, args.json)


if __name__ == "__main__":
    sys.exit(main())
