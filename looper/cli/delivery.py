"""From a model to files: what `looper make` and `looper vary` do alike once all that can be refused has been."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from looper.cli.output import load_and, progress_bars, show_on, tell_made

if TYPE_CHECKING:
    from collections.abc import Callable

    from looper.export.style import FileStyle
    from looper.pipeline.maker import LoopMaker
    from looper.pipeline.result import Loops
    from looper.pipeline.session import Progress


@dataclass(frozen=True)
class Delivery:
    """Where a set of loops goes, and how.

    Attributes
    ----------
    folder : pathlib.Path
    style : FileStyle
    rate : int or None
        Hz of the files; the loops' own rate with None.
    pack : bool
        A folder, its description and a zip, instead of files alone.
    plot : pathlib.Path or None
        Where a picture of the loops goes.
    as_json : bool
        Tell of them in JSON, without bars of progress.
    """

    folder: pathlib.Path
    style: FileStyle
    rate: int | None = None
    pack: bool = False
    plot: pathlib.Path | None = None
    as_json: bool = False

    def make(self, work: Callable[[LoopMaker, Progress], Loops], model: str, device: str | None) -> None:
        """Load the model, have `work` make loops with it, write them and tell of them."""
        from looper.export.pack import write_loops

        with progress_bars(self.as_json) as bars:
            loops = load_and(lambda maker: work(maker, show_on(bars)), model, device, bars)
            with loops.report.timed("export"):
                loops = loops if self.rate is None else loops.at_rate(self.rate)
                files = write_loops(loops, self.folder, self.style, pack=self.pack)
        if self.plot:
            from looper.export.plot_loops import plot_loops

            plot_loops(loops, self.plot)
        tell_made(loops, files, self.as_json, names=self.style.names)
