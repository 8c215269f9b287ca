"""Beats and bar lines to candidate loops, with the reasons that order them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looper.beats.constraints import Constraints
from looper.beats.features import Features
from looper.beats.tempo_map import TempoMap

PREFERRED_LINE_SCORE = 1.5  # score of a line that begins a bar at every metrical level that is likely
SLID_SCORE = 2.0  # score that a grid's span costs which misses the audio's ends by 5 ms or more
SCORE_PER_OCTAVE = 7.0  # score of twice the length: more than all else can give
JOINS_DB = 4.0  # difference of the first and the last bar that is heard as the same music
TIMBRE_FLOOR = 1e-9  # power, of a signal of unit level, that is as good as none
JUMP_SCORE_PER_DB = 0.8  # score that each further decibel costs
# A recording's first moments have no music before them to fade the seam from, and a generated one's often play
# less than what follows: a start there must be better otherwise.
LEAD_IN_SCORE, LEAD_IN_SECONDS = 0.5, 0.5
OVERSHOOT_SECONDS = 0.03  # seconds by which a grid's span may miss the audio's ends before it is dropped


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
    jump_db : float
        How far the last bar differs from the first, which follows it when the loop repeats: the mean of
        16 bands. 0 where the loop has no two bars.
    """

    start: float
    end: float
    beats: int
    score: float
    likeness: float = 0.0
    quiet: float = 0.0
    jump_db: float = 0.0


@dataclass(frozen=True)
class Lines:
    """Where loops may begin.

    Attributes
    ----------
    step : float
        Beats between the lines, from position 0 on.
    preferred : float
        Beats between the lines that are surest to begin a bar, from position 0 on.
    beats_per_bar : int
        Beats per bar at the target level.
    """

    step: float
    preferred: float
    beats_per_bar: int


def beat_counts(seconds: float, period: float, wanted: Constraints) -> tuple[list[int], list[int]]:
    """List the loop lengths to try, longest first.

    Parameters
    ----------
    seconds, period : float
        Seconds of audio and seconds per beat of the music.
    wanted : Constraints
        Its ``max_seconds`` bounds the loop at the target tempo.

    Returns
    -------
    whole : list of int
        Power-of-two numbers of bars, in beats.
    short : list of int
        Two beats and one; one even where nothing fits.

    Examples
    --------
    >>> beat_counts(9.0, 0.5, Constraints(target_bpm=120))
    ([16, 8, 4], [2, 1])
    """
    limit = np.inf if wanted.max_seconds is None else wanted.max_seconds

    def fits(beats: int) -> bool:
        in_audio = beats * period <= seconds + OVERSHOOT_SECONDS
        return in_audio and beats * wanted.target_period <= limit + 1e-9

    whole: list[int] = []
    while fits(wanted.beats_per_bar << len(whole)):
        whole.append(wanted.beats_per_bar << len(whole))
    short = [n for n in (2, 1) if n < wanted.beats_per_bar and fits(n)]
    return whole[::-1], short or [1]


def _ends_alike(features: Features, start: float, end: float) -> float:
    """Likeness of what follows the two ends and of what leads to them, one beat or so each way."""
    reach, width = round(0.4 * features.rate), features.mel.shape[1]
    a, b = round(start * features.rate), round(end * features.rate)
    after = min(reach, width - b)
    before = min(reach, a)
    found = []
    for left, right, size in ((a, b, after), (a - before, b - before, before)):
        if size < reach // 4:
            continue
        x, y = features.mel[:, left : left + size].ravel(), features.mel[:, right : right + size].ravel()
        x, y = x - x.mean(), y - y.mean()
        found.append(float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y) + 1e-9)))
    return float(np.mean(found)) if found else 0.0


