"""The choice of bars: lengths that fit, and loops whose last bar leads into the first."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from looper.beats import constraints, spans
from looper.beats.constraints import Constraints
from looper.beats.features import extract_features
from looper.beats.grid import fit_grid
from looper.beats.tempo_map import straight
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


def found_spans(clip: np.ndarray, beats: int) -> dict[float, spans.Span]:
    """Every span of `beats` beats at 120 BPM of a clip, by its start."""
    features = extract_features(clip, RATE)
    grid = straight(0.5, 0.0, len(clip) / RATE)
    return {round(span.start, 2): span for span in spans.spans(features, grid, spans.Lines(1, 4, 4), beats)}


def clicking(times: list[float], seconds: float) -> np.ndarray:
    """Bursts of noise at known seconds over a soft hum."""
    clip = 0.01 * np.sin(2 * np.pi * 110 * np.arange(round(seconds * RATE)) / RATE)
    burst = np.random.default_rng(0).standard_normal(1600) * np.exp(-np.arange(1600) / 300) * 0.3
    for time in times:
        at = round(time * RATE)
        clip[at : at + len(burst)] += burst
    return clip


def test_a_cut_right_after_an_attack_is_not_quiet_and_costs() -> None:
    on_beats = [0.5 * k for k in range(16)]
    plain = found_spans(clicking(on_beats, 8.2), 4)
    early = found_spans(clicking([*on_beats, 0.965, 2.965], 8.2), 4)
    assert plain[1.0].quiet > 0.9 and early[1.0].quiet < 0.5
    assert early[5.0].quiet > 0.9
    assert plain[1.0].score - early[1.0].score > 0.1


def test_ends_that_sound_alike_are_liked_and_a_change_of_music_is_not() -> None:
    t = np.arange(round(8.2 * RATE)) / RATE
    rising = np.where(t < 4, np.sin(2 * np.pi * 220 * t), np.sin(2 * np.pi * 3000 * t)) * 0.2
    found = found_spans(rising, 4)
    assert found[1.0].likeness > 0.9 and found[5.0].likeness > 0.9
    assert found[3.0].likeness < 0.5
    assert found[1.0].score > found[3.0].score + 0.4


def test_a_louder_end_of_the_same_music_is_alike_all_the_same() -> None:
    t = np.arange(round(8.2 * RATE)) / RATE
    beat = clicking([0.5 * k for k in range(16)], 8.2) * np.where(t < 3, 0.1, 1.0)
    assert found_spans(beat, 4)[2.0].likeness > 0.6


def test_where_neither_end_has_music_around_it_nothing_is_said_of_likeness() -> None:
    assert found_spans(clicking([0.0, 0.5], 2.0), 4)[0.0].likeness == 0.0


def test_where_no_beat_fits_one_is_offered_all_the_same() -> None:
    assert spans.beat_counts(0.1, 0.5, Constraints(120)) == ([], [1])
