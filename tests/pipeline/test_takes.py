"""How candidates are ranked and when they are drawn again."""

from dataclasses import replace

import numpy as np
import pytest

from looper.beats.grid import BeatGrid
from looper.beats.spans import Span
from looper.loops.key import HeardKey
from looper.musical_key import Key
from looper.pipeline import takes
from looper.pipeline.plan import Plan
from looper.pipeline.takes import (
    Take,
    distance_from_key,
    other_cuts,
    score_take,
    seam_passages,
    what_is_doubtful,
)
from testkit.fakes import FakeGenerator
from tests.pipeline.test_maker import make


def take(confidence=0.8, jump_db=0.0, bpm=120.0):
    span = Span(0.0, 8.0, 16, 1.0, jump_db=jump_db)
    grid = BeatGrid(bpm, 4, np.arange(16) / 2, np.arange(4) * 2.0, 0.0, 8.0, 4.0, confidence, (span,))
    return Take(np.zeros(1), grid, 0, confidence, False)


def test_of_equally_sure_takes_the_one_whose_bars_join_ranks_first():
    assert take(jump_db=9.0).rank_score < take(jump_db=5.0).rank_score < take(jump_db=2.0).rank_score


def test_bars_that_hardly_differ_cost_nothing_and_no_jump_outweighs_a_guessed_bar_line():
    assert take(jump_db=3.5).rank_score == take(jump_db=0.0).rank_score
    assert take(0.95, jump_db=40.0).rank_score > take(0.4).rank_score


@pytest.mark.parametrize(
    ("doubtful", "words"),
    [
        (take(0.42), "likeliest bar line, which is not sure (confidence 0.42)"),
        (take(0.1), "no clear beat"),
        (take(0.9, bpm=133.0), "no clear beat"),
    ],
)
def test_the_report_says_what_is_left_in_doubt(doubtful, words):
    assert words in what_is_doubtful(doubtful, 120)


@pytest.mark.slow
def test_a_first_loop_of_even_odds_is_drawn_again_and_said_to_be_unsure(monkeypatch):
    fitted = takes.fit_grid
    monkeypatch.setattr(takes, "fit_grid", lambda *a, **k: replace(fitted(*a, **k), confidence=0.45))
    generator = FakeGenerator()
    loops = make(generator, bpm=120, variations=2)
    first_loops = [call for call in generator.calls if len(call.keys) > 1]
    assert len(first_loops) == 3
    assert len(generator.calls) == 4, "a variation at .45 is kept: its bar line is known"
    assert any("0.45" in note for note in loops.report.notes)


# --- what a take costs, by hand --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "cost"),
    [
        ({}, 0.0),
        ({"seam_log_likelihood": 0.4}, 0.0),  # likelier than in place: no gain
        ({"seam_log_likelihood": -1.5}, 0.15),
        ({"seam_log_likelihood": -2.5}, 0.2),  # 2 nats at most
        ({"key_distance": 0.4}, 0.2),
        ({"jump_db": 4.0}, 0.0),
        ({"jump_db": 9.0}, 0.15),
        ({"jump_db": 30.0}, 0.24),  # 8 dB beyond 4 at most
        ({"jump_db": 6.0, "seam_log_likelihood": -1.0, "key_distance": 1.2}, 0.06 + 0.1 + 0.6),
    ],
)
def test_seam_jump_and_key_cost_what_they_are_worth(facts, cost):
    facts = dict(facts)
    made = take(0.8, facts.pop("jump_db", 0.0))
    other = Span(2.0, 10.0, 16, 0.5, jump_db=12.0)  # of no concern: it is not the one that is cut
    made = replace(made, grid=replace(made.grid, spans=(*made.grid.spans, other)), **facts)
    assert made.rank_score == pytest.approx(0.8 - cost)


SIZES = Plan(16, None, 120.0, 100, 500, 600, 100, 4)


class Fitted:
    """Stands where the fit of the grid would: notes what it is asked, and finds what it is told to."""

    def __init__(self, bpm=120.0, confidence=0.8, beats=16, start=0.5):
        span = Span(start, start + 8.0, beats, 1.0)
        times = np.arange(5) / 2
        self.grid = BeatGrid(
            bpm,
            4,
            times,
            times[::4],
            start,
            start + 8.0,
            beats / 4,
            confidence,
            (span, replace(span, beats=8)),
        )
        self.asked = None

    def __call__(self, samples, rate, bpm, beats_per_bar, *, beats, downbeat):
        self.asked = (samples, rate, bpm, beats_per_bar, beats, downbeat)
        return self.grid


@pytest.fixture
def fitted(monkeypatch):
    def stand_in(**found):
        fit = Fitted(**found)
        monkeypatch.setattr(takes, "fit_grid", fit)
        return fit

    return stand_in


