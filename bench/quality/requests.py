"""Choose among several draws of a prompt, as a request does, and count the loops on a bar line.

    python -m bench.quality.requests --set DIR [DIR ...] [--folds training/work/beats] [--json]

DIR holds MusicGen's music with two trackers' bar lines (`training.bar_labels` says how); the clips of one
model and prompt are the candidates of one request for 8 s. Three ways to choose: the first one drawn, the
surest, and the highest rank (confidence, tempo, bars that join; there are no codes to judge seams by).
Reports shares of requests whose loop starts within 70 ms of a bar line of either tracker, and, where both
agree on the chosen clip, of an agreed one. With ``--folds``, each prompt is heard by the networks that were
tuned without it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile as sf

from looper.beats import downbeats
from looper.length import loop_beats
from looper.pipeline.plan import Plan
from looper.pipeline.takes import Take, score_take

ON_LINE_SECONDS = 0.07
LOOP_SECONDS = 8.0


@dataclass(frozen=True)
class Candidate:
    """One draw: how it is judged, and whether its loop starts on a bar line.

    Attributes
    ----------
    take : Take
    supported : bool
        Its loop starts on a bar line of either tracker.
    agreed : bool or None
        Its loop starts on a bar line of both; None where they do not agree.
    """

    take: Take
    supported: bool
    agreed: bool | None


WAYS: dict[str, Callable[[Candidate], float]] = {
    "first drawn": lambda _: 0.0,
    "surest": lambda c: c.take.grid.confidence,
    "highest rank": lambda c: c.take.rank_score,
}


def _plan(bpm: float) -> Plan:
    return Plan(loop_beats(bpm, LOOP_SECONDS, 4), None, bpm, 0, 0, 0, 0, 4)  # frames are for generating


def candidate(clip: dict, folder: Path) -> Candidate:
    """Judge a clip as the pipeline judges what a model drew."""
    samples, rate = sf.read(folder / clip["file"], dtype="float32")
    take = score_take(samples, rate, _plan(clip["requested_bpm"]), 4)

    def on(lines: list[float]) -> bool:
        return bool(lines) and float(np.abs(np.array(lines) - take.grid.loop_start).min()) <= ON_LINE_SECONDS

    lines = [t for name in ("madmom", "beatnet") for t, n in clip.get(name) or [] if n == 1]
    agreed = clip.get("agreed_downbeats")
    return Candidate(take, on(lines), on(agreed) if agreed else None)


def clips_of(folders: list[Path]) -> Iterator[tuple[dict, Path]]:
    """Clips with a tempo and both trackers' beats, in the order of their names."""
    rows = [(clip, folder) for folder in folders for clip in json.loads((folder / "truth.json").read_text())]
    for clip, folder in sorted(rows, key=lambda row: row[0]["file"]):
        if clip.get("requested_bpm") and clip.get("madmom"):
            yield clip, folder


def hear(folders: list[Path], folds: Path | None) -> list[list[Candidate]]:
    """The candidates of each request."""
    rows = list(clips_of(folders))
    requests: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    if folds is None:
        for clip, folder in rows:
            requests[clip["model"], clip["prompt"]].append(candidate(clip, folder))
        return list(requests.values())
    from training.downbeats import fold_of

    by_fold = sorted(rows, key=lambda row: fold_of(row[0]["prompt"]))
    for fold, part in groupby(by_fold, key=lambda row: fold_of(row[0]["prompt"])):
        downbeats.use_weights(folds / f"fold-{fold}.npz")
        for clip, folder in part:
            requests[clip["model"], clip["prompt"]].append(candidate(clip, folder))
    return list(requests.values())


def share(values: list[bool]) -> float:
    """Share of true values; NaN of none."""
    return float(np.mean(values)) if values else float("nan")


def chosen(requests: list[list[Candidate]], way: Callable[[Candidate], float]) -> dict[str, float]:
    """Choose one candidate of each request, and say how often its loop starts on a bar line."""
    best = [max(candidates, key=way) for candidates in requests]
    agreed = [c.agreed for c in best if c.agreed is not None]
    return {
        "requests": len(best),
        "supported": share([c.supported for c in best]),
        "agreed": share(agreed),
        "agreed_requests": len(agreed),
        "another_round": share([c.take.drifted for c in best]),
        "bar_jump": share([c.take.grid.spans[0].jump_db > 6 for c in best]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", type=Path, nargs="+", required=True)
    parser.add_argument("--folds", type=Path, help="where python -m training.downbeats left fold-K.npz")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    requests = hear(args.set, args.folds)
    report = {name: chosen(requests, way) for name, way in WAYS.items()}
    if args.json:
        print(json.dumps(report))
        return
    print(f"{'':14s} requests  supported  agreed (requests)  another round  bars jump")
    for name, row in report.items():
        print(
            f"{name:14s} {row['requests']:8d}  {row['supported']:9.3f}  {row['agreed']:6.3f} "
            f"({row['agreed_requests']:8d})  {row['another_round']:13.3f}  {row['bar_jump']:9.3f}"
        )


if __name__ == "__main__":
    main()
