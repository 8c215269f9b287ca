"""What is read of a recording at each beat, against features whose every number is known."""

import numpy as np
import pytest

from looper.beats.hypotheses import (
    HARMONY_SPANS_BEATS,
    LEVELS,
    PER_BEAT,
    PER_SLOT,
    SLOTS,
    TIMBRE_SPANS_BEATS,
    beat_features,
    listen,
    metrical_hypotheses,
)
from testkit.clicks import blank, clicks

# columns of a slot
WIDE, TIGHT, LEVEL, HARMONY, BASS, TIMBRE, DENSITY = (
    slice(0, 8),
    slice(8, 12),
    slice(12, 20),
    slice(20, 30, 2),
    slice(21, 30, 2),
    slice(30, 34),
    slice(34, 38),
)
BEAT = 0.5  # 100 quick frames, 12.5 slow ones; a slot is 25 quick frames


def read(features, phase=0.0, period=BEAT):
    """Slots ``[K, SLOTS, PER_SLOT]``, the beats' flags ``[K, 6]`` and their times of one reading."""
    ((rows, times),) = beat_features(listen(features), np.array([phase]), period)
    assert rows.shape == (len(times), PER_BEAT) and rows.dtype == np.float32
    return rows[:, :-6].reshape(len(times), SLOTS, PER_SLOT), rows[:, -6:], times


def total(values, begin, end):
    """The integral of frames, each a step, from one place to another, fractions allowed; [F]."""
    edges = np.arange(values.shape[1] + 1.0)
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    return np.array([np.interp(end, edges, row) - np.interp(begin, edges, row) for row in sums])


def inside(count, begin, end):
    """How much of a stretch lies on the frames."""
    return float(np.clip(end, 0, count) - np.clip(begin, 0, count))


@pytest.fixture(scope="module")
def noise():
    """Features of four seconds, each number drawn."""
    rng = np.random.default_rng(7)
    chroma = rng.random((24, 101)) ** 4
    for part in (chroma[:12], chroma[12:]):
        part /= np.linalg.norm(part, axis=0)
    return blank(4.0, rise=rng.random((8, 801)) ** 6, mel=1 + rng.random((8, 801)), chroma=chroma)


PLACES = [(0, 0), (0, 1), (2, 0), (3, 3), (7, 0), (7, 3)]  # beat and slot


@pytest.mark.parametrize(("beat", "slot"), PLACES)
@pytest.mark.parametrize(("phase", "period"), [(0.0, BEAT), (0.03, 0.47), (0.003, BEAT), (0.124, BEAT)])
def test_a_slot_holds_the_onsets_of_its_width_of_its_middle_and_the_level_that_follows(
    noise, beat, slot, phase, period
):
    slots, _, times = read(noise, phase, period)
    at = (times[beat] + slot * period / 4) * 200 + 0.5
    half = period / 8 * 200
    rise = noise.rise / (noise.rise.mean() + 1e-6)
    found = slots[beat, slot]
    assert found[WIDE] == pytest.approx(np.log1p(total(rise, at - half, at + half)), rel=1e-5)
    near = total(rise, at - 4, at + 4).reshape(4, 2).sum(axis=1)  # 20 ms to either side, two bands together
    assert found[TIGHT] == pytest.approx(np.log1p(near), rel=1e-5)
    scale = np.sqrt(np.mean((noise.mel - noise.mel.mean(axis=1, keepdims=True)) ** 2)) + 1e-3
    mel = (noise.mel - noise.mel.mean(axis=1, keepdims=True)) / scale
    width = max(1.0, inside(801, at, at + 2 * half))
    assert found[LEVEL] == pytest.approx(total(mel, at, at + 2 * half) / width, abs=1e-5)


@pytest.mark.parametrize(("beat", "slot"), PLACES)
@pytest.mark.parametrize(("phase", "period"), [(0.0, BEAT), (0.03, 0.47), (0.003, BEAT), (0.124, BEAT)])
def test_harmony_is_compared_before_and_after_over_each_span(noise, beat, slot, phase, period):
    """One less the cosine of what sounds on either side, of the whole range and of the bass."""
    slots, _, times = read(noise, phase, period)
    at = (times[beat] + slot * period / 4) * 25
    for part, columns in ((noise.chroma[:12], HARMONY), (noise.chroma[12:], BASS)):
        for span, found in zip((0.5, 1, 2, 4, 8), slots[beat, slot, columns], strict=True):
            reach = span * period * 25
            before, after = total(part, at - reach, at), total(part, at, at + reach)
            size = np.linalg.norm(before) * np.linalg.norm(after)
            change = (1 - before @ after / (size + 1e-9)) * min(1.0, size / 0.05)
            assert found == pytest.approx(change, abs=1e-5)