WAVE = np.arange(400_000, dtype=np.float32)


@pytest.mark.parametrize(
    ("downbeat", "first", "left"),
    [(None, 0, None), (2.0, 62_400, 0.05), (0.04, 0, 0.04), (0.5, 14_400, 0.05), (1.00001, 30_400, 0.05001)],
)
def test_what_comes_before_a_known_bar_line_is_not_heard_but_for_its_attack(fitted, downbeat, first, left):
    fit = fitted()
    found = score_take(WAVE, 32_000, SIZES, 4, downbeat)
    samples, rate, bpm, beats_per_bar, beats, known = fit.asked
    assert samples[0] == first and len(samples) == len(WAVE) - first
    assert (rate, bpm, beats_per_bar, beats) == (32_000, 120.0, 4, 16)
    assert known == (None if left is None else pytest.approx(left, abs=1e-9))
    later = first / 32_000  # all that was found is told in the time of the whole
    assert (found.grid.loop_start, found.grid.loop_end) == (0.5 + later, 8.5 + later)
    assert [(span.start, span.end) for span in found.grid.spans] == [(0.5 + later, 8.5 + later)] * 2
    assert np.array_equal(found.grid.beat_times, fit.grid.beat_times + later)
    assert np.array_equal(found.grid.downbeat_times, fit.grid.downbeat_times + later)
    assert found.samples is WAVE and found.attempt == 0


@pytest.mark.parametrize(("planned", "asked"), [(33.3, 40), (40, 40), (123, 123), (300, 300), (377, 300)])
def test_a_tempo_that_only_a_model_plays_is_looked_for_within_the_range(fitted, planned, asked):
    fit = fitted(bpm=planned)
    score_take(WAVE, 32_000, replace(SIZES, bpm=planned), 4)
    assert fit.asked[2] == asked


@pytest.mark.parametrize(
    ("bpm", "confidence", "downbeat", "drifted"),
    [
        (120.0, 0.5, None, False),  # just sure enough for a first loop
        (120.0, 0.49, None, True),
        (120.0, 0.3, 2.0, False),  # a variation's bar line is known
        (120.0, 0.29, 2.0, True),
        (124.6, 0.9, None, False),
        (115.4, 0.9, 2.0, False),
        (125.0, 0.9, None, True),  # 4 % is the most
        (115.0, 0.9, 2.0, True),
        (125.0, 0.1, None, True),
    ],
)
def test_a_take_has_drifted_where_its_tempo_or_its_bar_line_is_off(
    fitted, bpm, confidence, downbeat, drifted
):
    fitted(bpm=bpm, confidence=confidence)
    assert score_take(WAVE, 32_000, SIZES, 4, downbeat).drifted is drifted


@pytest.mark.parametrize(
    ("bpm", "score"), [(120.0, 0.8), (120.6, 0.8), (123.0, 0.6), (117.0, 0.6), (132.0, -0.15)]
)
def test_half_a_percent_of_tempo_costs_nothing_and_each_further_a_tenth(fitted, bpm, score):
    fitted(bpm=bpm)
    assert score_take(WAVE, 32_000, SIZES, 4).score == pytest.approx(score)


@pytest.mark.parametrize(("start", "kept"), [(-0.5, 0.0), (0.5, 0.5), (7.0, 4.5)])
def test_music_without_room_for_the_loop_is_cut_at_the_asked_tempo_without_confidence(fitted, start, kept):
    """12.5 s of audio, and a loop of 8 s in it."""
    fitted(beats=8, start=start, confidence=0.9, bpm=119.0)
    found = score_take(WAVE, 32_000, SIZES, 4)
    assert (found.grid.loop_start, found.grid.loop_end) == (kept, kept + 8.0)
    assert found.grid.spans == (Span(kept, kept + 8.0, 16, 0.0),)
    assert (found.grid.bpm, found.grid.confidence, found.drifted, found.score) == (120.0, 0.0, True, 0.0)


@pytest.mark.parametrize(
    ("heard", "distance"),
    [
        (None, 0.0),
        (HeardKey(Key(9, True), 0.9, False, np.arange(24) / 24), 0.0),
        (HeardKey(Key(9, True), 0.9, True, np.arange(24) / 24), 2 / 24),
    ],
    ids=["nothing", "no clear key", "another key"],
)
@pytest.mark.parametrize(("start", "first"), [(0.5, 16_000), (-0.001, 0)])
def test_a_key_is_heard_in_the_loop_alone_and_only_a_clear_one_counts(
    monkeypatch, heard, distance, start, first
):
    asked = []
    monkeypatch.setattr(takes, "hear_key", lambda samples, rate: asked.append((samples, rate)) or heard)
    made = take()
    made = replace(made, samples=WAVE, grid=replace(made.grid, loop_start=start, loop_end=8.5))
    assert distance_from_key(made, 32_000, "A minor") == pytest.approx(distance)
    ((samples, rate),) = asked
    assert (samples[0], samples[-1], rate) == (first, 8.5 * 32_000 - 1, 32_000)


