"""What the command line shows: progress, tables, JSON."""

from __future__ import annotations

import json
import pathlib
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from looper.files.text import tempo

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import TaskID

    from looper.pipeline.maker import LoopMaker
    from looper.pipeline.result import Loops

# paths and prompts are printed as they are: what looks like markup in them is not
out, err = Console(soft_wrap=True, markup=False), Console(stderr=True, soft_wrap=True, markup=False)


NAME_COLUMN = 28  # characters that a file name may take of a line of 80


class _Count(ProgressColumn):
    """How many of how many; nothing where the end is unknown."""

    def render(self, task: Task) -> Text:
        done = "" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"
        return Text(f"{done:>9}", style="progress.download")


class _Rate(ProgressColumn):
    """Decode steps a second; the last stage counts loops, which are soon done."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        if rate is None or task.total is None or task.description == "loops":
            return Text(" " * 13)
        return Text(f"{rate:5.{0 if rate >= 10 else 1}f} steps/s", style="progress.data.speed")


def progress_bars(quiet: bool) -> Progress:
    """Live progress on stderr: stage, bar, count, rate, time left."""
    stage = TextColumn("{task.description:<10}")
    columns = (SpinnerColumn(), stage, BarColumn(bar_width=None), _Count(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=err, disable=quiet)


def show_on(bars: Progress) -> Callable[[str, int, int], None]:
    """A progress callback (stage, done, total) that keeps a bar for each stage."""
    tasks: dict[str, tuple[TaskID, int]] = {}

    def show(stage: str, done: int, total: int) -> None:
        task, before = tasks.get(stage) or (bars.add_task(stage, total=total), 0)
        if done < before:  # a further round: its rate is its own
            bars.reset(task, total=total)
        bars.update(task, completed=done, total=total)
        tasks[stage] = task, done

    return show


def load_and(work: Callable[[LoopMaker], Loops], model: str, device: str | None, bars: Progress) -> Loops:
    """Load a model, with a bar of its own, and do the work with it; the report says how long the loading took."""
    from looper.pipeline.maker import LoopMaker

    loading = bars.add_task("loading", total=None)
    started = time.perf_counter()
    maker = LoopMaker.load(model, device)
    loaded = time.perf_counter() - started
    bars.remove_task(loading)
    loops = work(maker)
    loops.report.seconds = {"load": loaded, **loops.report.seconds}
    return loops


def made_facts(loops: Loops, files: list[pathlib.Path]) -> dict[str, Any]:
    """What `looper make --json` prints: the request, its stages and one row for each file."""
    report, request = loops.report, loops.request
    likely: list[float | None] = [*report.seam_log_likelihood] or [None] * len(loops)
    rows = []
    for k, (file, loop, fit) in enumerate(zip(files, loops, likely, strict=True)):
        rows.append(
            {
                "file": str(file),
                "bars": loop.bars,
                "seconds": loop.seconds,
                "samples": len(loop.samples),
                "sample_rate": loop.sample_rate,
                "channels": loop.channels,
                "measured_bpm": round(report.measured_bpm[k], 3),
                "confidence": round(report.confidence[k], 3),
                "click_ratio": round(loop.seam.click_ratio, 3),
                "level_step_db": round(loop.seam.level_step_db, 3),
                "seam_log_likelihood": None if fit is None else round(fit, 3),
                "key": loop.key.name if loop.key else None,
                "key_confidence": round(loop.heard_key.confidence, 3) if loop.heard_key else None,
            }
        )
    return {
        "bpm": request.bpm,
        "seed": report.seed,
        "model": report.model,
        "seconds": {stage: round(value, 2) for stage, value in report.seconds.items()},
        "steps_per_second": {stage: round(value, 1) for stage, value in report.steps_per_second.items()},
        "notes": report.notes,
        "loops": rows,
    }


def shared_name(files: list[pathlib.Path]) -> str:
    """What the names of a set begin with, where they are too long for a column; it is said once, below the table.

    Examples
    --------
    >>> shared_name([pathlib.Path(f"o/house_124bpm_4bars_s123456789012_0{k}.wav") for k in (1, 2)])
    'house_124bpm_4bars_s123456789012_'
    """
    names = [file.name for file in files]
    if max(map(len, names)) <= NAME_COLUMN:
        return ""
    first, last = min(names), max(names)
    same = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind("_", 0, same) + 1]


def _table(rows: list[dict[str, Any]], shared: str) -> Table:
    """The files; "fit" is how much likelier than as it was played the model finds the wrap, nats per token."""
    from looper.loops.clicks import CLICK  # brings SciPy, which `serve` and `weights` do without

    table = Table(Column("file", no_wrap=True), "bars", "played at", "sure", "seam", "fit", "key")
    for row in rows:
        seam = "clean" if row["click_ratio"] <= CLICK else f"click {row['click_ratio']}"
        fit = "" if row["seam_log_likelihood"] is None else f"{row['seam_log_likelihood']:+.2f}"
        name, tempo = pathlib.Path(row["file"]).name, f"{row['measured_bpm']:.2f} BPM"
        name = f"…{name.removeprefix(shared)}" if shared else name
        table.add_row(
            name, f"{row['bars']:g}", tempo, f"{row['confidence']:.2f}", seam, fit, row["key"] or ""
        )
    return table


def number_note(wanted: str, written: pathlib.Path) -> str | None:
    """What to say where a file did not get the name that it would have had, else None."""
    if written.stem == wanted:
        return None
    return f"another {wanted}{written.suffix} is there already and stays as it is: written as {written.name}"


def tell_made(loops: Loops, files: list[pathlib.Path], as_json: bool, *, names: str = "plain") -> None:
    """Show the files of a set, as a table or as JSON."""
    from looper.export.loop_files import first_number
    from looper.export.names import NAMINGS

    wanted = NAMINGS[names](loops[0], first_number(loops[0]), 1)
    if note := number_note(wanted, files[0]):
        loops.report.note(note)
    facts = made_facts(loops, files)
    if as_json:
        out.print_json(json.dumps(facts))
        return
    for note in facts["notes"]:
        err.print(f"note: {note}", markup=False)
    shared = shared_name(files)
    out.print(_table(facts["loops"], shared))
    rates = facts["steps_per_second"]
    took = ", ".join(
        f"{stage} {value:g} s" + (f" ({rates[stage]:.0f} steps/s)" if stage in rates else "")
        for stage, value in facts["seconds"].items()
    )
    where = files[0].parent / f"{shared}…" if shared else files[0].parent
    out.print(
        f"{where}: {tempo(facts['bpm'])} BPM{', stereo' * (loops[0].channels == 2)}, seed {facts['seed']}, "
        f"model {facts['model']}; {took}",
        markup=False,
    )
