"""What the command line shows: progress, tables, JSON."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

if TYPE_CHECKING:
    from looper.beats import BeatGrid
    from looper.loops import Loop
    from looper.report import Loops

# paths and prompts are printed as they are: what looks like markup in them is not
out, err = Console(soft_wrap=True, markup=False), Console(stderr=True, soft_wrap=True, markup=False)


def progress_bars(quiet: bool) -> Progress:
    """Live progress on stderr."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=err, disable=quiet)


def show_on(bars: Progress) -> Any:
    """A progress callback that keeps a bar for each stage."""
    tasks: dict[str, Any] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)

    return show


def tell_made(loops: Loops, files: list[pathlib.Path], as_json: bool) -> None:
    """Show the files of a set, as a table or as JSON."""
    from looper.key import find_key

    report, request = loops.report, loops.request
    keys = [find_key(loop.samples, loop.sample_rate) for loop in loops]
    facts = [
        {
            "file": str(file),
            "bars": loop.bars,
            "seconds": loop.seconds,
            "samples": len(loop.samples),
            "measured_bpm": round(bpm, 3),
            "confidence": round(sure, 3),
            "click_ratio": round(loop.seam.click_ratio, 3),
            "key": key.name if key else None,
        }
        for file, loop, bpm, sure, key in zip(
            files, loops, report.measured_bpm, report.confidence, keys, strict=True
        )
    ]
    seconds = {stage: round(value, 2) for stage, value in report.seconds.items()}
    if as_json:
        head = {
            "bpm": request.bpm,
            "seed": report.seed,
            "model": report.model,
            "seconds": seconds,
            "notes": report.notes,
        }
        out.print_json(json.dumps({**head, "loops": facts}))
        return
    for note in report.notes:
        err.print(f"note: {note}", markup=False)
    table = Table(Column("file", overflow="fold"), "bars", "played at", "confidence", "seam", "key")
    for row in facts:
        clean = "clean" if float(str(row["click_ratio"])) <= 1.5 else f"click {row['click_ratio']}"
        table.add_row(
            pathlib.Path(str(row["file"])).name,
            f"{row['bars']:g}",
            f"{row['measured_bpm']} BPM",
            f"{row['confidence']:.2f}",
            clean,
            str(row["key"] or ""),
        )
    out.print(table)
    took = ", ".join(f"{stage} {value:g} s" for stage, value in seconds.items())
    out.print(
        f"{files[0].parent}: {request.bpm:g} BPM, seed {report.seed}, model {report.model}; {took}",
        markup=False,
    )


def tell_cut(loop: Loop, grid: BeatGrid, written: pathlib.Path, as_json: bool) -> None:
    """Show one cut loop, as a table or as JSON."""
    facts = {
        "file": str(written),
        "bpm": loop.bpm,
        "bars": loop.bars,
        "samples": len(loop.samples),
        "sample_rate": loop.sample_rate,
        "seconds": loop.seconds,
        "measured_bpm": round(grid.bpm, 4),
        "loop_start": round(grid.loop_start, 5),
        "loop_end": round(grid.loop_end, 5),
        "confidence": round(grid.confidence, 3),
        "click_ratio": round(loop.seam.click_ratio, 3),
    }
    if as_json:
        out.print_json(json.dumps(facts))
        return
    table = Table(Column(), Column(overflow="fold"), show_header=False)
    for name, value in facts.items():
        table.add_row(name, str(value))
    out.print(table)
