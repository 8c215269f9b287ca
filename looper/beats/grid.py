"""A recording and the tempo that was asked for -> its beats, bar lines and best loop.

The order of work: `features`, the period near the target tempo and its drift (`pulse`), the
metrical level and the bar line (`hypotheses`, `downbeats`), the exact phase (`tempo.refine`), the choice of
bars (`spans`). Times are seconds of the recording as given; features are read in straightened time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from looper.beats import downbeats, spans, tempo, tempo_map
from looper.beats.constraints import Constraints, check_rate
from looper.beats.downbeats import DownbeatHypothesis
from looper.beats.features import Features, extract_features
from looper.beats.hypotheses import metrical_hypotheses
from looper.beats.pulse import find_pulse
from looper.beats.spans import Lines, Span
from looper.beats.tempo_map import TempoMap
from looper.samples import is_silent, mono

MIN_CLARITY = 4.3  # of the pulse, under which the target tempo is taken instead
KEPT_SPANS = 24  # in the result


@dataclass(frozen=True)
class BeatGrid:
    """Beats and bar lines of a recording, and the loop to cut from it.

    Attributes
    ----------
    bpm : float
        Measured tempo at the asked metrical level (its mean, where it drifts).
    beats_per_bar : int
        Beats per bar at the asked metrical level.
    beat_times, downbeat_times : numpy.ndarray
        Seconds, 1-D, inside the recording. Bars are those of the music: where it plays at half or
        double of the asked tempo, they hold twice or half as many of these beats.
    loop_start, loop_end : float
        Seconds: the best span.
    bars : float
        Bars of the best span at the asked level; a fraction where only beats fit.
    confidence : float
        Probability that the loop is whole bars and starts on a bar line: of the loops at 0.9, nine in
        ten are right.
    spans : tuple of Span
        Candidate loops, best first, with what was measured at their ends.
    level : float
        Period of the music's own beat over that of the asked tempo: 0.5, 1 or 2.
    drift : float
        Fastest tempo over slowest, less one; 0 where a constant grid carries the music.
    clarity : float
        How periodic the music is at the measured tempo: about 4 for noise, 5 to 30 for music.
    tempo_map : TempoMap or None
        The map between beat positions and seconds; position 0 is a bar line.

    Examples
    --------
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 16)
    >>> grid = analyse(clicks, 32_000, bpm=120)
    >>> len(grid.beat_times), grid.bars
    (16, 4.0)
    """

    bpm: float
    beats_per_bar: int
    beat_times: np.ndarray
    downbeat_times: np.ndarray
    loop_start: float
    loop_end: float
    bars: float
    confidence: float
    spans: tuple[Span, ...]
    level: float = 1.0
    drift: float = 0.0
    clarity: float = 0.0
    tempo_map: TempoMap | None = None

    @property
    def beats(self) -> int:
        """Whole beats in the best span, at the asked metrical level."""
        return self.spans[0].beats


@dataclass(frozen=True)
class BarEstimate:
    """Where bars begin: the map with position 0 on a bar line, the lines to show and to cut at."""

    tempo_map: TempoMap
    shown: DownbeatHypothesis
    cut: DownbeatHypothesis
    confidence: float  # before calibration

    def beats_of(self, hypothesis: DownbeatHypothesis) -> float:
        """Beats, at the target level, that a bar of a hypothesis lasts: halves of a beat."""
        return round(2 * hypothesis.bar / self.tempo_map.period) / 2


def _audio(samples: np.ndarray, sample_rate: int, wanted: Constraints) -> np.ndarray:
    """Return the samples as mono, or raise ValueError if they cannot hold a loop of one beat."""
    x = mono(samples)
    seconds = len(x) / sample_rate
    if seconds - wanted.min_start < wanted.target_period - 1e-6:
        raise ValueError(
            f"samples hold {seconds:.3f} s, {max(0.0, seconds - wanted.min_start):.3f} s of them after "
            f"min_start, but one beat at {60 / wanted.target_period:g} bpm takes "
            f"{wanted.target_period:.3f} s: pass more audio"
        )
    return x


def _bars(features: Features, pulse: TempoMap, wanted: Constraints) -> BarEstimate:
    """Place the bar line on a pulse."""
    origin, period = float(pulse.position(np.array(0.0))), pulse.period
    straight = len(pulse.times) == 2
    even = features if straight else tempo_map.straighten(features, pulse)
    found = downbeats.downbeat_hypotheses(metrical_hypotheses(even, period), wanted.beats_per_bar)
    if wanted.downbeat is None:
        shown, cut, confidence = downbeats.choose(found)
    else:
        near = float(pulse.position(np.array(wanted.downbeat)) - origin) * period
        cut, confidence = downbeats.known(found, near, period * wanted.beats_per_bar)
        shown = cut
    phase = tempo.refine(even, period, cut.line)
    if straight:
        return BarEstimate(tempo_map.straight(period, phase, features.duration), shown, cut, confidence)
    # position (phase / period) of straightened time is the bar line
    return BarEstimate(pulse.shifted(origin + phase / period), shown, cut, confidence)


def _candidates(features: Features, beats: TempoMap, lines: Lines, wanted: Constraints) -> list[Span]:
    """Choose and score the spans: whole bars from bar lines, else from any beat, else only beats."""
    room = features.duration - wanted.min_start
    whole, short = spans.beat_counts(room, beats.period, wanted)
    kept = [n for n in whole if n % lines.preferred == 0] or whole
    anywhere = replace(lines, step=1.0)
    plans = [(lines, kept), (anywhere, kept), (lines, short), (anywhere, short)]
    if wanted.beats is not None:
        fewer = [n for n in kept if n < wanted.beats]
        exact = [(lines, [wanted.beats]), (anywhere, [wanted.beats]), (lines, fewer), (anywhere, fewer)]
        plans = [*exact, *plans[2:]]
    for where, counts in plans:
        found = [s for n in counts for s in spans.spans(features, beats, where, n, wanted.min_start)]
        if found:
            return found[:KEPT_SPANS]
    end = min(features.duration, wanted.min_start + beats.period)
    return [Span(max(0.0, end - beats.period), end, 1, 0.0)]


def _grid(features: Features, beats: TempoMap, lines: Lines, wanted: Constraints) -> BeatGrid:
    """Assemble the result, without confidence yet."""
    found = _candidates(features, beats, lines, wanted)
    inside = beats.position(np.array([-0.03, features.duration]))
    count = np.arange(np.ceil(inside[0]), np.ceil(inside[1]))
    bars = lines.step * np.arange(np.ceil(inside[0] / lines.step), np.ceil(inside[1] / lines.step))
    return BeatGrid(
        bpm=60.0 / beats.period,
        beats_per_bar=int(wanted.beats_per_bar),
        beat_times=beats.time(count),
        downbeat_times=beats.time(bars),
        loop_start=found[0].start,
        loop_end=found[0].end,
        bars=found[0].beats / wanted.beats_per_bar,
        confidence=0.0,
        spans=tuple(found),
        level=lines.step / wanted.beats_per_bar,
        drift=beats.drift,
        tempo_map=beats,
    )


def _target_grid(features: Features, wanted: Constraints) -> BeatGrid:
    """Return the target tempo's grid, for audio that says nothing of its own."""
    even = tempo_map.straight(wanted.target_period, wanted.downbeat or 0.0, features.duration)
    bar = float(wanted.beats_per_bar)
    return _grid(features, even, Lines(bar, bar, wanted.beats_per_bar), wanted)


