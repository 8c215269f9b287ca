"""A predict.py whose predictions misbehave where a test asks for it, and only those."""

from __future__ import annotations

from pathlib import Path

from looper.runtime import paths

EXIT = "end the process"  # a prompt
BROKEN = "raise an error that no check foresees"  # a prompt
LARGE = "make large files"  # a prompt: 20 times 1.5 MB
NOT_FINITE = 666  # a seed: the rows' numbers are as those of broken weights

_PLANTS = f"""

import sys

import looper.pipeline.session
import looper.service.service
from looper.generation.slots import Slots
from looper.pipeline.session import LoopSession
from looper.service.service import write_all

_fill, _run = Slots.fill, LoopSession.run


def fill(self, task):
    _fill(self, task)
    if task.row.key[0] == {NOT_FINITE}:
        self.values.guidance[task.slot] = float("nan")


def run(self):
    if self.request.prompt == {EXIT!r}:
        sys.exit("planted")
    if self.request.prompt == {BROKEN!r}:
        raise LookupError("planted")
    return _run(self)


def write(loops, folder, output_format):
    if loops.request.prompt != {LARGE!r}:
        return write_all(loops, folder, output_format)
    files = [folder / f"{{k}}.wav" for k in range(20)]
    for k, file in enumerate(files):
        file.write_bytes(bytes([loops.report.seed, k]) * 750_000)
    return files


looper.pipeline.session.ROUNDS = 0  # random weights always drift
Slots.fill, LoopSession.run, looper.service.service.write_all = fill, run, write
"""


def plant(root: Path) -> Path:
    """Make `root` a folder to serve from, with the project's predict.py and the plants in it."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "predict.py").write_text((paths.PROJECT / "predict.py").read_text() + _PLANTS)
    return root
