"""Beats and bar lines to candidate loops, with the reasons that order them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looper.beats.features import Frames
from looper.beats.tempo_map import Warp

SURE = 1.5  # score of a line that begins a bar at every metrical level that is likely
LONGER = 7.0  # score of twice the length: more than all else can give
OVERSHOOT = 0.03  # seconds by which a grid's span may miss the audio's ends before it is dropped


@dataclass(frozen=True)
class Span:
    """A candidate loop.

    Attributes
    ----------
    start, end : float
        Seconds.
    beats : int
        Whole beats at the asked metrical level.
    score : float
        The higher the better; only comparable within one recording.
    likeness : float
        How alike the music is around the two ends, -1..1.
    quiet : float
        How little begins right before the two cuts, 0..1.
    """

    start: float
    end: float
    beats: int
    score: float
    likeness: float = 0.0
    quiet: float = 0.0


def beat_counts(
    duration: float, period: float, beats_per_bar: int, asked: float, max_seconds: float | None
) -> tuple[list[int], list[int]]:
    """List the loop lengths to try, longest first.

    Parameters
    ----------
    duration, period : float
        Seconds of audio and seconds per beat of the music.
    beats_per_bar : int
        Beats per bar.
    asked : float
        Seconds per beat of the asked tempo, which ``max_seconds`` bounds.
    max_seconds : float or None
        The longest loop at the asked tempo.

    Returns
    -------
    whole : list of int
        Power-of-two numbers of bars, in beats.
    short : list of int
        Two beats and one; one even where nothing fits.
    """
    limit = np.inf if max_seconds is None else max_seconds

    def fits(beats: int) -> bool:
        return beats * period <= duration + OVERSHOOT and beats * asked <= limit + 1e-9

    whole: list[int] = []
    while fits(beats_per_bar << len(whole)):
        whole.append(beats_per_bar << len(whole))
    short = [n for n in (2, 1) if n < beats_per_bar and fits(n)]
    return whole[::-1], short or [1]


def _ends_alike(frames: Frames, start: float, end: float) -> float:
    """Likeness of what follows the two ends and of what leads to them, one beat or so each way."""
    reach, width = round(0.4 * frames.rate), frames.mel.shape[1]
    a, b = round(start * frames.rate), round(end * frames.rate)
    after = min(reach, width - b)
    before = min(reach, a)
    found = []
    for left, right, size in ((a, b, after), (a - before, b - before, before)):
        if size < reach // 4:
            continue
        x, y = frames.mel[:, left : left + size].ravel(), frames.mel[:, right : right + size].ravel()
        if len(x) != len(y):
            continue
        x, y = x - x.mean(), y - y.mean()
        found.append(float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y) + 1e-9)))
    return float(np.mean(found)) if found else 0.0


def _quiet(frames: Frames, time: float, loud: float) -> float:
    """1 where nothing begins in the 40 ms that a seam fades over, towards 0 where what does is ``loud``."""
    to = round((time - 0.012) * frames.rate)
    window = frames.onset[max(0, to - 8) : max(0, to)]
    return float(np.clip(1 - window.max() / loud, 0, 1)) if len(window) else 1.0


def _fit_inside(start: float, end: float, first: float, last: float) -> tuple[float, float] | None:
    """Slide a span that misses the audio by a few milliseconds inside; None if it misses by more."""
    if start < first - OVERSHOOT or end > last + OVERSHOOT:
        return None
    late = max(0.0, first - start) or min(0.0, last - end)
    return max(first, start + late), min(end + late, last)


def spans(
    frames: Frames, grid: Warp, step: float, beats: int, min_start: float = 0.0, strong: float = 1.0
) -> list[Span]:
    """Score every span of ``beats`` beats that begins on a line, every ``step`` beats from position 0.

    Parameters
    ----------
    frames : Frames
        Features.
    grid : Warp
        Beat positions to seconds.
    step : float
        Beats between the lines where a loop may begin.
    beats : int
        Beats in the span.
    min_start : float
        Seconds before which no loop may begin.
    strong : float
        Beats between the lines, from position 0, that are surest to begin a bar: they are preferred.

    Returns
    -------
    list of Span
        Best first; empty where none fits.
    """
    ends = grid.position(np.array([min_start - OVERSHOOT, frames.duration + OVERSHOOT]))
    lines = step * np.arange(np.ceil(ends[0] / step), np.floor((ends[1] - beats) / step) + 1)
    loud = float(np.percentile(frames.onset, 98)) + 1e-9
    found = []
    for line, start, end in zip(lines, grid.time(lines), grid.time(lines + beats), strict=True):
        inside = _fit_inside(float(start), float(end), min_start, frames.duration)
        if inside is None:
            continue
        alike = _ends_alike(frames, *inside)
        quiet = 0.5 * (_quiet(frames, inside[0], loud) + _quiet(frames, inside[1], loud))
        slid = 2.0 * min(1.0, abs(inside[0] - float(start)) / 0.005)
        score = LONGER * np.log2(beats) + alike + 0.3 * quiet - slid + SURE * (line % strong == 0)
        found.append(Span(*inside, beats, float(score), alike, quiet))
    # equal spans keep their order in time
    return sorted(found, key=lambda s: -round(s.score, 2))
