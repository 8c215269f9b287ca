"""Progress as whole lines of a prediction's log."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from tqdm import tqdm


class _Lines:
    """A text file for tqdm whose updates are whole lines: a half line would leak into the next prediction's log."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


@dataclass
class ProgressLines:
    """Progress as one tqdm line each tenth of a stage."""

    bars: dict[str, tqdm] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show `done` of `total`."""
        bar = self.bars.get(stage)
        if bar is None or done < bar.n:  # a further round starts its stage again
            self.bars[stage] = bar = tqdm(
                total=total,
                desc=stage,
                file=_Lines(),
                ncols=80,
                ascii=True,
                leave=False,
                miniters=max(1, total // 10),
                mininterval=0,
            )
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
