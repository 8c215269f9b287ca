"""What a loop tells of itself: length, key, tags, and its audio for pydub."""

from __future__ import annotations

import numpy as np
import pytest

from looper.beats.grid import BeatGrid
from looper.beats.spans import Span
from looper.loops.cut import cut
from looper.loops.key import heard_in_chroma
from looper.loops.loop import Loop
from looper.loops.seam import SeamReport

RATE = 32_000


def grid_of(start, bpm=120.0, beats=4):
    """Even beats from `start` seconds on."""
    times = start + np.arange(beats + 1) * 60 / bpm
    ends = float(times[0]), float(times[-1])
    return BeatGrid(bpm, 4, times, times[::4], *ends, beats / 4, 1.0, (Span(*ends, beats, 1.0),))


def made(samples, **info):
    """A loop of one bar of four beats at 120 BPM."""
    return Loop(samples, RATE, 120.0, 4, 4, grid_of(0.0), SeamReport(1.0), info)


def chord(*midi):
    t = np.arange(2 * RATE) / RATE
    return (
        sum(np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * t) for note in midi).astype(np.float32) * 0.1
    )


def test_a_loop_lasts_as_many_seconds_as_its_samples_and_has_as_many_bars_as_its_beats():
    loop = made(chord(60))
    assert (loop.seconds, loop.bars) == (2.0, 1.0)
    assert len(loop.segment()) == 2000 and len(loop.segment(3)) == 6000


@pytest.mark.parametrize(("notes", "key"), [((60, 64, 67, 72, 65, 69, 71), "Cmaj"), ((), None)])
def test_tags_name_a_key_where_one_is_clear(notes, key):
    loop = made(chord(*notes) if notes else np.zeros(2 * RATE, np.float32))
    assert (loop.key.name if loop.key else None) == key
    assert loop.tags.root_note == (60 if key else None)
    assert (f"key: {key}" in loop.tags.comment) == bool(key)


def test_a_key_that_is_heard_and_not_clear_is_in_no_tag():
    noise = made(np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32))
    assert noise.heard_key is not None and noise.key is None and noise.tags.key is None


@pytest.mark.parametrize(("length", "title"), [(100, 100), (101, 100), (0, 4)])
def test_a_title_has_a_hundred_characters_at_most_and_a_comment_two_thousand(length, title):
    tags = made(np.zeros(2 * RATE, np.float32), prompt="x" * length).tags
    assert len(tags.title) == title
    many = {f"field {number}": "x" * 3000 for number in range(6)}
    assert len(made(np.zeros(2 * RATE, np.float32), **many).tags.comment) == 2000


@pytest.mark.parametrize(("gap", "taken"), [(0.030, True), (0.032, False)])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_grid_may_lie_a_little_outside_the_recording_and_not_more(gap, taken, side):
    grid = grid_of(side * gap)
    if taken:
        assert len(cut(chord(60), RATE, 120, grid=grid).samples) == 2 * RATE
    else:
        with pytest.raises(ValueError, match=r"0\.03 s outside the recording"):
            cut(chord(60), RATE, 120, grid=grid)


@pytest.mark.parametrize(("rate", "taken"), [(1024, True), (1020, False)])
def test_a_loop_of_fewer_than_256_samples_is_refused(rate, taken):
    grid = grid_of(0.0, 240.0, 1)
    samples = chord(60)[:rate]
    if taken:
        assert len(cut(samples, rate, 240, grid=grid).samples) == 256
    else:
        with pytest.raises(ValueError, match="at least 256 samples, got 255"):
            cut(samples, rate, 240, grid=grid)


def test_a_chroma_that_is_in_part_no_number_has_no_key():
    chroma = np.array([5.0, 0, 3, 0, 4, 4, 0, 5, 0, 3, 0, 4])
    assert heard_in_chroma(chroma) is not None
    chroma[1] = np.nan
    assert heard_in_chroma(chroma) is None
