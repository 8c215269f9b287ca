"""A picture of a beat grid: waveform, beats, bar lines, the chosen span and how sure it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from looper.export.figure import outline, save_picture
from looper.samples import mono

if TYPE_CHECKING:
    from looper.beats.grid import BeatGrid


def plot_grid(samples: np.ndarray, sample_rate: int, grid: BeatGrid, path: str | Path) -> None:
    """Draw a recording with its grid and the spans that were considered.

    Parameters
    ----------
    samples : numpy.ndarray
        ``[T]`` or ``[T, C]``.
    sample_rate : int
        Hz.
    grid : BeatGrid
        What was found in it.
    path : str or Path
        The file to write; its suffix says the format (png, svg, pdf).

    Raises
    ------
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    from matplotlib.figure import Figure

    x = mono(samples)
    seconds = len(x) / sample_rate
    figure = Figure(figsize=(min(24.0, max(10.0, 1.2 * seconds)), 4.2), layout="constrained")
    wave, list_of_spans = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    times, low, high = outline(x, sample_rate)
    wave.fill_between(times, low, high, color="0.55", linewidth=0)
    top = 1.05 * max(1e-3, float(np.abs(x).max()))
    wave.vlines(grid.beat_times, -top, top, color="tab:blue", linewidth=0.6, alpha=0.6, label="beat")
    wave.vlines(grid.downbeat_times, -top, top, color="tab:red", linewidth=1.4, label="bar line")
    wave.axvspan(grid.loop_start, grid.loop_end, color="tab:green", alpha=0.15, label="loop")
    wave.set(ylim=(-top, top), xlim=(0, seconds), yticks=[])
    drift = f", drift {100 * grid.drift:.1f} %" if grid.drift > 1e-6 else ""
    wave.set_title(
        f"{grid.bpm:.2f} bpm{drift}, {grid.bars:g} bars of {grid.beats_per_bar}, confidence {grid.confidence:.2f}"
    )
    wave.legend(loc="upper right", ncols=3, fontsize="small")
    for row, span in enumerate(grid.spans[:8]):
        chosen = row == 0
        list_of_spans.barh(
            -row, span.end - span.start, left=span.start, color="tab:green" if chosen else "0.75", height=0.8
        )
        text = f"{span.beats} beats, score {span.score:.2f}"
        list_of_spans.text(span.start, -row, text, va="center", fontsize="x-small")
    list_of_spans.set(yticks=[], xlabel="seconds", ylabel="spans")
    save_picture(figure, path)
