"""Variations of a recording: its loop found, its last bar continued, the results made a set with it.

The source is cut and closed at its own sample rate and with its own channels. What the model hears is that loop as
one round at the model's rate, mono unless the model makes stereo, at the tempo that the model will play.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from looper.beats.grid import BeatGrid, fit_grid
from looper.beats.spans import Span
from looper.length import is_loop_length
from looper.loops.clicks import CLICK, click_ratio
from looper.loops.cut import cut
from looper.loops.loop import Loop, at_any_rate, loop_length
from looper.loops.loudness import integrated_loudness
from looper.loops.matching import finish
from looper.loops.resample import resampled
from looper.loops.seam import SeamReport
from looper.pipeline.result import Loops
from looper.pipeline.session import LoopSession, Progress
from looper.pipeline.takes import CONFIDENCE_FLOOR, Take
from looper.request import DURATION_RANGE, LoopRequest
from looper.samples import check_samples, is_silent, mono

if TYPE_CHECKING:
    from looper.generation.generator import Generator

WHOLE_BEATS = 0.02  # beats by which a recording may miss whole bars and still be a loop as it is
CLOSE_LU = 0.1  # LU by which a set may miss its source's loudness before that is said


@dataclass(frozen=True)
class Source:
    """The loop of a recording that variations are made of.

    Attributes
    ----------
    loop : Loop
        At the asked tempo, at the recording's rate and with its channels.
    notes : tuple of str
        What the user should know of it.
    whole : bool
        Whether the loop is the whole recording.
    """

    loop: Loop
    notes: tuple[str, ...] = ()
    whole: bool = False


def find_source(samples: np.ndarray, sample_rate: int, request: LoopRequest) -> Source:
    """The loop to vary: the recording as it is, or one cut out of it.

    A recording of 1, 2, 3, 4, 6, 8 ... whole bars, of 20 s at most, is a loop already, whatever `request.max_duration`
    says; `request.bars` asks for a part of it. From any other one the best loop is cut.

    Parameters
    ----------
    samples : np.ndarray
        float [T] or [T, C] within -1..1, C at most 2.
    sample_rate : int
        Hz.
    request : LoopRequest

    Raises
    ------
    ValueError
        If the recording is silent, has over two channels, or holds no beat, or not the bars that were asked for.
    """
    columns = check_samples(samples, sample_rate, request.bpm)
    if columns.shape[1] > 2:
        raise ValueError(
            f"the recording has {columns.shape[1]} channels: mix it down to mono or stereo first"
        )
    if is_silent(mono(columns)):
        raise ValueError("the recording is silent, and there is nothing to go on from: choose another one")
    seconds = len(columns) / sample_rate
    wanted = None if request.bars is None else request.beats
    grid = fit_grid(
        columns, sample_rate, request.bpm, request.beats_per_bar, max_seconds=request.max_duration, beats=wanted
    )  # fmt: skip
    tempi = (request.bpm, grid.bpm)  # a file's exact length says more than what is heard in it
    beats = next(filter(None, (_whole_beats(seconds, bpm, request) for bpm in tempi)), None)
    if beats is None or wanted not in (None, beats):
        loop = cut(columns, sample_rate, request.bpm, request.beats_per_bar, bars=request.bars, grid=grid)
        return Source(_shaped(loop, samples), _doubts(loop, request))
    return _as_it_is(columns, sample_rate, grid, beats, request, shaped_like=samples)


def _whole_beats(seconds: float, bpm: float, request: LoopRequest) -> int | None:
    """Beats of a recording that is as many bars as loops have and no longer than one may be, else None."""
    beats = seconds * bpm / 60
    bars = round(beats / request.beats_per_bar)
    whole = bars * request.beats_per_bar
    fits = is_loop_length(bars) and whole * 60 / request.bpm <= DURATION_RANGE[1] + 1e-9
    return whole if fits and abs(beats - whole) <= WHOLE_BEATS else None


def _as_it_is(
    columns: np.ndarray,
    sample_rate: int,
    grid: BeatGrid,
    beats: int,
    request: LoopRequest,
    *,
    shaped_like: np.ndarray,
) -> Source:
    """The whole recording as the loop; brought to the asked tempo within its own repetition, where it must be."""
    seconds, metre = len(columns) / sample_rate, request.beats_per_bar
    notes: tuple[str, ...] = ()
    whole = _spanning(grid, 0.0, seconds, beats)
    if click_ratio(columns) > CLICK:
        loop = cut(columns, sample_rate, request.bpm, metre, grid=whole)
        notes = ("the recording clicks when it repeats: its loop is closed, and other than the file there",)
    elif len(columns) == loop_length(beats, request.bpm, sample_rate):
        seam = SeamReport(click_ratio(columns))
        loop = Loop(columns, sample_rate, request.bpm, metre, beats, whole, seam)
    else:
        loop = replace(_at_tempo(columns, sample_rate, request.bpm, whole), grid=whole)
    return Source(_shaped(loop, shaped_like), (*notes, *_doubts(loop, request)), whole=True)


def _at_tempo(ring: np.ndarray, sample_rate: int, bpm: float, grid: BeatGrid) -> Loop:
    """One round [n, C] of a grid's loop at another tempo: stretched as a whole between two rounds of itself."""
    seconds = len(ring) / sample_rate
    around = np.concatenate([ring] * 3)
    between = replace(_spanning(grid, seconds, 2 * seconds, grid.beats), beat_times=np.zeros(0))
    return cut(around, sample_rate, bpm, grid.beats_per_bar, grid=between)


