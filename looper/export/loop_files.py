"""The loops of one request as files, named so that they sort and say it all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from looper.files.atomic import deliver_new
from looper.files.text import numbered, slug, tempo
from looper.loops.loop import Loop
from looper.runtime.threads import map_in_threads

MOST_FILES = 100


def file_name(loop: Loop, variation: int, format: str, number: int = 1) -> str:
    """Name a file so that it sorts and says it all: deep-house-warm-chords_124bpm_4bars_Amin_s42_01.wav.

    Prompt, tempo, bars, key (when clear), seed (when known) and the variation from 1 on. From the second set
    of one name on, its `number` follows the seed: s42-2_01.
    """
    key, seed = loop.key, loop.info.get("seed")
    name = stem(
        str(loop.info.get("prompt", "")),
        loop.bpm,
        loop.beats,
        loop.beats_per_bar,
        key=key.name if key else None,
        seed=None if seed is None else int(str(seed)),
    )
    return f"{numbered(name, number)}_{variation:02d}.{format}"


def stem(
    prompt: str, bpm: float, beats: int, beats_per_bar: int, *, key: str | None, seed: int | None
) -> str:
    """What the file names of a set begin with, and what its pack is called."""
    parts = [slug(prompt), f"{tempo(bpm)}bpm", length(beats, beats_per_bar), key, f"s{seed}"]
    return "_".join(part for part in parts if part and part != "sNone")


def length(beats: int, beats_per_bar: int) -> str:
    """A loop's length as names have it: "4bars", "1bar", "1.5bars", "2beats", "1beat"."""
    if beats < beats_per_bar:
        return f"{beats}beat{'s' * (beats > 1)}"
    bars = beats / beats_per_bar
    return "1bar" if bars == 1 else f"{bars:g}bars"


def write_all(
    loops: Sequence[Loop], folder: str | Path, format: str = "wav", *, subtype: str | None = None
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
        return [Path(folder) / file_name(loop, k, format, number) for k, loop in enumerate(loops, 1)]

    return deliver_new(named, contents)


def write_cut(loop: Loop, folder: Path, source: Path, format: str, subtype: str | None = None) -> Path:
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
        return [folder / f"{numbered(cut_stem(loop, source), number)}.{format}"]

    return deliver_new(named, [loop.encode(format, subtype or "PCM_16")])[0]


def cut_stem(loop: Loop, source: Path) -> str:
    """What the file of a loop cut from `source` is called, without number and suffix."""
    return f"{slug(source.stem)}_{tempo(loop.bpm)}bpm_{loop.bars:g}bars"
