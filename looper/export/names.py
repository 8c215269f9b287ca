"""How files are named: so that they sort and say it all, or as sample shops take them."""

from __future__ import annotations

import re
from collections.abc import Callable

from looper.files.text import numbered, slug, tempo
from looper.loops.loop import Loop

Naming = Callable[[Loop, int, int], str]
"""Name without suffix of a loop's variation, from 1, in the set of that number, from 1."""


def plain_name(loop: Loop, variation: int, number: int = 1) -> str:
    """Such as deep-house-warm-chords_124bpm_4bars_Amin_s42_01.

    Prompt, tempo, bars, key (when clear), seed (when known) and the variation. From the second set of one name
    on, its `number` follows the seed: s42-2_01.
    """
    return f"{numbered(set_name(loop), number)}_{variation:02d}"


def splice_name(loop: Loop, variation: int, number: int = 1) -> str:
    """Such as 124_deep_house_warm_chords_a_Amin: the tempo is the only number, and there are no dots or spaces.

    The variation is a letter, and so is a second set of one name; a metre other than four is told, as 3-4. A
    label's own abbreviation goes before it.

    References
    ----------
    https://creators.splice.com/file-naming
    """
    return _splice(loop, str(loop.info.get("prompt", "")), number, letters(variation))


def _splice(loop: Loop, text: str, number: int, letter: str) -> str:
    words = re.findall(r"[a-z]+", slug(text))
    metre = "" if loop.beats_per_bar == 4 else f"{loop.beats_per_bar}-4"
    again = letters(number) if number > 1 else ""
    key = loop.key.name if loop.key else ""
    parts = [f"{loop.bpm:.0f}", metre, *words, again, letter, key]
    return "_".join(part for part in parts if part)


NAMINGS: dict[str, Naming] = {"plain": plain_name, "splice": splice_name}


def cut_name(loop: Loop, source: str, number: int = 1, *, names: str = "plain") -> str:
    """Name without suffix of a loop cut from a recording, whose own name without suffix is `source`.

    Where that name says tempo and length already, as those of loops do, they are not said twice.
    """
    text = re.sub(r"_[\d.]+bpm_.*", "", source) or source
    if names == "splice":
        return _splice(loop, text, number, "")
    return numbered(f"{slug(text)}_{tempo(loop.bpm)}bpm_{loop.bars:g}bars", number)


def letters(number: int) -> str:
    """1, 2 ... 26, 27 as a, b ... z, aa; 0 as "source".

    Examples
    --------
    >>> [letters(k) for k in (1, 20, 27, 0)]
    ['a', 't', 'aa', 'source']
    """
    said = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        said = chr(ord("a") + rest) + said
    return said or "source"


def set_name(loop: Loop) -> str:
    """What the plain names of a loop's set begin with, and what its pack is called."""
    key, seed = loop.key, loop.info.get("seed")
    return stem(
        str(loop.info.get("prompt", "")),
        loop.bpm,
        loop.beats,
        loop.beats_per_bar,
        key=key.name if key else None,
        seed=None if seed is None else int(str(seed)),
    )


def stem(
    prompt: str, bpm: float, beats: int, beats_per_bar: int, *, key: str | None, seed: int | None
) -> str:
    """`set_name` of a loop that is not there yet, from what is known of it."""
    parts = [slug(prompt), f"{tempo(bpm)}bpm", length(beats, beats_per_bar), key, f"s{seed}"]
    return "_".join(part for part in parts if part and part != "sNone")


def length(beats: int, beats_per_bar: int) -> str:
    """A loop's length as names have it: "4bars", "1bar", "1.5bars", "2beats", "1beat"."""
    if beats < beats_per_bar:
        return f"{beats}beat{'s' * (beats > 1)}"
    bars = beats / beats_per_bar
    return "1bar" if bars == 1 else f"{bars:g}bars"
