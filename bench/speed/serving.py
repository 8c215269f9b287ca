"""Many requests at once: one in turn against the engine, at several loads, in one run.

    python -m bench.speed.serving [--model tiny] [--seconds 60] [--longest 20] [--loads 0.3 0.7 1.4]
                                  [--baseline FOLDER] [--json]

Requests come at random (Poisson) with 1, 2, 4 or 20 variations at 15, 25, 53 and 7 %, nine of ten of 0.4 times the
longest loops and the others of the longest, all of one seed: both ways serve the same requests at the same times. A
load of 1 is as many requests as one after another can serve when nothing waits, measured first. Printed are the
seconds from a request's arrival to its loops (50th and 95th percentile; `idle`: what the same requests take with
nothing else under way), loops a minute and CPU seconds a loop.

Then the CPU time of a row's step: of one row alone, and of 24 rows of six requests that differ in text, length and
sampling (at most a third). With --baseline, a checkout of an earlier release: seconds of one request alone, here and
there in turn (the ratio of medians at most 1.05).

On a GPU the exit code is 1 if any step ran eagerly.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.speed.contender import taken_in_turn
from looper.generation.generator import Generator
from looper.generation.messages import GenerationRequest, NoiseKey
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest, Sampling

MIX = {1: 15, 2: 25, 4: 53, 20: 7}
LONG_SHARE = 0.1
SHORT_PART = 0.4
PROMPTS = ("deep house warm chords", "techno", "jazz swing piano", "dub bass")
SAMPLINGS = (Sampling(top_k=250), Sampling(top_k=20, temperature=0.8), Sampling(top_p=0.9))
MIXED_ROWS = 24
ROUNDS = 5  # of one request here and there


@dataclass(frozen=True)
class Figures:
    """What one way of serving came to at one load.

    Attributes
    ----------
    way : str
        "turns" or "engine".
    load, requests_per_minute : float
        Of what came.
    requests, loops : int
    p50, p95 : float
        Seconds from arrival to the loops.
    idle_p50, idle_p95 : float
        The same of the same requests with nothing else under way.
    loops_per_minute, cpu_seconds_per_loop : float
    """

    way: str
    load: float
    requests_per_minute: float
    requests: int
    loops: int
    p50: float
    p95: float
    idle_p50: float
    idle_p95: float
    loops_per_minute: float
    cpu_seconds_per_loop: float


@dataclass(frozen=True)
class Arrival:
    """A request and when it comes, seconds after the start."""

    at: float
    request: LoopRequest


Alone = dict[tuple[int, float], float]
"""Seconds of a request with nothing else under way, by its variations and longest duration."""


def arrivals(
    per_second: float,
    seconds: float,
    longest: float,
    seed: int = 0,
    mix: dict[int, int] = MIX,
    at_least: int = 0,
) -> list[Arrival]:
    """Requests with the times they come at, `at_least` so many; `mix` weighs numbers of variations."""
    chance, found, at = random.Random(seed), [], 0.0
    while (at := at + chance.expovariate(per_second)) < seconds or len(found) < at_least:
        (variations,) = chance.choices(list(mix), list(mix.values()))
        prompt, bpm = chance.choice(PROMPTS), chance.choice((90, 120, 126.5, 140))
        duration = longest if chance.random() < LONG_SHARE else SHORT_PART * longest
        request = LoopRequest(prompt, bpm=bpm, variations=variations, max_duration=duration, seed=len(found))
        found.append(Arrival(at, request))
    return found


def serve(
    maker: LoopMaker, calls: list[Arrival], turns: AbstractContextManager
) -> tuple[list[float], float, float]:
    """Seconds that each request took, and wall and CPU seconds in all."""
    started, cpu = time.perf_counter(), time.process_time()

    def one(call: Arrival) -> float:
        time.sleep(max(0.0, started + call.at - time.perf_counter()))
        with turns:
            maker.make(call.request)
        return time.perf_counter() - started - call.at

    with ThreadPoolExecutor(max(1, len(calls))) as pool:
        taken = list(pool.map(one, calls))
    return taken, time.perf_counter() - started, time.process_time() - cpu


def percentiles(seconds: list[float]) -> list[float]:
    """The 50th and the 95th."""
    return [round(float(np.percentile(seconds, share)), 2) for share in (50, 95)]


def measure(maker: LoopMaker, load: float, alone: Alone, args: argparse.Namespace) -> list[Figures]:
    """Both ways at one load."""
    per_second = load / mean_alone(alone, args.longest)
    calls = arrivals(per_second, args.seconds, args.longest)
    idle = percentiles([alone[call.request.variations, call.request.max_duration] for call in calls])
    loops, found = sum(call.request.variations for call in calls), []
    for way, turns in (("turns", threading.Lock()), ("engine", nullcontext())):
        taken, wall, cpu = serve(maker, calls, turns)
        speed, cost = round(60 * loops / wall, 1), round(cpu / max(1, loops), 3)
        rate = round(60 * per_second, 2)
        figures = Figures(way, load, rate, len(calls), loops, *percentiles(taken), *idle, speed, cost)
        print(figures, file=sys.stderr, flush=True)
        found.append(figures)
    return found


def seconds_alone(maker: LoopMaker, longest: float, mix: dict[int, int] = MIX) -> Alone:
    """Seconds of each kind of request when nothing else is served."""
    found: Alone = {}
    for variations in mix:
        for duration in (SHORT_PART * longest, longest):
            started = time.perf_counter()
            maker.make(LoopRequest(PROMPTS[0], bpm=120, variations=variations, max_duration=duration, seed=1))
            found[variations, duration] = time.perf_counter() - started
    return found


def mean_alone(alone: Alone, longest: float, mix: dict[int, int] = MIX) -> float:
    """Mean seconds of a request of the mix."""
    shares = {longest: LONG_SHARE, SHORT_PART * longest: 1 - LONG_SHARE}
    weights = sum(mix.values())
    return sum(mix[v] / weights * shares[duration] * seconds for (v, duration), seconds in alone.items())


def cpu_per_row_step(generator: Generator, requests: list[GenerationRequest]) -> float:
    """CPU milliseconds a row's step, of the rows of some requests together."""
    delays = max(generator.engine.delays)
    steps = sum(length + delays for request in requests for length in request.lengths)
    started = time.process_time()
    with ThreadPoolExecutor(len(requests)) as pool:
        list(pool.map(generator.generate_codes, requests))
    return 1000 * (time.process_time() - started) / steps


