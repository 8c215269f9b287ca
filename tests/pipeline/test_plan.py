"""How many frames a request takes, against sums done by hand: 50 frames a second, 6 % of room for slower music."""

import pytest

from looper.generation.messages import ModelSpec
from looper.pipeline.plan import Plan, plan
from looper.request import LoopRequest


def planned(bpm, beats, clocked=False, metre=4, window=30.0):
    spec = ModelSpec(50.0, 640, window, clocked)
    return plan(LoopRequest("x", bpm=bpm, beats_per_bar=metre), spec, beats)


@pytest.mark.parametrize(
    ("bpm", "beats", "bar", "loop", "prompt"),
    [
        (120, 16, 100, 424, 100),  # 25 frames a beat
        (125, 8, 96, 204, 96),  # 24 frames a beat, 203.5 of them with the room
        (93.7, 8, 129, 272, 128),  # 32.02 a beat: a bar of 128.07 is begun whole and heard whole
        (40, 4, 300, 318, 300),  # 75 a beat
        (300, 64, 40, 679, 40),  # 10 a beat, 678.4
    ],
)
def test_a_loop_takes_its_beats_and_some_room_and_a_bar_more_and_a_variation_the_bar_before_it(
    bpm, beats, bar, loop, prompt
):
    assert planned(bpm, beats) == Plan(
        beats=beats,
        period=None,
        bpm=bpm,
        bar_frames=bar,
        first_frames=loop + bar,
        next_frames=prompt + loop + bar,
        prompt_frames=prompt,
        prompt_beats=4,
    )


@pytest.mark.parametrize(
    ("bpm", "beats", "period", "played", "beat", "bar"),
    [
        (124, 16, 24, 125.0, 24, 96),  # 24.2 frames a beat are 24, which are 125 BPM
        (97, 8, 31, 3000 / 31, 31, 124),
        (300, 32, 20, 300.0, 10, 80),  # the model plays 150 BPM; each of its beats is two of the asked ones
        (170, 16, 35, 6000 / 35, 17.5, 140),
        (40, 4, 38, 1500 / 38, 76, 304),  # and here each of its beats is half of one
    ],
)
def test_a_clocked_model_plays_whole_frames_a_beat_and_is_told_that_tempo(
    bpm, beats, period, played, beat, bar
):
    sizes = planned(bpm, beats, clocked=True)
    loop = -(-beats * round(beat * 106) // 100)  # rounded up
    assert (sizes.period, sizes.bar_frames, sizes.first_frames) == (period, bar, loop + bar)
    assert sizes.bpm == pytest.approx(played)
    assert (sizes.prompt_beats, sizes.prompt_frames) == (4, 4 * period)
    assert sizes.next_frames == 4 * period + loop + bar


def test_where_a_long_bar_and_the_loop_exceed_the_window_the_prompt_is_as_many_beats_as_leave_room():
    """At 48 BPM 62.5 frames a beat: 1500 less a loop of 1060 and 63 for a beat leave 377, which are six beats."""
    sizes = planned(48, 16, metre=16)
    assert (sizes.prompt_beats, sizes.prompt_frames, sizes.bar_frames) == (6, 375, 1000)
    assert (sizes.first_frames, sizes.next_frames) == (1500, 1500)
    clocked = planned(
        48, 16, clocked=True, metre=16
    )  # 31 frames are half an asked beat of 62: 1052, 62 and 386
    assert (clocked.period, clocked.prompt_beats, clocked.prompt_frames) == (31, 12, 372)


def test_where_no_beat_fits_beside_the_loop_one_is_heard_all_the_same():
    sizes = planned(60, 16, window=16.0)
    assert (sizes.prompt_beats, sizes.prompt_frames, sizes.first_frames) == (1, 50, 800)


def test_without_a_number_of_beats_the_loop_has_those_of_the_request():
    asked = LoopRequest("x", bpm=120, bars=3)
    assert plan(asked, ModelSpec(50.0, 640, 30.0, False)).beats == 12


def test_a_window_is_as_many_whole_frames_as_fit_it():
    assert planned(48, 16, metre=16, window=21.33).next_frames == 1066
