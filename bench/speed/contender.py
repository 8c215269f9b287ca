"""The same request in several checkouts in turn, each in a process of its own that stays: what warms up is warm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_PROGRAM = """
import sys, time
import looper
maker = looper.LoopMaker.load(sys.argv[1])
request = looper.LoopRequest("deep house warm chords", bpm=120, variations=4, max_duration=4, seed=1)
maker.make(request)
print("ready", flush=True)
for _ in sys.stdin:
    started, cpu = time.perf_counter(), time.process_time()
    maker.make(request)
    print(time.perf_counter() - started, time.process_time() - cpu, flush=True)
"""


class Taken(NamedTuple):
    """Seconds that a request took, of the clock and of CPUs."""

    wall: float
    cpu: float


class Contender:
    """A process of one checkout."""

    def __init__(self, checkout: Path, model: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, model],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def make(self) -> Taken:
        """Have it make the request; how long that took."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Taken(*map(float, self._answer().split()))

    def end(self) -> None:
        """Let it go."""
        self.process.communicate(timeout=60)

    def _answer(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"the process of {self.process.args!r:.60} ended")
        return line


def taken_in_turn(checkouts: list[Path], model: str, rounds: int) -> list[list[Taken]]:
    """What the request took in each checkout, `rounds` times, one checkout after the other."""
    contenders = [Contender(checkout, model) for checkout in checkouts]
    try:
        taken = [[contender.make() for contender in contenders] for _ in range(rounds)]
    finally:
        for contender in contenders:
            contender.end()
    return [list(column) for column in zip(*taken, strict=True)]
