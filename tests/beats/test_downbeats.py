"""Bar lines chosen among hypotheses whose probabilities are known, against sums done by hand.

That the network is the fitted one is tested where it is fitted: `tests/training/test_downbeats.py`.
"""

import numpy as np
import pytest

from looper.beats import downbeats
from looper.beats.downbeats import DownbeatHypothesis, _holds, calibrated, choose, downbeat_hypotheses, known
from looper.beats.hypotheses import PER_BEAT, MetricalHypothesis


def lines(line: float, bar: float, probability: float = 0.5) -> DownbeatHypothesis:
    return DownbeatHypothesis(line, bar, 1.0, probability)


@pytest.fixture
def weights(tmp_path):
    yield tmp_path / "beats.npz"
    downbeats.use_weights()


@pytest.mark.parametrize(
    ("fine", "coarse", "held"),
    [
        ((0.1, 2.0), (0.1, 2.0), True),
        ((0.1, 2.0), (2.1, 4.0), True),
        ((2.1, 2.0), (0.1, 8.0), True),
        ((0.1, 4.0), (0.1, 2.0), False),  # every other line of the shorter bars is none
        ((0.1, 2.0), (1.1, 4.0), False),
        ((0.1, 2.0), (0.14, 2.0), True),
        ((0.1, 2.0), (0.16, 2.0), False),
        ((0.1, 2.0), (4.06, 4.0), True),
        ((0.1, 2.0), (4.04, 4.0), False),
        ((0.0, 2.0), (0.0, 1.8), True),  # bars of nine tenths are as long, to a slip of the tempo
        ((0.0, 2.0), (0.0, 1.79), False),
    ],
)
def test_lines_hold_those_of_longer_bars_that_fall_on_them_to_fifty_milliseconds(fine, coarse, held):
    assert _holds(lines(*fine), lines(*coarse)) == held


def test_of_one_hypothesis_its_lines_are_shown_and_cut_at():
    alone = lines(0.3, 2.0, 1.0)
    assert choose([alone]) == (alone, alone, 1.0)
    unlikely = [lines(0.0, 4.0, 0.003), lines(0.0, 2.0, 0.003)]
    assert choose(unlikely) == (unlikely[0], unlikely[0], 0.003)


def test_lines_are_shown_where_most_is_right_and_cut_where_a_bar_surely_begins():
    """Bars half as long hold the lines of both the long ones: two thirds right of either; of those the likelier begin one."""
    short, first, second = lines(0.0, 2.0, 0.40), lines(0.0, 4.0, 0.35), lines(2.0, 4.0, 0.25)
    assert choose([short, first, second]) == (short, first, pytest.approx(0.75))


@pytest.mark.parametrize(("long", "shown"), [(0.45, 4.0), (0.35, 2.0)])
def test_a_line_too_many_costs_as_one_too_few(long, shown):
    """Of the short bars a and of the long ones b and c: a + 2/3 (b + c) against b + 2/3 a."""
    found = [lines(0.0, 4.0, long), lines(0.0, 2.0, 0.2), lines(2.0, 4.0, 0.1)]
    assert choose(found)[0].bar == shown


def test_what_is_cut_at_is_among_what_is_shown():
    shown, cut, confidence = choose([lines(0.0, 4.0, 0.45), lines(0.0, 2.0, 0.3), lines(1.0, 2.0, 0.25)])
    assert (shown.bar, cut.bar, confidence) == (4.0, 4.0, pytest.approx(0.75))


@pytest.mark.parametrize(("longer", "cut"), [(0.0035, 4.0), (0.0045, 8.0)])
def test_bars_twice_as_long_must_be_worth_the_longer_wait(longer, cut):
    """A thousandth for each second."""
    assert choose([lines(0.0, 4.0, 0.9), lines(0.0, 8.0, longer)])[1].bar == cut


@pytest.mark.parametrize(("probability", "cut"), [(0.003, 0.5), (0.0031, 1.0)])
def test_what_is_as_good_as_impossible_is_not_weighed(probability, cut):
    assert choose([lines(0.0, 0.5, 0.9), lines(0.0, 1.0, probability)])[1].bar == cut


