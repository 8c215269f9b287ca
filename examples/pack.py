"""A pack of loops from a list of prompts: one tempo, one folder and one zip a prompt.

python examples/pack.py "boom bap, dusty drums" "deep house, warm bass" --bpm 124 --model tiny --out packs
"""

from __future__ import annotations

import argparse
from pathlib import Path

import looper
from looper.export.pack import write_pack


def main() -> None:
    """Load the model once, and make a pack of every prompt."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--bpm", type=float, default=124)
    parser.add_argument("--variations", type=int, default=4)
    parser.add_argument("--max-duration", type=float, default=8)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("packs"))
    given = parser.parse_args()
    maker = looper.LoopMaker.load(given.model)
    for seed, prompt in enumerate(given.prompts):
        request = looper.LoopRequest(
            prompt, bpm=given.bpm, variations=given.variations, max_duration=given.max_duration, seed=seed
        )
        print(write_pack(maker.make(request), given.out)["zip"])


if __name__ == "__main__":
    main()
