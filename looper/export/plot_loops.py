"""A picture of a set of loops: waveforms aligned, bars and beats, and each seam close up."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from looper.export.figure import drawable, outline, save_picture
from looper.files.text import plain, tempo
from looper.loops.clicks import CLICK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from looper.loops.loop import Loop

_SEAM_SECONDS = 0.02
_INK, _WAVE, _BAR, _BEAT = "#44403c", "#78716c", "#c2410c", "#d6d3d1"


def plot_loops(loops: Sequence[Loop], path: str | pathlib.Path) -> pathlib.Path:
    """Save a PNG (or what the suffix says) of `loops`, one row each.

    The right column shows the last and the first 20 ms of each loop as they are heard when it repeats.

    Raises
    ------
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 0.9 + 1.1 * len(loops)), layout="constrained")
    axes = figure.subplots(len(loops), 2, squeeze=False, sharex="col", width_ratios=[5, 1])
    for number, (loop, (wide, close)) in enumerate(zip(loops, axes, strict=True), 1):
        mono = loop.samples if loop.samples.ndim == 1 else loop.samples.mean(axis=1)
        _draw_loop(wide, loop, mono, number)
        _draw_seam(close, loop, mono)
    first = loops[0]
    prompt = drawable(plain(first.info.get("prompt", ""), 70))
    facts = [prompt, f"{tempo(first.bpm)} BPM", f"{first.bars:g} bar{'s' * (first.bars != 1)}"]
    axes[0, 0].set_title("  ·  ".join(filter(None, facts)), loc="left", fontsize=11)
    axes[0, 1].set_title("the seam", loc="left", fontsize=11)
    axes[-1, 0].set_xlabel("bar.beat")
    axes[-1, 1].set_xlabel("ms")
    return save_picture(figure, path, dpi=100)


def _draw_loop(axes: Axes, loop: Loop, mono: np.ndarray, number: int) -> None:
    """Waveform over a grid of bars and beats."""
    beats = np.arange(loop.beats + 1) * 60 / loop.bpm
    bars = beats[:: loop.beats_per_bar]
    axes.vlines(beats, -1, 1, color=_BEAT, linewidth=0.7, zorder=0)
    axes.vlines(bars, -1, 1, color=_BAR, linewidth=1.2, zorder=0)
    times, low, high = outline(mono, loop.sample_rate, 2000)
    axes.fill_between(times, low, high, color=_WAVE, linewidth=0.4)
    axes.set(xlim=(0, loop.seconds), ylim=(-1, 1), yticks=[])
    named = beats[: -1 if loop.beats > 1 else None]
    if loop.beats > 16:  # only the bars have room for their names
        named = bars[:-1]
    label = lambda k: f"{k // loop.beats_per_bar + 1}.{k % loop.beats_per_bar + 1}"
    axes.set_xticks(named, [label(round(t * loop.bpm / 60)) for t in named])
    axes.set_ylabel(f"{number:02d}", rotation=0, ha="right", va="center")
    _plain_frame(axes)


def _draw_seam(axes: Axes, loop: Loop, mono: np.ndarray) -> None:
    """The last and the first milliseconds as they follow each other."""
    n = min(len(mono), round(_SEAM_SECONDS * loop.sample_rate))
    around = np.concatenate([mono[-n:], mono[:n]])
    axes.plot((np.arange(2 * n) - n) / loop.sample_rate * 1000, around, linewidth=0.9, color=_INK)
    axes.axvline(0, color=_BAR, linewidth=1.2, zorder=0)
    axes.set(xlim=(-1000 * _SEAM_SECONDS, 1000 * _SEAM_SECONDS), ylim=(-1, 1), yticks=[])
    ratio = loop.seam.click_ratio
    axes.text(0.03, 0.06, f"click {ratio:.2f}", transform=axes.transAxes, fontsize=8,
              color=_INK if ratio <= CLICK else _BAR)  # fmt: skip
    _plain_frame(axes)


def _plain_frame(axes: Axes) -> None:
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.tick_params(length=2, labelsize=8)
