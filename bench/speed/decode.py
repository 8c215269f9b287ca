"""How fast codes are decoded, against audiocraft's own loop, in one process on the same weights.

    python -m bench.speed.decode                              # tiny, and dim 512 with 12 layers, on this machine
    python -m bench.speed.decode --shape medium --json        # random weights: speed does not depend on them

Columns: `steps_per_s` of ours, audio seconds made per second, GB/s that the weights and the cache ask
for and their share of the measured copy bandwidth, and three ratios of time: against one batched call of
audiocraft's `LMModel.generate`, and against the original's way, one call after another. The latter is
the time of one call times the rows, unless `--sequential` really makes them all. A third is against
transformers' MusicGen of the same shape, the best of its caches and thread counts. The JSON has the same
ratios of CPU time, which say more where the machine is shared (and less where threads wait by spinning).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from looper.model.linear import BatchInvariantLinear
from looper.model.musicgen import Model

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # an installed package is called tests, too

from bench.speed import transformers_generate  # noqa: E402

PROMPT = "deep house warm chords 120 bpm"
PROMPT_TOKENS = 9  # about what T5 makes of it
SHAPES = ("tiny", "dim512", "small", "medium", "large")


def load(shape: str, device: str) -> Any:
    from looper.generation.generator import Generator
    from testkit import checkpoints

    if shape == "tiny":
        return Generator.load("tiny", device)
    standin_shape = {
        "dim512": checkpoints.DIM512,
        "small": checkpoints.SMALL,
        "medium": checkpoints.MEDIUM,
        "large": checkpoints.LARGE,
    }[shape]
    model: Model = checkpoints.random_model(standin_shape, device)
    return Generator(model)


def seconds(device: str, work: Any, repeats: int) -> tuple[float, float]:
    """Best wall and CPU time of `repeats` runs: the others were disturbed."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(wall for wall, _ in times), min(cpu for _, cpu in times)


def copy_bandwidth(device: str) -> float:
    """Bytes per second read and written by a large copy."""
    source = torch.empty((2 << 30) if device != "cpu" else (256 << 20), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.numel() / seconds(device, lambda: target.copy_(source), 5)[0]


def bytes_per_step(generator: Any, rows: int, frames: int) -> float:
    """What a step must read: all weights once, and half of the final cache on the average."""
    t = generator.engine.transformer
    size = torch.finfo(t.dtype).bits // 8
    weights = t.output.weight.numel() + sum(
        dense.weight.numel()
        for layer in t.layers
        for dense in vars(layer).values()
        if isinstance(dense, BatchInvariantLinear)
        and dense is not getattr(layer, "cross_kv", None)  # once a request
    )
    return size * (weights + 2 * rows * len(t.layers) * 2 * t.dim * frames / 2)


def audiocraft_seconds(
    generator: Any, rows: int, frames: int, calls: int, threads: int
) -> tuple[float, float]:
    from audiocraft.modules.conditioners import ConditioningAttributes

    lm = generator.model.lm
    conditions = [ConditioningAttributes(text={"description": PROMPT}) for _ in range(rows)]
    card = generator.engine.transformer.card
    torch.set_num_threads(threads)
    half = torch.autocast("cuda", torch.float16, enabled=str(generator.model.device) != "cpu")
    with half:
        lm.generate(conditions=conditions, max_gen_len=4, top_k=min(250, card))
        return seconds(
            generator.model.device.type,
            lambda: [
                lm.generate(conditions=conditions, max_gen_len=frames, top_k=min(250, card))
                for _ in range(calls)
            ],
            1,
        )


def measure(
    generator: Any, peer: Any, shape: str, rows: int, args: argparse.Namespace, bandwidth: float
) -> dict[str, Any]:
    from looper.generation.messages import GenerationRequest

    device, frames = generator.model.device.type, round(args.seconds * generator.frame_rate)
    keys = [(0, variation, 0) for variation in range(rows)]

    def ours() -> None:
        generator.generate_codes(GenerationRequest([PROMPT] * rows, frames, keys))

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ours()  # captures the graphs
    torch.set_num_threads(generator.threads)
    taken, cpu = seconds(device, ours, args.repeats)
    steps = frames + generator.engine.transformer.n_q - 1
    moved = bytes_per_step(generator, rows, frames) * steps / taken
    row = {
        "device": torch.cuda.get_device_name()
        if device == "cuda"
        else f"cpu, {generator.threads * generator.workers} threads",
        "shape": shape,
        "rows": rows,
        "frames": frames,
        "seconds": taken,
        "cpu_seconds": cpu,
        "steps_per_s": steps / taken,
        "audio_s_per_s": rows * args.seconds / taken,
        "gb_per_s": moved / 1e9,
        "bandwidth_share": moved / bandwidth,
        "load_average": os.getloadavg()[0],
        "ratio_vs_audiocraft": None,
        "ratio_vs_sequential": None,
        "ratio_vs_transformers": None,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    if not args.alone:
        one = audiocraft_seconds(generator, 1, frames, rows if args.sequential else 1, generator.threads)
        batch = one if rows == 1 else audiocraft_seconds(generator, rows, frames, 1, generator.threads)
        times = 1 if args.sequential else rows
        row["ratio_vs_audiocraft"] = batch[0] / taken
        row["ratio_vs_sequential"] = one[0] * times / taken
        row["cpu_ratio_vs_audiocraft"] = batch[1] / cpu
        row["cpu_ratio_vs_sequential"] = one[1] * times / cpu
        counts = tuple({1, generator.threads, os.cpu_count() or 1}) if device == "cpu" else (1,)
        theirs = transformers_generate.fastest(peer, rows, frames, PROMPT_TOKENS, counts)
        row["ratio_vs_transformers"] = theirs.seconds / taken
        row["transformers"] = f"{theirs.cache} cache, {theirs.threads} threads"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: tiny and dim512")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 20], help="variations in the batch")
    parser.add_argument("--seconds", type=float, default=8.0, help="audio per variation")
    parser.add_argument("--repeats", type=int, default=2, help="runs of ours; the best counts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--alone", action="store_true", help="leave audiocraft and transformers out")
    parser.add_argument(
        "--sequential", action="store_true", help="really make every one of the original's calls"
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    args = parser.parse_args()
    bandwidth = copy_bandwidth(args.device)
    table = []
    for shape in args.shape or ["tiny", "dim512"]:
        generator = load(shape, args.device)
        peer = None if args.alone else transformers_generate.model_like(generator.engine.transformer)
        for rows in args.rows:
            table.append(measure(generator, peer, shape, rows, args, bandwidth))
            if not args.json:
                show(table[-1], header=len(table) == 1)
        del generator, peer  # room for the next one
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        print(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s")


def show(row: dict[str, Any], header: bool) -> None:
    names = (
        "shape",
        "rows",
        "seconds",
        "steps_per_s",
        "audio_s_per_s",
        "gb_per_s",
        "bandwidth_share",
        "ratio_vs_audiocraft",
        "ratio_vs_sequential",
        "ratio_vs_transformers",
        "peak_gb",
    )
    if header:
        print(row["device"])
        print("  ".join(names))
    cells = [
        "-" if row[n] is None else f"{row[n]:.2f}" if isinstance(row[n], float) else str(row[n])
        for n in names
    ]
    print("  ".join(cell.rjust(len(name)) for cell, name in zip(cells, names, strict=True)), flush=True)


if __name__ == "__main__":
    main()
