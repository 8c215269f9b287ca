"""Loops in a notebook: a player and a picture each, as HTML that needs nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from looper.files.text import plain

if TYPE_CHECKING:
    from looper.loops.loop import Loop

COLUMNS, HEIGHT = 600, 60
LONGEST_SECONDS = 60.0  # what is longer makes a notebook of hundreds of megabytes


def loop_html(loop: Loop, name: str = "") -> str:
    """A loop as HTML: what it is, its waveform over bars and beats, and a player that repeats it.

    Examples
    --------
    >>> from looper import cut
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 8).astype(np.float32)
    >>> shown = loop_html(cut(clicks, 32_000, bpm=120), "one")
    >>> "<audio" in shown, "<svg" in shown, shown.count("data:audio/wav;base64,")
    (True, True, 1)
    """
    facts = [name, plain(loop.info.get("prompt", ""), 100), repr(loop)[7:-1]]
    if loop.key is not None:
        facts.append(loop.key.words)
    head = escape(" · ".join(fact for fact in facts if fact))
    return f'<figure style="margin:0 0 1em"><figcaption>{head}</figcaption>{_picture(loop)}{_player(loop)}</figure>'


def loops_html(loops: Sequence[Loop], title: str) -> str:
    """Several loops as HTML, one below the other.

    Examples
    --------
    >>> loops_html([], "nothing yet")
    '<div><p>nothing yet</p></div>'
    """
    first = 0 if loops and loops[0].info.get("variation") == 0 else 1
    rows = "".join(loop_html(loop, f"{number:02d}") for number, loop in enumerate(loops, first))
    return f"<div><p>{escape(title)}</p>{rows}</div>"


def _player(loop: Loop) -> str:
    if loop.seconds > LONGEST_SECONDS:
        return f"<p>{loop.seconds:.0f} s are too much for a notebook: save it with .save(), and play the file.</p>"
    sound = base64.b64encode(loop.encode("wav")).decode()
    return f'<audio controls loop preload="metadata" src="data:audio/wav;base64,{sound}"></audio>'


def _picture(loop: Loop) -> str:
    """The waveform between lines for beats and, darker, bars: inline SVG in the page's own colour."""
    beats = np.arange(1, loop.beats) if loop.beats <= COLUMNS // 4 else np.zeros(0, int)
    lines = "".join(
        f'<path d="M{COLUMNS * beat / loop.beats:.1f} 0V{HEIGHT}" '
        f'opacity="{0.6 if beat % loop.beats_per_bar == 0 else 0.2}"/>'
        for beat in beats
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS} {HEIGHT}" role="img" '
        f'aria-label="Waveform of {loop.bars:g} bars" style="display:block;width:100%;max-width:{COLUMNS}px" '
        f'fill="currentColor" stroke="currentColor" stroke-width="0.7">{lines}<path d="{_outline(loop)}"/></svg>'
    )


def _outline(loop: Loop) -> str:
    """The waveform's highest and lowest samples in columns, as one closed path."""
    mono = loop.samples if loop.samples.ndim == 1 else loop.samples.mean(axis=1)
    parts = np.array_split(mono, min(COLUMNS, len(mono)))
    x = np.arange(len(parts)) * COLUMNS / len(parts)
    top, bottom = (HEIGHT / 2 * (1 - np.array([f(part) for part in parts], float)) for f in (np.max, np.min))
    points = [*zip(x, top, strict=True), *zip(x[::-1], bottom[::-1], strict=True)]
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points) + "Z"
