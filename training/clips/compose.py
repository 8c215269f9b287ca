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


def compose(rng: np.random.Generator, name: str, seconds: float) -> Piece:
    """Draw a piece of one style, a few bars longer than ``seconds``."""
    style = STYLES[name]
    bpm = float(rng.uniform(*style.bpm))
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
        2: int(rng.choice(style.programs or COMP_PROGRAMS)),
        3: int(rng.choice(LEAD_PROGRAMS)),
        9: int(rng.choice([0, 0, 8, 16, 24, 25, 32])),
    }
    if mode == "pad" and rng.random() < 0.6:
        programs[2] = int(rng.choice([48, 49, 50, 51, 52, 88, 89, 90, 94, 95, 16]))
    beats = player.beat_times[: bars * style.beats]
    notes = tuple(sorted(player.notes, key=lambda n: n.time))
    return Piece(name, notes, programs, beats, style.beats, bpm, player.drift)
