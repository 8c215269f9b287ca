"""Text prompt and tempo in, seamless bar-aligned music loops out, at exactly the asked BPM.

    import looper

    maker = looper.LoopMaker.load("tiny")  # "medium", "large", or a folder
    loops = maker.make(looper.LoopRequest(prompt="deep house", bpm=124, variations=4, seed=1))
    loops[0].save("loop.wav")

    grid = looper.analyse(samples, sample_rate, bpm=120)  # beats and bars of any recording
    loop = looper.cut(samples, sample_rate, bpm=120)  # and a loop out of it

Importing this package is cheap: torch and audiocraft are loaded when a model is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from looper.runtime import audiocraft_compat

if TYPE_CHECKING:
    from looper.beats.grid import BeatGrid, analyse
    from looper.beats.unknown_tempo import find_tempi
    from looper.checkpoints.sources import WeightsError
    from looper.loops.cut import cut
    from looper.loops.loop import Loop
    from looper.melody import Melody
    from looper.pipeline.maker import LoopMaker
    from looper.pipeline.result import Loops, Report
    from looper.request import LoopRequest

__version__ = "0.1.0"

audiocraft_compat.install()

_HOMES = {
    "BeatGrid": "beats.grid",
    "Loop": "loops.cut",
    "LoopMaker": "pipeline.maker",
    "LoopRequest": "request",
    "Loops": "pipeline.result",
    "Melody": "melody",
    "Report": "pipeline.result",
    "WeightsError": "checkpoints.store",
    "analyse": "beats.grid",
    "find_tempi": "beats.unknown_tempo",
    "cut": "loops.cut",
}

__all__ = [
    "BeatGrid",
    "Loop",
    "LoopMaker",
    "LoopRequest",
    "Loops",
    "Melody",
    "Report",
    "WeightsError",
    "analyse",
    "cut",
    "find_tempi",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'looper' has no attribute {name!r}")
    return getattr(import_module(f"looper.{_HOMES[name]}"), name)
