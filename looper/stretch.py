"""Time-stretch to an exact ratio, with the downbeat still where the caller put it.

A phase vocoder smears what lies at the edges of its input, so callers hand over real audio around
the part they keep (`CONTEXT` seconds) and cut after the stretch, never before.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates
from scipy.signal import resample_poly

CONTEXT = 0.6
"""Seconds of audio kept on both sides of a loop while it is stretched."""

TOLERANCE = 0.001
"""Tempo deviation that is left alone: 0.1 %."""

_LARGEST_FACTOR = 1.3
_OVERSAMPLING = 4


def stretch(samples: np.ndarray, sample_rate: int, factor: float) -> np.ndarray:
    """Play `samples` `factor` times as fast at the same pitch.

    A sample at index i of the input is heard at index i / factor of the output.

    Parameters
    ----------
    samples : np.ndarray
        float32 [T, C].
    sample_rate : int
        Hz; sets the block size (120 ms) of the vocoder.
    factor : float
        Input duration over output duration.

    Returns
    -------
    np.ndarray
        float32 [round(T / factor), C].

    Raises
    ------
    ValueError
        If the tempi lie more than 30 % apart: no stretch sounds like music then.

    References
    ----------
    Signalsmith Stretch, https://signalsmith-audio.co.uk/code/stretch/ (MIT).
    """
    from python_stretch.Signalsmith import Stretch

    if not 1 / _LARGEST_FACTOR <= factor <= _LARGEST_FACTOR:
        raise ValueError(
            f"the music would have to be played {factor:.2f} times as fast to reach the asked tempo; "
            "pass the tempo it was played at, or its half or double"
        )
    # the seed only matters beyond factors of 2, but costs nothing
    vocoder = Stretch(0)
    vocoder.preset(samples.shape[1], float(sample_rate))
    vocoder.setTimeFactor(float(factor))
    stretched = np.asarray(vocoder.process(np.ascontiguousarray(samples.T, dtype=np.float32)))
    return np.ascontiguousarray(stretched.T)


def straighten(samples: np.ndarray, sample_rate: int, beat_times: np.ndarray) -> np.ndarray:
    """Move wandering beats onto equal distances; the first and the last beat stay where they are.

    The wander of one take is a fraction of a percent of speed, so it is taken out as a tape machine
    would, by resampling along a smooth time map: attacks stay whole, where a vocoder that changes its
    ratio at every beat would smear them and break phases at every joint.

    Parameters
    ----------
    samples : np.ndarray
        float32 [T, C].
    sample_rate : int
        Hz.
    beat_times : np.ndarray
        Seconds [K], increasing, K >= 2, of the beats as played.

    Returns
    -------
    np.ndarray
        float32 [T, C].
    """
    played = np.asarray(beat_times, float) * sample_rate
    wanted = np.linspace(played[0], played[-1], len(played))
    positions = np.arange(len(samples), dtype=float)
    moved = positions.copy()
    inside = (positions >= wanted[0]) & (positions <= wanted[-1])
    moved[inside] = PchipInterpolator(wanted, played)(positions[inside])
    # a cubic through four times oversampled audio is clean up to the top octave
    dense = resample_poly(samples, _OVERSAMPLING, 1, axis=0).astype(np.float32)
    channels = [map_coordinates(c, [moved * _OVERSAMPLING], order=3, mode="nearest") for c in dense.T]
    return np.stack(channels, axis=1)
