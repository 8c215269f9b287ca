"""The bench that treats draws of one prompt as candidates of a request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile as sf

from bench.quality import requests
from tests.beats.test_grid import RATE, band, even

SECONDS = 9.0


def folder_of(where: Path, lines_at: dict[str, float]) -> Path:
    """Clips of one prompt; the band's bars begin at 0 s, the trackers heard them at ``lines_at``."""
    rows = []
    for name, first in lines_at.items():
        sf.write(where / f"{name}.flac", 0.5 * band(even(120, 0.0, SECONDS), 4, SECONDS), RATE)
        heard = [[first + 0.5 * k, k % 4 + 1] for k in range(int((SECONDS - first) / 0.5))]
        bars = [t for t, k in heard if k == 1]
        rows.append({
            "file": f"{name}.flac", "model": "medium", "prompt": "rock, 120 BPM", "requested_bpm": 120,
            "madmom": heard, "beatnet": heard, "agreed_downbeats": bars,
        })  # fmt: skip
    (where / "truth.json").write_text(json.dumps(rows))
    return where


@pytest.mark.slow
@pytest.mark.parametrize(("first", "share"), [(0.0, 1.0), (0.25, 0.0)])
def test_a_loop_counts_where_the_trackers_heard_a_bar_line(
    tmp_path: Path, first: float, share: float
) -> None:
    folder = folder_of(tmp_path, {"one": first, "two": first})
    found = requests.hear([folder], None)
    assert [len(candidates) for candidates in found] == [2]
    for way in requests.WAYS.values():
        row = requests.chosen(found, way)
        assert row["requests"] == row["agreed_requests"] == 1
        assert row["supported"] == row["agreed"] == share
