"""A picture of a set of loops: waveforms aligned, bars and beats, and each seam close up."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from looper.loops import Loop

_SEAM_SECONDS = 0.02


def plot_loops(loops: Sequence[Loop], path: str | pathlib.Path) -> pathlib.Path:
    """Save a PNG (or what the suffix says) of `loops`, one row each.

    The right column shows the last and the first 20 ms of each loop as they are heard when it repeats.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 0.8 + 1.5 * len(loops)), layout="constrained")
    axes = figure.subplots(len(loops), 2, squeeze=False, width_ratios=[5, 1])
    for number, (loop, (wide, close)) in enumerate(zip(loops, axes, strict=True), 1):
        mono = loop.samples if loop.samples.ndim == 1 else loop.samples.mean(axis=1)
        time = np.arange(len(mono)) / loop.sample_rate
        step = max(1, len(mono) // 20_000)
        wide.plot(time[::step], mono[::step], linewidth=0.4, color="#444")
        for beat in range(loop.beats + 1):
            bar = beat % loop.beats_per_bar == 0
            wide.axvline(
                beat * 60 / loop.bpm,
                color="#c2410c" if bar else "#ccc",
                linewidth=1 if bar else 0.6,
                zorder=0,
            )
        wide.set(xlim=(0, loop.seconds), ylim=(-1, 1), yticks=[], ylabel=f"{number:02d}")
        n = min(len(mono), round(_SEAM_SECONDS * loop.sample_rate))
        around = np.concatenate([mono[-n:], mono[:n]])
        close.plot((np.arange(2 * n) - n) / loop.sample_rate * 1000, around, linewidth=0.8, color="#444")
        close.axvline(0, color="#c2410c", linewidth=1)
        close.set(yticks=[], title=f"click ratio {loop.seam.click_ratio:.2f}")
        close.title.set_fontsize(8)
    axes[-1, 0].set_xlabel(f"seconds; bar lines at {loops[0].bpm:g} BPM")
    axes[-1, 1].set_xlabel("ms round the seam")
    figure.savefig(path, dpi=90)
    return pathlib.Path(path)
