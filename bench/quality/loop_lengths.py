"""Sample counts of real loops at many tempi and durations, read back from the files by libsndfile.

python -m bench.quality.loop_lengths [--model tiny] [--variations 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile

import soundfile

from looper.export.loop_files import write_all
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest

TEMPI = (40, 61.3, 93.7, 120, 127.003, 174, 299.9)
DURATIONS = (2, 8, 20)


def measure(maker: LoopMaker, bpm: float, max_duration: float, variations: int) -> dict[str, object]:
    request = LoopRequest(
        "house, 909 drums", bpm=bpm, max_duration=max_duration, variations=variations, seed=11
    )
    loops = maker.make(request)
    with tempfile.TemporaryDirectory() as folder:
        found = [soundfile.info(file) for file in write_all(loops, pathlib.Path(folder))]
    expected = round(loops[0].beats * 60 / bpm * maker.generator.sample_rate)
    return {
        "bpm": bpm,
        "max_duration": max_duration,
        "bars": loops.report.bars,
        "samples": expected,
        "exact": all(info.frames == expected for info in found),
        "fits": all(info.duration <= max_duration for info in found),
        "measured_bpm": [round(value, 3) for value in loops.report.measured_bpm],
        "confidence": [round(value, 2) for value in loops.report.confidence],
        "click_ratio": [round(loop.seam.click_ratio, 2) for loop in loops],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--variations", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    maker = LoopMaker.load(args.model)
    rows = []
    for bpm in TEMPI:
        for seconds in DURATIONS:
            rows.append(measure(maker, bpm, seconds, args.variations))
            if not args.json:
                print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)
    if args.json:
        print(json.dumps(rows))
    else:
        print(
            f"exact {sum(bool(r['exact']) for r in rows)} of {len(rows)}, fit {sum(bool(r['fits']) for r in rows)}"
        )


if __name__ == "__main__":
    main()
