"""A finished loop at another sample rate: around its wrap as within it, for a loop is periodic.

A resampler that takes the file for a recording hears silence around it, and leaves a dent at the seam and a sample
too many or too few. The Fourier series of one round has neither: it is the loop, for ever.
"""

from __future__ import annotations

import numpy as np

from looper.loops import loudness


def resampled(samples: np.ndarray, n: int) -> np.ndarray:
    """One round of a loop, [T] or [T, C], in `n` samples: float64 [n] or [n, C].

    References
    ----------
    `scipy.signal.resample`: the spectrum of the round is cut or filled up with zeros.

    Examples
    --------
    >>> wave = lambda n: np.sin(2 * np.pi * 3 * np.arange(n) / n)
    >>> bool(np.abs(resampled(wave(320), 441) - wave(441)).max() < 1e-12)
    True
    """
    from scipy.signal import resample

    return np.asarray(resample(np.asarray(samples, float), n, axis=0))


def at_rate(samples: np.ndarray, n: int, sample_rate: int) -> np.ndarray:
    """One round of a levelled loop in `n` samples at `sample_rate` Hz, no true peak over the ceiling: float32.

    Examples
    --------
    >>> at_rate(np.zeros(32_000), 44_100, 44_100).shape
    (44100,)
    """
    found = resampled(samples, n)
    if loudness.true_peak(found) > 10 ** (loudness.CEILING_DBTP / 20):
        found = loudness.limit(found, sample_rate)
    return found.astype(np.float32)
