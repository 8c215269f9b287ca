"""A recording and the tempo that was asked for -> its beats, bar lines and best loop.

The order of work: features (`onsets`), the period near the asked tempo (`tempo`), drift (`warp`), the
bar line and the metrical level (`downbeat`, `barline`), the exact phase (`tempo.refine`), the choice of bars
(`spans`). Times are seconds of the recording as given; features are read in straightened time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from looper.beats import downbeats, features, spans, tempo, tempo_map
from looper.beats.features import Frames
from looper.beats.hypotheses import readings
from looper.beats.spans import Span
from looper.beats.tempo_map import Warp
from looper.samples import is_silent, mono

MIN_BPM, MAX_BPM = 40.0, 300.0
MIN_RATE, MAX_RATE = 4_000, 400_000
EXCERPT = 20.0  # seconds in which the tempo is first looked for; the rest is followed from there
CLEAR = 4.3  # clarity of the pulse under which the asked tempo is taken instead
KEPT = 24  # candidate spans in the result


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
    warp : Warp or None
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
    warp: Warp | None = None

    @property
    def beats(self) -> int:
        """Whole beats in the best span, at the asked metrical level."""
        return self.spans[0].beats


@dataclass(frozen=True)
class _Wish:
    """What the loop must keep to."""

    asked: float  # seconds per beat
    beats_per_bar: int
    max_seconds: float | None
    min_start: float
    beats: int | None
    downbeat: float | None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _check_numbers(sample_rate: int, bpm: float, wish: _Wish | None = None) -> None:
    if not _is_number(bpm) or not MIN_BPM <= bpm <= MAX_BPM:
        raise ValueError(f"bpm must be between {MIN_BPM:g} and {MAX_BPM:g}, got {bpm}")
    if not _is_number(sample_rate) or not MIN_RATE <= sample_rate <= MAX_RATE:
        raise ValueError(f"sample_rate must be between {MIN_RATE} and {MAX_RATE} Hz, got {sample_rate}")
    if wish is None:
        return
    for name, value in (("beats_per_bar", wish.beats_per_bar), ("beats", wish.beats)):
        optional = name == "beats" and value is None
        if not optional and not isinstance(value, int | np.integer):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
    if isinstance(wish.beats_per_bar, bool) or not 1 <= wish.beats_per_bar <= 16:
        raise ValueError(f"beats_per_bar must be between 1 and 16, got {wish.beats_per_bar}")
    if wish.beats is not None and wish.beats < 1:
        raise ValueError(f"beats must be at least 1, got {wish.beats}")
    if not (_is_number(wish.min_start) and np.isfinite(wish.min_start) and wish.min_start >= 0):
        raise ValueError(f"min_start must be 0 s or later, got {wish.min_start}")
    if wish.downbeat is not None and not (_is_number(wish.downbeat) and np.isfinite(wish.downbeat)):
        raise ValueError(f"downbeat must be a time in seconds, got {wish.downbeat}")
    if wish.max_seconds is not None and not (_is_number(wish.max_seconds) and wish.max_seconds > 0):
        raise ValueError(f"max_seconds must be above 0, got {wish.max_seconds}: leave it out for no limit")


def _audio(samples: np.ndarray, sample_rate: int, wish: _Wish) -> np.ndarray:
    """Return the samples as mono, or raise ValueError if they cannot hold a loop of one beat."""
    x = mono(samples)
    seconds = len(x) / sample_rate
    if seconds - wish.min_start < wish.asked - 1e-6:
        raise ValueError(
            f"samples hold {seconds:.3f} s, {max(0.0, seconds - wish.min_start):.3f} s of them after "
            f"min_start, but one beat at {60 / wish.asked:g} bpm takes {wish.asked:.3f} s: pass more audio"
        )
    return x


def _excerpt(frames: Frames) -> tuple[Frames, float]:
    """Return the stretch with most onsets, as frames that start at 0 s, and where it starts."""
    if frames.duration <= EXCERPT * 1.25:
        return frames, 0.0
    size, total = round(EXCERPT * frames.rate), np.cumsum(np.r_[0.0, frames.onset])
    first = int(np.argmax(total[size:] - total[:-size]))
    return features.crop(frames, first, first + size), first / frames.rate


def _beat_map(frames: Frames, wish: _Wish) -> tuple[Warp, float]:
    """Find the period near the asked one and follow it: the pulse's map and how clear it is."""
    part, start = _excerpt(frames)
    period, clarity = tempo.find_period(part, wish.asked, wish.beats_per_bar)
    pulse = max(tempo.phases(part, period), key=lambda p: p.weight)
    centre = start + part.duration / 2
    return tempo_map.follow(frames, period, start + pulse.phase, centre), clarity


