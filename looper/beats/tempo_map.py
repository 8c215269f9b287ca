"""Beat positions to seconds and back: a straight line, or a curve where the tempo drifts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from looper.beats.features import Frames

GATE = 0.05  # seconds, at most, between an onset and the beat it may correct
LONG = 25.0  # seconds
WORTH = 0.010  # seconds of deviation below which a straight line carries the music


@dataclass(frozen=True)
class Warp:
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

    def shifted(self, beats: float) -> Warp:
        """Return the same music with position 0 moved by a number of beats."""
        return Warp(self.positions - beats, self.times)


def _line(x: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    inner = np.interp(x, xs, ys)
    head = ys[0] + (x - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0])
    tail = ys[-1] + (x - xs[-1]) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    return np.where(x < xs[0], head, np.where(x > xs[-1], tail, inner))


def straight(period: float, phase: float, duration: float) -> Warp:
    """Return a constant tempo: position 0 at ``phase`` seconds."""
    beats = max(1.0, duration / period)
    return Warp(np.array([0.0, beats]), np.array([phase, phase + beats * period]))


def _track(frames: Frames, period: float, beat: float, end: float) -> list[float]:
    """Walk beat by beat from ``beat`` to ``end`` seconds, correcting period and phase (alpha-beta filter)."""
    times, weights = frames.peak_times, frames.peak_weights
    scale = np.percentile(weights, 75) + 1e-9 if len(weights) else 1.0
    sign = 1.0 if end > beat else -1.0
    step, found, gate = period, [], min(GATE, 0.12 * period)
    while (end - beat) * sign > 0:
        beat += sign * step
        lo, hi = np.searchsorted(times, (beat - gate, beat + gate))
        if hi > lo:
            gap, w = times[lo:hi] - beat, weights[lo:hi]
            w = w * (1 - (gap / gate) ** 2) ** 2
            sure = min(1.0, float(w.sum()) / scale)
            error = float(np.sum(w * gap) / (w.sum() + 1e-12))
            beat += 0.25 * sure * error
            step = float(np.clip(step + sign * 0.04 * sure * error, 0.97 * period, 1.03 * period))
        found.append(beat)
    return found


def _smooth(beats: np.ndarray, strength: float) -> np.ndarray:
    """Penalised least squares of a beat sequence: the tempo may bend, not jump (Whittaker's smoother)."""
    from scipy.sparse import diags, eye
    from scipy.sparse.linalg import spsolve

    n = len(beats)
    bend = diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n))
    return spsolve((eye(n) + strength * bend.T @ bend).tocsc(), beats)


def follow(frames: Frames, period: float, phase: float, centre: float) -> Warp:
    """Follow the pulse through a recording from where it is sure outwards.

    Parameters
    ----------
    frames : Frames
        Features.
    period, phase : float
        Seconds: the steady pulse.
    centre : float
        Seconds: where that pulse was found.

    Returns
    -------
    Warp
        Straight where a constant tempo misses no beat by more than 10 ms.
    """
    even = straight(period, phase, frames.duration)
    middle = phase + period * round((centre - phase) / period)
    after = _track(frames, period, middle, frames.duration)
    before = _track(frames, period, middle, 0.0)
    beats = np.array([*before[::-1], middle, *after])
    if len(beats) < 8 or len(frames.peak_times) < 8:
        return even
    smooth = _smooth(beats, 30.0)
    index = np.arange(len(beats)) - len(before) + round((middle - phase) / period)
    slope, start = np.polyfit(index, smooth, 1)
    if np.diff(smooth).min() <= 0.9 * period:
        return even
    if np.abs(smooth - start - slope * index).max() < WORTH:
        # a short recording's period is known better from all its onsets than from its beats
        return even if frames.duration < LONG else straight(float(slope), float(start), frames.duration)
    return Warp(index.astype(float), smooth)


def straighten(frames: Frames, warp: Warp) -> Frames:
    """Resample features so that the beats of ``warp`` fall evenly, at its mean period.

    Parameters
    ----------
    frames : Frames
        Features of the recording.
    warp : Warp
        Its beats.

    Returns
    -------
    Frames
        Features whose second ``s`` is the recording's ``warp.time(s / warp.period + start)``.
    """
    start = float(warp.position(np.array(0.0)))
    period = warp.period
    duration = (float(warp.position(np.array(frames.duration))) - start) * period

    def resample(x: np.ndarray, rate: float) -> np.ndarray:
        even = np.arange(max(1, int(duration * rate) + 1)) / rate
        at = warp.time(even / period + start) * rate
        rows = np.atleast_2d(x)
        out = np.array([np.interp(at, np.arange(rows.shape[1]), row) for row in rows])
        return out.reshape(*x.shape[:-1], -1)

    return replace(
        frames,
        duration=duration,
        rise=resample(frames.rise, frames.rate),
        onset=resample(frames.onset, frames.rate),
        mel=resample(frames.mel, frames.rate),
        chroma=resample(frames.chroma, frames.chroma_rate),
        peak_times=(warp.position(frames.peak_times) - start) * period,
    )
