"""Load, faults and fuzz on a real server with weights/tiny, watched from outside.

    python -m bench.reliability.soak [--predictions 200] [--fuzz 120] [--at-once 1] [--json]

Figures, and what they should be:
  predictions       as many at once as is said, the fuzz beside them: seven in ten known requests, the others cancelled,
                    left by their client, or planted with a NaN, an exit or an error of nobody's (see testkit/planted.py)
  faults_injected   see bench/faults.py and docs/operations.md; faults_survived the same number
  fuzz_cases        see bench/fuzz.py; fuzz_failures 0
  rss_mb_per_100    slope of the resident memory over the second half, MiB per 100 predictions (<= 1)
  misbehaved        of those others, answered in another way than with their own error (0)
  leaked_files      in the server's temp folder once what is kept is old, and after a crash and a new start (0)
  leaked_handles    file descriptors and threads with nothing under way, more than after the first tenth (0)
  mixed_answers     answers that are not byte for byte the first one's of the same request (0)
  worst_ready_s     from cancel to READY, cancelled in each stage (<= 1)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.reliability import faults, fuzz
from looper.service.scratch import KEPT_SECONDS
from testkit import planted
from testkit.cog_server import Server, free_port

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


BLOCK = 10  # predictions between looks at the memory, with nothing under way


def digest(output: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(output, sort_keys=True).encode()).hexdigest()


def slope(memory: list[float]) -> float:
    """MiB per 100 readings over the second half, by least squares."""
    half = np.asarray(memory[len(memory) // 2 :])
    return float(np.polyfit(np.arange(len(half)), half, 1)[0] * 100) if len(half) > 1 else 0.0


class Crowd:
    """Predictions made by several clients, and what was seen of them.

    Attributes
    ----------
    mixed, misbehaved : int
        Known requests with another answer; others without the error that is theirs.
    count : int
        Predictions made.
    """

    def __init__(self, server: Server, known: list[str]) -> None:
        self.server, self.known = server, known
        self.mixed = self.misbehaved = self.count = 0
        self._noting = threading.Lock()

    def one(self, k: int) -> None:
        """The k-th prediction."""
        odd = {1: self.cancelled, 4: self.left, 8: self.planted}.get(k % 10)
        right = odd(k) if odd else self.is_known(k)
        with self._noting:
            self.mixed += not (odd or right)
            self.misbehaved += bool(odd and not right)
            self.count += 1
            if self.count % 10 == 0:
                print(f"  {self.count} predictions, {self.server.memory_mb():.0f} MiB", flush=True)

    def is_known(self, k: int) -> bool:
        """Whether a known request has the known answer."""
        number = k % len(REQUESTS)
        return digest(self.server.output(REQUESTS[number])) == self.known[number]

    def cancelled(self, k: int) -> bool:
        """Cancel a long one."""
        name = f"crowd{k}-{time.monotonic_ns()}"
        accepted = self.server.begin(name, faults.LONG).status_code == 202
        time.sleep(0.05 * (k % 7))
        return accepted and self.server.cancel(name)

    def left(self, k: int) -> bool:
        """Go away from a long one; true where it was accepted before."""
        body = {"input": faults.LONG}
        try:
            reply = self.server.when_free(
                lambda: self.server.client.post("/predictions", json=body, timeout=0.5 + 0.1 * (k % 5))
            )
        except httpx.ReadTimeout:
            return True
        return reply.status_code == 409

    def planted(self, k: int) -> bool:
        """One that misbehaves by itself has its own error."""
        wish, words = [
            ({"seed": planted.NOT_FINITE}, "stopped being finite"),
            ({"prompt": planted.EXIT}, "tried to end the server"),
            ({"prompt": planted.BROKEN}, "LookupError: planted"),
        ][k // 10 % 3]
        return words in self.server.post({**REQUESTS[0], **wish}).json().get("error", "")


def handles(server: Server) -> int:
    """File descriptors and threads once nothing is under way and no client is connected."""
    server.drain()
    server.hang_up()
    time.sleep(1)  # the other end closes its sockets by and by
    return sum(server.handles())


def load(server: Server, known: list[str], count: int, cases: int, seed: int) -> dict[str, Any]:
    """Predict `count` times, some of them first to warm up, with the fuzz beside."""
    warm = max(count // 10, 3 * server.at_once)  # threads come with the first predictions at once
    crowd = Crowd(server, known)
    with ThreadPoolExecutor(server.at_once + 1) as pool:
        list(pool.map(crowd.one, range(warm)))
        before = handles(server)
        fuzzed = pool.submit(fuzz.run, server.client, server.when_free, cases, seed)
        memory = []
        for first in range(warm, count, BLOCK):
            list(pool.map(crowd.one, range(first, min(first + BLOCK, count))))
            server.drain()
            memory.append(server.memory_mb())
        sent, failures = fuzzed.result()
    return {
        "predictions": count,
        "at_once": server.at_once,
        "rss_mb_per_100": round(slope(memory) / BLOCK, 3),
        "rss_mb": round(memory[-1]),
        "leaked_handles": max(0, handles(server) - before),
        "mixed_answers": crowd.mixed,
        "misbehaved": crowd.misbehaved,
        "fuzz_cases": sent,
        "fuzz_failures": len(failures),
        "wrong": failures,
    }


def leftovers(server: Server) -> int:
    """Files that are there although all predictions but one are old; that one has a single file."""
    time.sleep(KEPT_SECONDS + 1)
    server.output(REQUESTS[0])
    return len(server.files()) - 1


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


def soak(predictions: int, cases: int, seed: int, at_once: int) -> dict[str, Any]:
    """The whole run; see the module."""
    tally, folder = Tally(), Path(tempfile.mkdtemp(prefix="looper-soak-"))
    (temp := folder / "temp").mkdir()
    start = partial(
        Server,
        temp,
        planted.plant(folder / "root"),
        COG_MAX_CONCURRENCY=str(at_once),
        LOOPER_METRICS_PORT=str(free_port()),
    )
    with start() as server:
        known = [digest(server.output(request)) for request in REQUESTS]
        figures = load(server, known, predictions, cases, seed)
        ready = [
            tally.attempt(f"cancelled in {stage}", after(faults.cancelled, server, known[0]), seconds)
            for stage, seconds in moments(server).items()
        ]
        for name, fault in faults.IN_PLACE.items():
            tally.attempt(name, after(fault, server, known[0]))
        figures["mixed_answers"] += digest(server.output(REQUESTS[0])) != known[0]
        leaked = leftovers(server)
        tally.attempt("worker killed", faults.worker_killed, server)
    with start() as server:  # another server in the same folder, after a crash
        leaked += len(server.files())
        figures["mixed_answers"] += digest(server.output(REQUESTS[0])) != known[0]
        tally.attempt("terminated while predicting", faults.terminated, server)
    shutil.rmtree(folder)
    return figures | {
        "faults_injected": tally.injected,
        "faults_survived": tally.injected - len(tally.wrong),
        "leaked_files": leaked,
        "worst_ready_s": round(max((s for s in ready if s is not None), default=float("nan")), 3),
        "wrong": tally.wrong + figures["wrong"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--predictions", type=int, default=200)
    parser.add_argument("--fuzz", type=int, default=120, help="bodies besides the fixed ones")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzz")
    parser.add_argument("--at-once", type=int, default=1, help="predictions at once")
    parser.add_argument("--json", action="store_true", help="progress goes to standard error then")
    args = parser.parse_args()
    with redirect_stdout(sys.stderr if args.json else sys.stdout):
        figures = soak(args.predictions, args.fuzz, args.seed, args.at_once)
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