@pytest.mark.parametrize(("place", "shown"), [(39, 0.5), (40, 0.0)])
def test_the_forty_likeliest_are_weighed(place, shown):
    found = [lines(0.1 * k, 4.0, 0.02) for k in range(40)]
    found.insert(place, lines(0.5, 8.0, 0.02))  # speaks for the sixth
    assert choose(found)[0].line == pytest.approx(shown)


@pytest.mark.parametrize(
    ("near", "found"),
    [(1.03, 1.0), (0.95, 1.0), (9.06, 9.0), (1.069, 1.0), (0.931, 1.0), (1.071, 1.071), (0.5, 0.5)],
)
def test_a_line_that_is_known_is_moved_to_the_likeliest_one_within_seventy_milliseconds(near, found):
    line, _ = known(
        [lines(1.0, 2.0, 0.6), lines(1.5, 2.0, 0.3)] if near != 0.5 else [lines(1.0, 2.0, 0.6)], near, 2.0
    )
    assert (line.line, line.bar, line.level, line.probability) == (pytest.approx(found), 2.0, 1.0, 0.0)


def test_of_two_lines_near_the_one_that_is_known_the_likelier_counts():
    assert known([lines(1.0, 2.0, 0.4), lines(1.04, 2.0, 0.3)], 1.05, 2.0)[0].line == pytest.approx(1.0)


def test_a_known_line_is_twenty_times_as_likely_as_the_music_says():
    """By odds of the lines at its place, of bars of any length."""
    found = [lines(1.0, 2.0, 0.3), lines(0.0, 1.0, 0.2), lines(3.0, 4.0, 0.1), lines(1.5, 2.0, 0.4)]
    assert known(found, 1.0, 2.0)[1] == pytest.approx(20 * 0.6 / (1 + 19 * 0.6))
    assert known(found, 1.25, 2.0)[1] == 0.0
    assert known([lines(1.0, 2.0, 1.0)], 1.0, 2.0)[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("confidence", "lead_in", "logit"),
    [
        (0.8, 1.0, 0.5 * np.log(4) + 0.5),
        (0.8, 0.25, 0.5 * np.log(4) - 0.75 + 0.5),
        (0.5, 0.0, -1 + 0.5),
        (0.0, 1.0, 0.5 * np.log(1 / 999) + 0.5),  # nothing is surer than a thousandth
        (1.0, 1.0, 0.5 * np.log(999) + 0.5),
    ],
)
def test_confidence_is_calibrated_by_slope_lead_in_and_bias(weights, confidence, lead_in, logit):
    np.savez(weights, calibration=np.array([0.5, -1.0, 0.5]), mu=np.zeros((1, 2)))
    downbeats.use_weights(weights)
    assert calibrated(confidence, lead_in) == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)


def test_weights_that_would_run_code_are_refused(weights):
    np.savez(weights, calibration=np.array([print], dtype=object))
    downbeats.use_weights(weights)
    with pytest.raises(ValueError, match="allow_pickle"):
        calibrated(0.5, 1.0)


@pytest.mark.parametrize("metre", [1, 4, 16])
def test_every_beat_of_every_reading_is_weighed_and_told_by_its_time(metre):
    rng = np.random.default_rng(metre)
    readings = [
        MetricalHypothesis(
            level,
            0.5 * level,
            0.1,
            0.8,
            rng.random((count, PER_BEAT), np.float32),
            0.1 + 0.5 * level * np.arange(count),
        )
        for level, count in ((1.0, 20), (2.0, 3))
    ]
    found = downbeat_hypotheses(readings, metre)
    assert sorted((one.level, round(one.line, 6), one.bar) for one in found) == sorted(
        (level, round(0.1 + 0.5 * level * beat, 6), metre * 0.5 * level)
        for level in (1.0, 2.0)
        for beat in range(metre)
    )
    chances = [one.probability for one in found]
    assert chances == sorted(chances, reverse=True) and sum(chances) == pytest.approx(1)
    (one, two) = ([h.probability for h in downbeat_hypotheses([r], metre)] for r in readings)
    apart = [h.probability for h in found if h.level == 1.0]
    assert np.array(apart) / sum(apart) == pytest.approx(np.array(one), rel=1e-3), (
        "readings do not disturb each other"
    )
    assert len(two) == metre
