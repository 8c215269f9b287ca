"""How long a loop may be: beats from seconds, and bars that were asked for by name."""

from __future__ import annotations

import math

from looper.runtime.validation import FieldError, positive, shown, whole

ODD_BARS = (3, 6)  # beside the powers of two
MOST_BARS = 1024


def loop_beats(bpm: float, max_seconds: float, beats_per_bar: int = 4) -> int:
    """Beats of the longest loop that fits `max_seconds`.

    The largest power-of-two number of bars; where no whole bar fits, two beats or one.

    Raises
    ------
    ValueError
        If not even one beat fits, or a number is not finite or not above 0.

    Examples
    --------
    >>> loop_beats(120, 8), loop_beats(119, 8), loop_beats(50, 3)
    (16, 8, 2)
    """
    beats_per_bar = whole("beats_per_bar", beats_per_bar)
    positive("beats_per_bar", beats_per_bar)
    beat = 60 / positive("bpm", bpm)
    if not math.isfinite(beat) or not math.isfinite(positive("max_seconds", max_seconds) / beat):
        raise FieldError("bpm", f"must be of music, got {bpm:g} for {max_seconds:g} s")
    # a hair of slack: 4 bars at 120 BPM are 8 s, and must fit 8 s in floating point too
    fitting = math.floor(max_seconds / beat + 1e-9)
    if fitting >= beats_per_bar:
        return beats_per_bar << int(math.log2(fitting // beats_per_bar))
    for beats in (2, 1):
        if fitting >= beats:
            return beats
    raise ValueError(
        f"not even one beat of {bpm:g} BPM ({beat:.2f} s) fits into {max_seconds:g} s; "
        f"raise max_duration to {math.ceil(beat)} or the bpm to {math.ceil(60 / max_seconds)}"
    )


def is_loop_length(bars: int) -> bool:
    """Whether loops may have so many bars.

    Examples
    --------
    >>> [bars for bars in range(20) if is_loop_length(bars)]
    [1, 2, 3, 4, 6, 8, 16]
    """
    return 1 <= bars <= MOST_BARS and (not bars & (bars - 1) or bars in ODD_BARS)


def check_bars(bars: object) -> int:
    """`bars` as an int, if that is a length a loop may have: a power of two, 3 or 6.

    Raises
    ------
    FieldError
        If it is not.

    Examples
    --------
    >>> check_bars(6)
    6
    """
    count = whole("bars", bars)
    if not is_loop_length(count):
        raise FieldError("bars", f"must be 1, 2, 4, 8 or another power of two, or 3 or 6, got {shown(count)}")
    return count


def check_bars_fit(bars: int, bpm: float, beats_per_bar: int, longest: float, most: float) -> None:
    """Complain where `bars` last longer than `longest` seconds, which may be raised to `most`.

    Raises
    ------
    FieldError
        With what would make room.

    Examples
    --------
    >>> check_bars_fit(3, 140, 4, longest=2, most=20)
    Traceback (most recent call last):
    ...
    looper.runtime.validation.FieldError: bars cannot be 3 in at most 2 s: they last 5.143 s at 140 BPM; \
ask for fewer, or allow 5.15 s
    """
    seconds = bars * beats_per_bar * 60 / bpm
    if seconds <= longest + 1e-9:
        return
    room = f"allow {math.ceil(20 * seconds - 1e-6) / 20:g} s" if seconds <= most else "choose a faster tempo"
    fewer = "ask for fewer, or " if bars > 1 else ""
    lasts = "it lasts" if bars == 1 else "they last"
    raise FieldError(
        "bars",
        f"cannot be {bars} in at most {longest:g} s: {lasts} {seconds:.4g} s at {bpm:g} BPM; {fewer}{room}",
    )
