"""The period near a target tempo and where in it the beats fall, on clicks whose every time is known."""

import numpy as np
import pytest

from looper.beats.constraints import Constraints
from looper.beats.features import Features, extract_features
from looper.beats.pulse import find_pulse
from looper.beats.tempo import best_periods, find_period, fit_line, period_scores, phases, refine
from testkit.clicks import RATE, clicks


def steady(bpm: float, first: float, seconds: float = 10.0) -> Features:
    return clicks(np.arange(first, seconds - 0.1, 60 / bpm), seconds)


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [61.3, 93.7, 120.0, 174.0])
@pytest.mark.parametrize("off", [-0.06, 0.0, 0.06])
def test_a_period_is_found_to_a_few_hundredths_of_a_percent_wherever_the_target_is(bpm, off):
    period, clarity = find_period(steady(bpm, 0.21), 60 / bpm * (1 + off), 4)
    assert period == pytest.approx(60 / bpm, rel=5e-4)
    assert clarity > 5


def test_noise_has_no_clear_period():
    noise = np.random.default_rng(1).standard_normal(8 * RATE).astype(np.float32) * 0.1
    assert find_period(extract_features(noise, RATE), 0.5, 4)[1] < 4.5


@pytest.mark.parametrize("first", [0.1, 0.25, 0.4])
def test_the_strongest_phase_is_where_the_clicks_are(first):
    found = phases(steady(120, first), 0.5)
    assert found[0].weight == max(pulse.weight for pulse in found) == pytest.approx(1.0)
    assert abs((found[0].phase - first + 0.25) % 0.5 - 0.25) < 0.012
    assert all(pulse.period == 0.5 for pulse in found)


def test_without_onsets_there_is_one_phase_of_no_weight():
    (alone,) = phases(extract_features(np.zeros(4 * RATE, np.float32), RATE), 0.5)
    assert (alone.phase, alone.weight) == (0.0, 0.0)


@pytest.mark.parametrize("wrong", [-0.003, 0.003])
def test_a_line_through_the_onsets_mends_period_and_offset(wrong):
    period, offsets, share = fit_line(steady(100, 0.3), 0.6 * (1 + wrong), np.array([0.29]))
    assert period == pytest.approx(0.6, rel=2e-4)
    assert offsets[0] == pytest.approx(0.3, abs=0.006)
    assert share > 0.95


def test_late_off_beats_get_an_offset_of_their_own_and_do_not_pull_the_beat():
    beats = np.arange(0.2, 11.8, 0.6)
    _, offsets, share = fit_line(clicks(np.r_[beats, beats + 0.4], 13.0), 0.6, np.array([0.2, 0.6]))
    assert offsets == pytest.approx([0.2, 0.6], abs=0.008) and share > 0.95
    _, alone, share = fit_line(clicks(np.r_[beats, beats + 0.4], 13.0), 0.6, np.array([0.2]))
    assert alone == pytest.approx([0.2], abs=0.008) and share < 0.7


def test_fewer_than_three_onsets_leave_the_line_as_it_was():
    period, offsets, share = fit_line(clicks(np.array([1.0]), 4.0), 0.5, np.array([0.1]))
    assert (period, offsets.tolist(), share) == (0.5, [0.1], 0.0)


@pytest.mark.parametrize("off", [-0.015, 0.0, 0.015])
def test_a_known_beat_is_placed_exactly_among_its_subdivisions(off):
    beats = np.arange(0.3, 9.5, 0.5)
    straight = clicks(np.r_[beats, beats + 0.25], 10.0)
    triplets = clicks(np.r_[beats, beats + 0.5 / 3, beats + 1.0 / 3], 10.0)
    for features in (straight, triplets):
        assert refine(features, 0.5, 0.3 + off) == pytest.approx(0.3, abs=0.006)


def test_a_beat_far_from_every_onset_stays():
    assert refine(clicks(np.array([1.04]), 8.0), 0.5, 0.35) == 0.35


def test_the_target_is_preferred_between_equal_periods_and_maxima_come_best_first():
    periods, scores = period_scores(steady(120, 0.2), 0.5, 4)
    assert periods[0] == pytest.approx(0.5 * 0.925, rel=1e-6) and periods[-1] == pytest.approx(
        0.5 * 1.075, rel=2e-3
    )
    assert best_periods(periods, scores, 1)[0] == pytest.approx(0.5, rel=2e-3)
    peaks = best_periods(np.arange(7.0), np.array([0, 3, 1, 5, 1, 4, 4.0]), 3)
    assert peaks == [3.0, 5.0, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize("centre", [3.0, 20.0])
def test_a_pulse_is_found_in_the_busiest_stretch_and_followed_everywhere(centre):
    features = clicks(np.r_[np.arange(centre, centre + 20, 0.5), np.arange(0.5, 39.5, 0.5)], 40.0)
    pulse, _ = find_pulse(features, Constraints(118))
    for beat in np.arange(0.5, 39.5, 0.5):
        assert abs(float(pulse.position(np.array(beat))) % 1 + 0.5) % 1 == pytest.approx(0.5, abs=0.03)
