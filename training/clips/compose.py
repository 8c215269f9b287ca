"""Draw one labelled piece: note events in seconds and the beats they were written on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.clips.parts import bass, comp, drums, lead
from training.clips.player import Note, Player
from training.clips.styles import STYLES

COMP_PROGRAMS = (0, 1, 4, 5, 16, 17, 24, 25, 26, 27, 28, 48, 50, 51, 61, 62, 80, 81, 88, 89, 90, 11)
LEAD_PROGRAMS = (0, 11, 26, 40, 52, 56, 64, 65, 68, 73, 75, 80, 81, 82, 87)
BASS_PROGRAMS = (32, 33, 34, 35, 36, 38, 39)


@dataclass(frozen=True)
class Piece:
    """Notes and truth of one piece, before rendering; times in seconds."""

    style: str
    notes: tuple[Note, ...]
    programs: dict[int, int]
    beats: np.ndarray
    beats_per_bar: int
    bpm: float
    drift: float


def arranged(rng: np.random.Generator, notes: list[Note], bars: np.ndarray) -> list[Note]:
    """Let parts enter and leave on lines of two, four or eight bars, as sections of a piece do."""
    if rng.random() < 0.5:
        return notes
    section, first = int(rng.choice([2, 4, 4, 8])), int(rng.integers(0, 8))
    hat, cymbal = (42, 44, 46, 70, 54), (51, 53, 49)
    groups = [[n for n in notes if n.channel == c] for c in (1, 2, 3)]
    groups += [[n for n in notes if n.channel == 9 and n.key in keys] for keys in (hat, cymbal)]
    groups += [[n for n in notes if n.channel == 9 and n.key in (36, 38, 39)]]
    gone: set[int] = set()
    for group in (g for g in groups if g and rng.random() < 0.35):
        odd = int(rng.integers(2))
        at = np.searchsorted(bars, [n.time + 0.05 for n in group], "right") - 1
        gone |= {id(n) for n, bar in zip(group, at, strict=True) if (bar + first) // section % 2 == odd}
    return [n for n in notes if id(n) not in gone] if len(gone) < 0.8 * len(notes) else notes


def compose(rng: np.random.Generator, name: str, seconds: float) -> Piece:
    """Draw a piece of one style, a few bars longer than ``seconds``."""
    style = STYLES[name]
    low, high = style.bpm
    bpm = float(
        rng.uniform(low, high) if rng.random() < 0.7 else rng.uniform(max(55, 0.8 * low), 1.25 * high)
    )
    bars = int(np.ceil(seconds / (60 / bpm * style.beats))) + 6
    player = Player(style, rng, bpm, bars)
    kicks = drums(player)
    drummed = bool(player.notes)
    if not drummed or rng.random() < 0.8:
        bass(player, str(rng.choice(style.bass)), kicks)
    mode = str(rng.choice(style.comp))
    if mode == "none" and not drummed:
        mode = str(rng.choice([m for m in style.comp if m != "none"]))
    if not drummed or rng.random() < 0.8:
        comp(player, mode, kicks)
    if rng.random() < style.lead:
        lead(player)
    programs = {
        1: int(rng.choice(BASS_PROGRAMS)),
        2: int(rng.choice(style.programs if style.programs and rng.random() < 0.7 else COMP_PROGRAMS)),
        3: int(rng.choice(LEAD_PROGRAMS)),
        9: int(rng.choice([0, 0, 8, 16, 24, 25, 32])),
    }
    if mode == "pad" and rng.random() < 0.6:
        programs[2] = int(rng.choice([48, 49, 50, 51, 52, 88, 89, 90, 94, 95, 16]))
    beats = player.beat_times[: bars * style.beats]
    kept = arranged(rng, player.notes, beats[:: style.beats])
    notes = tuple(sorted(kept, key=lambda n: n.time))
    return Piece(name, notes, programs, beats, style.beats, bpm, player.drift)
