import numpy as np
import pytest

from looper.model.beat_clock import FEATURES, clock_features, frames_per_beat


@pytest.mark.parametrize("bpm", [40, 41.7, 61.3, 93.7, 120, 127.003, 150, 151, 174, 240, 299.9, 300])
def test_every_tempo_has_an_octave_in_range_within_two_and_a_half_per_cent(bpm):
    period = frames_per_beat(bpm)
    assert 20 <= period <= 40
    played = 3000 / period
    assert min(abs(played / (bpm * 2.0**octave) - 1) for octave in range(-3, 4)) <= 0.0251


def test_the_asked_octave_is_kept_where_it_can_be_played():
    assert [frames_per_beat(bpm) for bpm in (75, 100, 120, 150)] == [40, 30, 25, 20]


@pytest.mark.parametrize("period", [20, 23, 25, 40])
@pytest.mark.parametrize("beats_per_bar", [3, 4])
def test_the_slot_repeats_every_bar_and_the_count_restarts_on_it(period, beats_per_bar):
    bar = period * beats_per_bar
    features = clock_features(4 * bar, period, beats_per_bar)
    assert features.shape == (4 * bar, FEATURES) and features.dtype == np.float32
    np.testing.assert_array_equal(features[:bar, :36], features[bar : 2 * bar, :36])
    downbeats = np.flatnonzero(features[:, 0] * features[:, 16])
    np.testing.assert_array_equal(downbeats, np.arange(4) * bar)


def test_a_start_inside_the_bar_is_the_same_clock_later():
    np.testing.assert_allclose(
        clock_features(200, 25, start_beat=2)[:, :36], clock_features(250, 25)[50:, :36], atol=1e-6
    )
