"""Features to a steady pulse: the beat period near a target tempo, and where in it beats may fall.

The target tempo leaves 15 % of room, so the search is short and exact: a harmonic comb over one
zero-padded FFT of the onset curve, the self-similarity of the spectrum at beat and bar lags, then a
robust straight line through the onsets themselves.

References
----------
Grosche, Müller: Extracting Predominant Local Pulse Information, IEEE TASLP 19(6), 2011.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looper.beats.features import Features

SEARCH_SHARE = 0.075  # share of the target period that is searched on either side
SEARCH_LOG_STEP = 0.001
MIN_PEAK_SHARE = 0.02  # of the strongest gathering of onsets: weaker ones are no beat
MIN_ONSET_STRENGTH = 1.5  # onset strength of the faintest notes: gliding and steady tones stay below
SCORE_PER_LIKENESS = 3.0
HARMONICS = ((1, 1.0), (2, 1.0), (3, 0.4), (4, 0.7))


@dataclass(frozen=True)
class Pulse:
    """A steady beat: ``phase + k * period`` seconds, and how well the onsets keep to it."""

    period: float
    phase: float
    weight: float


def _comb(features: Features, periods: np.ndarray) -> np.ndarray:
    """Onset energy at the multiples of each beat rate, ``[P]``, in standard deviations of noise."""
    onset = features.onset - features.onset.mean()
    size = 1 << int(np.ceil(np.log2(max(len(onset) * 8, 2))))
    spectrum = np.abs(np.fft.rfft(onset, size)) / (np.linalg.norm(onset) + 1e-12)
    hz = np.arange(len(spectrum)) * features.rate / size
    return sum(w * np.interp(k / periods, hz, spectrum) for k, w in HARMONICS)


def _likeness(features: Features, lags: np.ndarray) -> np.ndarray:
    """Correlation of the log-mel picture with itself ``lags`` seconds later, in -1..1."""
    picture = features.mel - features.mel.mean(axis=1, keepdims=True)
    length = picture.shape[1]
    size = 1 << int(np.ceil(np.log2(2 * length)))
    power = np.abs(np.fft.rfft(picture, size)) ** 2
    raw = np.fft.irfft(power.sum(axis=0), size)[:length]
    energy = np.cumsum((picture**2).sum(axis=0))
    shift = np.arange(length)
    head, tail = energy[length - 1 - shift], energy[-1] - np.r_[0.0, energy[:-1]][shift]
    corr = raw / (np.sqrt(np.maximum(head * tail, 0)) + 1e-9)
    usable = (length - shift) > 0.12 * length
    corr = np.where(usable, corr * np.minimum(1.0, 2.5 * (1 - shift / length)), 0.0)
    return np.interp(lags * features.rate, shift, corr, right=0.0)


def period_scores(
    features: Features, target_period: float, beats_per_bar: int
) -> tuple[np.ndarray, np.ndarray]:
    """Score every beat period within the search width of the target.

    Parameters
    ----------
    features : Features
        Features.
    target_period : float
        Seconds per beat of the target tempo.
    beats_per_bar : int
        Beats per bar.

    Returns
    -------
    tuple of numpy.ndarray
        Periods in seconds and their scores, the higher the better, ``[P]`` each.
    """
    steps = np.arange(np.log1p(-SEARCH_SHARE), np.log1p(SEARCH_SHARE) + SEARCH_LOG_STEP, SEARCH_LOG_STEP)
    periods = target_period * np.exp(steps)
    score = pulse_scores(features, periods, beats_per_bar, SCORE_PER_LIKENESS)
    return periods, score - 0.5 * (steps / 0.04) ** 2


def pulse_scores(
    features: Features, periods: np.ndarray, beats_per_bar: int, per_likeness: float
) -> np.ndarray:
    """Score periods ``[P]`` by what begins at them and, ``per_likeness``, by how alike the music is after them."""
    return _comb(features, periods) + per_likeness * sum(
        w * _likeness(features, periods * k)
        for k, w in ((1, 0.5), (beats_per_bar, 1.0), (2 * beats_per_bar, 1.0))
    )


def best_periods(periods: np.ndarray, scores: np.ndarray, count: int = 3) -> list[float]:
    """Return the periods of the highest separate maxima, best first."""
    padded = np.r_[-np.inf, scores, -np.inf]
    tops = np.flatnonzero((padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:]))
    tops = tops[np.argsort(-scores[tops])][:count]
    return [float(periods[i]) for i in tops]


def _fold(features: Features, period: float, bins: int) -> np.ndarray:
    """Onset curve averaged over all beats, ``[bins]`` of one period, bin 0 at time 0."""
    position = (np.arange(len(features.onset)) - 0.5) / features.rate / period % 1.0 * bins
    low = position.astype(int) % bins
    part = position - np.floor(position)
    folded = np.bincount(low, features.onset * (1 - part), bins)
    return folded + np.bincount((low + 1) % bins, features.onset * part, bins)


def phases(features: Features, period: float, count: int = 6) -> list[Pulse]:
    """Find where in the beat the onsets gather: each gathering may be the beat itself.

    Parameters
    ----------
    features : Features
        Features.
    period : float
        Seconds per beat.
    count : int
        The most gatherings to return.

    Returns
    -------
    list of Pulse
        Strongest first; never empty (without onsets, one of weight 0 that starts at 0 s).
    """
    bins = 96
    folded = _fold(features, period, bins)
    kernel = np.hanning(9)
    smooth = np.real(np.fft.ifft(np.fft.fft(folded) * np.fft.fft(np.roll(np.pad(kernel, (0, bins - 9)), -4))))
    tops = np.flatnonzero((smooth > np.roll(smooth, 1)) & (smooth >= np.roll(smooth, -1)))
    total = smooth.max() + 1e-12
    tops = tops[np.argsort(-smooth[tops])][:count]
    tops = tops[smooth[tops] > MIN_PEAK_SHARE * total]
    found = [Pulse(period, float(i) / bins * period, float(smooth[i] / total)) for i in tops]
    return found or [Pulse(period, 0.0, 0.0)]


def fit_line(features: Features, period: float, anchors: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Fit one period and one offset per anchor to the onsets near them.

    Robust least squares (Tukey's biweight): onsets far from every anchor are ignored, and swung or
    late off-beats get an offset of their own instead of pulling the beat.

    Parameters
    ----------
    features : Features
        Features.
    period : float
        Seconds per beat to start from.
    anchors : numpy.ndarray
        ``[A]`` offsets in seconds within one period.

    Returns
    -------
    period : float
        Refined seconds per beat.
    offsets : numpy.ndarray
        ``[A]`` refined offsets in seconds.
    share : float
        Part of the onset weight that lies within 15 ms of the fitted grid.
    """
    times, weights = features.peak_times, features.peak_weights
    offsets = anchors.astype(float).copy()
    if len(times) < 3:
        return period, offsets, 0.0
    width = max(0.02, 0.06 * period)
    for _ in range(8):
        gap = (times[:, None] - offsets[None, :]) / period
        beat = np.round(gap)
        error = (gap - beat) * period
        which = np.argmin(np.abs(error), axis=1)
        rows = np.arange(len(times))
        residual, index = error[rows, which], beat[rows, which]
        w = weights * np.maximum(0.0, 1 - (residual / width) ** 2) ** 2
        mass = np.bincount(which, w, len(offsets)) + 1e-12
        mean_k = np.bincount(which, w * index, len(offsets)) / mass
        mean_r = np.bincount(which, w * residual, len(offsets)) / mass
        k = index - mean_k[which]
        spread = np.sum(w * k**2)
        slope = np.sum(w * k * (residual - mean_r[which])) / spread if spread > 1e-9 else 0.0
        slope = float(np.clip(slope, -0.004 * period, 0.004 * period))
        offsets = offsets + mean_r - slope * mean_k
        period = period + slope
        width = max(0.025, 0.75 * width)
    share = float(np.sum(weights[np.abs(residual) < 0.015]) / (np.sum(weights) + 1e-12))
    return period, offsets, share


