"""Filters over the bins of a Fourier transform: mel bands and pitch classes, to the bit as librosa makes them."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal.windows import hann

# Slaney's mel scale: linear up to 1 kHz, logarithmic above
_HZ_PER_MEL, _KNEE_HZ = 200.0 / 3, 1000.0
_KNEE_MEL, _LOG_STEP = _KNEE_HZ / _HZ_PER_MEL, np.log(6.4) / 27.0
_A0 = 440.0 / 16


def _mel(hz: float) -> float:
    return _KNEE_MEL + np.log(hz / _KNEE_HZ) / _LOG_STEP if hz >= _KNEE_HZ else hz / _HZ_PER_MEL


def _hz(mels: np.ndarray) -> np.ndarray:
    hz = _HZ_PER_MEL * mels
    high = mels >= _KNEE_MEL
    hz[high] = _KNEE_HZ * np.exp(_LOG_STEP * (mels[high] - _KNEE_MEL))
    return hz


def mel_filters(sample_rate: float, n_fft: int, bands: int, low: float, high: float) -> np.ndarray:
    """Triangles evenly spaced in mel, each of area 1.

    Parameters
    ----------
    sample_rate : float
        Hz.
    n_fft : int
        Samples of the transform.
    bands : int
    low, high : float
        Edges of the lowest and the highest band, Hz.

    Returns
    -------
    np.ndarray
        float32 [bands, n_fft // 2 + 1].

    Example
    -------
    >>> mel_filters(32000, 1024, 40, 30, 12000).shape
    (40, 513)
    """
    edges = _hz(np.linspace(_mel(low), _mel(high), bands + 2))
    away = np.subtract.outer(edges, np.fft.rfftfreq(n=n_fft, d=1.0 / sample_rate))
    width = np.diff(edges)
    filters = np.zeros((bands, 1 + n_fft // 2), np.float32)
    for i in range(bands):
        filters[i] = np.maximum(0, np.minimum(-away[i] / width[i], away[i + 2] / width[i + 1]))
    filters *= (2.0 / (edges[2:] - edges[:bands]))[:, np.newaxis]
    return filters


def chroma_filters(sample_rate: float, n_fft: int, centred: bool = True) -> np.ndarray:
    """Bells around each pitch class, from C up, in every octave.

    Parameters
    ----------
    sample_rate : float
        Hz.
    n_fft : int
        Samples of the transform.
    centred : bool
        Whether the fifth octave counts most, instead of all of them alike.

    Returns
    -------
    np.ndarray
        float32 [12, n_fft // 2 + 1].
    """
    hz = np.linspace(0, sample_rate, n_fft, endpoint=False)[1:]
    steps = 12 * np.log2(hz / _A0)
    steps = np.concatenate(([steps[0] - 1.5 * 12], steps))  # 0 Hz, which has no pitch
    width = np.concatenate((np.maximum(steps[1:] - steps[:-1], 1.0), [1]))
    away = np.subtract.outer(steps, np.arange(0, 12, dtype="d")).T
    away = np.remainder(away + 6.0 + 120, 12) - 6.0
    bells = np.exp(-0.5 * (2 * away / np.tile(width, (12, 1))) ** 2)
    length = np.sqrt(np.sum(np.abs(bells) ** 2, axis=0, keepdims=True))
    length[length < np.finfo(bells.dtype).tiny] = 1.0
    bells = bells / length
    if centred:
        bells *= np.tile(np.exp(-0.5 * (((steps / 12 - 5.0) / 2) ** 2)), (12, 1))
    return np.ascontiguousarray(np.roll(bells, -3, axis=0)[:, : 1 + n_fft // 2], np.float32)


def spectrum(samples: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """Magnitudes of the short-time Fourier transform of `samples` [n], float32 [n_fft // 2 + 1, 1 + n // hop].

    Frames are centred on every `hop`-th sample, with silence beyond the ends.
    """
    frames = sliding_window_view(np.pad(samples, n_fft // 2), n_fft)[::hop]
    window = hann(n_fft, sym=False)
    return np.abs(np.fft.rfft(frames * window, axis=1).astype(np.complex64)).T
