"""The choice of bars: lengths that fit, and loops whose last bar leads into the first."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from looper.beats import constraints, spans
from looper.beats.constraints import Constraints
from looper.beats.features import Features, extract_features
from looper.beats.grid import fit_grid
from looper.beats.tempo_map import straight
from testkit.clicks import blank
from tests.beats.test_grid import RATE, band, even

BAR = 2.0  # seconds of 4/4 at 120
EVERY_BEAT = spans.Lines(1, 4, 4)


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


@pytest.mark.slow
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


# Of features whose every number is known, the score is worked out by hand: 7 for each doubling of the length, 1.5
# on a bar line, 0.5 with half a second or more of music before it, 0.3 where nothing begins before the two cuts.
BARE = 7 * 2 + 0.3  # of four beats amid nothing


def scored(features: Features, first: float = 0.0, lines: spans.Lines = EVERY_BEAT, beats: int = 4, **how):
    """The spans at 120 BPM, best first, of a grid whose bar line is at `first` seconds."""
    return spans.spans(features, straight(0.5, first, features.duration), lines, beats, **how)


def by_start(found: list[spans.Span]) -> dict[float, spans.Span]:
    return {round(span.start, 3): span for span in found}


def test_the_score_is_what_length_bar_line_lead_in_and_quiet_add_up_to():
    found = scored(blank(8.0))
    assert {span.start: span.score for span in found} == pytest.approx(
        {0.0: BARE + 1.5, 0.5: BARE + 0.5, 2.0: BARE + 2.0, 4.0: BARE + 2.0, 6.0: BARE + 2.0}
        | dict.fromkeys([1.0, 1.5, 2.5, 3.0, 3.5, 4.5, 5.0, 5.5], BARE + 0.5)
    )
    assert [span.start for span in found[:4]] == [2.0, 4.0, 6.0, 0.0]
    assert {(span.end - span.start, span.beats) for span in found} == {(2.0, 4)}
    assert scored(blank(8.0), beats=8)[0].score == pytest.approx(BARE + 7 + 2)
    half = by_start(scored(blank(8.0), first=0.25))[0.25]
    assert half.score == pytest.approx(BARE + 1.5 + 0.25), (
        "a quarter of a second is half of what is wished for"
    )


def test_loops_begin_on_lines_before_and_after_the_one_that_counts_as_nought():
    found = scored(blank(10.0), first=3.3, lines=spans.Lines(4, 8, 4))
    assert by_start(found).keys() == {1.3, 3.3, 5.3, 7.3}
    sure = {start for start, span in by_start(found).items() if span.score > BARE + 1}
    assert sure == {3.3, 7.3}


def test_no_loop_begins_before_the_earliest_allowed_second():
    found = scored(blank(6.0), min_start=1.0)
    assert min(by_start(found)) == 1.0
    assert by_start(found)[1.0].score == pytest.approx(BARE + 0.5)
    assert min(by_start(scored(blank(6.0), min_start=1.031))) == 1.5
    assert min(span.start for span in scored(blank(6.0), min_start=1.02)) == 1.02, "slid to it"


@pytest.mark.parametrize(
    ("early", "cost"), [(0.0, 0.0), (0.002, 0.8), (0.005, 2.0), (0.02, 2.0), (0.03, 2.0)]
)
def test_a_loop_that_misses_the_audio_by_milliseconds_is_slid_inside_and_pays_for_it(early, cost):
    first = by_start(scored(blank(8.0), first=-early))[0.0]
    assert first.score == pytest.approx(BARE + 1.5 - cost)
    assert first.end == pytest.approx(2.0)
    (last,) = scored(blank(2.0 - early))
    assert (last.start, last.end) == (0.0, pytest.approx(2.0 - early))
    late = by_start(scored(blank(3.2 - early), first=1.2))
    assert late[round(1.2 - early, 3)].score == pytest.approx(BARE + 2.0 - cost)
    assert late[round(1.2 - early, 3)].end == pytest.approx(3.2 - early)


def test_a_loop_that_misses_the_audio_by_more_is_none():
    assert min(by_start(scored(blank(8.0), first=-0.031))) == 0.469
    assert scored(blank(1.969)) == []


@pytest.mark.parametrize(("frame", "heard"), [(389, False), (390, True), (397, True), (398, False)])
def test_what_begins_in_the_forty_milliseconds_before_a_cut_makes_it_less_quiet(frame, heard):
    """A cut at 2 s fades over 1.95 to 1.988 s: frames 390 to 397 of 5 ms."""
    onset = np.zeros(1601)
    onset[1201:1241] = 2.0  # as loud as the loudest fiftieth is, half of that begins before the cut
    onset[1241:1261] = 4.0
    onset[frame] = 1.0
    cut = by_start(scored(blank(8.0, onset=onset)))[2.0]
    assert cut.quiet == pytest.approx(0.75 if heard else 1.0)
    assert cut.score == pytest.approx(BARE + 2.0 - (0.075 if heard else 0.0))
    before = by_start(scored(blank(8.0, onset=onset)))[0.0]
    assert before.quiet == cut.quiet, "of a loop that ends there too"


def test_where_next_to_nothing_else_begins_what_begins_before_a_cut_is_as_loud_as_can_be():
    onset = np.zeros(1601)
    onset[397] = 0.01
    assert by_start(scored(blank(8.0, onset=onset)))[2.0].quiet == 0.5


def test_the_first_frames_of_a_recording_count_before_a_cut_right_behind_them():
    onset = np.zeros(1601)
    onset[1201:1241] = 1.0
    onset[0] = 1.0
    found = by_start(scored(blank(8.0, onset=onset), first=0.032))
    assert found[0.032].quiet == pytest.approx(0.5)
    assert by_start(scored(blank(8.0, onset=onset)))[0.0].quiet == 1.0, "nothing lies before it"


def likeness(mel: np.ndarray, start: int, end: int, back: int, on: int) -> float:
    """Mean correlation of the picture before two frames and after them."""
    pairs = [(start - back, end - back, back)] * (back > 0) + [(start, end, on)] * (on > 0)
    return float(
        np.mean(
            [np.corrcoef(mel[:, a : a + n].ravel(), mel[:, b : b + n].ravel())[0, 1] for a, b, n in pairs]
        )
    )


@pytest.mark.parametrize(
    ("start", "back", "on"),
    [
        (2.0, 80, 80),
        (0.0, 0, 80),
        (0.095, 0, 80),
        (0.1, 20, 80),
        (0.2, 40, 80),
        (6.0, 80, 0),
        (5.905, 80, 20),
    ],
)
def test_likeness_is_the_correlation_of_four_tenths_of_a_second_on_either_side(start, back, on):
    """With less than a tenth on one side the other alone counts."""
    mel = np.random.default_rng(0).random((8, 1601)) + np.linspace(0, 1, 1601)
    found = by_start(scored(blank(8.0, mel=mel), first=start % 0.5))[start]
    at = round(start * 200)
    assert found.likeness == pytest.approx(likeness(mel, at, at + 400, back, on), abs=1e-6)
    assert found.score == pytest.approx(
        BARE + min(0.5, start) + 1.5 * (start < 0.5 or start % 2 == 0) + found.likeness
    )


def bars_of(first: np.ndarray, last: np.ndarray, beats: int = 8, metre: int = 4) -> spans.Span:
    """Two bars or so, of timbre [16, S] each, as one loop at 120 BPM."""
    timbre = np.concatenate([first, last, last[:, -1:]], axis=1)
    features = blank((timbre.shape[1] - 1) / 25, timbre=timbre)
    return by_start(scored(features, lines=spans.Lines(1, 4, metre), beats=beats))[0.0]


def test_the_jump_is_the_mean_difference_in_decibels_of_the_last_bar_from_the_first():
    loud = np.ones((16, 50))
    assert bars_of(loud, 0.01 * loud).jump_db == pytest.approx(20, abs=1e-4)
    half = np.where(np.arange(16)[:, None] < 8, 0.01, 1.0) * loud
    assert bars_of(loud, half).jump_db == pytest.approx(10, abs=1e-4)
    assert bars_of(loud, 0 * loud).jump_db == pytest.approx(90, abs=1e-4), "silence is 90 dB below the level"
    middle = np.concatenate([loud, 100 * loud, 0.01 * loud], axis=1)
    timbre = np.concatenate([middle, 0.01 * loud[:, :1]], axis=1)
    six = by_start(scored(blank(6.0, timbre=timbre), lines=spans.Lines(1, 4, 4), beats=12))[0.0]
    assert six.jump_db == pytest.approx(20, abs=1e-4), "the bars between say nothing"
    later = by_start(scored(blank(6.0, timbre=timbre), lines=spans.Lines(1, 4, 4), beats=8))[2.0]
    assert later.jump_db == pytest.approx(40, abs=1e-4)


def test_the_middle_of_a_bar_weighs_most():
    """As the square of a raised cosine."""
    first, last = np.ones((16, 50)), np.ones((16, 50))
    last[:, 20:30] = 4.0
    weights = np.cos(np.pi * (np.arange(50) - 24.5) / 51) ** 4
    assert bars_of(first, last).jump_db == pytest.approx(
        10 * np.log10(np.average(last[0], weights=weights)), abs=1e-4
    )


@pytest.mark.parametrize(("jump", "cost"), [(3.0, 0.0), (4.0, 0.0), (5.0, 0.8), (14.0, 8.0)])
def test_each_decibel_beyond_four_costs(jump, cost):
    loud = np.ones((16, 50))
    assert bars_of(loud, 10 ** (jump / 10) * loud).score == pytest.approx(BARE + 7 + 1.5 - cost, abs=1e-3)


def test_a_loop_shorter_than_two_bars_has_no_jump():
    loud = np.ones((16, 50))
    assert bars_of(loud, 0.01 * loud, metre=5).jump_db == 0.0
    assert bars_of(loud, 0.01 * loud, metre=3).jump_db > 10


def test_of_loops_that_are_as_good_to_a_hundredth_the_first_in_time_comes_first():
    onset = np.zeros(1601)
    onset[1301:1341] = 1.0
    onset[395] = 0.02  # three thousandths less quiet at 2 s, nothing at 4 s
    found = scored(blank(8.0, onset=onset))
    assert [span.start for span in found[:2]] == [2.0, 4.0] and found[0].score < found[1].score
    onset[395] = 0.5
    assert scored(blank(8.0, onset=onset))[0].start == 4.0


@pytest.mark.parametrize(("metre", "short"), [(1, [1]), (2, [1]), (3, [2, 1]), (4, [2, 1])])
def test_beats_alone_are_fewer_than_a_bar(metre, short):
    assert spans.beat_counts(9.0, 0.5, Constraints(120, metre))[1] == short


def test_a_length_may_miss_the_audio_by_three_hundredths_of_a_second_and_the_limit_by_nothing():
    assert spans.beat_counts(1.97, 0.5, Constraints(120))[0] == [4]
    assert spans.beat_counts(1.969, 0.5, Constraints(120))[0] == []
    assert spans.beat_counts(9.0, 0.51, Constraints(120, max_seconds=2.0))[0] == [4], "at the asked tempo"
    assert spans.beat_counts(9.0, 0.5, Constraints(120, max_seconds=1.999)) == ([], [2, 1])
    for bpm in range(40, 301):  # in whatever way the limit was worked out
        assert spans.beat_counts(99.0, 60 / bpm, Constraints(bpm, 3, max_seconds=3 / bpm * 60))[0] == [3]


def test_a_span_says_nothing_of_its_ends_until_they_are_measured():
    plain = spans.Span(0.0, 1.0, 2, 3.0)
    assert (plain.likeness, plain.quiet, plain.jump_db) == (0.0, 0.0, 0.0)
