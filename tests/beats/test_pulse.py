"""Where the beat is looked for first, and that it is followed from there."""

import numpy as np
import pytest

from looper.beats.constraints import Constraints
from looper.beats.pulse import excerpt, find_pulse
from testkit.clicks import blank, clicks
from tests.beats.test_tempo_map import drifting


@pytest.mark.parametrize("seconds", [2.0, 20.0, 25.0])
def test_a_recording_up_to_a_quarter_longer_than_an_excerpt_is_read_whole(seconds):
    features = blank(seconds)
    assert excerpt(features) == (features, 0.0)


@pytest.mark.parametrize(("busy", "seconds"), [(5.0, 30.0), (0.0, 25.5), (40.0, 60.0), (11.235, 37.0)])
def test_of_a_longer_one_the_twenty_seconds_with_most_onsets_are_taken(busy, seconds):
    onset = np.full(round(seconds * 200) + 1, 0.1)
    onset[round(busy * 200) : round(busy * 200) + 4000] = 1.0
    peaks = {"peak_times": np.array([busy + 0.5, busy + 20.5]), "peak_weights": np.array([1.0, 2.0])}
    part, start = excerpt(blank(seconds, onset=onset, **peaks))
    assert (start, part.duration) == (pytest.approx(busy), pytest.approx(20.0))
    assert part.onset.tolist() == [1.0] * 4000
    assert part.peak_times == pytest.approx([0.5])


def test_the_beat_of_an_excerpt_that_begins_between_beats_is_that_of_the_recording():
    beats = np.arange(0.2, 29.6, 0.6)
    busy = np.arange(8.9, 28.1, 0.6)
    features = clicks(np.r_[beats, busy], 30.0)
    _, start = excerpt(features)
    assert abs((2 * start - 0.2 - 0.3) % 0.6 - 0.3) > 0.1, (
        "counted from the wrong side it would be off the beat"
    )
    pulse, clarity = find_pulse(features, Constraints(98))
    place = pulse.position(beats)
    assert np.abs(place - np.round(place)).max() < 0.03 and pulse.period == pytest.approx(0.6, rel=1e-3)
    assert clarity > 5


def test_of_several_places_in_the_beat_the_one_where_most_begins_is_followed():
    beats = np.arange(0.2, 11.6, 0.6)
    pulse, _ = find_pulse(clicks(np.r_[beats, beats, beats + 0.4], 12.0), Constraints(100))
    place = pulse.position(beats)
    assert np.abs(place - np.round(place)).max() < 0.03


def test_a_pulse_that_drifts_is_followed_from_the_excerpt_in_which_it_was_found_to_both_ends():
    beats = drifting(36.0, 0.04)
    late = beats[beats > 16]  # twice as loud, and with off-beats
    features = clicks(np.r_[beats, late, late + 0.17], 36.0)
    assert excerpt(features)[1] > 15
    pulse, _ = find_pulse(features, Constraints(123))
    place = pulse.position(beats)
    assert len(pulse.times) > 2
    assert np.abs(place - np.round(place)).max() < 0.03 and (np.diff(np.round(place)) == 1).all()
