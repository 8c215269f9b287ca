"""Say how loops of generated music miss the bar line, and how many could hit it at all.

    python -m bench.quality.bar_errors --set DIR [--networks training/older.npz] [--json]

DIR holds MusicGen's music with two trackers' bar lines (`training.bar_labels` says how); the clips on which
they agree are counted. The best that any reading could do is what the hypothesis nearest to the agreed lines
would get: the longest loop often fits at one place only, and where that lies a bar before the trackers' first
line it counts as wrong. ``--networks`` listens with others than the shipped ones, which were tuned on such music.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import soundfile as sf

import looper
from looper.beats import downbeats
from looper.beats.downbeats import DownbeatHypothesis
from looper.beats.hypotheses import MetricalHypothesis
from training.bar_labels import WINDOW_SECONDS, f_measure
from training.calibration import PLAIN
from training.downbeats import load, save

KINDS = ("right", "where the agreed lines go on", "one beat off", "half a bar off", "between beats")


def kind_of(start: float, lines: np.ndarray) -> str:
    """One of KINDS: where a loop starts among bar lines, in beats of a quarter of their bar.

    Examples
    --------
    >>> lines = np.array([2.0, 4.0, 6.0])
    >>> [kind_of(start, lines) for start in (4.05, 0.0, 2.5, 5.0, 4.25)]
    ['right', 'where the agreed lines go on', 'one beat off', 'half a bar off', 'between beats']
    """
    if np.abs(lines - start).min() <= WINDOW_SECONDS:
        return "right"
    beat = float(np.median(np.diff(lines))) / 4
    away = (start - lines[np.abs(lines - start).argmin()]) / beat
    if abs(away - round(away)) * beat > WINDOW_SECONDS:
        return "between beats"
    return KINDS[(1, 2, 3, 2)[round(away) % 4]]


def nearest(found: list[MetricalHypothesis], lines: np.ndarray) -> list[DownbeatHypothesis]:
    """The hypothesis whose bar lines match best, as the only one."""
    bars = [(h, m) for h in found for m in range(4)]
    h, m = max(bars, key=lambda bar: f_measure(lines, bar[0].beat_times[bar[1] :: 4]))
    return [DownbeatHypothesis(float(h.beat_times[m]), 4 * h.period, h.level, 1.0)]


def measure(folder: Path) -> dict[str, float]:
    """Shares of the clips with agreed bar lines: of each kind, and of those that could be right."""
    kinds: Counter[str] = Counter()
    possible = 0
    for clip in json.loads((folder / "truth.json").read_text()):
        lines = np.array(clip.get("agreed_downbeats") or [])
        if len(lines) > 1:
            samples, rate = sf.read(folder / clip["file"], dtype="float32")
            asked = clip["requested_bpm"]
            kinds[kind_of(looper.analyse(samples, rate, asked).loop_start, lines)] += 1
            told = lambda found, _, lines=lines: nearest(found, lines)
            with mock.patch.object(downbeats, "downbeat_hypotheses", told):
                possible += kind_of(looper.analyse(samples, rate, asked).loop_start, lines) == "right"
    clips = kinds.total()
    return {"clips": clips, **{k: kinds[k] / clips for k in KINDS}, "could be right": possible / clips}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--networks", type=Path, default=downbeats.WEIGHTS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.npz"  # confidence is not looked at: networks without a scale will do
        save(load(args.networks), PLAIN, plain)
        downbeats.use_weights(plain)
        report = measure(args.set)
    if args.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:36s} {value:6.3f}" if isinstance(value, float) else f"{name:36s} {value:6d}")


if __name__ == "__main__":
    main()
