"""Score our beat grid beside other trackers on clips with known beats.

    python -m bench.quality.beats --set DIR [--limit N] [--json]

DIR holds ``truth.json`` and audio files, as ``training.clips.render`` writes them. Others' loops are the
longest power-of-two number of bars from their first bar line (`bench.quality.trackers`; librosa's first
beat). Prints one row per tracker and, for ours, the reliability table of its confidence.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import mir_eval
import numpy as np
import soundfile as sf

import looper
from bench.quality import trackers
from bench.quality.trackers import Track

BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.001)


def asked_beats(clip: dict) -> np.ndarray:
    """True beats at the asked metrical level."""
    beats = np.array(clip["beats"])
    if clip["level"] == 2:
        return np.sort(np.r_[beats, (beats[:-1] + beats[1:]) / 2])
    if clip["level"] == 0.5:
        first = clip["downbeats"][0] if clip["downbeats"] else beats[0]
        return beats[int(np.argmin(np.abs(beats - first))) % 2 :: 2]
    return beats


def loop_right(clip: dict, start: float, end: float) -> bool:
    """Whether a loop is whole bars within 0.5 % and starts within 50 ms of a true bar line."""
    lines = np.array(clip["downbeats"])
    bar = 60 / clip["musical_bpm"] * clip["beats_per_bar"]
    if end <= start or not len(lines):
        return False
    bars = max(1, round((end - start) / bar))
    first = int(np.argmin(np.abs(lines - start)))
    lengths = [bars * bar, *(lines[first + bars :][:1] - lines[first])]
    exact = min(abs((end - start) / n - 1) for n in lengths) < 0.005
    return bool(exact and abs(lines[first] - start) <= 0.05)


def ours(samples: np.ndarray, rate: int, clip: dict) -> SimpleNamespace:
    grid = looper.analyse(samples, rate, clip["requested_bpm"], clip["beats_per_bar"])
    return SimpleNamespace(
        beats=grid.beat_times,
        downbeats=grid.downbeat_times,
        span=(grid.loop_start, grid.loop_end),
        confidence=grid.confidence,
    )


def row(clip: dict, found: SimpleNamespace) -> dict[str, float]:
    truth = asked_beats(clip)
    beats = np.sort(found.beats[found.beats > -0.03]) if len(found.beats) else np.zeros(0)
    period = np.polyfit(np.arange(len(beats)), beats, 1)[0] if len(beats) > 2 else 1e9
    true = 60 / clip["musical_bpm"]
    return {
        "beat_f": mir_eval.beat.f_measure(truth, np.maximum(0, beats)),
        "downbeat_f": mir_eval.beat.f_measure(np.array(clip["downbeats"]), np.maximum(0, found.downbeats)),
        "tempo_%": min(100.0, *(abs(period / true * k - 1) * 100 for k in (0.5, 1, 2))),
        "phase_ms": 1000 * float(np.median([np.abs(truth - b).min() for b in beats]))
        if len(beats)
        else 500.0,
        "loop_ok": float(loop_right(clip, *found.span)),
        "confidence": found.confidence,
    }


def measure(track: Track, clips: list[dict], folder: Path) -> tuple[list[dict[str, float]], float]:
    rows, spent, audio = [], 0.0, 0.0
    for clip in clips:
        samples, rate = sf.read(folder / clip["file"], dtype="float32")
        began = time.process_time()
        found = track(samples, rate, clip)
        spent, audio = spent + time.process_time() - began, audio + len(samples) / rate
        rows.append(row(clip, found))
    return rows, 8 * spent / audio


def reliability(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    table = []
    for low, high in pairwise(BINS):
        inside = [r for r in rows if low <= r["confidence"] < high]
        if inside:
            said, right = (float(np.mean([r[k] for r in inside])) for k in ("confidence", "loop_ok"))
            table.append(
                {"from": low, "to": min(1.0, high), "clips": len(inside), "said": said, "right": right}
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    clips = json.loads((args.set / "truth.json").read_text())[: args.limit]
    report: dict[str, object] = {"clips": len(clips)}
    tracks = {"looper.analyse": ours, **trackers.installed()}
    for name, track in tracks.items():
        rows, seconds = measure(track, clips, args.set)
        mean = {k: float(np.mean([r[k] for r in rows])) for k in ("beat_f", "downbeat_f", "loop_ok")}
        middle = {k: float(np.median([r[k] for r in rows])) for k in ("tempo_%", "phase_ms")}
        report[name] = {**mean, **middle, "cpu_s_per_8s": seconds}
        if track is ours:
            report["reliability"] = reliability(rows)
    if args.json:
        print(json.dumps(report))
        return
    print(f"{len(clips)} clips\n{'':20s} beat F  downbeat F  loop ok  tempo %  phase ms  CPU s / 8 s")
    for name in tracks:
        r = report[name]
        assert isinstance(r, dict)
        print(
            f"{name:20s} {r['beat_f']:6.3f}  {r['downbeat_f']:10.3f}  {r['loop_ok']:7.3f}  "
            f"{r['tempo_%']:7.3f}  {r['phase_ms']:8.2f}  {r['cpu_s_per_8s']:12.3f}"
        )
    print("\nconfidence  clips  said  right")
    for r in report["reliability"]:  # type: ignore[attr-defined]
        print(f"{r['from']:.2f}-{r['to']:.2f}  {r['clips']:6d}  {r['said']:.2f}  {r['right']:.2f}")


if __name__ == "__main__":
    main()
