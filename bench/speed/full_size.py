"""Rehearse the published models' real sizes without their weights: random ones in the same files.

    python -m bench.speed.full_size --shape medium          # needs 9 GB of disk and 10 GB of memory; a few minutes

Writes state_dict.bin, compression_state_dict.bin and a T5 of t5-base's size as facebook/musicgen-* and
the hub have them, converts them, then loads the model folder in a fresh process and decodes a few steps.
Prints load seconds (sha256 of every file included) and the peak memory of that process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # an installed package is called tests, too


def make(shape: str, folder: Path) -> dict[str, float]:
    """Publish and convert a random model; return the seconds of both."""
    from looper.checkpoints.convert import convert
    from testkit import checkpoints

    start = time.perf_counter()
    size = {"small": checkpoints.SMALL, "medium": checkpoints.MEDIUM, "large": checkpoints.LARGE}[shape]
    published = checkpoints.publish(folder / "published", size)
    middle = time.perf_counter()
    convert(published, published / "t5", folder / shape)
    return {"publish_s": middle - start, "convert_s": time.perf_counter() - middle}


def load(folder: Path, device: str, steps: int) -> dict[str, Any]:
    """Load a model folder and decode `steps` frames of one variation."""
    import torch

    from looper.checkpoints import load
    from looper.generation.generator import Generator
    from looper.generation.messages import GenerationRequest

    start = time.perf_counter()
    model = load.load(folder, device)
    loaded = time.perf_counter() - start
    peak = peak_bytes()
    generator = Generator(model)
    start = time.perf_counter()
    generator.generate_codes(GenerationRequest(["deep house 120 bpm"], steps, [(0, 0, 0)]))
    return {
        "shape": folder.name,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "parameters": sum(p.numel() for p in model.lm.parameters()),
        "load_s": loaded,
        "load_peak_gb": peak / 1e9,
        "first_steps": steps + 3,
        "first_steps_s": time.perf_counter() - start,
        "peak_gb": peak_bytes() / 1e9,
        "gpu_peak_gb": torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None,
    }


def peak_bytes() -> int:
    """Peak resident memory of this process.

    VmHWM, not getrusage: the latter's maximum is inherited from the process that forked this one.
    """
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=("small", "medium", "large"), default="medium")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4, help="frames to decode after loading")
    parser.add_argument(
        "--scratch", type=Path, help="where to put the files (default: the system's temp folder)"
    )
    parser.add_argument("--load", type=Path, help="only load this model folder, in this process")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.load:
        print(json.dumps(load(args.load, args.device, args.steps)))
        return
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        made = make(args.shape, Path(scratch))
        command = [sys.executable, "-m", "bench.speed.full_size", "--load", str(Path(scratch) / args.shape)]
        command += ["--device", args.device, "--steps", str(args.steps)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout.splitlines()[-1]) | made
    if args.json:
        print(json.dumps([result], indent=2))
    else:
        print(
            "\n".join(
                f"{name:16} {value:.2f}" if isinstance(value, float) else f"{name:16} {value}"
                for name, value in result.items()
            )
        )


if __name__ == "__main__":
    main()