@pytest.mark.parametrize(
    ("confidence", "bpm", "words"),
    [
        (0.3, 120.0, "likeliest bar line"),
        (0.29, 120.0, "no clear beat"),
        (0.9, 124.6, "likeliest bar line"),
        (0.9, 115.0, "no clear beat"),
        (0.1, 130.0, "no clear beat"),
    ],
)
def test_what_is_in_doubt_is_the_beat_or_only_the_bar_line(confidence, bpm, words):
    assert words in what_is_doubtful(take(confidence, bpm=bpm), 120.0)


def test_other_cuts_are_whole_bars_away_as_long_and_about_as_good():
    best = Span(0.5, 8.5, 16, 0.6)  # bars of 2 s
    spans = {
        "a bar later": Span(2.5, 10.5, 16, 0.5),
        "just good enough": Span(4.5, 12.5, 16, 0.0),
        "not good enough": Span(4.5, 12.5, 16, -0.01),
        "a bar earlier, nearly": Span(-1.45, 6.55, 16, 0.4),
        "off the bar line": Span(2.58, 10.58, 16, 0.5),
        "half a bar later": Span(1.5, 9.5, 16, 0.5),
        "longer": Span(2.5, 18.5, 32, 0.5),
        "better, by another measure": Span(6.5, 14.5, 16, 0.9),
    }
    made = take(0.8)
    made = replace(made, grid=replace(made.grid, loop_start=0.5, loop_end=8.5, spans=(best, *spans.values())))
    found = other_cuts(made, 4)
    kept = [spans[name] for name in ("a bar later", "just good enough", "a bar earlier, nearly")]
    kept.append(spans["better, by another measure"])
    assert found[0] is made and [cut.grid.spans[0] for cut in found[1:]] == kept
    assert [cut.score for cut in found[1:]] == pytest.approx([0.798, 0.788, 0.796, 0.806])
    for cut, span in zip(found[1:], kept, strict=True):
        assert (cut.grid.loop_start, cut.grid.loop_end) == (span.start, span.end)
        assert len(cut.grid.spans) == 9 and set(cut.grid.spans) == {best, *spans.values()}
        assert cut.grid.spans[1] is best


@pytest.mark.parametrize(
    ("start", "end", "beats", "frames", "head", "before", "in_place"),
    [
        # at 10 frames a second: 16 beats in 8 s are 80 frames, a bar 20, and a second of beginning is judged
        (2.0, 10.0, 16, 120, (20, 30), (80, 100), (0, 20)),
        (0.5, 8.5, 16, 120, (5, 15), (65, 85), (0, 5)),
        (4.0, 12.0, 16, 125, (40, 50), (100, 120), (20, 40)),
        (-0.3, 7.7, 16, 120, (0, 10), (58, 77), (0, 0)),
        (4.0, 12.4, 16, 120, (40, 50), (100, 120), (20, 40)),  # an end beyond the codes
        (2.0, 2.6, 1, 120, (20, 26), (20, 26), (14, 20)),  # one beat: no bar, and no second of beginning
        (2.0, 2.3, 16, 120, (20, 23), (22, 23), (19, 20)),  # a bar has one frame at least
        (2.0, 2.0, 16, 120, (20, 21), (20, 21), (19, 20)),
        (15.0, 16.0, 16, 120, (119, 120), (119, 120), (118, 119)),
    ],
)
@pytest.mark.parametrize("clock", [None, 200, 110])
def test_a_seam_is_judged_by_the_loops_beginning_after_its_last_bar_and_in_place(
    start, end, beats, frames, head, before, in_place, clock
):
    made = take()
    span = Span(start, end, beats, 0.0)
    codes = np.stack([np.arange(frames), np.arange(frames) + 1000])
    made = replace(
        made,
        grid=replace(made.grid, loop_start=start, loop_end=end, spans=(span,)),
        codes=codes,
        clock=None if clock is None else np.arange(clock)[:, None] * [1, 10],
    )
    for passage, context in zip(seam_passages(made, 10.0, 4), (before, in_place), strict=True):
        at = [*range(*context), *range(*head)]
        assert passage.codes.tolist() == [at, [frame + 1000 for frame in at]]
        assert passage.start == context[1] - context[0]
        if clock is None:
            assert passage.clock is None
        else:  # where it ends before the codes, it stays as it was last
            assert passage.clock[:, 1].tolist() == [10 * min(frame, clock - 1) for frame in at]
