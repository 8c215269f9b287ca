"""Arrays of samples: what callers may pass, mixed to mono, and silence."""

from __future__ import annotations

import numpy as np

from looper.runtime.validation import finite, whole

LOUDEST = 1e30  # far beyond any music, and yet no sum of it overflows
SILENCE = 1e-6  # root mean square, full scale 1, under which there is nothing to hear


def mono(samples: np.ndarray) -> np.ndarray:
    """Mix to one channel of float32, full scale 1, without offset.

    Parameters
    ----------
    samples : numpy.ndarray
        ``[T]`` or ``[T, C]``, floating point or integer.

    Returns
    -------
    numpy.ndarray
        ``[T]``. Channels in opposite phase do not cancel: the loudest one stands for them.

    Raises
    ------
    ValueError
        If the samples are empty, not numbers, not finite, or not ``[T]`` or ``[T, C]``.

    Examples
    --------
    >>> mono(np.array([[1, 3], [3, 1], [1, 3], [4, 6]], np.int16)).shape
    (4,)
    """
    x = _checked(samples, kinds="fiu", most_channels=64)
    full_scale = float(np.iinfo(x.dtype).max) if x.dtype.kind in "iu" else 1.0
    x = x.astype(np.float64) / full_scale
    x = x - x.mean(axis=0)
    if x.ndim == 1:
        return x.astype(np.float32)
    mixed, power = x.mean(axis=1), np.mean(x**2, axis=0)
    if np.mean(mixed**2) < 0.02 * power.max():
        mixed = x[:, int(np.argmax(power))]
    return mixed.astype(np.float32)


def is_silent(x: np.ndarray) -> bool:
    """Whether a mono signal holds nothing to hear.

    Examples
    --------
    >>> is_silent(np.zeros(1000, np.float32))
    True
    """
    return bool(np.sqrt(np.mean(np.square(x, dtype=np.float64))) < SILENCE)


def check_samples(samples: np.ndarray, sample_rate: int, bpm: float) -> np.ndarray:
    """Return `samples` as float32 [T, C], or an error that says what is wrong with them.

    Examples
    --------
    >>> check_samples(np.zeros(1000), 32000, 120).shape
    (1000, 1)
    """
    samples = _checked(samples, kinds="f", most_channels=8)
    if whole("sample_rate", sample_rate) <= 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}")
    if finite("bpm", bpm) <= 0:
        raise ValueError(f"bpm must be a positive number, got {bpm}")
    return np.ascontiguousarray(samples.reshape(len(samples), -1), dtype=np.float32)


def _checked(samples: np.ndarray, kinds: str, most_channels: int) -> np.ndarray:
    """`samples` as an array [T] or [T, C] of one of NumPy's `kinds`, or an error that says what is wrong."""
    x = np.asarray(samples)
    if x.dtype.kind not in kinds:
        wanted = "floating point or integer" if "i" in kinds else "floating point within -1..1"
        raise ValueError(f"samples must be {wanted}, got {x.dtype}")
    if x.ndim not in (1, 2) or (x.ndim == 2 and not 1 <= x.shape[1] <= most_channels):
        raise ValueError(
            f"samples must be [time] or [time, channels] with at most {most_channels} channels, which come last, "
            f"got shape {x.shape}"
        )
    if x.shape[0] == 0:
        raise ValueError("samples is empty: pass at least one beat of audio")
    if not np.isfinite(x).all():
        raise ValueError("samples must be finite: it holds NaN or infinity, repair the recording or crop it")
    if x.dtype.kind == "f" and max(float(x.max()), -float(x.min())) > LOUDEST:
        raise ValueError(
            f"samples must be within -1..1, or somewhere near, got {np.abs(x).max():g}: scale them"
        )
    return x
