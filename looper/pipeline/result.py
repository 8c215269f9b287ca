"""The loops of one request, and what is known of how they came about."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import overload

from looper.files.formats import check_rate
from looper.loops.loop import Loop
from looper.loops.notebook import loops_html
from looper.request import LoopRequest
from looper.runtime.threads import thread_pool

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """What is known of how a set of loops came about; numbers for metrics and logs.

    Attributes
    ----------
    seed : int
        The seed used, also where -1 asked for a random one.
    model : str
        Name of the model folder.
    measured_bpm, confidence : list of float
        Of each variation before the stretch.
    attempts : list of int
        Draws that each variation took.
    seam_log_likelihood : list of float or None
        Of each variation: how much more (or, negative, less) likely the model finds the loop's beginning
        after its own end than where it was played, nats per token; empty without a model.
    keys : list of str or None
        Where a key was asked for, the one that each loop is heard in, such as "A minor"; None where none is clear.
    key_confidence : list of float
        How sure those are, 0..1.
    seconds : dict
        Wall seconds a stage.
    steps_per_second : dict
        Speed of the decode loop in each stage that has one.

    Examples
    --------
    >>> report = Report(seed=1, model="tiny")
    >>> with report.timed("export"):
    ...     pass
    >>> list(report.seconds)
    ['export']
    """

    seed: int
    model: str
    bars: float = 0.0
    measured_bpm: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    seam_log_likelihood: list[float | None] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    key_confidence: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    steps_per_second: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of a block to `seconds[stage]`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def note(self, text: str) -> None:
        """Keep and log a sentence for the user."""
        self.notes.append(text)
        logger.info("%s", text)


def key_note(asked: str, heard: Sequence[str | None]) -> str:
    """What to tell of the keys that came out.

    Examples
    --------
    >>> key_note("A minor", ["A minor", "C major", None])
    'A minor was asked for; heard: A minor in 1, C major in 1, no clear key in 1'
    """
    counts = Counter(key or "no clear key" for key in heard)
    return f"{asked} was asked for; heard: " + ", ".join(f"{key} in {n}" for key, n in counts.items())


class Loops(Sequence[Loop]):
    """The loops of one request, variation 1 first; all have the same length and loudness.

    Examples
    --------
    >>> loops = Loops([], LoopRequest("house"), Report(seed=1, model="tiny"))
    >>> len(loops), loops.report.model
    (0, 'tiny')
    """

    def __init__(self, loops: Sequence[Loop], request: LoopRequest, report: Report) -> None:
        self._loops = tuple(loops)
        self.request = request
        self.report = report

    def __repr__(self) -> str:
        """How many there are of what, and the seed that makes them again."""
        first = f" of {self[0]!r}" if self else ""
        return f"<Loops: {len(self)}{first}, seed {self.report.seed}, model {self.report.model!r}>"

    def _repr_html_(self) -> str:
        """A player and a picture each, in a notebook."""
        return loops_html(self, repr(self)[1:-1])

    def at_rate(self, sample_rate: int) -> Loops:
        """The same loops at 32000, 44100 or 48000 Hz; each still runs into itself and into every other.

        Raises
        ------
        FieldError
            If the rate is none of the three.
        """
        check_rate(sample_rate)
        with thread_pool() as pool:
            loops = list(pool.map(lambda loop: loop.at_rate(sample_rate), self))
        return Loops(loops, self.request, self.report)

    def __len__(self) -> int:
        return len(self._loops)

    @overload
    def __getitem__(self, index: int) -> Loop: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Loop, ...]: ...
    def __getitem__(self, index: int | slice) -> Loop | tuple[Loop, ...]:
        return self._loops[index]
