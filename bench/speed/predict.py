"""Whole predictions, from the request to the files, against the original's way on the same weights.

    python -m bench.speed.predict [--model tiny] [--variations 1 4 20] [--json]

The original's way is audiocraft's own loop: the first loop by itself, then one continuation after another, each decoded
by itself. Its beat tracking, stretch and files are not counted, ours are. `ratio_vs_original` is its time over ours.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time

import torch

from looper.export.loop_files import write_all
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest


def ours(maker: LoopMaker, request: LoopRequest) -> dict[str, float]:
    """Seconds by stage."""
    loops = maker.make(request)
    with loops.report.timed("export"), tempfile.TemporaryDirectory() as folder:
        write_all(loops, pathlib.Path(folder))
    return loops.report.seconds


@torch.inference_mode()
def originals(maker: LoopMaker, request: LoopRequest) -> float:
    """Seconds of one `generate` after another, audio prompts of four beats from the second on."""
    from audiocraft.modules.conditioners import ConditioningAttributes

    generator = maker.generator
    lm, codec = generator.model.lm, generator.model.codec
    frames = round(request.max_duration * generator.frame_rate)
    prompt = round(4 * 60 / request.bpm * generator.frame_rate)
    conditions = [ConditioningAttributes(text={"description": request.model_text})]
    threads = torch.get_num_threads()
    torch.set_num_threads(generator.threads)
    started = time.perf_counter()
    with torch.autocast("cuda", torch.float16, enabled=generator.model.device.type == "cuda"):
        codes = lm.generate(conditions=conditions, max_gen_len=frames, top_k=min(250, lm.card))
        codec.decode(codes)
        for _ in range(request.variations - 1):
            tail = codes[..., -prompt:]
            more = lm.generate(
                tail, conditions=conditions, max_gen_len=frames + prompt, top_k=min(250, lm.card)
            )
            codec.decode(more)
    if generator.model.device.type == "cuda":
        torch.cuda.synchronize()
    taken = time.perf_counter() - started
    torch.set_num_threads(threads)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--variations", type=int, nargs="+", default=[1, 4, 20])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    maker = LoopMaker.load(args.model)
    ours(maker, LoopRequest("warm up", bpm=120, variations=2, max_duration=2, seed=0))
    rows = []
    for variations in args.variations:
        request = LoopRequest("deep house", bpm=120, variations=variations, max_duration=8, seed=1)
        stages = ours(maker, request)
        total = sum(stages.values())
        ratio = originals(maker, request) / total
        split = {stage: round(seconds, 2) for stage, seconds in stages.items()}
        rows.append(
            {
                "model": args.model,
                "device": maker.generator.model.device.type,
                "variations": variations,
                "seconds": round(total, 2),
                "ratio_vs_original": round(ratio, 2),
                "stages": split,
            }
        )
        if not args.json:
            print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
