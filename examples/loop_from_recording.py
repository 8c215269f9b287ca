"""A loop out of a recording, at a tempo of your choice: no model, no GPU.

python examples/loop_from_recording.py jam.wav 120 loop.wav
"""

from __future__ import annotations

import sys

import soundfile

import looper


def main() -> None:
    """Read, cut, save."""
    source, bpm, target = sys.argv[1:]
    samples, sample_rate = soundfile.read(source, dtype="float32")
    loop = looper.cut(samples, sample_rate, float(bpm))
    loop.save(target)
    print(f"{target}: {loop.bars:g} bars at {loop.bpm:g} BPM, played at {loop.grid.bpm:.2f}")


if __name__ == "__main__":
    main()
