"""Lines of a prediction's log, each of them written whole: halves of several predictions' lines would mix."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

from looper.runtime.cancellation import check_cancelled

PARTS = 10  # lines a stage


def write_line(text: str, stream: TextIO | None = None) -> None:
    """Write a line in one go, which `print` does not; on standard output by default."""
    (stream or sys.stdout).write(text + "\n")


class ProgressLines:
    """Progress as one line, as tqdm has it, each tenth of a stage; ends a prediction that was cancelled."""

    def __init__(self) -> None:
        self._stage, self._done, self._started = "", 0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show `done` of `total`."""
        check_cancelled()
        if stage != self._stage or done < self._done:  # a further round starts its stage again
            self._stage, self._done, self._started = stage, 0, time.monotonic()
        if done * PARTS // total > self._done * PARTS // total:
            taken = time.monotonic() - self._started
            write_line(tqdm.format_meter(done, total, taken, ncols=80, prefix=stage, ascii=True), sys.stderr)
        self._done = done