@pytest.mark.parametrize(("beat", "slot"), PLACES)
@pytest.mark.parametrize(("phase", "period"), [(0.0, BEAT), (0.03, 0.47), (0.003, BEAT), (0.124, BEAT)])
def test_sound_and_density_are_compared_before_and_after_over_each_span(noise, beat, slot, phase, period):
    slots, _, times = read(noise, phase, period)
    at = (times[beat] + slot * period / 4) * 200
    scale = np.sqrt(np.mean((noise.mel - noise.mel.mean(axis=1, keepdims=True)) ** 2)) + 1e-3
    mel = (noise.mel - noise.mel.mean(axis=1, keepdims=True)) / scale
    rise = noise.rise / (noise.rise.mean() + 1e-6)
    for i, span in enumerate((1, 2, 4, 8)):
        reach = span * period * 200
        left, right = inside(801, at - reach, at), inside(801, at, at + reach)
        heard = min(1.0, 2 * min(left, right) / reach)

        def change(values, at=at, reach=reach, left=left, right=right, heard=heard):
            after = total(values, at, at + reach) / max(right, 1.0)
            return (after - total(values, at - reach, at) / max(left, 1.0)) * heard

        assert slots[beat, slot, TIMBRE][i] == pytest.approx(np.sqrt(np.mean(change(mel) ** 2)), abs=1e-5)
        assert slots[beat, slot, DENSITY][i] == pytest.approx(change(rise).mean(), abs=1e-5)


def test_a_chord_that_changes_is_new_and_one_that_goes_on_or_fades_to_nothing_is_not():
    chroma = np.zeros((24, 101))
    chroma[0, :50] = chroma[4, 50:] = 1.0  # the harmony changes at 2 s, and the bass does not
    chroma[12, :] = 1.0
    slots, _, times = read(blank(4.0, chroma=chroma))
    change = slots[:, 0, HARMONY]
    assert change[times == 2.0] == pytest.approx(np.ones((1, 5)), abs=1e-6)
    assert change[times == 1.0][0, :2] == pytest.approx([0, 0], abs=1e-6)
    assert slots[:, 0, BASS] == pytest.approx(np.zeros((8, 5)), abs=1e-6)
    faint = read(blank(4.0, chroma=0.001 * chroma))[0][4, 0, HARMONY]
    assert faint[:3] == pytest.approx((0.001 * np.array([6.25, 12.5, 25])) ** 2 / 0.05, rel=1e-3)


def test_beats_are_read_from_just_before_the_recording_to_just_before_its_end():
    for phase, first, last in ((0.0, 0.0, 3.5), (0.49, -0.01, 3.49), (0.46, 0.46, 3.96), (0.48, -0.02, 3.48)):
        _, _, times = read(blank(4.0), phase)
        assert times == pytest.approx(np.arange(first, last + 0.1, BEAT))
    (one, other) = beat_features(listen(blank(4.0)), np.array([0.1, 0.3]), BEAT)
    assert one[1] == pytest.approx(0.1 + BEAT * np.arange(8)) and other[1] == pytest.approx(
        0.3 + BEAT * np.arange(8)
    )


@pytest.mark.parametrize(
    ("phase", "period", "near"),
    [
        (0.0, 0.5, 1),
        (0.06, 0.5, 1),
        (0.07, 0.5, 0),
        (0.08, 0.5, 0),
        (-0.02, 0.5, 1),
        (0.05, 0.3, 1),
        (0.065, 0.3, 0),
    ],
)
def test_flags_say_where_a_beat_lies_and_how_fast_it_goes(phase, period, near):
    """At 70 ms from the beginning at most, or a fifth of a beat; the first; whether it begins in silence."""
    for silent in (0.0, 1.0):
        mel = np.ones((8, 801))
        mel[:, :2] = 0.2 if silent else 0.3
        _, flags, times = read(blank(4.0, mel=mel), phase, period)
        expected = np.zeros((len(times), 6))
        expected[0, :3] = near, near * silent, 1
        expected[:, 3] = silent
        expected[:, 4] = np.log2(60 / period / 115)
        expected[:, 5] = np.minimum(1, (4.0 - times) / period)
        assert flags == pytest.approx(expected, abs=1e-6)


