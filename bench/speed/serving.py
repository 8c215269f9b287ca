"""Many requests at once: one in turn against the engine, at several loads, in one run.

    python -m bench.speed.serving [--model tiny] [--seconds 60] [--loads 0.3 0.6 1.2] [--json]

Requests come at random (Poisson) with 1, 2, 4 or 20 variations at 15, 25, 53 and 7 %, nine of ten of 8 s and the
others of 20 s, all of one seed: both ways serve the same requests at the same times. A load of 1 is as many requests
as one after another can serve when nothing waits, measured first. Printed are the seconds from a request's arrival to
its loops (50th and 95th percentile), loops a minute and CPU seconds a loop. On a GPU the exit code is 1 if any step
ran eagerly.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import numpy as np

from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest

MIX = {1: 15, 2: 25, 4: 53, 20: 7}
LONG_SHARE = 0.1
PROMPTS = ("deep house warm chords", "techno", "jazz swing piano", "dub bass")


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
    loops_per_minute, cpu_seconds_per_loop : float
    """

    way: str
    load: float
    requests_per_minute: float
    requests: int
    loops: int
    p50: float
    p95: float
    loops_per_minute: float
    cpu_seconds_per_loop: float


def arrivals(
    per_second: float, seconds: float, longest: float, seed: int = 0
) -> list[tuple[float, LoopRequest]]:
    """Requests with the times they come at."""
    chance, found, at = random.Random(seed), [], 0.0
    while (at := at + chance.expovariate(per_second)) < seconds:
        (variations,) = chance.choices(list(MIX), list(MIX.values()))
        request = LoopRequest(
            chance.choice(PROMPTS),
            bpm=chance.choice((90, 120, 126.5, 140)),
            variations=variations,
            max_duration=longest if chance.random() < LONG_SHARE else 0.4 * longest,
            seed=len(found),
        )
        found.append((at, request))
    return found


def serve(
    maker: LoopMaker, calls: list[tuple[float, LoopRequest]], turns: AbstractContextManager
) -> tuple[list[float], float, float]:
    """Seconds that each request took, and wall and CPU seconds in all."""
    started, cpu = time.perf_counter(), time.process_time()

    def one(call: tuple[float, LoopRequest]) -> float:
        at, request = call
        time.sleep(max(0.0, started + at - time.perf_counter()))
        with turns:
            maker.make(request)
        return time.perf_counter() - started - at

    with ThreadPoolExecutor(max(1, len(calls))) as pool:
        taken = list(pool.map(one, calls))
    return taken, time.perf_counter() - started, time.process_time() - cpu


def measure(maker: LoopMaker, load: float, per_second: float, args: argparse.Namespace) -> list[Figures]:
    """Both ways at one load."""
    calls, found = arrivals(per_second, args.seconds, args.longest), []
    for way, turns in (("turns", threading.Lock()), ("engine", nullcontext())):
        taken, wall, cpu = serve(maker, calls, turns)
        loops = sum(request.variations for _, request in calls)
        p50, p95 = (round(float(np.percentile(taken, share)), 2) for share in (50, 95))
        speed, cost = round(60 * loops / wall, 1), round(cpu / max(1, loops), 3)
        rate = round(60 * per_second, 2)
        found.append(Figures(way, load, rate, len(calls), loops, p50, p95, speed, cost))
    return found


def seconds_alone(maker: LoopMaker, longest: float) -> float:
    """Mean seconds of a request of the mix when nothing else is served."""
    total = 0.0
    for variations, share in MIX.items():
        request = LoopRequest(PROMPTS[0], bpm=120, variations=variations, max_duration=0.4 * longest, seed=1)
        started = time.perf_counter()
        maker.make(request)
        total += share / 100 * (time.perf_counter() - started)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seconds", type=float, default=60, help="how long requests come")
    parser.add_argument("--longest", type=float, default=20, help="seconds of the longest loops")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.7, 1.4])
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of lines")
    args = parser.parse_args()
    maker = LoopMaker.load(args.model)
    maker.generator.prepare()
    maker.make(LoopRequest("warm up", bpm=120, variations=4, max_duration=4, seed=0))
    eager = maker.generator.engine.status().steps.eager
    alone = seconds_alone(maker, args.longest)
    rows = [row for load in args.loads for row in measure(maker, load, load / alone, args)]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(f"{alone:.2f} s a request alone")
        for row in rows:
            print(*(f"{name} {value}" for name, value in asdict(row).items()), sep="  ")
    if eager_since := maker.generator.engine.status().steps.eager - eager:
        sys.exit(f"{eager_since} steps ran eagerly on the GPU")


if __name__ == "__main__":
    main()