def _bar_timbre(features: Features, start: float, end: float) -> np.ndarray:
    """Level in decibels of each timbre band over a bar, its middle weighed most."""
    a, b = (round(t * features.chroma_rate) for t in (start, end))
    power = features.timbre[:, a:b]
    weights = np.hanning(power.shape[1] + 2)[1:-1] ** 2
    return 10 * np.log10(power @ weights / weights.sum() + TIMBRE_FLOOR)


def _jump_db(features: Features, start: float, end: float, bars: float) -> float:
    """How far the last bar differs from the first, mean over bands; 0 for a loop under two bars."""
    if bars < 2:
        return 0.0
    bar = (end - start) / bars
    first, last = _bar_timbre(features, start, start + bar), _bar_timbre(features, end - bar, end)
    return float(np.abs(first - last).mean())


def _quiet(features: Features, time: float, loud: float) -> float:
    """1 where nothing begins in the 40 ms that a seam fades over, towards 0 where what does is ``loud``."""
    to = round((time - 0.012) * features.rate)
    window = features.onset[max(0, to - 8) : max(0, to)]
    return max(0.0, float(1 - window.max() / loud)) if len(window) else 1.0


def lead_in(start: float) -> float:
    """How much music leads to a start, 0..1 of what is wished for.

    Parameters
    ----------
    start : float
        Seconds from the beginning of the recording.

    Examples
    --------
    >>> lead_in(0.1), lead_in(3.0)
    (0.2, 1.0)
    """
    return float(np.clip(start / LEAD_IN_SECONDS, 0.0, 1.0))


def _scored(
    features: Features, ends: tuple[float, float], beats: int, beats_per_bar: int, loud: float, place: float
) -> Span:
    """Measure how a span's ends meet; ``place`` is what its line is worth."""
    alike = _ends_alike(features, *ends)
    quiet = 0.5 * (_quiet(features, ends[0], loud) + _quiet(features, ends[1], loud))
    jump = _jump_db(features, *ends, beats / beats_per_bar)
    score = (
        SCORE_PER_OCTAVE * np.log2(beats)
        + place
        + alike
        + 0.3 * quiet
        - JUMP_SCORE_PER_DB * max(0.0, jump - JOINS_DB)
    )
    return Span(*ends, beats, float(score), alike, quiet, jump)


def _fit_inside(start: float, end: float, first: float, last: float) -> tuple[float, float]:
    """Slide a span that misses the audio by a few milliseconds inside."""
    late = max(0.0, first - start) or min(0.0, last - end)
    return max(first, start + late), min(end + late, last)


def spans(features: Features, grid: TempoMap, lines: Lines, beats: int, min_start: float = 0.0) -> list[Span]:
    """Score every span of ``beats`` beats that begins on a line.

    Parameters
    ----------
    features : Features
        Of the recording.
    grid : TempoMap
        Beat positions to seconds.
    lines : Lines
        Where the span may begin.
    beats : int
        Beats in the span.
    min_start : float
        Seconds before which no loop may begin.

    Returns
    -------
    list of Span
        Best first; empty where none fits.
    """
    step, room = lines.step, OVERSHOOT_SECONDS
    ends = grid.position(np.array([min_start - room, features.duration + room]))
    starts = step * np.arange(np.ceil(ends[0] / step), np.floor((ends[1] - beats) / step) + 1)
    loud = float(np.percentile(features.onset, 98)) + 1e-9
    found = []
    for line, start, end in zip(starts, grid.time(starts), grid.time(starts + beats), strict=True):
        inside = _fit_inside(float(start), float(end), min_start, features.duration)
        sure = PREFERRED_LINE_SCORE * (line % lines.preferred == 0)
        slid = SLID_SCORE * min(1.0, abs(inside[0] - float(start)) / 0.005)
        place = sure - slid + LEAD_IN_SCORE * lead_in(inside[0])
        found.append(_scored(features, inside, beats, lines.beats_per_bar, loud, place))
    # equal spans keep their order in time
    return sorted(found, key=lambda s: -round(s.score, 2))