def row_steps(generator: Generator) -> dict[str, float]:
    """CPU time of a row's step: one row alone, and 24 mixed rows; medians of three."""
    one = [GenerationRequest(["techno"], 300, keys=[NoiseKey(1, 1, 0)])]
    mixed = [
        GenerationRequest(
            [PROMPTS[k % 4]] * 4,
            [200 + 20 * (k + row) for row in range(4)],
            keys=[NoiseKey(k, row, 0) for row in range(4)],
            sampling=SAMPLINGS[k % 3],
        )
        for k in range(MIXED_ROWS // 4)
    ]
    median = lambda requests: statistics.median(cpu_per_row_step(generator, requests) for _ in range(3))
    alone, together = median(one), median(mixed)
    return {
        "one_row_ms": round(alone, 3),
        "24_rows_ms": round(together, 3),
        "ratio": round(together / alone, 3),
    }


def against(baseline: Path, model: str) -> dict[str, float]:
    """One request alone, in this checkout and in an earlier one, in turn: medians of seconds and their ratios."""
    here, there = taken_in_turn([Path.cwd(), baseline], model, ROUNDS)
    found = {}
    for kind in ("wall", "cpu"):
        now, before = (statistics.median(getattr(taken, kind) for taken in each) for each in (here, there))
        ratio = round(now / before, 3)
        found |= {f"{kind}_s": round(now, 2), f"{kind}_s_before": round(before, 2), f"{kind}_ratio": ratio}
    return found


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """All figures, and the steps that ran eagerly on a GPU."""
    found: dict[str, Any] = {"load_average": round(os.getloadavg()[0], 1)}
    if args.baseline:
        found["one_request_alone"] = against(args.baseline, args.model)
    maker = LoopMaker.load(args.model)
    maker.generator.prepare()
    maker.make(LoopRequest("warm up", bpm=120, variations=4, max_duration=4, seed=0))
    status: Callable[[], int] = lambda: maker.generator.engine.status().steps.eager
    eager = status()
    found["cpu_per_row_step"] = row_steps(maker.generator)
    alone = seconds_alone(maker, args.longest)
    found["mean_seconds_alone"] = round(mean_alone(alone, args.longest), 2)
    found["loads"] = [asdict(row) for load in args.loads for row in measure(maker, load, alone, args)]
    return found, status() - eager


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seconds", type=float, default=60, help="how long requests come")
    parser.add_argument("--longest", type=float, default=20, help="seconds of the longest loops")
    parser.add_argument("--loads", type=float, nargs="*", default=[0.3, 0.7, 1.4])
    parser.add_argument("--baseline", type=Path, help="checkout of an earlier release")
    parser.add_argument("--json", action="store_true", help="print an object instead of lines")
    args = parser.parse_args()
    found, eager = run(args)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for row in found.pop("loads"):
            print(*(f"{name} {value}" for name, value in row.items()), sep="  ")
        print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    if eager:
        sys.exit(f"{eager} steps ran eagerly on the GPU")


if __name__ == "__main__":
    main()
