"""The loops of one request as files, named so that they sort and say it all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from looper.export.names import NAMINGS, cut_name
from looper.export.style import FileStyle
from looper.files.atomic import deliver_new
from looper.loops.loop import Loop
from looper.runtime.threads import map_in_threads

MOST_FILES = 100


def file_name(loop: Loop, variation: int, format: str, number: int = 1, *, names: str = "plain") -> str:
    """Name a file so that it sorts and says it all: deep-house-warm-chords_124bpm_4bars_Amin_s42_01.wav.

    See `looper.export.names`; from the second set of one name on, its `number` is in the name.
    """
    return f"{NAMINGS[names](loop, variation, number)}.{format}"


def write_all(
    loops: Sequence[Loop],
    folder: str | Path,
    format: str = "wav",
    *,
    subtype: str | None = None,
    names: str = "plain",
) -> list[Path]:
    """Write the loops of one request into `folder`, all of them or none.

    Nothing that is there is replaced: where one of the names is another file's, the whole set gets a number.
    Files of the same bytes count as written.

    Raises
    ------
    ValueError, RuntimeError, OSError
        As `write`; also for more than 100 loops.
    """
    if not loops:
        return []
    if len(loops) > MOST_FILES:
        raise ValueError(f"at most {MOST_FILES} files are written at once, got {len(loops)}; split them")

    contents = map_in_threads(lambda loop: loop.encode(format, subtype or "PCM_16"), loops)

    def named(number: int) -> list[Path]:
        return [
            Path(folder) / file_name(loop, k, format, number, names=names)
            for k, loop in enumerate(loops, first_number(loops[0]))
        ]

    return deliver_new(named, contents)


def first_number(first: Loop) -> int:
    """The number of a set's first loop: 1, or 0 where that is the recording which the others vary."""
    return 0 if first.info.get("variation") == 0 else 1


def write_cut(loop: Loop, folder: Path, source: Path, style: FileStyle) -> Path:
    """Write a loop that was cut from the recording `source` into `folder`.

    Returns
    -------
    Path
        Named like the recording, with a number where that name is another file's: nothing is replaced, the
        recording least of all.

    Raises
    ------
    ValueError, RuntimeError, OSError
        As `write`.
    """

    def named(number: int) -> list[Path]:
        return [folder / f"{cut_name(loop, source.stem, number, names=style.names)}.{style.format}"]

    return deliver_new(named, [loop.encode(style.format, style.subtype or "PCM_16")])[0]
