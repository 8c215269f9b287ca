"""What a loop must keep to, checked once, in the caller's words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looper.request import LONGEST_RECORDING
from looper.runtime.validation import checked_metre, checked_tempo

MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 400_000


@dataclass(frozen=True)
class Constraints:
    """What the grid and its loop must keep to.

    Attributes
    ----------
    target_bpm : float
        Beats per minute that were asked for, 40 to 300.
    beats_per_bar : int
        1 to 16.
    max_seconds : float or None
        The longest loop, at the target tempo.
    min_start : float
        Seconds before which the loop must not begin.
    beats : int or None
        Beats that the loop must have, where they fit.
    downbeat : float or None
        Seconds at which a bar line is known to be.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> Constraints(target_bpm=120).target_period
    0.5
    >>> Constraints(target_bpm=20)
    Traceback (most recent call last):
    ...
    looper.runtime.validation.FieldError: bpm must be between 40 and 300, got 20
    """

    target_bpm: float
    beats_per_bar: int = 4
    max_seconds: float | None = None
    min_start: float = 0.0
    beats: int | None = None
    downbeat: float | None = None

    def __post_init__(self) -> None:
        _check_tempo_and_metre(self)
        _check_lengths(self)

    @property
    def target_period(self) -> float:
        """Seconds per beat at the target tempo."""
        return 60.0 / self.target_bpm


def is_number(value: object) -> bool:
    """Whether a value is a real number and no truth value."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return is_number(value) and bool(np.isfinite(value))  # type: ignore[call-overload]


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer)


def _check_tempo_and_metre(c: Constraints) -> None:
    object.__setattr__(c, "target_bpm", checked_tempo(c.target_bpm))
    object.__setattr__(c, "beats_per_bar", checked_metre(c.beats_per_bar))


def _check_lengths(c: Constraints) -> None:
    if c.beats is not None and not _is_whole(c.beats):
        raise ValueError(f"beats must be a whole number, got {c.beats!r}")
    if c.beats is not None and c.beats < 1:
        raise ValueError(f"beats must be at least 1, got {c.beats}")
    if not (_is_finite(c.min_start) and c.min_start >= 0):
        raise ValueError(f"min_start must be 0 s or later, got {c.min_start}")
    if c.downbeat is not None and not _is_finite(c.downbeat):
        raise ValueError(f"downbeat must be a time in seconds, got {c.downbeat}")
    if c.max_seconds is not None and not (is_number(c.max_seconds) and 0 < c.max_seconds <= np.inf):
        raise ValueError(f"max_seconds must be above 0, got {c.max_seconds}: leave it out for no limit")
    if c.max_seconds is not None and c.max_seconds > LONGEST_RECORDING:  # an int may be too large for a float
        object.__setattr__(c, "max_seconds", None)


def check_rate(sample_rate: int) -> None:
    """Raise ValueError for a sample rate that nothing is listened to at."""
    if not is_number(sample_rate) or not MIN_RATE_HZ <= sample_rate <= MAX_RATE_HZ:
        raise ValueError(f"sample_rate must be between {MIN_RATE_HZ} and {MAX_RATE_HZ} Hz, got {sample_rate}")