def find_period(features: Features, target_period: float, beats_per_bar: int) -> tuple[float, float]:
    """Find the beat period near the target.

    Parameters
    ----------
    features : Features
        Features.
    target_period : float
        Seconds per beat of the target tempo.
    beats_per_bar : int
        Beats per bar.

    Returns
    -------
    period : float
        Seconds per beat, to a few hundredths of a percent.
    clarity : float
        How periodic the onsets and the spectrum are at it: 4 for noise, 5 to 30 for music, 0 where
        nothing begins.
    """
    periods, scores = period_scores(features, target_period, beats_per_bar)
    rough = (best_periods(periods, scores, 1) or [target_period])[0]
    return settled_period(features, rough), clarity_at(features, float(scores.max()))


def settled_period(features: Features, rough: float) -> float:
    """A period that is known to about a per cent, settled on the onsets."""
    anchors = np.array([p.phase for p in phases(features, rough)])
    return fit_line(features, rough, anchors)[0]


def clarity_at(features: Features, score: float) -> float:
    """How clear a pulse of so high a score is: less where little begins."""
    loud = float(np.sort(features.onset)[-8:].mean())
    return score * min(1.0, loud / MIN_ONSET_STRENGTH)


STRAIGHT = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
TRIPLET = np.array([0.0, 1 / 3, 2 / 3, 1.0])


def _settle(features: Features, period: float, phase: float, lattice: np.ndarray) -> tuple[float, float]:
    """Robust mean (Tukey's biweight) of the onsets on a lattice: the phase, and the weight on it."""
    times, weights = features.peak_times, features.peak_weights
    width, kept = min(0.02, 0.1 * period), 0.0
    for _ in range(8):
        place = (times - phase) / period
        gaps = (place - np.floor(place))[:, None] - lattice
        gap = gaps[np.arange(len(times)), np.argmin(np.abs(gaps), axis=1)] * period
        w = weights * np.maximum(0.0, 1 - (gap / width) ** 2) ** 2
        kept = float(w.sum())
        if kept > 1e-9:
            phase += float(np.average(gap, weights=w))
    return phase, kept


def refine(features: Features, period: float, phase: float) -> float:
    """Place a known beat exactly, from the onsets on its straight or triplet subdivisions.

    Parameters
    ----------
    features : Features
        Features.
    period, phase : float
        Seconds: beats near ``phase + k * period``, to 20 ms.

    Returns
    -------
    float
        Phase in seconds; unchanged where no onset is near.
    """
    fits = [_settle(features, period, phase, lattice) for lattice in (STRAIGHT, TRIPLET)]
    found = max(fits, key=lambda fit: fit[1])[0]
    return found if abs(found - phase) < 0.05 else phase