def _spanning(grid: BeatGrid, start: float, end: float, beats: int) -> BeatGrid:
    """The grid with one loop in it, from `start` to `end` seconds."""
    span, bars = Span(start, end, beats, 0.0), beats / grid.beats_per_bar
    return replace(grid, loop_start=start, loop_end=end, bars=bars, spans=(span,), tempo_map=None)


def _shaped(loop: Loop, like: np.ndarray) -> Loop:
    """The loop [n, C] in the shape of what it was made of: [n] where that was [T]."""
    return replace(loop, samples=loop.samples[:, 0].copy()) if np.ndim(like) == 1 else loop


def _doubts(loop: Loop, request: LoopRequest) -> tuple[str, ...]:
    notes = []
    if loop.grid.confidence < CONFIDENCE_FLOOR:
        notes.append(
            f"no clear beat near {request.bpm:g} BPM was found in the recording: its loop is taken on the likeliest grid"
        )
    if loop.beats < loop.beats_per_bar:
        notes.append(
            f"the recording has room for no whole bar at {request.bpm:g} BPM: the loops are "
            f"{loop.beats} beat{'s' if loop.beats > 1 else ''} long"
        )
    return tuple(notes)


class RecordingSession(LoopSession):
    """One request for variations of a recording, on its way."""

    def __init__(
        self, generator: Generator, request: LoopRequest, progress: Progress, source: Source
    ) -> None:
        self.source, self._whole = source.loop, source.whole
        self._source_notes = source.notes
        super().__init__(generator, request, progress, source.loop.beats)

    def _note_what_is_planned(self) -> None:
        for words in self._source_notes:
            self.report.note(words)
        if self._channels != self.generator.spec.channels:
            self.report.note(
                "the recording is stereo and the model makes mono: the variations are mono, in two equal channels"
                if self._channels == 2
                else "the recording is mono and the model makes stereo: its variations are mixed to mono"
            )
        if self.plan.prompt_beats < min(self.request.beats_per_bar, self.source.beats):
            self.report.note(
                f"a bar of {self.request.beats_per_bar} beats and the loop do not fit the model's window together: "
                f"variations go on from the last {self.plan.prompt_beats} beats of the recording's loop"
            )

    def run(self, *, include_source: bool = False) -> Loops:
        """Continue, cut, bring to the recording's rate and channels, make a set with it."""
        numbers = range(1, self.request.variations + 1)
        with self.report.timed("variations"):
            takes = self.continuations(self._take(), numbers)
        with self.report.timed("loops"):
            loops = self._set([self._like_the_source(loop) for loop in self.cut(takes, numbers)])
        self.report_takes(takes)
        if include_source:
            self._report_source()
        kept = loops if include_source else loops[1:]
        self.report_keys(kept)
        return Loops(kept, self.request, self.report)

    @property
    def _channels(self) -> int:
        return 1 if self.source.samples.ndim == 1 else self.source.samples.shape[1]

    def _take(self) -> Take:
        """The source as the model's own first loop would be: one round at the tempo that is played."""
        rate, beats = self.generator.sample_rate, self.source.beats
        ring = np.roll(self.source.samples, -self._preroll, axis=0)
        stereo = self._channels == self.generator.spec.channels == 2
        ring = ring - ring.mean(axis=0) if stereo else mono(ring)
        ring = resampled(ring, loop_length(beats, self.request.bpm, rate)).astype(np.float32)
        if self.plan.bpm != self.request.bpm:
            columns = ring if stereo else ring[:, None]
            found = _at_tempo(columns, rate, self.plan.bpm, self.source.grid)
            ahead = round(found.seam.preroll_ms * rate / 1000)
            columns = np.roll(found.samples, -ahead, axis=0)
            ring = columns if stereo else columns[:, 0]
        grid = replace(_spanning(self.source.grid, 0.0, len(ring) / rate, beats), bpm=self.plan.bpm)
        return Take(ring, grid, attempt=0, score=0.0, drifted=False)

    @property
    def _preroll(self) -> int:
        """Samples that the source's file starts before its downbeat."""
        return round(self.source.seam.preroll_ms * self.source.sample_rate / 1000)

    def _like_the_source(self, loop: Loop) -> Loop:
        """The loop at the source's rate, with its channels, and with the name of what it varies."""
        loop = at_any_rate(loop, self.source.sample_rate)
        samples = loop.samples
        if samples.ndim == 2 and self._channels == 1:
            samples = samples.mean(axis=1)
        if samples.ndim == 1 and self.source.samples.ndim == 2:
            samples = np.repeat(samples[:, None], self._channels, axis=1)
        return replace(loop, samples=samples, info={**loop.info, "source": self._identity})

    @property
    def _identity(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.source.samples).tobytes()).hexdigest()[:16]

    def _set(self, loops: Sequence[Loop]) -> list[Loop]:
        """The source and its variations: as loud as it is, each running into each."""
        info = {"prompt": self.request.prompt, "seed": self.request.seed, "variation": 0}
        first = replace(self.source, info={**info, "source": self._identity})
        loudness = integrated_loudness(first.samples, first.sample_rate)
        made = finish([first, *loops], loudness)
        lost = loudness - integrated_loudness(made[0].samples, first.sample_rate)
        if self._whole and lost > CLOSE_LU:
            self.report.note(
                f"the recording's peaks leave no room: the set is {lost:.1f} LU below the file, and so is the source "
                "where it is included (--include-source)"
            )
        return made

    def _report_source(self) -> None:
        grid = self.source.grid
        self.report.measured_bpm.insert(0, grid.bpm)
        self.report.confidence.insert(0, grid.confidence)
        self.report.attempts.insert(0, 0)
        if self.report.seam_log_likelihood:
            self.report.seam_log_likelihood.insert(0, None)
