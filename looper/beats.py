"""A recording and the tempo that was asked for -> its beats, bar lines and best loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looper import onsets, tempo
from looper.spans import Span, beat_counts, spans

MIN_BPM, MAX_BPM = 40.0, 300.0


@dataclass(frozen=True)
class BeatGrid:
    """Beats and bar lines of a recording, and the loop to cut from it.

    Attributes
    ----------
    bpm : float
        Measured tempo at the asked metrical level.
    beats_per_bar : int
        Beats per bar at the asked metrical level.
    beat_times, downbeat_times : numpy.ndarray
        Seconds, 1-D, inside the recording.
    loop_start, loop_end : float
        Seconds: the best span.
    bars : float
        Bars of the best span; a fraction where only beats fit.
    confidence : float
        Probability that the loop is whole bars and starts on a bar line, calibrated.
    spans : tuple of Span
        Candidate loops, best first.
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

    @property
    def beats(self) -> int:
        """Whole beats in the best span, at the asked metrical level."""
        return self.spans[0].beats


def check_tempo(bpm: float, beats_per_bar: int) -> None:
    """Raise ValueError unless tempo and metre are ones that a grid can be asked for."""
    if isinstance(bpm, bool) or not np.isscalar(bpm) or not np.isreal(bpm) or not MIN_BPM <= bpm <= MAX_BPM:
        raise ValueError(f"bpm must be between {MIN_BPM:g} and {MAX_BPM:g}, got {bpm}")
    if isinstance(beats_per_bar, bool) or not isinstance(beats_per_bar, int | np.integer):
        raise ValueError(f"beats_per_bar must be a whole number, got {beats_per_bar!r}")
    if not 1 <= beats_per_bar <= 16:
        raise ValueError(f"beats_per_bar must be between 1 and 16, got {beats_per_bar}")


def check_audio(samples: np.ndarray, sample_rate: int, bpm: float) -> np.ndarray:
    """Return the samples mixed to mono, or raise ValueError if no beat can be found in them."""
    if not np.isscalar(sample_rate) or not 4_000 <= sample_rate <= 400_000:
        raise ValueError(f"sample_rate must be between 4000 and 400000 Hz, got {sample_rate}")
    x = onsets.mono(samples)
    seconds = len(x) / sample_rate
    if seconds < 60 / bpm - 1e-6:
        raise ValueError(
            f"samples hold {seconds:.3f} s but a beat at {bpm:g} bpm takes {60 / bpm:.3f} s: "
            "pass at least one beat of audio"
        )
    return x


def _even_beats(period: float, phase: float, duration: float) -> np.ndarray:
    """Beats of a constant grid from just before the audio to just after it."""
    first = int(np.ceil((-onset_slack(period) - phase) / period))
    last = int(np.floor((duration + onset_slack(period) - phase) / period))
    return phase + period * np.arange(first, last + 1)


def onset_slack(period: float) -> float:
    """How far beyond the audio a beat may lie and still end or begin a loop."""
    return min(0.03, 0.1 * period)


def _asked_grid(duration: float, period: float, beats_per_bar: int) -> BeatGrid:
    """Return the asked tempo's grid from 0 s, for audio that says nothing."""
    beat_times = np.arange(0.0, duration, period)
    beats = next((n for n in beat_counts(duration, period, beats_per_bar, period, None)), 1)
    span = Span(0.0, min(beats * period, duration), beats, 0.0)
    return BeatGrid(
        60.0 / period,
        beats_per_bar,
        beat_times,
        beat_times[::beats_per_bar],
        span.start,
        span.end,
        beats / beats_per_bar,
        0.0,
        (span,),
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
    """Find tempo, beats, bar lines and the best loop near an asked tempo."""
    check_tempo(bpm, beats_per_bar)
    x = check_audio(samples, sample_rate, bpm)
    asked = 60.0 / bpm
    if onsets.is_silent(x):
        return _asked_grid(len(x) / sample_rate, asked, beats_per_bar)
    frames = onsets.frames(x, sample_rate)
    periods, scores = tempo.period_scores(frames, asked, beats_per_bar)
    rough = (tempo.best_periods(periods, scores) or [asked])[0]
    pulses = tempo.phases(frames, rough)
    period, offsets, _ = tempo.fit_line(frames, rough, np.array([p.phase for p in pulses]))
    best = (-np.inf, 0.0)
    for pulse, offset in zip(pulses, offsets, strict=True):
        for k in range(beats_per_bar):
            line = (offset + k * period) % (period * beats_per_bar)
            if line > period * beats_per_bar - 0.03:
                line -= period * beats_per_bar
            times = np.arange(line, frames.duration, period * beats_per_bar)
            at = np.clip((times * frames.rate).astype(int), 0, frames.rise.shape[1] - 1)
            low = sum(np.roll(frames.rise[:3].sum(axis=0), s) for s in range(-4, 5))[at].mean()
            start = 8.0 * (abs(line) < 0.07)
            best = max(best, (low + 5 * pulse.weight + start, line))
    line = best[1] if downbeat is None else downbeat
    if downbeat is not None:
        near = (offsets - downbeat + period / 2) % period - period / 2
        near = near[np.abs(near) < 0.06]
        line = downbeat + (float(near[np.argmin(np.abs(near))]) if len(near) else 0.0)
    beat_times = _even_beats(period, line % period, frames.duration)
    index = np.round((beat_times - line) / period).astype(int)
    bar_starts = np.flatnonzero(index % beats_per_bar == 0)
    found: list[Span] = []
    counts = beat_counts(frames.duration, period, beats_per_bar, asked, max_seconds)
    if beats is not None:
        counts = [beats] + [n for n in counts if n < beats]
    for starts in (bar_starts, np.arange(len(beat_times))):
        for n in counts:
            found += spans(frames, beat_times, starts, n, min_start)
            if n < beats_per_bar and found:
                break
        if found:
            break
    if not found:
        end = min(frames.duration, min_start + period)
        found = [Span(max(0.0, end - period), end, 1, 0.0)]
    inside = (beat_times >= -0.03) & (beat_times < frames.duration)
    return BeatGrid(
        bpm=60.0 / period,
        beats_per_bar=beats_per_bar,
        beat_times=beat_times[inside],
        downbeat_times=beat_times[bar_starts][inside[bar_starts]],
        loop_start=found[0].start,
        loop_end=found[0].end,
        bars=found[0].beats / beats_per_bar,
        confidence=0.5,
        spans=tuple(found[:16]),
    )


def analyse(samples: np.ndarray, sample_rate: int, bpm: float, beats_per_bar: int = 4) -> BeatGrid:
    """Find the beats, bar lines and best loop of a recording whose tempo is roughly known."""
    return fit_grid(samples, sample_rate, bpm, beats_per_bar)
