"""How candidates are ranked and when they are drawn again."""

from dataclasses import replace

import numpy as np
import pytest

from looper.beats.grid import BeatGrid
from looper.beats.spans import Span
from looper.pipeline.takes import Take, what_is_doubtful
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


def test_a_first_loop_of_even_odds_is_drawn_again_and_said_to_be_unsure(monkeypatch):
    import looper.pipeline.takes as takes

    fitted = takes.fit_grid
    monkeypatch.setattr(takes, "fit_grid", lambda *a, **k: replace(fitted(*a, **k), confidence=0.45))
    generator = FakeGenerator()
    loops = make(generator, bpm=120, variations=2)
    first_loops = [call for call in generator.calls if len(call.keys) > 1]
    assert len(first_loops) == 3
    assert len(generator.calls) == 4, "a variation at .45 is kept: its bar line is known"
    assert any("0.45" in note for note in loops.report.notes)
