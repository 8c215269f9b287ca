"""CPU seconds for a loop after generation: judging, cutting, levelling and joining, writing.

    OMP_NUM_THREADS=1 python -m bench.speed.post_processing [--model tiny] [--variations 20] [--bpm 120 174 93.5] [--json]

A request is made once and its music kept; then the same request is made of that music again, in the pipeline's own
threads, while the CPU time of each stage is counted: `judge` fits the beat grid of every draw, also of those that
are not chosen, `cut` stretches and closes, `finish` levels and joins, `write` encodes WAV files with their tags. The
baseline, in the same run on the same loops, is what librosa takes to find the beats and to stretch (`beat_track` and
`time_stretch`, as judge and cut do); `ratio_vs_librosa` is its time over that of judge and cut.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import librosa
import numpy as np

from looper.files import write
from looper.pipeline import maker, takes
from looper.pipeline.maker import LoopMaker
from looper.pipeline.result import Loops
from looper.request import LoopRequest

TARGET = 0.15  # CPU seconds a loop
# judge and cut run in the pipeline's threads, the others have the process to themselves
STAGES = {
    "judge": (takes, "fit_grid", time.thread_time),
    "cut": (maker, "cut", time.thread_time),
    "finish": (maker, "finish", time.process_time),
    "write": (write, "write_all", time.process_time),
}


class Tape:
    """A generator that gives again what it gave the first time, in the same order."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._answers: list[Any] = []
        self._next: int | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._generator, name)
        return self._taped(found) if name in ("generate", "log_likelihoods") else found

    def rewind(self) -> None:
        """Play from the beginning from now on, instead of generating."""
        self._next = 0

    def _taped(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._next is None:
                self._answers.append(method(*args, **kwargs))
                return self._answers[-1]
            self._next += 1
            return self._answers[self._next - 1]

        return call


class Meter:
    """CPU seconds and calls by stage."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    def timed(
        self, stage: str, function: Callable[..., Any], clock: Callable[[], float]
    ) -> Callable[..., Any]:
        """Return `function` with its CPU time counted."""

        def call(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self.seconds[stage] += clock() - started
                    self.calls[stage] += 1

        return call


def ours(maker: LoopMaker, request: LoopRequest) -> tuple[Meter, float, float, Loops]:
    """What each stage took, CPU and wall seconds in all, and the loops."""
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for stage, (module, name, clock) in STAGES.items():
            timed = meter.timed(stage, getattr(module, name), clock)
            stack.enter_context(mock.patch.object(module, name, timed))
        wall, cpu = time.perf_counter(), time.process_time()
        made = maker.make(request)
        write.write_all(made, pathlib.Path(folder))
        return meter, time.process_time() - cpu, time.perf_counter() - wall, made


def librosas(made: Loops) -> float:
    """CPU seconds of librosa's beat tracker and phase vocoder on the loops."""

    def work(samples: np.ndarray, measured: float) -> None:
        librosa.beat.beat_track(y=samples, sr=made[0].sample_rate, start_bpm=made.request.bpm)
        librosa.effects.time_stretch(samples, rate=made.request.bpm / measured)

    work(made[0].samples, made.request.bpm * 1.01)  # its first call compiles
    started = time.process_time()
    for loop, measured in zip(made, made.report.measured_bpm, strict=True):
        work(loop.samples, measured)
    return time.process_time() - started


def measure(generator: Any, bpm: float, variations: int) -> dict[str, Any]:
    """One row of the table."""
    tape = Tape(generator)
    maker = LoopMaker(tape)  # type: ignore[arg-type]
    request = LoopRequest("deep house", bpm=bpm, variations=variations, max_duration=8, seed=1)
    with tempfile.TemporaryDirectory() as folder:  # first calls import and make filters
        write.write_all(maker.make(request), pathlib.Path(folder))
    tape.rewind()
    meter, cpu, wall, made = ours(maker, request)
    baseline = librosas(made)
    stages = {**meter.seconds, "rest": cpu - sum(meter.seconds.values())}
    return {
        "bpm": bpm,
        "variations": variations,
        "loop_seconds": round(made[0].seconds, 3),
        "draws_judged": meter.calls["judge"],
        "cpu_s_per_loop": round(cpu / variations, 4),
        "target": TARGET,
        "wall_s": round(wall, 2),
        "stages": {stage: round(seconds / variations, 4) for stage, seconds in stages.items()},
        "ratio_vs_librosa": round(baseline / (stages["judge"] + stages["cut"]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--variations", type=int, default=20)
    parser.add_argument("--bpm", type=float, nargs="+", default=[120.0, 174.0, 93.5])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    generator = LoopMaker.load(args.model).generator
    rows = []
    for bpm in args.bpm:
        rows.append(measure(generator, bpm, args.variations))
        if not args.json:
            print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
