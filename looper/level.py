"""Loudness of the loops of one request: alike, and with room left for players and encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import convolve1d, minimum_filter1d
from scipy.signal import resample_poly

CEILING_DBTP = -1.0
"""No sample and no true peak above this."""

TARGET_LUFS = -14.0

_BLOCK_SECONDS = 0.4
_OVERSAMPLING = 4
_HEADROOM_DB = 1.0  # kept by the first loop, so that others of its loudness seldom need the limiter
_RELEASE_SECONDS = 0.005
_ROUNDS = 4
_CLOSE_LU = 0.05


def integrated_loudness(samples: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness of a loop in LUFS, as heard when it repeats.

    Parameters
    ----------
    samples : np.ndarray
        [n] or [n, C].
    sample_rate : int
        Hz.

    Returns
    -------
    float
        LUFS; -inf for silence.

    References
    ----------
    ITU-R BS.1770-4, by pyloudnorm. Its gating blocks are 0.4 s long, so a shorter loop is repeated.
    """
    from pyloudnorm import Meter

    samples = np.asarray(samples, float)
    shortest = int(np.ceil(_BLOCK_SECONDS * sample_rate)) + 1
    if len(samples) < shortest:
        repeats = -(-shortest // len(samples))
        samples = np.concatenate([samples] * repeats)
    return float(Meter(sample_rate).integrated_loudness(samples))


def _oversampled(samples: np.ndarray) -> np.ndarray:
    """Return a repeating loop [n, ...] four times oversampled, [4 n, ...]."""
    margin = min(len(samples), 64)
    around = np.concatenate([samples[-margin:], samples, samples[:margin]])
    dense = resample_poly(around, _OVERSAMPLING, 1, axis=0)
    return dense[margin * _OVERSAMPLING : (margin + len(samples)) * _OVERSAMPLING]


def true_peak(samples: np.ndarray) -> float:
    """Largest magnitude between and at the samples of a repeating loop, linear.

    References
    ----------
    ITU-R BS.1770-4, annex 2: four times oversampled.
    """
    samples = np.asarray(samples, float)
    return float(max(np.abs(samples).max(), np.abs(_oversampled(samples)).max()))


def limit(samples: np.ndarray, sample_rate: int, ceiling: float = CEILING_DBTP) -> np.ndarray:
    """Turn true peaks above `ceiling` down for a few milliseconds around them.

    The gain runs around the wrap like the loop itself, so that the seam stays whole.

    Parameters
    ----------
    samples : np.ndarray
        [n] or [n, C].
    sample_rate : int
        Hz.
    ceiling : float
        dBTP.

    Returns
    -------
    np.ndarray
        float64, same shape; the input where nothing passes the ceiling.
    """
    samples = np.asarray(samples, float)
    # four times oversampling reads the peaks of hissing attacks up to 0.3 dB low
    bound = 10 ** ((ceiling - 0.3) / 20)
    if true_peak(samples) <= bound:
        return samples
    peaks = np.abs(_oversampled(samples)).reshape(len(samples), _OVERSAMPLING, -1).max(axis=(1, 2))
    peaks = np.maximum(peaks, np.abs(samples).reshape(len(samples), -1).max(axis=1))
    needed = np.minimum(1.0, bound / np.maximum(peaks, 1e-9))
    reach = min(round(_RELEASE_SECONDS * sample_rate), len(samples) // 4)
    window = np.hanning(2 * reach + 3)[1:-1]
    # the smallest gain around, averaged over as wide a window, is never above what a peak needs
    held = minimum_filter1d(needed, len(window) + 2, mode="wrap")
    gain = convolve1d(held, window / window.sum(), mode="wrap")
    return (samples.T * gain).T


def match(loops: Sequence[np.ndarray], sample_rate: int, target: float = TARGET_LUFS) -> list[np.ndarray]:
    """Bring loops to the loudness of the first one, and that one as near to `target` as its peaks allow.

    What becomes of a loop depends on itself and the first one only, not on how many there are.

    Parameters
    ----------
    loops : sequence of np.ndarray
        Each [n] or [n, C].
    sample_rate : int
        Hz.
    target : float
        LUFS.

    Returns
    -------
    list of np.ndarray
        float64, without DC, true peaks at most `CEILING_DBTP`; silent loops stay silent.
    """
    centred = [np.asarray(loop, float) - np.mean(loop, axis=0, dtype=float) for loop in loops]
    matched, anchor = [], None
    for loop in centred:
        loudness = integrated_loudness(loop, sample_rate)
        if not np.isfinite(loudness):
            matched.append(loop)
            continue
        if anchor is None:
            room = CEILING_DBTP - _HEADROOM_DB - 20 * np.log10(true_peak(loop))
            anchor = min(target, loudness + room)
        for _ in range(_ROUNDS):
            loop = limit(loop * 10 ** ((anchor - loudness) / 20), sample_rate)
            loudness = integrated_loudness(loop, sample_rate)
            if abs(loudness - anchor) < _CLOSE_LU:
                break
        matched.append(loop)
    return matched
