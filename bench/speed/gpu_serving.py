"""How many requests a minute a GPU serves: a simulation of the engine with a GPU's step times, no measurement.

    python -m bench.speed.gpu_serving [--hours 0.5] [--json]

Requests come as in `bench.speed.serving`, with MusicGen's own plan of frames. Rows stand in two lanes of slots, as many
as `looper.generation.lane_pool` gives them; a round is 16 steps of each lane that has rows; a free slot goes to the
request with the fewest rows running, then to the earliest. The rest of a request (texts, EnCodec, likelihoods: on the
GPU, between rounds; beats and cuts: on CPU threads, beside) takes the times below. Capacity is the most requests a
minute at which the 95th percentile stays within twice what it is when nothing waits.

What is assumed, and from where:
  step times    launches times 1.3 us and bytes over bandwidth, by a model of the kernels of today (+- 25 %): no GPU
                was at hand. A row's share grows with the columns it looks at.
  drift         of MusicGen's own music, measured: one draw in seven, all four candidates in 1.6 % of requests
  post          CPU seconds a loop, measured on this project's machine
  other work    EnCodec, T5 and prefill in units of a step: an estimate
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from dataclasses import asdict, dataclass, field
from itertools import count

import numpy as np

from bench.speed.serving import arrivals
from looper.generation.lane import CUDA_WINDOWS, ROUND
from looper.generation.lane_pool import KEPT_SHARE, MOST_ROWS, SHORT_COLUMNS
from looper.generation.messages import ModelSpec
from looper.pipeline.plan import Plan, plan
from looper.pipeline.session import CANDIDATES, ROUNDS

SPEC = ModelSpec(50.0, 640, 30.0, False)  # medium and large
DELAYS = 3
WINDOW_COLUMNS = 1504
COLUMN_BYTES = 0.59e6  # of a row's cache, with guidance; medium
COLUMNS_OF_TABLE = 200  # on average, where the step times were worked out
REDRAWN_FIRST = 0.016
REDRAWN_NEXT = 1 / 7
POST_SECONDS = 0.13  # of a CPU, a loop
CPU_THREADS = 4
CODEC_STEPS, TEXT_STEPS, PREFILL_STEPS = (
    1.5,
    4.0,
    3.0,
)  # in units of a step: a row's EnCodec; a request's T5; a prompt
LONGEST = 20.0
LEAST_RATE, MOST_RATE = 0.2, 60.0  # requests a minute


@dataclass(frozen=True)
class Card:
    """A card and a model on it: milliseconds of a step without rows, and of each row at 200 columns."""

    name: str
    memory: float
    base_ms: float
    row_ms: float

    def rows(self, columns: int) -> int:
        """Slots of a lane: half of what may be kept each."""
        return min(MOST_ROWS, int(0.5 * KEPT_SHARE * self.memory / (columns * COLUMN_BYTES)))

    def step_seconds(self, rows: int, columns: int) -> float:
        """One step: rows are padded to 1, 2, 4, 8 ... or all slots, and look at `columns`."""
        padded = min(1 << (rows - 1).bit_length(), max(rows, self.rows(SHORT_COLUMNS)))
        return (self.base_ms + self.row_ms * padded * columns / COLUMNS_OF_TABLE) / 1000


CARDS = (
    Card("H100, medium", 80e9, 4.35, 0.053),
    Card("H100, large", 80e9, 5.43, 0.068),
    Card("A100-80, medium", 80e9, 5.51, 0.089),
    Card("L40S, medium", 48e9, 8.69, 0.205),
)


@dataclass(eq=False)
class Job:
    """A request on its way.

    Attributes
    ----------
    number : int
    at : float
        When it came.
    plan : Plan
    variations : int
    waiting : list of int
        Steps of its rows that wait for a slot.
    running : int
        Rows in slots.
    first : bool
        Whether its candidates are being drawn; then its variations are.
    rounds, missing : int
        Rounds of draws so far in this stage, and variations to draw in this one.
    """

    number: int
    at: float
    plan: Plan
    variations: int
    waiting: list[int] = field(default_factory=list)
    running: int = 0
    first: bool = True
    rounds: int = 0
    missing: int = 0

    def draw(self) -> None:
        """Ask for the rows of the next round."""
        if self.first:
            self.waiting = [self.plan.first_frames + DELAYS] * CANDIDATES
        else:
            self.waiting = [self.plan.next_frames - self.plan.prompt_frames + DELAYS] * self.missing
        self.rounds += 1


@dataclass(eq=False)
class Row:
    """A row in a slot."""

    job: Job
    left: int
    position: int = 0


class Simulation:
    """One card with some requests in flight at most."""

    def __init__(self, card: Card, at_once: int, jobs: list[Job], seed: int = 0) -> None:
        self.card, self.at_once = card, at_once
        self.chance = random.Random(seed)
        self.now, self.in_flight = 0.0, 0
        self.lanes: dict[int, list[Row]] = {SHORT_COLUMNS: [], WINDOW_COLUMNS: []}
        self.order = count()
        self.events = [(job.at, next(self.order), "comes", job) for job in jobs]
        heapq.heapify(self.events)
        self.queue: list[Job] = []
        self.active: list[Job] = []
        self.cpus = [0.0] * CPU_THREADS
        self.taken: list[float] = []

    def run(self) -> list[float]:
        """Seconds from each request's arrival to its loops."""
        while self.events or self.queue or any(self.lanes.values()):
            if not any(self.lanes.values()) and self.events:
                self.now = max(self.now, self.events[0][0])
            while self.events and self.events[0][0] <= self.now:
                _, _, what, job = heapq.heappop(self.events)
                self._happens(what, job)
            self._admit()
            for columns, rows in self.lanes.items():
                self._advance(columns, rows)
        return self.taken

    def _happens(self, what: str, job: Job) -> None:
        if what == "comes":
            self.queue.append(job)
        elif what == "is done":
            self.in_flight -= 1
            self.active.remove(job)
            self.taken.append(self.now - job.at)
        else:
            self._go_on(job)
        while self.queue and self.in_flight < self.at_once:
            self.in_flight += 1
            self._begin(self.queue.pop(0))

    def _begin(self, job: Job) -> None:
        self.active.append(job)
        self.now += (TEXT_STEPS + PREFILL_STEPS) * self.card.step_seconds(1, COLUMNS_OF_TABLE)
        job.draw()

    def _go_on(self, job: Job) -> None:
        """Draw again what drifted, go on to the variations, or cut the loops."""
        again = job.rounds <= ROUNDS
        if job.first and again and self.chance.random() < REDRAWN_FIRST:
            return job.draw()
        if job.first and job.variations > 1:
            job.first, job.rounds, job.missing = False, 0, job.variations - 1
            self.now += PREFILL_STEPS * self.card.step_seconds(1, COLUMNS_OF_TABLE)
            return job.draw()
        if not job.first and again:
            job.missing = sum(self.chance.random() < REDRAWN_NEXT for _ in range(job.missing))
            if job.missing:
                return job.draw()
        return self._on_cpus(job, job.variations, "is done")

    def _on_cpus(self, job: Job, loops: int, then: str) -> None:
        """Half of a loop's post-processing, the finding of its beats, or the other half."""
        for _ in range(loops):
            begun = max(self.now, heapq.heappop(self.cpus))
            heapq.heappush(self.cpus, begun + POST_SECONDS / 2)
        heapq.heappush(self.events, (max(self.cpus), next(self.order), then, job))

    def _admit(self) -> None:
        while True:
            ready = [job for job in self.active if job.waiting]
            found = [(job.running, job.number, job) for job in ready if self._has_room(job.waiting[0])]
            if not found:
                return
            job = min(found)[2]
            steps = job.waiting.pop()
            self.lanes[self._lane(steps)].append(Row(job, steps))
            job.running += 1

    def _lane(self, steps: int) -> int:
        return next(columns for columns in self.lanes if steps <= columns)

    def _has_room(self, steps: int) -> bool:
        columns = self._lane(steps)
        return len(self.lanes[columns]) < self.card.rows(columns)

    def _advance(self, columns: int, rows: list[Row]) -> None:
        """A round of one lane; rows that are done leave, and their requests go on."""
        if not rows:
            return
        part = columns / CUDA_WINDOWS
        seen = part * -(-max(row.position for row in rows) // part or 1)
        self.now += ROUND * self.card.step_seconds(len(rows), seen)
        for row in rows:
            row.left -= ROUND
            row.position += ROUND
        for row in [row for row in rows if row.left <= 0]:
            rows.remove(row)
            self.now += CODEC_STEPS * self.card.step_seconds(1, COLUMNS_OF_TABLE)
            row.job.running -= 1
            if not row.job.running and not row.job.waiting:
                drawn = CANDIDATES if row.job.first else row.job.missing
                self._on_cpus(row.job, drawn, "goes on")


@dataclass(frozen=True)
class Served:
    """What came of some rate: percentiles of the seconds from arrival to loops, and loops a minute."""

    p50: float
    p95: float
    loops_per_minute: float


@dataclass(frozen=True)
class Capacity:
    """The most requests a minute that a card serves with some at once.

    Attributes
    ----------
    card : str
    at_once : int
    requests_per_minute : float
    there, idle, overload : Served
        What comes of that rate, of a card where nothing waits, and of one that has always more to do.
    """

    card: str
    at_once: int
    requests_per_minute: float
    there: Served
    idle: Served
    overload: Served


def served(card: Card, at_once: int, per_minute: float, seconds: float) -> Served:
    """What comes of so many requests a minute."""
    jobs = [
        Job(number, call.at, plan(call.request, SPEC), call.request.variations)
        for number, call in enumerate(arrivals(per_minute / 60, seconds, LONGEST, seed=1))
    ]
    simulation = Simulation(card, at_once, jobs)
    p50, p95 = np.percentile(simulation.run(), (50, 95))
    loops = sum(job.variations for job in jobs)
    return Served(round(p50, 1), round(p95, 1), round(60 * loops / max(seconds, simulation.now)))


def capacity(card: Card, at_once: int, seconds: float) -> Capacity:
    """The most requests a minute at which p95 is at most twice that of a card where nothing waits."""
    idle = served(card, MOST_ROWS, LEAST_RATE, 60 * seconds)
    low, high = LEAST_RATE, MOST_RATE
    while high - low > 0.03 * high:
        middle = (low + high) / 2
        good = served(card, at_once, middle, seconds).p95 <= 2 * idle.p95
        low, high = (middle, high) if good else (low, middle)
    there, overload = served(card, at_once, low, seconds), served(card, at_once, MOST_RATE, seconds / 4)
    return Capacity(card.name, at_once, round(low, 1), there, idle, overload)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=0.5, help="of arrivals in each simulation")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of lines")
    args = parser.parse_args()
    found = [capacity(card, at_once, 3600 * args.hours) for card in CARDS for at_once in args.at_once]
    if args.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
        return
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
