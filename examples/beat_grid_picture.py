"""A picture of the beats and bar lines found in a recording, and of the loops that were considered.

python examples/beat_grid_picture.py jam.wav 120 jam.png
"""

from __future__ import annotations

import sys

import soundfile

import looper
from looper.export.plot_grid import plot_grid


def main() -> None:
    """Read, analyse, draw."""
    source, bpm, target = sys.argv[1:]
    samples, sample_rate = soundfile.read(source, dtype="float32")
    grid = looper.analyse(samples, sample_rate, float(bpm))
    plot_grid(samples, sample_rate, grid, target)
    print(f"{target}: {len(grid.beat_times)} beats at {grid.bpm:.2f} BPM, confidence {grid.confidence:.2f}")


if __name__ == "__main__":
    main()