def fit_grid(
    samples: np.ndarray,
    sample_rate: int,
    bpm: float,
    beats_per_bar: int = 4,
    *,
    max_seconds: float | None = None,
    min_start: float = 0.0,
    beats: int | None = None,
    downbeat: float | None = None,
) -> BeatGrid:
    """Find tempo, beats, bar lines and the best loop near an asked tempo.

    Parameters
    ----------
    samples : numpy.ndarray
        ``[T]`` or ``[T, C]``, floating point or integer, as soundfile reads them.
    sample_rate : int
        Hz, 4000 to 400000.
    bpm : float
        The asked tempo, 40 to 300; the music may be up to 7.5 % off it, or at half or double of it.
    beats_per_bar : int, default 4
        Beats per bar, 1 to 16. A beat is whatever ``bpm`` counts: for 6/8 in eighths ask for 6.
    max_seconds : float, optional
        The longest loop, at the asked tempo.
    min_start : float, default 0.0
        Seconds before which the loop must not begin.
    beats : int, optional
        Ask for a loop of exactly so many beats; where none fits, a shorter one is returned.
    downbeat : float, optional
        Seconds at which a bar line is known to be: only its exact place is looked for.

    Returns
    -------
    BeatGrid
        Audio that says nothing (silence, noise) gets the asked tempo's grid and confidence 0.

    Raises
    ------
    ValueError
        If an argument is out of range, or the samples are empty, not finite, or hold less than one
        beat after ``min_start``.

    Examples
    --------
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 16)
    >>> fit_grid(clicks, 32_000, 118, max_seconds=2.5).beats
    4
    """
    wanted = Constraints(bpm, beats_per_bar, max_seconds, min_start, beats, downbeat)
    check_rate(sample_rate)
    x = _audio(samples, sample_rate, wanted)
    features = extract_features(x, sample_rate)
    if is_silent(x):
        return _target_grid(features, wanted)
    pulse, clarity = find_pulse(features, wanted)
    if clarity < MIN_CLARITY:
        return replace(_target_grid(features, wanted), clarity=clarity)
    bars = _bars(features, pulse, wanted)
    lines = Lines(bars.beats_of(bars.shown), bars.beats_of(bars.cut), wanted.beats_per_bar)
    grid = _grid(features, bars.tempo_map, lines, wanted)
    confidence = downbeats.calibrated(bars.confidence, spans.lead_in(grid.loop_start))
    return replace(grid, confidence=confidence, clarity=clarity)


def analyse(samples: np.ndarray, sample_rate: int, bpm: float, beats_per_bar: int = 4) -> BeatGrid:
    """Find the beats, bar lines and best loop of a recording whose tempo is roughly known.

    Parameters
    ----------
    samples : numpy.ndarray
        ``[T]`` or ``[T, C]``, floating point or integer, as soundfile reads them.
    sample_rate : int
        Hz, 4000 to 400000.
    bpm : float
        The asked tempo, 40 to 300.
    beats_per_bar : int, default 4
        Beats per bar, 1 to 16.

    Returns
    -------
    BeatGrid
        See ``fit_grid``, which has more to ask for.

    Raises
    ------
    ValueError
        As ``fit_grid``.

    Examples
    --------
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 16)  # two a second
    >>> round(analyse(clicks, 32_000, bpm=118).bpm, 1)
    120.0
    """
    return fit_grid(samples, sample_rate, bpm, beats_per_bar)
