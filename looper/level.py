"""Loudness of the loops of one request: alike, and with room left for players and encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal import resample_poly

CEILING_DBTP = -1.0
"""No sample and no true peak above this."""

TARGET_LUFS = -14.0

_BLOCK_SECONDS = 0.4


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


def true_peak(samples: np.ndarray) -> float:
    """Largest magnitude between and at the samples of a repeating loop, linear.

    References
    ----------
    ITU-R BS.1770-4, annex 2: four times oversampled.
    """
    samples = np.asarray(samples, float)
    if len(samples) == 0:
        return 0.0
    margin = min(len(samples), 64)
    around = np.concatenate([samples[-margin:], samples, samples[:margin]])
    return float(max(np.abs(samples).max(), np.abs(resample_poly(around, 4, 1, axis=0)).max()))


def gains(loops: Sequence[np.ndarray], sample_rate: int, target: float = TARGET_LUFS) -> np.ndarray:
    """One gain per loop that brings all to one loudness under the ceiling.

    All aim at `target`; when a peak of one would pass the ceiling there, all are turned down together.

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
    np.ndarray
        Linear gains [len(loops)]; 1 for a silent loop.
    """
    ceiling = 10 ** (CEILING_DBTP / 20) * 0.999
    wanted, room = np.ones(len(loops)), []
    for k, loop in enumerate(loops):
        loudness = integrated_loudness(loop, sample_rate)
        if np.isfinite(loudness):
            wanted[k] = 10 ** ((target - loudness) / 20)
            room.append(ceiling / (true_peak(loop) * wanted[k]))
    audible = np.array([np.isfinite(integrated_loudness(loop, sample_rate)) for loop in loops])
    wanted[audible] *= min([1.0, *room])
    return wanted
