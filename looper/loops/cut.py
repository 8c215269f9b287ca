"""Bar-exact loops: cut from a recording on its beat grid, brought to tempo, closed, levelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from looper.length import check_bars
from looper.loops import seam as _seam
from looper.loops import stretch as _stretch
from looper.loops.loop import Loop, loop_length
from looper.runtime.validation import FieldError, whole
from looper.samples import check_samples

if TYPE_CHECKING:
    from looper.beats.grid import BeatGrid

# `fit_grid` lets a beat that begins or ends a loop lie this far outside the recording
_SLACK_SECONDS = 0.031


def cut(
    samples: np.ndarray,
    sample_rate: int,
    bpm: float,
    beats_per_bar: int = 4,
    *,
    max_seconds: float | None = None,
    bars: int | None = None,
    grid: BeatGrid | None = None,
) -> Loop:
    """Cut a loop of exactly `bpm` from a recording of about that tempo.

    The loop is aligned to the beat grid, stretched with real audio around it (not at all within
    0.1 % of the tempo), cut to the exact number of samples, and closed by a crossfade last of all.

    Parameters
    ----------
    samples : np.ndarray
        float [T] or [T, C] within -1..1.
    sample_rate : int
        Hz.
    bpm : float
        The asked tempo.
    beats_per_bar : int
        Beats of one bar.
    max_seconds : float, optional
        Longest loop; the recording's own length when not given.
    bars : int, optional
        Exactly so many bars; as many as there is room for when not given.
    grid : BeatGrid, optional
        Where the beats are; found by `looper.analyse` when not given.

    Returns
    -------
    Loop
        With `loop_length(beats, bpm, sample_rate)` samples, shaped like the input.

    Raises
    ------
    ValueError
        If the samples are unusable, too short for one beat or for `bars`, or more than 30 % off the tempo, or
        if `grid` has bars of other beats.

    Examples
    --------
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 16)  # two a second
    >>> loop = cut(clicks, 32_000, bpm=121, max_seconds=4)
    >>> loop.beats, len(loop.samples)
    (8, 126942)
    """
    columns, sample_rate = check_samples(samples, sample_rate, bpm), whole("sample_rate", sample_rate)
    if grid is None:
        from looper.beats.grid import fit_grid

        beats = None if bars is None else check_bars(bars) * beats_per_bar
        grid = fit_grid(columns, sample_rate, bpm, beats_per_bar, max_seconds=max_seconds, beats=beats)
    _check_grid(grid, bpm, beats_per_bar, bars)
    n = loop_length(grid.beats, bpm, sample_rate)
    if n < 256:
        raise ValueError(f"a loop must have at least 256 samples, got {n}: raise sample_rate or the length")
    missing = grid.loop_end - len(columns) / sample_rate
    if max(missing, -grid.loop_start) > _SLACK_SECONDS:
        raise ValueError(
            f"the loop reaches {max(missing, -grid.loop_start):.2f} s outside the recording; "
            "pass a longer recording or a smaller max_seconds"
        )
    body, origin = _stretch.in_tempo(columns, sample_rate, grid, n)
    lacking = max(0, origin + n - len(body))
    body = np.pad(body, ((max(0, -origin), lacking), (0, 0)))
    closed, report = _seam.close(body, max(0, origin), n, sample_rate)
    shaped = closed[:, 0].copy() if np.ndim(samples) == 1 else closed
    return Loop(shaped, sample_rate, float(bpm), beats_per_bar, int(grid.beats), grid, report)


def _check_grid(grid: BeatGrid, bpm: float, beats_per_bar: int, bars: int | None) -> None:
    if bars is not None and grid.beats != bars * beats_per_bar:
        raise FieldError(
            "bars",
            f"cannot be {bars}: at {bpm:g} BPM there is room for {grid.bars:g}; ask for that, or pass a longer recording",
        )
    if grid.beats_per_bar != beats_per_bar:
        raise ValueError(
            f"the grid has bars of {grid.beats_per_bar} beats, got beats_per_bar={beats_per_bar}: "
            "pass the grid's own, or leave the grid out"
        )
