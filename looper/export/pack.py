"""A pack: one folder with the loops of a request, pack.json and a zip of both, to be handed on."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Mapping

from looper.export.loop_files import write_all
from looper.export.names import set_name, stem
from looper.export.style import FileStyle
from looper.files.atomic import cannot_write, made, put_new
from looper.files.formats import AUDIO_FORMATS
from looper.loops.key import all_keys
from looper.pipeline.result import Loops
from looper.request import LoopRequest

DESCRIPTION = "pack.json"


def describe(loops: Loops, files: list[pathlib.Path]) -> dict[str, object]:
    """What pack.json says: the request, and for each file its tempo, length, metre and key."""
    report, request = loops.report, loops.request
    rows = []
    for file, loop in zip(files, loops, strict=True):
        rows.append(
            {
                "file": file.name,
                "bpm": loop.bpm,
                "beats": loop.beats,
                "beatsPerBar": loop.beats_per_bar,
                "samples": len(loop.samples),
                "sampleRate": loop.sample_rate,
                "key": loop.key.name if loop.key else None,
            }
        )
    return {
        "prompt": request.prompt,
        "bpm": request.bpm,
        "seed": report.seed,
        "model": report.model,
        "loops": rows,
    }


def check_room(request: LoopRequest, folder: pathlib.Path, beats: int | None = None) -> None:
    """Complain that a pack of this request is there already, before the work; a random seed finds a free name.

    Parameters
    ----------
    request : LoopRequest
    folder : pathlib.Path
        What the pack is to be written into.
    beats : int, optional
        Of its loops, where a recording says so; the request's by default.

    Raises
    ------
    FileExistsError
        If there is one.
    """
    if request.seed < 0 or not folder.is_dir():
        return
    beats = beats or request.beats
    # the key in a pack's name is known only after the work
    names = {
        stem(request.prompt, request.bpm, beats, request.beats_per_bar, key=key, seed=request.seed)
        for key in (None, *(known.name for known in all_keys()))
    }
    for path in sorted(folder.iterdir()):
        if path.name.removesuffix(".zip") in names:
            raise FileExistsError(_taken(path))


def _taken(path: pathlib.Path) -> str:
    return f"{path} is there already: remove it, or choose another folder or seed"


def write_loops(
    loops: Loops, folder: pathlib.Path, style: FileStyle, *, pack: bool = False
) -> list[pathlib.Path]:
    """Write the files of `loops` into `folder`, or as a pack below it; returns them in order.

    Raises
    ------
    OSError, ValueError, RuntimeError
        As `looper.export.loop_files.write_all` and `write_pack`; nothing is left behind then.
    """
    how = {"subtype": style.subtype, "names": style.names}
    if not pack:
        return write_all(loops, folder, style.format, **how)  # type: ignore[arg-type]
    written = write_pack(loops, folder, style.format, **how)  # type: ignore[arg-type]
    told = json.loads((written["folder"] / DESCRIPTION).read_text(encoding="utf-8"))
    return [written["folder"] / row["file"] for row in told["loops"]]


def write_pack(
    loops: Loops,
    folder: pathlib.Path,
    format: str = "wav",
    *,
    subtype: str | None = None,
    names: str = "plain",
) -> Mapping[str, pathlib.Path]:
    """Write the pack of `loops` as a new folder below `folder`, and a zip of it beside.

    Parameters
    ----------
    loops : Loops
        What `LoopMaker.make` returned.
    folder : path
        Where packs go; made if it is not there. The pack's own folder is named like its loops.
    format : str
        "wav", "mp3", "flac" or "ogg".
    subtype : str, optional
        Sample format; 24 bits when not given, where the format has them.
    names : str
        How the files are named; see `looper.export.names`.

    Returns
    -------
    dict
        "folder" and "zip".

    Raises
    ------
    FileExistsError
        If a pack of that name is there already.
    OSError
        If it cannot be written; nothing is left behind then.
    """
    style = FileStyle(format, subtype or pack_subtype(format), names)
    try:
        with made(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".pack-") as scratch:
            return _write_pack(loops, folder, style, pathlib.Path(scratch))
    except FileExistsError:
        raise
    except OSError as error:  # it may name the scratch folder, which is nobody's choice
        why = os.strerror(error.errno) if error.errno else str(error)
        raise cannot_write(folder, why, error.errno) from error


def pack_subtype(format: str) -> str | None:
    """What a pack's samples are unless somebody chooses: 24 bits, where the format has them."""
    known = AUDIO_FORMATS.get(format)
    return "PCM_24" if known is not None and "PCM_24" in known.subtypes else None


def _write_pack(
    loops: Loops, folder: pathlib.Path, style: FileStyle, scratch: pathlib.Path
) -> Mapping[str, pathlib.Path]:
    """Write it in `scratch`, then move it to its place."""
    inside, whole = scratch / "pack", scratch / "pack.zip"
    inside.mkdir()
    files = write_all(loops, inside, style.format, subtype=style.subtype, names=style.names)
    told = json.dumps(describe(loops, files), indent=2, ensure_ascii=False) + "\n"
    (inside / DESCRIPTION).write_text(told, encoding="utf-8")  # in whatever locale
    name = set_name(loops[0])
    target, archive = folder / name, folder / f"{name}.zip"
    for path in (target, archive):
        if os.path.lexists(path):
            raise FileExistsError(_taken(path))
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as bundle:
        for file in sorted(inside.iterdir()):
            bundle.write(file, f"{name}/{file.name}")
    try:
        inside.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # made since, by another process
            raise FileExistsError(_taken(target)) from error
        raise
    try:
        if not put_new(whole, archive):
            raise FileExistsError(_taken(archive))
    except BaseException:  # Ctrl-C too leaves no folder without its zip
        shutil.rmtree(target)
        raise
    return {"folder": target, "zip": archive}
