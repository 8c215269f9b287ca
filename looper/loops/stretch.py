"""Time-stretch to an exact ratio, with the downbeat still where the caller put it.

A phase vocoder smears what lies at the edges of its input, so callers hand over real audio around
the part they keep (`CONTEXT` seconds) and cut after the stretch, never before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates

if TYPE_CHECKING:
    from looper.beats.grid import BeatGrid

CONTEXT = 0.6
"""Seconds of audio kept on both sides of a loop while it is stretched."""

TOLERANCE = 0.001
"""Tempo deviation that is left alone: 0.1 %."""

_LARGEST_FACTOR = 1.3
_OVERSAMPLING = 4
_STILL_SECONDS = 0.01
_WARP_SECONDS = 0.003


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

    Examples
    --------
    >>> stretch(np.zeros((32_000, 1), np.float32), 32_000, 1.25).shape
    (25600, 1)
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

    Examples
    --------
    >>> straighten(np.zeros((32_000, 1), np.float32), 32_000, np.array([0.1, 0.3, 0.51, 0.7])).shape
    (32000, 1)
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.signal import resample_poly

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


def _excerpt(samples: np.ndarray, first: int, last: int) -> np.ndarray:
    """samples[first:last], with silence where the recording has ended or not begun."""
    before, after = max(0, -first), max(0, last - len(samples))
    return np.pad(samples[max(0, first) : max(0, last)], ((before, after), (0, 0)))


def _beats_of_loop(grid: BeatGrid) -> np.ndarray:
    """Find the loop's beats and its end in seconds where the grid wanders, else just its two ends."""
    start, end = grid.loop_start, grid.loop_end
    ends = np.array([start, end])
    times = np.asarray(grid.beat_times, float)
    slack = 0.25 * (end - start) / grid.beats
    inside = times[(times > start + slack) & (times < end - slack)]
    if len(inside) != grid.beats - 1:
        return ends
    played = np.r_[start, inside, end]
    wander = np.abs(played - np.linspace(start, end, len(played))).max()
    return played if wander > _WARP_SECONDS else ends


def in_tempo(samples: np.ndarray, sample_rate: int, grid: BeatGrid, n: int) -> tuple[np.ndarray, int]:
    """Bring a grid's loop to `n` samples; within `TOLERANCE` of that the audio is left alone.

    Parameters
    ----------
    samples : np.ndarray
        float32 [T, C], the recording.
    sample_rate : int
        Hz.
    grid : BeatGrid
        Where the loop and its beats are.
    n : int
        Samples that the loop shall have.

    Returns
    -------
    tuple[np.ndarray, int]
        The loop and its surroundings, float32 [T, C], only real audio: no padding; the downbeat's index.

    Raises
    ------
    ValueError
        As `stretch`.

    Examples
    --------
    >>> from looper import analyse
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 16).astype(np.float32)
    >>> body, origin = in_tempo(clicks[:, None], 32_000, analyse(clicks, 32_000, 120), 252_000)
    >>> bool(origin + 252_000 <= len(body) + 1_000)
    True
    """
    played = _beats_of_loop(grid) * sample_rate
    # all that can be of use: the loop and a second on both sides
    spare = max(0, int(played[0]) - sample_rate)
    samples, played = samples[spare : int(played[-1]) + sample_rate], played - spare
    if len(played) > 2:
        samples = straighten(samples, sample_rate, played / sample_rate)
    start, end = played[0], played[-1]
    factor = (end - start) / n
    first = round(start)
    drift = abs(end - start - n)
    if abs(factor - 1) <= TOLERANCE and drift <= _STILL_SECONDS * sample_rate:
        return samples, first
    context = round(CONTEXT * sample_rate / factor)
    # the vocoder maps index i to i / factor: a lead that is a whole number of output samples keeps the phase
    lead = round(context * factor)
    excerpt = _excerpt(samples, first - lead, round(end) + lead)
    stretched = stretch(excerpt, sample_rate, factor)
    real_first = max(0, context - int(first / factor))
    real_last = min(len(stretched), context + int((len(samples) - first) / factor))
    return stretched[real_first:real_last], context - real_first
