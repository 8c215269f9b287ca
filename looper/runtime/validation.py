"""Checks of plain values from outside, said in the user's words."""

from __future__ import annotations

import math
import numbers

BPM_RANGE = (40, 300)
BEATS_PER_BAR_RANGE = (1, 16)


class FieldError(ValueError):
    """A field of a request that cannot be; entry points say it by their own name for the field.

    Attributes
    ----------
    field : str
        The field's name in Python.
    problem : str
        What it must be and is not: "must be between 40 and 300, got 12".
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, str]]:
        return type(self), (self.field, self.problem)

    def named(self, field: str) -> FieldError:
        """The same problem under another name, such as an option's."""
        return FieldError(field, self.problem)


def within(name: str, value: float, bounds: tuple[float, float]) -> None:
    """Raise `FieldError` unless `value` lies between the `bounds`, both allowed."""
    if not bounds[0] <= value <= bounds[1]:
        raise FieldError(name, f"must be between {bounds[0]} and {bounds[1]}, got {value:.12g}")


def whole(name: str, value: object) -> int:
    """`value` as an int; 4.0 and 1e3 count as whole, 2.5, NaN and "4" do not.

    Raises
    ------
    FieldError
        If `value` is not a whole number.
    """
    try:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer()
    except OverflowError:  # an int of hundreds of digits
        fits = False
    if not fits:
        raise FieldError(name, f"must be a whole number, got {shown(value)}")
    return int(float(value)) if isinstance(value, float) else int(value)  # type: ignore[call-overload]


def positive(name: str, value: object) -> float:
    """`value` as a finite float above 0.

    Raises
    ------
    FieldError
        If `value` is no such number.
    """
    number = finite(name, value)
    if number <= 0:
        raise FieldError(name, f"must be above 0, got {number:g}")
    return number


def shown(value: object) -> str:
    """`value` as it may stand in a message."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python does not print ints of thousands of digits
        return "a number of thousands of digits"


def finite(name: str, value: object) -> float:
    """`value` as a finite float.

    Raises
    ------
    FieldError
        If `value` is not a finite number.
    """
    try:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        fits = False
    if not fits:
        raise FieldError(name, f"must be a finite number, got {shown(value)}")
    return float(value)  # type: ignore[arg-type]


def checked_tempo(bpm: object) -> float:
    """`bpm` as a float, or a FieldError that names its bounds.

    Examples
    --------
    >>> checked_tempo(124)
    124.0
    """
    tempo = finite("bpm", bpm)
    within("bpm", tempo, BPM_RANGE)
    return tempo


def checked_metre(beats_per_bar: object) -> int:
    """`beats_per_bar` as an int, or a FieldError that names its bounds.

    Examples
    --------
    >>> checked_metre(3.0)
    3
    """
    metre = whole("beats_per_bar", beats_per_bar)
    within("beats_per_bar", metre, BEATS_PER_BAR_RANGE)
    return metre
