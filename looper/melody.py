"""A recording whose tune loops shall follow, with a model that takes melodies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from looper.runtime.validation import FieldError, whole
from looper.samples import is_silent, mono

SHORTEST_SECONDS = 1.0
HIGHEST_RATE = 400_000  # Hz
NEEDS_ANOTHER_MODEL = (
    "cannot be followed by {}, which takes text alone: run `looper weights get melody` and use --model melody, or leave "
    "the melody out"
)


@dataclass(frozen=True, eq=False)  # arrays have no one equality
class Melody:
    """A tune, to be followed from its first sample on.

    MusicGen hears the strongest pitch class of each eighth of a second, in up to 30 s; a shorter melody is repeated.
    A mix without drums and bass, or one voice of it, is followed best; it should have the asked tempo.

    Parameters
    ----------
    samples : np.ndarray
        [T] or [T, C], floating point or integer; mixed to mono.
    sample_rate : int
        Hz.

    Raises
    ------
    FieldError
        If it lasts less than a second, or is silent.
    ValueError
        If the samples are none.

    Examples
    --------
    >>> melody = Melody(np.sin(np.arange(96_000) / 12), 48_000)
    >>> melody.seconds, melody.at_rate(32_000).shape
    (2.0, (64000,))
    >>> Melody(np.zeros(100), 48_000)
    Traceback (most recent call last):
    ...
    looper.runtime.validation.FieldError: melody must last 1 s or longer, a phrase of a few bars at best, got 0.00 s
    """

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        rate = whole("sample_rate", self.sample_rate)
        if not 0 < rate <= HIGHEST_RATE:
            raise FieldError("sample_rate", f"must be between 1 and {HIGHEST_RATE}, got {rate}")
        object.__setattr__(self, "sample_rate", rate)
        object.__setattr__(self, "samples", mono(self.samples))
        if self.seconds < SHORTEST_SECONDS:
            raise FieldError(
                "melody",
                f"must last {SHORTEST_SECONDS:g} s or longer, a phrase of a few bars at best, got {self.seconds:.2f} s",
            )
        if is_silent(self.samples):
            raise FieldError(
                "melody", "must not be silent: there is no tune to follow; pass another recording"
            )

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.sample_rate

    @property
    def identity(self) -> str:
        """What tells it from others."""
        return hashlib.sha256(self.samples.tobytes()).hexdigest()[:16]

    def at_rate(self, sample_rate: int) -> np.ndarray:
        """Samples [T] in mono at another rate, float32."""
        from scipy.signal import resample_poly

        if sample_rate == self.sample_rate:
            return self.samples
        ratio = Fraction(sample_rate, self.sample_rate)
        return np.asarray(resample_poly(self.samples, ratio.numerator, ratio.denominator), np.float32)
