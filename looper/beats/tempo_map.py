"""Beat positions to seconds and back: a straight line, or a curve where the tempo drifts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from looper.beats.features import Features

GATE_SECONDS = 0.05  # seconds, at most, between an onset and the beat it may correct
LONG_SECONDS = 25.0  # seconds
MIN_BEND_SECONDS = 0.010  # seconds of deviation below which a straight line carries the music


@dataclass(frozen=True)
class TempoMap:
    """A monotone map between beat positions and seconds, straight beyond its knots.

    Attributes
    ----------
    positions, times : numpy.ndarray
        ``[N]`` knots, N >= 2: beats (fractions allowed) and their seconds.
    """

    positions: np.ndarray
    times: np.ndarray

    @property
    def period(self) -> float:
        """Mean seconds per beat."""
        return float((self.times[-1] - self.times[0]) / (self.positions[-1] - self.positions[0]))

    @property
    def drift(self) -> float:
        """Fastest over slowest tempo inside, less one."""
        periods = np.diff(self.times) / np.diff(self.positions)
        return float(periods.max() / periods.min() - 1)

    def time(self, position: np.ndarray) -> np.ndarray:
        """Seconds at positions in beats."""
        return _line(np.asarray(position, float), self.positions, self.times)

    def position(self, time: np.ndarray) -> np.ndarray:
        """Positions in beats at times in seconds."""
        return _line(np.asarray(time, float), self.times, self.positions)

    def even_time(self, time: np.ndarray) -> np.ndarray:
        """Seconds of `straighten`'s features at seconds of the recording."""
        return (self.position(time) - self.position(np.array(0.0))) * self.period

    def shifted(self, beats: float) -> TempoMap:
        """Return the same music with position 0 moved by a number of beats."""
        return TempoMap(self.positions - beats, self.times)


def _line(x: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    inner = np.interp(x, xs, ys)
    head = ys[0] + (x - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0])
    tail = ys[-1] + (x - xs[-1]) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    return np.where(x < xs[0], head, np.where(x > xs[-1], tail, inner))


def straight(period: float, phase: float, duration: float) -> TempoMap:
    """Return a constant tempo: position 0 at ``phase`` seconds."""
    beats = max(1.0, duration / period)
    return TempoMap(np.array([0.0, beats]), np.array([phase, phase + beats * period]))


def _track(features: Features, period: float, beat: float, end: float) -> list[float]:
    """Walk beat by beat from ``beat`` to ``end`` seconds, correcting period and phase (alpha-beta filter)."""
    times, weights = features.peak_times, features.peak_weights
    scale = np.percentile(weights, 75) + 1e-9 if len(weights) else 1.0
    sign = 1.0 if end > beat else -1.0
    step, found, gate = period, [], min(GATE_SECONDS, 0.12 * period)
    while (end - beat) * sign > 0:
        beat += sign * step
        lo, hi = np.searchsorted(times, (beat - gate, beat + gate))
        if hi > lo:
            gap, w = times[lo:hi] - beat, weights[lo:hi]
            w = w * (1 - (gap / gate) ** 2) ** 2
            trust = min(1.0, float(w.sum()) / scale)
            error = float(np.sum(w * gap) / (w.sum() + 1e-12))
            beat += 0.25 * trust * error
            step = float(np.clip(step + sign * 0.04 * trust * error, 0.97 * period, 1.03 * period))
        found.append(beat)
    return found


def _smooth(beats: np.ndarray, strength: float) -> np.ndarray:
    """Penalised least squares of a beat sequence: the tempo may bend, not jump (Whittaker's smoother)."""
    from scipy.sparse import diags, eye
    from scipy.sparse.linalg import spsolve

    n = len(beats)
    bend = diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n))
    return spsolve((eye(n) + strength * bend.T @ bend).tocsc(), beats)


def follow(features: Features, period: float, phase: float, centre: float) -> TempoMap:
    """Follow the pulse through a recording from where it is clear outwards.

    Parameters
    ----------
    features : Features
        Features.
    period, phase : float
        Seconds: the steady pulse.
    centre : float
        Seconds: where that pulse was found.

    Returns
    -------
    TempoMap
        Straight where a constant tempo misses no beat by more than 10 ms.
    """
    even = straight(period, phase, features.duration)
    middle = phase + period * round((centre - phase) / period)
    after = _track(features, period, middle, features.duration)
    before = _track(features, period, middle, 0.0)
    beats = np.array([*before[::-1], middle, *after])
    if len(beats) < 8 or len(features.peak_times) < 8:
        return even
    smooth = _smooth(beats, 30.0)
    index = np.arange(len(beats)) - len(before) + round((middle - phase) / period)
    slope, start = np.polyfit(index, smooth, 1)
    if np.diff(smooth).min() <= 0.9 * period:
        return even
    if np.abs(smooth - start - slope * index).max() < MIN_BEND_SECONDS:
        # a short recording's period is known better from all its onsets than from its beats
        return (
            even
            if features.duration < LONG_SECONDS
            else straight(float(slope), float(start), features.duration)
        )
    return TempoMap(index.astype(float), smooth)


def straighten(features: Features, tempo_map: TempoMap) -> Features:
    """Resample features so that the beats of ``tempo_map`` fall evenly, at its mean period.

    Parameters
    ----------
    features : Features
        Features of the recording.
    tempo_map : TempoMap
        Its beats.

    Returns
    -------
    Features
        Features whose second ``s`` is the recording's ``tempo_map.time(s / tempo_map.period + start)``.
    """
    start = float(tempo_map.position(np.array(0.0)))
    period = tempo_map.period
    duration = (float(tempo_map.position(np.array(features.duration))) - start) * period

    def resample(x: np.ndarray, rate: float) -> np.ndarray:
        even = np.arange(int(duration * rate) + 1) / rate
        at = tempo_map.time(even / period + start) * rate
        rows = np.atleast_2d(x)
        out = np.array([np.interp(at, np.arange(rows.shape[1]), row) for row in rows])
        return out.reshape(*x.shape[:-1], len(even))

    return replace(
        features,
        duration=duration,
        rise=resample(features.rise, features.rate),
        onset=resample(features.onset, features.rate),
        mel=resample(features.mel, features.rate),
        chroma=resample(features.chroma, features.chroma_rate),
        timbre=resample(features.timbre, features.chroma_rate),
        peak_times=(tempo_map.position(features.peak_times) - start) * period,
    )
