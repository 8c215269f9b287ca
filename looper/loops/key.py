"""The key of a loop, where it is clear.

References
----------
C. L. Krumhansl, Cognitive Foundations of Musical Pitch, 1990; D. Temperley, What's Key for Key?,
Music Perception 17 (1), 1999: correlation of the chroma with a profile of each major and minor key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from looper.musical_key import Key

# Temperley's revision of the Krumhansl-Kessler profiles
_MAJOR = np.array([5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0])
_MINOR = np.array([5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0])
_N_FFT = 8192
_LOUDEST = 1e6
_CLEAR_FIT = 0.65
_CLEAR_LEAD = 0.06
_FIT_SHARE = 0.06  # of correlation, by which another key speaks e times less


@dataclass(frozen=True)
class HeardKey:
    """What key music is heard in.

    Attributes
    ----------
    key : Key
        The likeliest.
    confidence : float
        Its share of what speaks for any key, 0..1: near 1 where no other comes close.
    clear : bool
        Whether it stands out enough to be written on a file.
    fits : np.ndarray
        Correlation with the profile of each of `all_keys()`, [24].
    """

    key: Key
    confidence: float
    clear: bool
    fits: np.ndarray

    def distance(self, asked: Key) -> float:
        """How much worse `asked` fits than what is heard: 0 for that key itself, about .2 for its neighbours, to 2."""
        return float(self.fits.max() - self.fits[all_keys().index(asked)])


def _unit(x: np.ndarray) -> np.ndarray:
    """Centred and of norm 1 along the last axis, so that a product is a correlation."""
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def all_keys() -> list[Key]:
    """The twelve major and the twelve minor keys.

    Examples
    --------
    >>> len(all_keys())
    24
    """
    return [Key(root, minor) for minor in (False, True) for root in range(12)]


@lru_cache(maxsize=1)
def _profiles() -> tuple[list[Key], np.ndarray]:
    """Every key, and its profile [24, 12]."""
    keys = all_keys()
    return keys, _unit(np.array([np.roll(_MINOR if k.minor else _MAJOR, k.root) for k in keys]))


@lru_cache(maxsize=4)
def _filters(sample_rate: int) -> np.ndarray:
    import librosa

    return librosa.filters.chroma(sr=sample_rate, n_fft=_N_FFT, tuning=0.0)


def key_of_chroma(chroma: np.ndarray) -> Key | None:
    """Return the key whose profile correlates best with `chroma` [12], or None where no key stands out.

    Examples
    --------
    >>> key_of_chroma(np.zeros(12)) is None
    True
    """
    heard = heard_in_chroma(chroma)
    return heard.key if heard is not None and heard.clear else None


def heard_in_chroma(chroma: np.ndarray) -> HeardKey | None:
    """What key `chroma` [12] is heard in, clear or not; None where it says nothing at all.

    Examples
    --------
    >>> heard_in_chroma(np.array([5, 0, 3, 0, 4, 4, 0, 5, 0, 3, 0, 4])).key.words
    'C major'
    """
    chroma = np.asarray(chroma, float)
    if not np.isfinite(chroma).all() or np.ptp(chroma) <= 0:
        return None
    keys, profiles = _profiles()
    fits = profiles @ _unit(chroma)
    second, first = np.argsort(fits)[-2:]
    clear = fits[first] >= _CLEAR_FIT and fits[first] - fits[second] >= _CLEAR_LEAD
    shares = np.exp((fits - fits[first]) / _FIT_SHARE)
    return HeardKey(keys[first], float(1 / shares.sum()), bool(clear), fits)


def find_key(samples: np.ndarray, sample_rate: int) -> Key | None:
    """Return the key of `samples` [n] or [n, C], or None for drums, noise, silence and ambiguous harmony.

    Examples
    --------
    >>> find_key(np.zeros(64_000, np.float32), 32_000) is None
    True
    """
    heard = hear_key(samples, sample_rate)
    return heard.key if heard is not None and heard.clear else None


def hear_key(samples: np.ndarray, sample_rate: int) -> HeardKey | None:
    """What key `samples` [n] or [n, C] are heard in, clear or not; None for silence and under half a second.

    Examples
    --------
    >>> chord = sum(np.sin(2 * np.pi * hz * np.arange(64_000) / 32_000) for hz in (220.0, 261.6, 329.6))
    >>> hear_key(chord, 32_000).key.words
    'A minor'
    """
    import librosa

    mono = np.asarray(samples, np.float32)
    mono = mono.mean(axis=1) if mono.ndim == 2 else mono
    if len(mono) < sample_rate // 2 or not (loudest := np.abs(mono).max()) > 1e-4:
        return None
    if loudest > _LOUDEST:  # squares of it would be none
        mono = mono / loudest
    magnitudes = np.abs(librosa.stft(mono, n_fft=_N_FFT, hop_length=_N_FFT // 2))
    chroma = _filters(sample_rate) @ magnitudes**2
    return heard_in_chroma(np.sqrt(chroma).sum(axis=1))