def test_what_is_in_the_first_hundredth_of_a_second_tells_whether_a_recording_begins_in_silence():
    mel = np.ones((8, 801))
    mel[:, 0], mel[:, 1], mel[:, 2] = 0.1, 0.3, 9.0
    assert listen(blank(4.0, mel=mel)).begins_silent == 1.0
    mel[:, 1] = 0.5
    assert listen(blank(4.0, mel=mel)).begins_silent == 0.0
    assert listen(blank(4.0)).begins_silent == 0.0, "what is silent all over begins as it goes on"


def test_features_do_not_depend_on_how_loud_the_bands_are():
    rng = np.random.default_rng(3)
    rise, mel = rng.random((8, 801)), rng.random((8, 801))
    once, _, _ = read(blank(4.0, rise=rise, mel=mel))
    twice, _, _ = read(blank(4.0, rise=1000 * rise, mel=1000 * mel + 3))
    assert twice == pytest.approx(once, abs=0.01)


def test_a_recording_of_a_few_frames_is_read_too():
    slots, _, _ = read(blank(0.005), period=0.005)
    assert np.isfinite(slots).all()


def test_every_level_is_read_at_every_place_in_the_beat_where_onsets_gather():
    beats = np.arange(0.2, 7.8, 0.5)
    found = metrical_hypotheses(clicks(np.r_[beats, beats, beats + 0.25], 8.0), 0.5)
    assert {one.level for one in found} == {0.5, 1.0, 2.0} == set(LEVELS)
    for one in found:
        assert one.period == 0.5 * one.level and 0 <= one.phase < one.period and 0 < one.weight <= 1
        assert one.beat_times[1:] - one.beat_times[:-1] == pytest.approx(one.period)
        assert one.beat_times[0] == pytest.approx(one.phase)
        assert one.features.shape == (len(one.beat_times), PER_BEAT)
    near = {level: sorted(round(one.phase, 1) for one in found if one.level == level) for level in LEVELS}
    assert near[0.5] == [0.2] and 0.2 in near[1.0] and 0.7 in near[2.0]
    best = max((one for one in found if one.level == 1.0), key=lambda one: one.weight)
    assert best.phase == pytest.approx(0.2, abs=0.006) and best.weight == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("period", "seconds", "levels"),
    [
        (0.45, 8.0, [0.5, 1.0, 2.0]),
        (0.44, 8.0, [1.0, 2.0]),  # half of it would be faster than a beat can be
        (0.79, 8.0, [0.5, 1.0, 2.0]),
        (0.8, 8.0, [0.5, 1.0]),  # twice it slower
        (0.7, 1.39, [0.5, 1.0]),  # or longer than the recording
        (0.2, 8.0, [1.0, 2.0]),
        (1.7, 8.0, [0.5, 1.0]),  # what was asked for is read however fast or slow it is
    ],
)
def test_half_and_twice_the_period_are_read_where_that_may_be_a_beat(period, seconds, levels):
    found = metrical_hypotheses(blank(seconds), period)
    assert [one.level for one in found] == levels and {one.weight for one in found} == {0.0}


def test_six_places_in_the_beat_are_read_at_most():
    onset, period = np.zeros(1601), 0.8
    for place in range(8):
        onset[(np.arange(10) * 160 + 20 * place + 5).astype(int)] = 1 + 0.1 * place
    found = metrical_hypotheses(blank(8.0, onset=onset), period)
    assert sum(one.level == 1.0 for one in found) == 6
    assert [one.weight for one in found if one.level == 1.0] == sorted(
        (one.weight for one in found if one.level == 1.0), reverse=True
    )


def test_the_spans_and_slots_are_those_that_the_scorer_was_fitted_on():
    assert (SLOTS, HARMONY_SPANS_BEATS, TIMBRE_SPANS_BEATS) == (
        4,
        (0.5, 1.0, 2.0, 4.0, 8.0),
        (1.0, 2.0, 4.0, 8.0),
    )
    assert (PER_SLOT, PER_BEAT) == (38, 158)