def _bar_map(
    frames: Frames, pulse: Warp, wish: _Wish
) -> tuple[Warp, downbeats.BarLine, downbeats.BarLine, float]:
    """Place the bar line: the map with position 0 on it, lines shown and to cut at, and how sure that is."""
    origin, period = float(pulse.position(np.array(0.0))), pulse.period
    even = frames if len(pulse.times) == 2 else tempo_map.straighten(frames, pulse)
    lines = downbeats.bar_lines(readings(even, period), wish.beats_per_bar)
    if wish.downbeat is None:
        shown, cut, sure = downbeats.choose(lines)
    else:
        near = float(pulse.position(np.array(wish.downbeat)) - origin) * period
        cut, sure = downbeats.known(lines, near, period * wish.beats_per_bar)
        shown = cut
    phase = tempo.refine(even, period, cut.line)
    if len(pulse.times) == 2:
        return tempo_map.straight(period, phase, frames.duration), shown, cut, sure
    # position (phase / period) of straightened time is the bar line
    return pulse.shifted(origin + phase / period), shown, cut, sure


def _candidates(frames: Frames, beats: Warp, bar: float, strong: float, wish: _Wish) -> list[Span]:
    """Choose and score the spans: whole bars from bar lines, else from any beat, else only beats."""
    room = frames.duration - wish.min_start
    whole, short = spans.beat_counts(room, beats.period, wish.beats_per_bar, wish.asked, wish.max_seconds)
    kept = [n for n in whole if n % strong == 0] or whole
    plans = [(bar, kept), (1.0, kept), (bar, short), (1.0, short)]
    if wish.beats is not None:
        fewer = [n for n in kept if n < wish.beats]
        plans = [(bar, [wish.beats]), (1.0, [wish.beats]), (bar, fewer), (1.0, fewer), *plans[2:]]
    for step, counts in plans:
        found = [s for n in counts for s in spans.spans(frames, beats, step, n, wish.min_start, strong)]
        if found:
            return found[:KEPT]
    end = min(frames.duration, wish.min_start + beats.period)
    return [Span(max(0.0, end - beats.period), end, 1, 0.0)]


def _grid(beats: Warp, found: list[Span], sure: float, wish: _Wish, duration: float, bar: float) -> BeatGrid:
    """Assemble the result; ``bar`` is what the music's bar lasts, in asked beats."""
    inside = beats.position(np.array([-0.03, duration]))
    count = np.arange(np.ceil(inside[0]), np.ceil(inside[1]))
    lines = bar * np.arange(np.ceil(inside[0] / bar), np.ceil(inside[1] / bar))
    return BeatGrid(
        bpm=60.0 / beats.period,
        beats_per_bar=int(wish.beats_per_bar),
        beat_times=beats.time(count),
        downbeat_times=beats.time(lines),
        loop_start=found[0].start,
        loop_end=found[0].end,
        bars=found[0].beats / wish.beats_per_bar,
        confidence=sure,
        spans=tuple(found),
        level=bar / wish.beats_per_bar,
        drift=beats.drift,
        warp=beats,
    )


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
    wish = _Wish(
        60.0 / bpm if _is_number(bpm) and bpm else 1.0, beats_per_bar, max_seconds, min_start, beats, downbeat
    )
    _check_numbers(sample_rate, bpm, wish)
    x = _audio(samples, sample_rate, wish)
    duration = len(x) / sample_rate
    frames = features.frames(x, sample_rate)
    if is_silent(x):
        return _asked_grid(frames, wish)
    pulse, clarity = _beat_map(frames, wish)
    if clarity < CLEAR:
        return _asked_grid(frames, wish)
    grid, shown, cut, sure = _bar_map(frames, pulse, wish)
    bar, strong = (round(2 * line.bar / grid.period) / 2 for line in (shown, cut))
    found = _candidates(frames, grid, bar, strong, wish)
    result = _grid(grid, found, downbeats.calibrated(sure, clarity), wish, duration, bar)
    return replace(result, clarity=clarity)


def _asked_grid(frames: Frames, wish: _Wish) -> BeatGrid:
    """Return the asked tempo's grid, for audio that says nothing of its own."""
    even = tempo_map.straight(wish.asked, wish.downbeat or 0.0, frames.duration)
    bar = float(wish.beats_per_bar)
    return _grid(even, _candidates(frames, even, bar, bar, wish), 0.0, wish, frames.duration, bar)


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
