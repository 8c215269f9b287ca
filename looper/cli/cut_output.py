"""What `looper cut` and `looper analyse` show."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from looper.cli.output import err, number_note, out
from looper.files.text import displayable, tempo

if TYPE_CHECKING:
    import numpy as np

    from looper.beats.grid import BeatGrid
    from looper.beats.unknown_tempo import TempoCandidate
    from looper.loops.key import HeardKey
    from looper.loops.loop import Loop


@dataclass(frozen=True)
class CutFile:
    """One recording that was cut.

    Attributes
    ----------
    source, written : Path
        The recording, and the file of its loop.
    loop : Loop
    wanted : str
        What the file would be called by itself, without suffix.
    tempi : tuple of TempoCandidate
        Found where no tempo was given.
    """

    source: pathlib.Path
    loop: Loop
    written: pathlib.Path
    wanted: str
    tempi: tuple[TempoCandidate, ...] = ()


def tell_cut(done: CutFile, as_json: bool) -> None:
    """Show one cut loop, as a table or as JSON."""
    _notes(done)
    if as_json:
        out.print_json(json.dumps(_facts(done)))
    else:
        _show({name: value for name, value in _facts(done).items() if name != "tempi"})


def tell_cuts(results: Sequence[CutFile | tuple[pathlib.Path, str]], as_json: bool) -> None:
    """Show several: a row each, and what could not be cut with its reason."""
    table = Table(Column("loop", overflow="fold"), "BPM", "bars", "sure")
    rows: list[dict[str, Any]] = []
    for result in results:
        if isinstance(result, tuple):
            rows.append({"source": str(result[0]), "error": result[1]})
            err.print(f"looper: {result[1]}", style="red")
            continue
        _notes(result, of=f"{displayable(result.source.name)}: ")
        rows.append({"source": str(result.source), **_facts(result)})
        loop, sure = result.loop, f"{result.loop.grid.confidence:.2f}"
        table.add_row(displayable(result.written.name), tempo(loop.bpm), f"{loop.bars:g}", sure)
    if as_json:
        out.print_json(json.dumps(rows))
    elif table.rows:
        out.print(table)


def tell_analysis(
    file: pathlib.Path,
    samples: np.ndarray,
    sample_rate: int,
    grid: BeatGrid,
    tempi: Sequence[TempoCandidate],
    key: HeardKey | None,
    as_json: bool,
) -> None:
    """Show what was found in a recording; the times of all beats are in the JSON alone."""
    facts = {
        "file": str(file),
        "seconds": round(len(samples) / sample_rate, 4),
        "sample_rate": sample_rate,
        "channels": 1 if samples.ndim == 1 else samples.shape[1],
        "bpm": round(grid.bpm, 4),
        "beats_per_bar": grid.beats_per_bar,
        "confidence": round(grid.confidence, 3),
        "drift": round(grid.drift, 4),
        "key": key.key.name if key is not None and key.clear else None,
        "key_confidence": None if key is None else round(key.confidence, 3),
        "loop_start": round(grid.loop_start, 5),
        "loop_end": round(grid.loop_end, 5),
        "bars": grid.bars,
    }
    if as_json:
        times = {"beats": grid.beat_times, "bar_lines": grid.downbeat_times}
        lists = {name: [round(float(t), 5) for t in found] for name, found in times.items()}
        out.print_json(json.dumps({**facts, "tempi": _tempi(tempi), **lists}))
        return
    _show({**facts, "tempi": tempo_words(tempi) or "no beat"})


def tempo_words(tempi: Sequence[TempoCandidate]) -> str:
    """Candidates with their probabilities in per cent: "118.02 BPM (74 %), 59.01 (12 %)"."""
    words = [f"{found.bpm:.2f} ({100 * found.confidence:.0f} %)" for found in tempi]
    return ", ".join(words).replace(" (", " BPM (", 1)


def _tempi(tempi: Sequence[TempoCandidate]) -> list[dict[str, float]]:
    return [{"bpm": round(found.bpm, 3), "confidence": round(found.confidence, 3)} for found in tempi]


def _notes(done: CutFile, of: str = "") -> None:
    from looper.pipeline.takes import CONFIDENCE_FLOOR

    bpm = tempo(done.loop.bpm)
    if done.tempi:
        err.print(f"note: {of}tempo found: {tempo_words(done.tempi)}; cut at {bpm}, --bpm decides otherwise")
    if done.loop.grid.confidence < CONFIDENCE_FLOOR:
        err.print(f"note: {of}no clear beat near {bpm} BPM was found: the loop is cut on the likeliest grid")
    if note := number_note(done.wanted, done.written):
        err.print(f"note: {of}{note}")


def _facts(done: CutFile) -> dict[str, Any]:
    loop, grid = done.loop, done.loop.grid
    return {
        "file": str(done.written),
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
        **({"tempi": _tempi(done.tempi)} if done.tempi else {}),
    }


def _show(facts: dict[str, Any]) -> None:
    table = Table(Column(), Column(overflow="fold"), show_header=False)
    for name, value in facts.items():
        table.add_row(name, displayable(str(value)))
    out.print(table)
