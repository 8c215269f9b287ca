"""How the model finds the seams of the loops that are chosen, by three ways of choosing.

    python -m bench.quality.seam_likelihood [--requests 40] [--model tiny] [--json]

For each request the same four candidates are drawn. `drawn` takes the first one, as a program that
draws once must; `beats` the one with the surest grid; `ranked` is what the pipeline takes, which knows
the seams too and may move the cut by whole bars.

Columns, in nats per token; 0 is a repeat that surprises the model no more than the music itself did:
  mean, median   seam log-likelihood: the loop's first second after its own last bar, against in place
  odd            share of loops below -1
  bar            share of loops that start on a bar line of the clock the model played by
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from looper.pipeline.maker import LoopMaker
from looper.pipeline.session import CANDIDATES, LoopSession
from looper.pipeline.takes import Take
from looper.request import LoopRequest

PROMPTS = (
    "deep house, warm bass",
    "boom bap, dusty drums",
    "techno, driving",
    "trap, heavy bass",
    "drum and bass",
    "disco funk",
    "reggae dub",
)


def on_bar(take: Take, period: int, frame_rate: float, beats_per_bar: int) -> bool:
    """Whether the loop starts within 40 ms or so of a bar line of the clock."""
    beats = take.grid.loop_start * frame_rate / period % beats_per_bar
    return min(beats, beats_per_bar - beats) < 0.1


def choose(maker: LoopMaker, request: LoopRequest) -> tuple[dict[str, Take], int]:
    """The take of each way, and the clock's frames per beat."""
    session = LoopSession(maker.generator, request, lambda *_: None)
    takes = session.draw_candidates(range(CANDIDATES))
    uncut = list({take.attempt: take for take in reversed(takes)}.values())[::-1]  # each in its own cut
    ways = {
        "drawn": uncut[0],
        "beats": max(uncut, key=lambda take: take.score),
        "ranked": max(takes, key=lambda take: take.rank_score),
    }
    return ways, session.plan.period or 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    maker = LoopMaker.load(args.model)
    tempi = np.random.default_rng(0).uniform(60, 180, args.requests)
    seams: dict[str, list[float]] = {"drawn": [], "beats": [], "ranked": []}
    bars: dict[str, list[bool]] = {name: [] for name in seams}
    for k, bpm in enumerate(tempi):
        request = LoopRequest(PROMPTS[k % len(PROMPTS)], bpm=float(bpm), variations=1, seed=500 + k)
        ways, period = choose(maker, request)
        for name, take in ways.items():
            seams[name].append(take.seam_log_likelihood or 0.0)
            if period:
                bars[name].append(on_bar(take, period, maker.generator.frame_rate, request.beats_per_bar))
    table = [
        {
            "choice": name,
            "model": args.model,
            "requests": args.requests,
            "mean": float(np.mean(found)),
            "median": float(np.median(found)),
            "odd": float(np.mean(np.array(found) < -1)),
            "bar": float(np.mean(bars[name])) if bars[name] else None,
        }
        for name, found in seams.items()
    ]
    if args.json:
        print(json.dumps(table, indent=1))
        return
    for row in table:
        cells = (f"{name} {value:.3g}" if isinstance(value, float) else value for name, value in row.items())
        print(*cells, sep="  ")


if __name__ == "__main__":
    main()
