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

from looper.export.loop_files import stem, write_all
from looper.files.atomic import cannot_write, made, put_new
from looper.loops.key import all_keys
from looper.pipeline.result import Loops
from looper.request import LoopRequest


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


def check_room(request: LoopRequest, folder: pathlib.Path) -> None:
    """Complain that a pack of this request is there already, before the work; a random seed finds a free name.

    Raises
    ------
    FileExistsError
        If there is one.
    """
    if request.seed < 0 or not folder.is_dir():
        return
    # the key in a pack's name is known only after the work
    names = {
        stem(request.prompt, request.bpm, request.beats, request.beats_per_bar, key=key, seed=request.seed)
        for key in (None, *(known.name for known in all_keys()))
    }
    for path in sorted(folder.iterdir()):
        if path.name.removesuffix(".zip") in names:
            raise FileExistsError(_taken(path))


def _taken(path: pathlib.Path) -> str:
    return f"{path} is there already: remove it, or choose another folder or seed"


def write_loops(
    loops: Loops, folder: pathlib.Path, format: str, *, pack: bool = False, subtype: str | None = None
) -> list[pathlib.Path]:
    """Write the files of `loops` into `folder`, or as a pack below it; returns them in order.

    Raises
    ------
    OSError, ValueError, RuntimeError
        As `looper.files.write.write_all` and `write_pack`; nothing is left behind then.
    """
    if pack:
        return sorted(write_pack(loops, folder, format, subtype=subtype)["folder"].glob(f"*.{format}"))
    return write_all(loops, folder, format, subtype=subtype)


def write_pack(
    loops: Loops, folder: pathlib.Path, format: str = "wav", **how: str | None
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
    **how
        Passed on to `looper.files.write.write_all`.

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
    try:
        with made(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".pack-") as scratch:
            return _write_pack(loops, folder, format, pathlib.Path(scratch), **how)
    except FileExistsError:
        raise
    except OSError as error:  # it may name the scratch folder, which is nobody's choice
        why = os.strerror(error.errno) if error.errno else str(error)
        raise cannot_write(folder, why, error.errno) from error


def _write_pack(
    loops: Loops, folder: pathlib.Path, format: str, scratch: pathlib.Path, **how: str | None
) -> Mapping[str, pathlib.Path]:
    """Write it in `scratch`, then move it to its place."""
    inside, whole = scratch / "pack", scratch / "pack.zip"
    inside.mkdir()
    files = write_all(loops, inside, format, **how)
    told = json.dumps(describe(loops, files), indent=2, ensure_ascii=False) + "\n"
    (inside / "pack.json").write_text(told, encoding="utf-8")  # in whatever locale
    name = files[0].stem.rpartition("_")[0]
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
