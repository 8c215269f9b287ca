"""Loudness of the loops of one request: alike, and with room left for players and encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft
from scipy.ndimage import minimum_filter1d, uniform_filter1d

CEILING_DBTP = -1.0
"""No sample and no true peak above this."""

TARGET_LUFS = -14.0

_BLOCK_SECONDS = 0.4
_OVERSAMPLING = 4
_TAPS = 10  # samples on either side that one between them is made from
_LONG_TAPS, _LONG_OVERSAMPLING = 64, 8  # the second look, where a peak is near the ceiling
_EXACT_OVERSAMPLING = 16  # the third, by the Fourier series: up to .04 dB low, at the Nyquist frequency
_GRID_DB = 0.05
_BLOCK = 64  # samples that one row of a matrix product stands for: several times faster than a filter
_HEADROOM_DB = 1.0  # kept by the first loop, so that others of its loudness seldom need the limiter
_RELEASE_SECONDS = 0.005
_ROUNDS = 4
_CLOSE_LU = 0.025
_STEP = 1.4  # LU of gain for each that is missing: the limiter takes some of it back
# LUFS above which no block passes the absolute gate at -70 by a gain: loudness moves by just it
_LOUD = -40.0


def integrated_loudness(samples: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness of one round of a loop in LUFS.

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
    ITU-R BS.1770-4, by pyloudnorm. Its gating blocks are 0.4 s long, so a shorter loop is repeated. Blocks
    across the wrap are not heard: over many rounds, loops of under 4 s may differ by some tenths more.

    Examples
    --------
    >>> tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(64_000) / 32_000)
    >>> round(integrated_loudness(tone, 32_000), 1)
    -9.1
    """
    from pyloudnorm import Meter

    samples = np.asarray(samples, float)
    shortest = int(np.ceil(_BLOCK_SECONDS * sample_rate)) + 1
    if len(samples) < shortest:
        repeats = -(-shortest // len(samples))
        samples = np.concatenate([samples] * repeats)
    return float(Meter(sample_rate).integrated_loudness(samples))


@lru_cache(maxsize=1)
def _between() -> np.ndarray:
    """Windowed sinc that turns `_BLOCK` samples and those around into the three between each and the next."""
    from scipy.signal import firwin

    taps = firwin(2 * _TAPS * _OVERSAMPLING + 1, 1 / _OVERSAMPLING, window=("kaiser", 5.0)) * _OVERSAMPLING
    filters = np.zeros((_BLOCK + 2 * _TAPS, _BLOCK, _OVERSAMPLING - 1), np.float32)
    for phase in range(1, _OVERSAMPLING):
        reversed_taps = taps[phase::_OVERSAMPLING][::-1]
        for column in range(_BLOCK):
            filters[column + 1 : column + 1 + len(reversed_taps), column, phase - 1] = reversed_taps
    return filters.reshape(len(filters), -1)


def _peaks(samples: np.ndarray) -> np.ndarray:
    """Largest magnitude at each sample of a repeating loop [n] or [n, C] and up to the next one, [n]."""
    n, found = len(samples), np.zeros(len(samples), np.float32)
    for channel in samples.reshape(n, -1).astype(np.float32).T:
        around = np.pad(channel, (_TAPS, -n % _BLOCK + _TAPS), mode="wrap")
        blocks = sliding_window_view(around, _BLOCK + 2 * _TAPS)[::_BLOCK]
        dense = np.abs(blocks @ _between()).reshape(-1, _OVERSAMPLING - 1)[:n]
        for one in (np.abs(channel), *dense.T):
            np.maximum(found, one, out=found)
    return found


@lru_cache(maxsize=1)
def _long_sinc() -> np.ndarray:
    """Windowed sinc from samples to the places between two of them, [2 taps, oversampling - 1]."""
    from scipy.signal import firwin

    n = 2 * _LONG_TAPS * _LONG_OVERSAMPLING + 1
    sinc = firwin(n, 1 / _LONG_OVERSAMPLING, window=("kaiser", 5.0)) * _LONG_OVERSAMPLING
    places = [sinc[place::_LONG_OVERSAMPLING][::-1] for place in range(1, _LONG_OVERSAMPLING)]
    return np.stack(places, axis=1).astype(np.float32)


def _second_look(samples: np.ndarray, at: np.ndarray) -> float:
    """Largest magnitude after each of the samples `at` of a repeating loop, nearer to the Nyquist frequency."""
    highest = 0.0
    for channel in samples.reshape(len(samples), -1).astype(np.float32).T:
        around = sliding_window_view(np.pad(channel, _LONG_TAPS, mode="wrap"), 2 * _LONG_TAPS)
        for start in range(0, len(at), 8192):
            between = around[at[start : start + 8192] + 1] @ _long_sinc()
            highest = max(highest, float(np.abs(between).max()))
    return highest


def _exact_peaks(samples: np.ndarray) -> np.ndarray:
    """As `_peaks`, by the loop's Fourier series: it repeats, so that nothing is cut off."""
    n, found = len(samples), np.zeros(len(samples), np.float32)
    for channel in samples.reshape(n, -1).astype(np.float32).T:
        np.maximum(found, np.abs(channel), out=found)
        spectrum = fft.rfft(channel)
        turn = np.exp(2j * np.pi * np.arange(len(spectrum)) / (_EXACT_OVERSAMPLING * n)).astype(np.complex64)
        for _ in range(1, _EXACT_OVERSAMPLING):
            spectrum *= turn
            np.maximum(found, np.abs(fft.irfft(spectrum, n)), out=found)
    return found


def _too_high(samples: np.ndarray, bound: float) -> np.ndarray | None:
    """Peaks at each sample [n] where one passes `bound` (linear), None where none does."""
    peaks = _peaks(samples)
    near = np.flatnonzero(peaks > 0.35 * bound)
    if peaks.max() <= bound and (not len(near) or _second_look(samples, near) <= bound * 10 ** (-0.3 / 20)):
        return None
    peaks = _exact_peaks(samples)
    return peaks if peaks.max() > bound * 10 ** (-_GRID_DB / 20) else None


def true_peak(samples: np.ndarray) -> float:
    """Largest magnitude between and at the samples of a repeating loop, linear.

    References
    ----------
    ITU-R BS.1770-4, annex 2, but 16 times oversampled, and exactly: four times with short filters reads up to
    1.7 dB low near the Nyquist frequency.

    Examples
    --------
    >>> round(true_peak(0.5 * np.sin(2 * np.pi * np.arange(32_000) / 4 + np.pi / 4)), 2)  # between samples
    0.5
    """
    return float(_exact_peaks(np.asarray(samples)).max())


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

    Examples
    --------
    >>> loud = 1.5 * np.sin(2 * np.pi * np.arange(32_000) / 100)
    >>> bool(true_peak(limit(loud, 32_000)) <= 10 ** (CEILING_DBTP / 20))
    True
    """
    samples = np.asarray(samples, float)
    highest = 10 ** (ceiling / 20)
    # four times oversampling reads the peaks of hissing attacks up to 0.3 dB low
    limited = _turned_down(samples, _peaks(samples), highest * 10 ** (-0.3 / 20), sample_rate)
    for _ in range(_ROUNDS):
        if (peaks := _too_high(limited, highest)) is None:
            break
        limited = _turned_down(limited, peaks, highest * 10 ** (-0.1 / 20), sample_rate)
    return limited


def _turned_down(samples: np.ndarray, peaks: np.ndarray, bound: float, sample_rate: int) -> np.ndarray:
    """`samples` with `peaks` [n] no higher than `bound`; the very samples where none is."""
    if peaks.max() <= bound:
        return samples
    needed = np.minimum(1.0, bound / np.maximum(peaks, 1e-9), dtype=float)
    box = 1 + 2 * min(round(_RELEASE_SECONDS * sample_rate) // 3, len(samples) // 12)
    # the smallest gain around, averaged over as wide a window, is never above what a peak needs
    gain = minimum_filter1d(needed, 3 * box + 2, mode="wrap")
    for _ in range(3):
        gain = uniform_filter1d(gain, box, mode="wrap")
    return (samples.T * gain).T


def _brought(loop: np.ndarray, loudness: float, wanted: float, sample_rate: int) -> np.ndarray:
    """Bring a loop of known loudness to the wanted one, limiting its peaks."""
    gain = wanted - loudness
    for _ in range(_ROUNDS):
        louder = loop * 10 ** (gain / 20)
        limited = _limited(louder, sample_rate)
        if limited is louder and min(loudness, wanted) > _LOUD:
            break
        missing = wanted - integrated_loudness(limited, sample_rate)
        if abs(missing) < _CLOSE_LU:
            break
        gain += _STEP * missing
    return limited


def _limited(loop: np.ndarray, sample_rate: int) -> np.ndarray:
    """`loop` limited and without offset; the limiter leans to one side, and to centre it again lifts the other.

    Each round leaves a smaller offset, as what it limits is a smaller share of the loop.
    """
    limited = limit(loop, sample_rate)
    if limited is loop:
        return loop
    for _ in range(_ROUNDS):
        centred = limited - limited.mean(axis=0)
        if _too_high(centred, 10 ** (CEILING_DBTP / 20)) is None:
            return centred
        limited = limit(centred, sample_rate)
    return limited


def match(
    loops: Sequence[np.ndarray],
    sample_rate: int,
    target: float = TARGET_LUFS,
    each: Callable[..., Iterable[Any]] = map,
) -> list[np.ndarray]:
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
    each : callable
        `map`, or a pool's.

    Returns
    -------
    list of np.ndarray
        float64, without DC, true peaks at most `CEILING_DBTP`; silent loops stay silent.

    Examples
    --------
    >>> tone = 0.05 * np.sin(2 * np.pi * 1000 * np.arange(64_000) / 32_000)
    >>> quiet, loud = match([tone, 4 * tone], 32_000)
    >>> round(integrated_loudness(loud, 32_000) - integrated_loudness(quiet, 32_000), 1)
    0.0
    """
    centred = [np.asarray(loop, float) - np.mean(loop, axis=0, dtype=float) for loop in loops]
    heard = list(each(lambda loop: integrated_loudness(loop, sample_rate), centred))
    audible = np.isfinite(heard)
    if not audible.any():
        return centred
    first = int(np.argmax(audible))
    room = CEILING_DBTP - _HEADROOM_DB - 20 * np.log10(float(_peaks(centred[first]).max()))
    wanted = min(target, heard[first] + room)

    def one(loop: np.ndarray, loudness: float) -> np.ndarray:
        return _brought(loop, loudness, wanted, sample_rate) if np.isfinite(loudness) else loop

    return list(each(one, centred, heard))
