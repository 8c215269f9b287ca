"""Load, faults and fuzz on a real server with weights/tiny, watched from outside.

    python -m bench.reliability.soak [--predictions 200] [--fuzz 120] [--json]

Figures, and what they should be:
  predictions       in a row, of a few known requests in turn
  faults_injected   see bench/faults.py and docs/operations.md; faults_survived the same number
  fuzz_cases        see bench/fuzz.py; fuzz_failures 0
  rss_mb_per_100    slope of the resident memory over the second half, MiB per 100 predictions (<= 1)
  leaked_files      in the server's temp folder when all is done, and after a crash and a new start (0)
  leaked_handles    file descriptors and threads more than after the first tenth (0)
  mixed_answers     answers that are not byte for byte the first one's of the same request (0)
  worst_ready_s     from cancel to READY, cancelled in each stage (<= 1)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from bench.reliability import faults, fuzz
from testkit.cog_server import Server

REQUESTS = [
    {"prompt": "house", "bpm": 124, "variations": 1, "max_duration": 2, "seed": 5},
    {"prompt": "boom bap", "bpm": 93.7, "variations": 1, "max_duration": 3, "seed": 0},
    {
        "prompt": "techno",
        "bpm": 140,
        "variations": 2,
        "max_duration": 2,
        "seed": 2**40,
        "output_format": "mp3",
    },
    {"prompt": "dub", "bpm": 300, "variations": 1, "max_duration": 2, "seed": 1e3},
]


def digest(output: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(output, sort_keys=True).encode()).hexdigest()


def slope(memory: list[float]) -> float:
    """MiB per 100 predictions over the second half, by least squares."""
    half = np.asarray(memory[len(memory) // 2 :])
    return float(np.polyfit(np.arange(len(half)), half, 1)[0] * 100) if len(half) > 1 else 0.0


def load(server: Server, known: list[str], count: int) -> dict[str, Any]:
    """Predict `count` times; answers must be `known`."""
    memory, handles, mixed = [], [], 0
    for k in range(count):
        answer = server.output(REQUESTS[k % len(REQUESTS)])
        mixed += digest(answer) != known[k % len(REQUESTS)]
        memory.append(server.memory_mb())
        handles.append(sum(server.handles()))
        if k % 10 == 9:
            print(f"  {k + 1} predictions, {memory[-1]:.0f} MiB, {handles[-1]} handles", flush=True)
    return {
        "predictions": count,
        "rss_mb_per_100": round(slope(memory), 3),
        "rss_mb": round(memory[-1]),
        "leaked_handles": max(0, handles[-1] - max(handles[: max(1, count // 10)])),
        "mixed_answers": mixed,
    }


def moments(server: Server) -> dict[str, float]:
    """Seconds from a long prediction's start into each of its stages, from its own metrics."""
    seconds = server.post(faults.LONG).json()["metrics"]["seconds"]
    found, start = {"its first steps": 0.0, "candidates": 0.3 * seconds["candidates"]}, seconds["candidates"]
    for stage in ("variations", "loops", "export"):
        found |= {f"{stage}, early": start + 0.1 * seconds[stage], stage: start + 0.5 * seconds[stage]}
        start += seconds[stage]
    return found


class Tally:
    """Faults tried, and what went wrong."""

    def __init__(self) -> None:
        self.injected = 0
        self.wrong: list[str] = []

    def attempt(self, name: str, fault: Callable[..., Any], *args: Any) -> Any:
        """Inject one; a fault is survived when it raises nothing."""
        self.injected += 1
        print(f"  fault: {name}", flush=True)
        try:
            return fault(*args)
        except Exception as error:
            self.wrong.append(f"{name}: {type(error).__name__}: {error}")
            print(f"    WRONG: {self.wrong[-1]}", flush=True)
            return None


def after(fault: Callable[..., Any], server: Server, known: str) -> Callable[..., Any]:
    """The fault, and then the known answer from the same server."""

    def both(*args: Any) -> Any:
        result = fault(server, *args)
        faults.expect(digest(server.output(REQUESTS[0])) == known, "the next answer is another one")
        return result

    return both


def soak(predictions: int, cases: int, seed: int) -> dict[str, Any]:
    """The whole run; see the module."""
    tally = Tally()
    with Server() as server:
        known = [digest(server.output(request)) for request in REQUESTS]
        figures = load(server, known, predictions)
        ready = [
            tally.attempt(f"cancelled in {stage}", after(faults.cancelled, server, known[0]), seconds)
            for stage, seconds in moments(server).items()
        ]
        for name, fault in faults.IN_PLACE.items():
            tally.attempt(name, after(fault, server, known[0]))
        sent, failures = fuzz.run(server.client, server.when_free, cases, seed)
        figures["mixed_answers"] += digest(server.output(REQUESTS[0])) != known[0]
        leaked = len(server.files()) - 1  # the last prediction's own file
        tally.attempt("worker killed", faults.worker_killed, server)
        left = server.folder
    with Server(left) as server:  # another server in the same folder, after a crash
        leaked += len(server.files())
        figures["mixed_answers"] += digest(server.output(REQUESTS[0])) != known[0]
        tally.attempt("terminated while predicting", faults.terminated, server)
    shutil.rmtree(left)
    return figures | {
        "faults_injected": tally.injected,
        "faults_survived": tally.injected - len(tally.wrong),
        "fuzz_cases": sent,
        "fuzz_failures": len(failures),
        "leaked_files": leaked,
        "worst_ready_s": round(max((s for s in ready if s is not None), default=float("nan")), 3),
        "wrong": tally.wrong + failures,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--predictions", type=int, default=200)
    parser.add_argument("--fuzz", type=int, default=120, help="bodies besides the fixed ones")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzz")
    parser.add_argument("--json", action="store_true", help="progress goes to standard error then")
    args = parser.parse_args()
    with redirect_stdout(sys.stderr if args.json else sys.stdout):
        figures = soak(args.predictions, args.fuzz, args.seed)
    if args.json:
        print(json.dumps(figures))
    else:
        wrong = figures.pop("wrong")
        for name, value in figures.items():
            print(f"{name:18}{value:>10}")
        print(*wrong, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
