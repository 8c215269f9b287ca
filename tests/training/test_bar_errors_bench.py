"""The bench that says how loops of generated music miss the bar line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.quality import bar_errors
from tests.training.test_requests_bench import folder_of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "kind"),
    [(0.0, "right"), (0.5, "one beat off"), (1.0, "half a bar off"), (0.25, "between beats")],
)
def test_a_loop_is_filed_by_how_far_it_starts_from_the_agreed_lines(
    tmp_path: Path, first: float, kind: str
) -> None:
    report = bar_errors.measure(folder_of(tmp_path, {"one": first}))
    assert report["clips"] == 1
    assert {k for k in bar_errors.KINDS if report[k]} == {kind}


def test_what_fits_only_before_the_first_agreed_line_could_not_be_right(tmp_path: Path) -> None:
    """Four bars of two seconds fill the clip from its first line on; the trackers' first line is the second."""
    folder = folder_of(tmp_path, {"one": 0.0})
    truth = json.loads((folder / "truth.json").read_text())
    truth[0]["agreed_downbeats"] = truth[0]["agreed_downbeats"][1:]
    (folder / "truth.json").write_text(json.dumps(truth))
    report = bar_errors.measure(folder)
    assert report["where the agreed lines go on"] == 1.0
    assert report["could be right"] == 0.0
