"""The choice of bars: lengths that fit, and loops whose last bar leads into the first."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from looper.beats import constraints, spans
from looper.beats.constraints import Constraints
from looper.beats.grid import fit_grid
from tests.beats.test_grid import RATE, band, even

BAR = 2.0  # seconds of 4/4 at 120


def swelling(thin_bars: int, bars: int) -> np.ndarray:
    """A band on bar lines; in its first bars only what lies above 2 kHz is left."""
    clip = band(even(120, 0.0, bars * BAR), 4, bars * BAR)
    end = round(thin_bars * BAR * RATE)
    spectrum = np.fft.rfft(clip[:end])
    spectrum[: round(2000 * end / RATE)] = 0
    return np.concatenate([np.fft.irfft(spectrum, end), clip[end:]])


def jumps(clip: np.ndarray, beats: int) -> dict[int, float]:
    """Difference of the last bar from the first of each candidate, by the bar it starts on."""
    grid = fit_grid(clip, RATE, 120, beats=beats, downbeat=0.0)
    return {round(span.start / BAR): span.jump_db for span in grid.spans if span.beats == beats}


def test_a_loop_from_thin_to_full_jumps_and_one_within_the_full_band_does_not() -> None:
    found = jumps(swelling(1, 6), 8)
    assert found[0] > 12
    assert max(found[start] for start in (1, 2, 3)) < 6


def test_the_bars_that_join_are_chosen() -> None:
    grid = fit_grid(swelling(1, 6), RATE, 120, beats=16, downbeat=0.0)
    assert round(grid.loop_start / BAR) >= 1


def test_a_loop_does_not_begin_with_the_recording_where_a_later_bar_is_as_good() -> None:
    grid = fit_grid(band(even(120, 0.0, 6 * BAR), 4, 6 * BAR), RATE, 120, beats=16, downbeat=0.0)
    assert round(grid.loop_start / BAR) >= 1
    whole = fit_grid(band(even(120, 0.0, 4 * BAR), 4, 4 * BAR), RATE, 120, beats=16, downbeat=0.0)
    assert whole.beats == 16 and whole.loop_start < 0.05


def test_a_loop_of_one_bar_has_nothing_to_jump_from() -> None:
    assert set(jumps(swelling(1, 4), 4).values()) == {0.0}


def test_the_jump_does_not_depend_on_gain() -> None:
    loud, quiet = jumps(swelling(1, 6), 8), jumps(0.01 * swelling(1, 6), 8)
    assert loud.keys() == quiet.keys()
    np.testing.assert_allclose([*loud.values()], [*quiet.values()], atol=0.05)


@pytest.mark.parametrize(
    ("seconds", "metre", "limit", "whole"),
    [(9.0, 4, None, [16, 8, 4]), (9.0, 4, 4.0, [8, 4]), (9.0, 3, None, [12, 6, 3]), (1.9, 4, None, [])],
)
def test_lengths_are_powers_of_two_of_bars_that_fit(
    seconds: float, metre: int, limit: float | None, whole: list[int]
) -> None:
    wanted = Constraints(120, metre, max_seconds=limit)
    assert spans.beat_counts(seconds, 0.5, wanted)[0] == whole


@pytest.mark.parametrize("module", [constraints, spans])
def test_the_examples_in_the_documentation_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted and not result.failed
