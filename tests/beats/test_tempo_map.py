"""Beats to seconds and back, and a pulse that drifts followed through a recording."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looper.beats.tempo_map import TempoMap, _track, follow, straight, straighten
from testkit.clicks import blank, clicks


@given(st.lists(st.floats(0.2, 2.0), min_size=1, max_size=20), st.floats(-5, 5), st.floats(-40, 60))
def test_a_map_goes_there_and_back_also_beyond_its_knots(gaps, first, beat):
    tempo_map = TempoMap(np.arange(len(gaps) + 1.0), first + np.r_[0.0, np.cumsum(gaps)])
    assert float(tempo_map.position(tempo_map.time(np.array(beat)))) == pytest.approx(beat, abs=1e-6)
    assert tempo_map.period == pytest.approx(np.mean(gaps))
    assert tempo_map.drift == pytest.approx(max(gaps) / min(gaps) - 1)


def test_beyond_its_knots_a_map_keeps_the_tempo_of_its_ends():
    tempo_map = TempoMap(np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.5]))
    assert tempo_map.time(np.array([-2.0, 4.0])).tolist() == [-1.0, 3.5]
    assert tempo_map.position(np.array([0.0, 3.0])).tolist() == [-1.0, 3.0]


def test_shifting_moves_the_beat_that_counts_as_nought():
    moved = straight(0.5, 0.2, 10.0).shifted(3)
    assert float(moved.time(np.array(0.0))) == pytest.approx(1.7)
    assert float(moved.position(np.array(0.2))) == pytest.approx(-3)


@pytest.mark.parametrize("duration", [0.1, 10.0])
def test_a_straight_map_has_its_period_and_phase_whatever_the_length(duration):
    tempo_map = straight(0.6, 0.25, duration)
    assert (tempo_map.period, tempo_map.drift) == (pytest.approx(0.6), pytest.approx(0, abs=1e-12))
    assert float(tempo_map.time(np.array(2.0))) == pytest.approx(1.45)


def drifting(seconds: float, share: float) -> np.ndarray:
    """Beats around 120 BPM whose tempo rises by `share` over the time."""
    times, now = [], 0.3
    while now < seconds - 0.2:
        times.append(now)
        now += 0.5 / (1 + share * now / seconds)
    return np.array(times)


def followed(features, beats):
    middle, period = float(beats[len(beats) // 2]), 0.5 / 1.015
    return follow(features, period, middle % period, middle)


def test_a_drift_is_followed_to_a_few_milliseconds_and_its_size_is_told():
    beats = drifting(30.0, 0.03)
    tempo_map = followed(clicks(beats, 30.0), beats)
    assert len(tempo_map.times) > 2 and 0.015 < tempo_map.drift < 0.06
    place = tempo_map.position(beats)
    assert np.abs(place - np.round(place)).max() * 0.5 < 0.012
    assert (np.diff(np.round(place)) == 1).all()


@pytest.mark.parametrize("seconds", [10.0, 40.0])
def test_a_steady_tempo_stays_a_straight_line(seconds):
    tempo_map = follow(clicks(np.arange(0.3, seconds - 0.2, 0.5), seconds), 0.5, 0.3, seconds / 2)
    assert len(tempo_map.times) == 2
    assert tempo_map.period == pytest.approx(0.5, rel=1e-3)


def test_straightened_features_have_their_onsets_evenly():
    beats = drifting(30.0, 0.03)
    features = clicks(beats, 30.0)
    tempo_map = followed(features, beats)
    even = straighten(features, tempo_map)
    place = even.peak_times / tempo_map.period
    off = place - np.round(place - np.median(place % 1)) - np.median(place % 1)
    assert np.abs(off).max() * tempo_map.period < 0.02
    assert even.duration == pytest.approx(float(tempo_map.even_time(np.array(30.0))))
    assert even.onset.shape[-1] == pytest.approx(even.duration * even.rate, abs=2)


def test_a_map_bends_at_its_knots_and_nowhere_else():
    bent = TempoMap(np.array([1.0, 2.0, 4.0, 5.0, 7.0]), np.array([3.0, 5.0, 6.0, 6.5, 9.5]))
    there, when = (
        [-1.0, 0.0, 1.0, 1.5, 3.0, 4.5, 6.0, 7.0, 9.0],
        [-1.0, 1.0, 3.0, 4.0, 5.5, 6.25, 8.0, 9.5, 12.5],
    )
    assert bent.time(np.array(there)).tolist() == when
    assert bent.position(np.array(when)).tolist() == there
    assert bent.period == pytest.approx(6.5 / 6) and bent.drift == pytest.approx(2 / 0.5 - 1)
    assert bent.even_time(np.array([0.0, 3.0, 9.5])) == pytest.approx(np.array([0, 1.5, 7.5]) * 6.5 / 6)


def test_a_straight_map_reaches_from_its_first_beat_over_the_recording():
    assert straight(0.5, 0.2, 10.0).times.tolist() == [0.2, 10.2]
    assert straight(0.5, 0.2, 10.0).positions.tolist() == [0.0, 20.0]
    assert straight(0.6, 0.25, 0.1).positions.tolist() == [0.0, 1.0], "and over one beat where it is shorter"


def at(times, seconds=10.0, weights=None):
    """Features of onsets at `times` alone."""
    weights = np.ones(len(times)) if weights is None else weights
    return blank(seconds, peak_times=np.asarray(times, float), peak_weights=np.asarray(weights, float))


def test_an_onset_beside_a_beat_draws_the_beat_and_the_tempo_towards_it():
    """A quarter of the way and four hundredths, the less the further off it is: (1 - (gap / 50 ms)²)²."""
    beats = np.arange(1.0, 9.6, 0.5)
    beats[1] += 0.01
    near = 0.96**2
    found = _track(at(beats), 0.5, 1.0, 2.2)
    first = 1.5 + 0.25 * near * 0.01
    second = first + 0.5 + 0.04 * near * 0.01
    gap = 2.0 - second
    near = (1 - (gap / 0.05) ** 2) ** 2
    assert found[:2] == pytest.approx([first, second + 0.25 * near * gap], abs=1e-9)
    assert len(found) == 3 and found[-1] > 2.2


def test_going_back_is_going_on_in_a_mirror():
    beats = np.cumsum(np.r_[1.0, 0.5 + 0.006 * np.sin(np.arange(16))])
    mirrored = 10 - beats[::-1]
    on = _track(at(beats), 0.5, 2.0, 9.0)
    back = _track(at(mirrored), 0.5, 8.0, 1.0)
    assert back == pytest.approx(10 - np.array(on), abs=1e-9)


@pytest.mark.parametrize(("weight", "trust"), [(0.5, 0.5), (1.0, 1.0), (3.0, 1.0)])
def test_an_onset_is_trusted_as_far_as_it_is_strong(weight, trust):
    """Against the strongest quarter of all."""
    beats = [1.0, 1.5, *np.arange(6.0, 9.0, 0.5)]
    features = at([b + 0.01 * (b == 1.5) for b in beats], weights=[1.0, weight / 0.96**2, *[1.0] * 6])
    assert _track(features, 0.5, 1.0, 1.4) == pytest.approx([1.5 + 0.25 * trust * 0.01], abs=1e-8)


def test_the_strongest_quarter_of_the_onsets_is_what_they_are_measured_by():
    strong = [0.1 * k for k in range(1, 10)]  # the third quartile is 0.7
    features = at([1.51, *np.arange(6.0, 9.6, 0.5)], weights=[strong[0], *strong[1:]])
    assert _track(features, 0.5, 1.0, 1.4) == pytest.approx(
        [1.5 + 0.25 * 0.1 * 0.96**2 / 0.7 * 0.01], abs=1e-8
    )


@pytest.mark.parametrize(
    ("period", "gap", "seen"),
    [(0.5, 0.045, True), (0.5, 0.051, False), (0.3, 0.034, True), (0.3, 0.037, False)],
)
def test_an_onset_further_off_than_a_gate_says_nothing(period, gap, seen):
    """50 ms, or 12 % of a fast beat."""
    (found,) = _track(at([1.0 + period + gap], weights=[100.0]), period, 1.0, 1.1)
    assert (found > 1.0 + period + 1e-6) == seen
    (found,) = _track(at([1.0 + period - gap], weights=[100.0]), period, 1.0, 1.1)
    assert (found < 1.0 + period - 1e-6) == seen


@pytest.mark.parametrize(
    ("share", "behind"), [(0.028, 0.0), (-0.028, 0.0), (0.033, 0.0047), (-0.033, -0.0047)]
)
def test_a_tempo_is_learnt_up_to_three_hundredths_from_the_one_that_was_found(share, behind):
    """Beyond, each onset only draws its own beat along, and the beats stay behind it."""
    onsets = 1.0 + 0.5 * np.cumsum(1 + share * np.minimum(1, np.arange(130) / 80))
    found = np.array(_track(at(onsets, 80.0), 0.5, 1.0, onsets[-1]))
    assert (onsets[110:125] - found[110:125]) == pytest.approx(behind, abs=1e-3)


def smooth(beats):
    """As little bent as the beats allow: the sum of squares of what is moved and of 30 bends, at its least."""
    bend = np.diff(np.eye(len(beats)), 2, axis=0)
    return np.linalg.solve(np.eye(len(beats)) + 30 * bend.T @ bend, beats)


@pytest.mark.parametrize("number", [4, 31, 55])
def test_the_beats_that_were_walked_are_smoothed_and_counted_from_the_one_that_was_found(number):
    beats = drifting(30.0, 0.03)
    features, phase = at(beats, 30.0), float(beats[number])
    followed = follow(features, 0.4926, phase, 15.0)
    middle = phase + 0.4926 * round((15.0 - phase) / 0.4926)
    back, on = (_track(features, 0.4926, middle, end) for end in (0.0, 30.0))
    assert followed.times == pytest.approx(smooth(np.array([*back[::-1], middle, *on])), abs=1e-6)
    assert followed.positions[len(back)] == round((middle - phase) / 0.4926)
    assert np.diff(followed.positions).tolist() == [1.0] * (len(followed.positions) - 1)
    assert float(followed.position(np.array(phase))) == pytest.approx(0, abs=0.1)


def test_a_pulse_that_was_found_outside_the_recording_is_followed_nowhere():
    assert follow(at(drifting(30.0, 0.03), 30.0), 0.5, 0.3, 45.0).times.tolist() == [0.3, 30.3]


@pytest.mark.parametrize(("seconds", "mended"), [(24.9, False), (25.0, True), (40.0, True)])
def test_a_long_steady_recording_corrects_the_period_and_a_short_one_does_not(seconds, mended):
    beats = np.arange(0.3, seconds, 0.5002)
    found = follow(at(beats, seconds), 0.5, 0.3, seconds / 2)
    assert len(found.times) == 2
    assert (found.period == pytest.approx(0.5002, rel=1e-5)) if mended else (found.period == 0.5)


@pytest.mark.parametrize(("bend", "curved"), [(0.008, False), (0.014, True)])
def test_beats_that_a_constant_tempo_misses_by_a_hundredth_of_a_second_are_a_curve(bend, curved):
    place = np.linspace(-1, 1, 60)
    beats = 0.3 + 0.5 * np.arange(60) + 1.5 * bend * (place**2 - 1 / 3)  # off a line by `bend` at the ends
    found = follow(at(beats, 30.0), 0.5, 0.3, 15.0)
    assert (len(found.times) > 2) == curved


@pytest.mark.parametrize(("onsets", "enough"), [(7, False), (8, True)])
def test_fewer_than_eight_onsets_correct_no_period(onsets, enough):
    found = follow(at(0.3 + 5.002 * np.arange(onsets), 40.0), 0.5, 0.3, 20.0)
    assert (found.period > 0.50005) == enough and (found.period == 0.5) == (not enough)


@pytest.mark.parametrize(("period", "enough"), [(5.2, False), (5.0, True)])
def test_nor_do_fewer_than_eight_beats(period, enough):
    """Those just before and after the recording among them."""
    onsets = 0.3 + (period + 0.004) * np.arange(6)
    found = follow(at(np.sort(np.r_[onsets, onsets]), 25.9), period, 0.3, 13.0)
    assert (found.period > period + 0.0005) == enough and (found.period == period) == (not enough)


def test_straightening_reads_each_feature_where_its_beat_fell():
    seconds = np.arange(601) / 200
    slow = np.arange(76) / 25
    features = blank(
        3.0,
        onset=seconds,
        rise=np.tile(seconds, (8, 1)),
        mel=2 * np.tile(seconds, (8, 1)),
        chroma=np.tile(slow, (24, 1)),
        timbre=3 * np.tile(slow, (16, 1)),
        peak_times=np.array([0.5, 2.5]),
        peak_weights=np.array([1.0, 2.0]),
    )
    twice_as_fast = TempoMap(np.array([-1.0, 1.0, 3.0]), np.array([0.0, 2.0, 3.0]))  # 0.75 s a beat
    even = straighten(features, twice_as_fast)
    assert even.duration == pytest.approx(3.0)
    where = np.arange(601) / 200
    heard = np.where(where < 1.5, where / 0.75, 2 + (where - 1.5) / 1.5)
    assert even.onset == pytest.approx(heard)
    for picture, scale in ((even.rise, 1), (even.mel, 2)):
        assert picture == pytest.approx(np.tile(scale * heard, (8, 1)))
    assert even.chroma == pytest.approx(np.tile(heard[::8], (24, 1)))
    assert even.timbre == pytest.approx(np.tile(3 * heard[::8], (16, 1)))
    assert even.peak_times == pytest.approx([0.375, 2.25]) and even.peak_weights.tolist() == [1.0, 2.0]


def test_the_walk_goes_on_to_the_first_beat_at_or_beyond_the_end():
    silence = blank(10.0)
    assert _track(silence, 0.5, 1.0, 2.0) == [1.5, 2.0]
    assert _track(silence, 0.5, 1.0, 2.1) == [1.5, 2.0, 2.5]
    assert _track(silence, 0.5, 1.0, 0.0) == [0.5, 0.0]
    assert _track(silence, 0.5, 1.0, 1.0) == []


def test_straightened_features_end_with_the_last_frame_inside_the_recording():
    even = straighten(blank(2.0024), straight(0.5, 0.0, 2.0024))
    assert (even.onset.shape, even.chroma.shape, even.mel.shape) == ((401,), (24, 51), (8, 401))
