"""Labelled clips: the grids that are known of them, not found."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from looper.beats.grid import BeatGrid
from looper.beats.spans import Span


def grid_of(start: float, end: float, beats: int, beats_per_bar: int, beat_times: np.ndarray) -> BeatGrid:
    """A grid that is known, not found."""
    bpm = 60 * beats / (end - start)
    bars = beats / beats_per_bar
    span = (Span(start, end, beats, 1.0),)
    return BeatGrid(bpm, beats_per_bar, beat_times, np.array([start]), start, end, bars, 1.0, span)


def beats_asked(seconds: float, bpm: float) -> int | None:
    """Whole beats of the asked tempo in a stretch of music, or None where they do not fit."""
    exact = seconds * bpm / 60
    beats = max(1, round(exact))
    return beats if abs(exact / beats - 1) < 0.1 else None


def true_grid(clip: dict) -> BeatGrid | None:
    """The most bars (a power of two) between true downbeats, their beats at the asked level."""
    downbeats, beats = np.array(clip["downbeats"]), np.array(clip["beats"])
    if len(downbeats) < 2:
        return None
    start, end = downbeats[0], downbeats[2 ** int(np.log2(len(downbeats) - 1))]
    asked = beats_asked(end - start, clip["requested_bpm"])
    return asked and grid_of(start, end, asked, clip["beats_per_bar"], beats)


def bar_grids(clip: dict, seconds: float) -> Iterator[BeatGrid]:
    """Every single bar of a recording: loops that follow each other as variations do."""
    downbeats = np.array(clip["downbeats"])
    for start, end in pairwise(downbeats):
        beats = beats_asked(downbeats[1] - downbeats[0], clip["requested_bpm"])
        if beats and end < seconds:
            yield grid_of(start, end, beats, clip["beats_per_bar"], np.array([]))
