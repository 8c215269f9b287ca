"""What the command line shows while it works and when it is done."""

import io
import json

import pytest
from rich.console import Console

from looper.cli import output
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest
from testkit.fakes import FakeGenerator


@pytest.fixture
def shown(monkeypatch):
    """Both consoles as text, 100 columns wide: (out, err)."""
    pages = io.StringIO(), io.StringIO()
    for name, page in zip(("out", "err"), pages, strict=True):
        monkeypatch.setattr(output, name, Console(file=page, width=100, force_terminal=False, markup=False))
    return pages


@pytest.fixture(scope="module")
def loops():
    made = LoopMaker(FakeGenerator()).make(
        LoopRequest("pads [/b]", bpm=120, variations=2, max_duration=4, seed=9)
    )
    made.report.steps_per_second = {"candidates": 123.4}
    return made


def test_progress_shows_each_stage_with_steps_and_their_rate(shown):
    times = iter(range(1000))
    bars = output.progress_bars(quiet=False)
    bars.get_time = lambda: float(next(times))
    for task in ("candidates", "loops"):
        show = output.show_on(bars)
        for done in (100, 250, 500):
            show(task, done, 500)
    text = io.StringIO()
    Console(file=text, width=100).print(bars.make_tasks_table(bars.tasks))
    candidates, loops = text.getvalue().splitlines()
    assert "candidates" in candidates and "500/500" in candidates and "steps/s" in candidates
    assert "loops" in loops and "steps/s" not in loops


def test_a_further_round_begins_its_stage_again(shown):
    bars = output.progress_bars(quiet=False)
    show = output.show_on(bars)
    for done, total in ((500, 500), (10, 400)):
        show("variations", done, total)
    (task,) = bars.tasks
    assert (task.completed, task.total, task.finished) == (10, 400, False)


@pytest.mark.slow
def test_the_table_has_a_row_a_file_and_says_how_it_went(shown, loops, tmp_path):
    files = [tmp_path / f"x_{k}.wav" for k in (1, 2)]
    output.tell_made(loops, files, as_json=False)
    text = shown[0].getvalue()
    assert all(file.name in text for file in files)
    assert "clean" in text and "candidates" in text and "(123 steps/s)" in text and "seed 9" in text


@pytest.mark.parametrize("seed", [9, 123_456_789_012, 2**63 - 1])
def test_no_row_breaks_on_a_screen_of_80_columns_whatever_the_seed(monkeypatch, loops, tmp_path, seed):
    page = io.StringIO()
    monkeypatch.setattr(output, "out", Console(file=page, width=80, soft_wrap=True, markup=False))
    stem = f"house-drums-and-bass-and-more-words-of-it_121.7bpm_4bars_Amin_s{seed}"
    output.tell_made(loops, [tmp_path / f"{stem}_{k:02d}.wav" for k in (1, 2)], as_json=False)
    lines = page.getvalue().splitlines()
    rows = [line for line in lines if ".wav" in line]
    assert len(rows) == 2 and all("clean" in row and len(row) <= 80 for row in rows), lines
    assert "…01.wav" in rows[0] and "…02.wav" in rows[1] and f"{tmp_path / stem}_…" in lines[-1]


@pytest.mark.parametrize("likely", [[], [0.25, -1.5]])
def test_json_carries_the_seam_and_the_speed(shown, loops, tmp_path, monkeypatch, likely):
    monkeypatch.setattr(loops.report, "seam_log_likelihood", likely)
    output.tell_made(loops, [tmp_path / "1.wav", tmp_path / "2.wav"], as_json=True)
    told = json.loads(shown[0].getvalue())
    assert told["steps_per_second"] == {"candidates": 123.4}
    assert [row["seam_log_likelihood"] for row in told["loops"]] == (likely or [None, None])
    for row, loop in zip(told["loops"], loops, strict=True):
        assert row["click_ratio"] == pytest.approx(loop.seam.click_ratio, abs=1e-3)
        assert row["samples"] == len(loop.samples) == 128_000
