"""The parts of a band: drums, bass, harmony and melody, drawn for one piece and played bar by bar."""

from __future__ import annotations

import numpy as np

from training.clips.player import Player
from training.clips.styles import DRUMS

GROUPS = {5: (0, 3), 6: (0, 3), 7: (0, 2, 4)}


def random_row(rng: np.random.Generator, slots: int, kind: str) -> str:
    """Draw a drum bar from metrical weights: kicks lean on strong slots, snares on the backbeat."""
    slot = np.arange(slots)
    strength = np.where(slot % 4 == 0, 0.45, np.where(slot % 2 == 0, 0.28, 0.1))
    if kind == "kick":
        chance = strength.copy()
        chance[0] = 0.93
    elif kind == "snare":
        back = [slots // 2] if rng.random() < 0.3 else list(range(4, slots, 8))
        chance = np.full(slots, 0.06) * (rng.random() < 0.6)
        chance[back] = 0.95
    elif kind == "hat":
        return str(rng.choice(["x.", "xo", "x...", "..x.", "xoox"])) * slots
    else:
        chance = np.full(slots, 0.35)
        chance[0] = 0.5
    return "".join("x" if rng.random() < c else "." for c in chance)


def drums(player: Player) -> list[float]:
    """Play the kit; returns the kick's positions in beats within a bar, for the bass to follow."""
    rng, bpb = player.rng, player.bpb
    kit = dict(player.style.drums[rng.integers(len(player.style.drums))])
    for name in list(kit):
        if name in ("hat", "shaker", "ride", "clave", "tamb") and rng.random() < 0.15 and len(kit) > 1:
            del kit[name]
    if kit and rng.random() < 0.12:
        kit["shaker"] = "x.x." * bpb
    fill, crash = rng.random() < 0.45, rng.random() < 0.5
    period = int(rng.choice([2, 4, 4, 8]))
    loud = {name: rng.uniform(0.35, 1.0) * (0.6 if name in player.style.soft else 1.0) for name in DRUMS}
    kicks: list[float] = [0.0]
    for name, written in kit.items():
        rows = [random_row(rng, 4 * bpb, r[1:])[: 4 * bpb] if r[0] == "*" else r for r in written.split("|")]
        rows = ["".join("x" if c.isdigit() and rng.random() < int(c) / 10 else c for c in r) for r in rows]
        if name == "kick":
            kicks = [i / len(rows[0]) * bpb for i, c in enumerate(rows[0]) if c == "x"] or [0.0]
        for bar in range(player.bars):
            row = rows[bar % len(rows)]
            cut = len(row) * 3 // 4 if fill and bar % period == period - 1 and name != "kick" else len(row)
            for i, c in enumerate(row[:cut]):
                soft = {"x": 0.9, "o": 0.4}.get(c, 0.7 if c == "?" and rng.random() < 0.45 else 0.0)
                if soft:
                    accent = 1.0 if i % (len(row) // bpb) == 0 or name in ("kick", "snare") else 0.8
                    player.play(
                        9, bar * bpb + i / len(row) * bpb, DRUMS[name], soft * accent * loud[name], 0.2
                    )
    for bar in range(player.bars if kit else 0):
        if crash and bar % period == 0:
            player.play(9, bar * bpb, DRUMS["crash"], 0.9, 1.0)
        if fill and bar % period == period - 1:
            for i in range(4 if bpb > 1 else 0):
                key = rng.choice([DRUMS["snare"], DRUMS["hitom"], DRUMS["tom"], DRUMS["floor"]])
                player.play(9, bar * bpb + bpb * 0.75 + i * bpb / 16, int(key), rng.uniform(0.5, 0.9), 0.2)
    return kicks


def rhythm(player: Player, mode: str, kicks: list[float]) -> list[tuple[float, float]]:
    """Position and length in beats of a part's notes within one bar."""
    bpb, rng = player.bpb, player.rng
    every = lambda step, start=0.0, length=0.9: [
        (p, step * length) for p in np.arange(start, bpb - 1e-9, step)
    ]
    groups = [float(g) for g in GROUPS.get(bpb, (0, bpb // 2) if bpb % 2 == 0 else (0,))]
    if mode == "synco":
        chance = np.where(
            np.arange(4 * bpb) % 4 == 0, 0.35, np.where(np.arange(4 * bpb) % 2 == 0, 0.35, 0.15)
        )
        chance[0] = 0.85
        at = [i / 4 for i in range(4 * bpb) if rng.random() < chance[i]] or [0.0]
        return [(p, min(0.8, q - p)) for p, q in zip(at, [*at[1:], float(bpb)], strict=True)]
    table: dict[str, list[tuple[float, float]]] = {
        "whole": [(0.0, float(bpb))],
        "root1": [(0.0, 1.0)],
        "root4": every(1.0),
        "root8": every(0.5),
        "root16": every(0.25),
        "octave8": every(0.5),
        "roll": [(b + k / 4, 0.2) for b in range(bpb) for k in (1, 2, 3)],
        "off8": every(1.0, 0.5, 0.45),
        "offstab": every(1.0, 0.5, 0.3),
        "skank8": every(1.0, 0.5, 0.2),
        "skank": every(2.0, 1.0, 0.12) if bpb > 1 else every(1.0, 0.5, 0.3),
        "two": [(g, 0.9) for g in groups],
        "walk": every(1.0),
        "kick": [(k, 0.4) for k in kicks],
        "powerkick": [(k, 0.4) for k in kicks],
        "tumbao": [(1.5, 1.4), (3.0, 1.4)],
        "bossa": [(0.0, 1.4), (1.5, 0.5), (2.0, 1.4), (3.5, 0.5)],
        "reggae": [(0.0, 0.4), (0.75, 0.2), (1.5, 0.4), (2.0, 0.4), (3.0, 0.4)][rng.integers(0, 2) :],
        "shuffle8": every(0.5),
        "charleston": [(0.0, 0.8), (1.5, 0.4)],
        "swingcomp": [(p, 0.4) for p in (0.5, 1.0, 1.5, 2.5, 3.5) if rng.random() < 0.5] or [(1.5, 0.4)],
        "boomchick": every(1.0, 0.5, 0.4) if bpb != 4 else [(1.0, 0.5), (3.0, 0.5)],
        "oompah": [(float(b), 0.5) for b in range(1, bpb)],
        "triplet": every(1 / 3),
        "block4": every(1.0),
        "strum8": every(0.5),
        "strum4": every(1.0),
        "strum16": [(i / 4, 0.2) for i in range(4 * bpb) if rng.random() < 0.6] or every(0.5),
        "power8": every(0.5),
        "power16": every(0.25),
        "folkstrum": [(p, 0.45) for p in (0.0, 1.0, 1.5, 2.5, 3.0, 3.5) if p < bpb],
        "stab": [
            (p, 0.3) for p in ((0.0, 1.5), (0.0, 0.75, 1.5), (0.5, 2.0), (1.5, 3.5), (0.0,))[rng.integers(5)]
        ],
        "montuno": [(p, 0.4) for p in (0.0, 0.5, 1.0, 1.75, 2.25, 2.75, 3.25, 3.75)],
        "five": [(g, 1.0) for g in groups],
        "six": [(g, 2.5) for g in groups],
        "seven": [(g, 1.5) for g in groups],
    }
    return [(p, n) for p, n in table.get(mode, [(0.0, float(bpb))]) if p < bpb]


def bass(player: Player, mode: str, kicks: list[float]) -> None:
    """Play a bass part over all bars."""
    if mode == "none":
        return
    rng, bpb = player.rng, player.bpb
    pattern, push = rhythm(player, mode, kicks), 0.5 if mode == "tumbao" else 0.0
    fixed = [int(rng.choice([0, 0, 0, 7, 12])) if mode in ("synco", "kick") else 0 for _ in pattern]
    fixed[0] = 0
    for bar in range(player.bars):
        for i, (p, n) in enumerate(pattern):
            at = bar * bpb + p
            key = player.root(at + (1.0 if push and p >= 3 else 0.0)) + fixed[i]
            if mode == "two" and i % 2:
                key = player.root(at) - 5
            elif mode == "walk" and p > 0:
                key = player.root(at) + int(rng.choice([0, 2, 4, 5, 7, 9, -1, 12]))
            elif mode == "octave8" and i % 2:
                key += 12
            player.play(1, at, key, 0.9 if p == 0 else 0.8, n)


def comp(player: Player, mode: str, kicks: list[float]) -> None:
    """Play the harmony over all bars: blocks, or broken chords for the arpeggio modes."""
    if mode == "none":
        return
    rng, bpb, low = player.rng, player.bpb, int(player.rng.integers(46, 62))
    size = int(rng.choice([3, 3, 4]))
    if mode == "pad":
        push = 0.5 if rng.random() < 0.12 else 0.0
        for at in range(0, player.bars * bpb, player.change):
            for key in player.chord(at, size, low):
                player.play(2, at - (push if at else 0), key, 0.7, player.change)
        return
    broken = {"arp8": 0.5, "arp16": 0.25, "arp4": 1.0, "bells8": 0.5, "ballad": 0.5, "alberti": 0.5,
              "travis": 0.5, "slowarp": 1.0}  # fmt: skip
    if mode in broken:
        step, up = broken[mode], rng.permutation(6) if rng.random() < 0.3 else np.array([0, 1, 2, 3, 2, 1])
        if mode in ("alberti", "travis"):
            up = np.array([0, 2, 1, 2])
        cycle = len(up) if rng.random() < 0.25 else round(bpb / step)
        skip = rng.random(cycle) < 0.15
        skip[0] = False
        for i in range(int(player.bars * bpb / step)):
            at = i * step
            tones = [*player.chord(at, 3, low), player.chord(at, 3, low)[0] + 12]
            place = i % cycle
            if not skip[place]:
                key = tones[int(up[place % len(up)]) % 4] + (12 if up[place % len(up)] > 3 else 0)
                player.play(2, at, key, 0.85 if place == 0 else 0.68, 2 * step)
            if mode in ("ballad", "travis") and at % max(1, bpb // 2 if bpb % 2 == 0 else bpb) == 0:
                player.play(2, at, player.root(at, 36), 0.85, bpb / 2)
        return
    pattern = rhythm(player, mode, kicks)
    for bar in range(player.bars):
        for p, n in pattern:
            at = bar * bpb + p
            keys = player.chord(
                at, 2 if mode.startswith("power") else size, 40 if mode.startswith("power") else low
            )
            for key in keys:
                player.play(2, at, key, 0.85 if p % 1 == 0 else 0.72, n)
        if mode == "boomchick":
            for p in (0.0, 2.0)[: 1 if bpb < 4 else 2]:
                player.play(2, bar * bpb + p, player.root(bar * bpb + p, 40), 0.85, 0.8)


def lead(player: Player) -> None:
    """Play a melody of short phrases that mostly lean on bar lines, sometimes with a pick-up."""
    rng, bpb = player.rng, player.bpb
    step = float(rng.choice([0.25, 0.5, 0.5, 1.0]))
    length = bpb * int(rng.choice([1, 2, 2, 4]))
    density = rng.uniform(0.3, 0.75)
    slots = int(length / step)
    hit = rng.random(slots) < np.where(np.arange(slots) * step % 1 == 0, density, density * 0.6)
    hit[0] = rng.random() < 0.6
    walk = np.cumsum(rng.integers(-2, 3, slots))
    for start in np.arange(0, player.bars * bpb, length):
        for i in np.flatnonzero(hit):
            at = start + i * step
            tone = player.chord(at, 3, 67)[int(walk[i]) % 3] if rng.random() < 0.5 else None
            degree = int(np.clip(21 + walk[i] % 8, 0, len(player.scale) - 1))
            key = tone if tone is not None else player.key + int(player.scale[degree]) + 24
            player.play(3, at, 60 + (key - 60) % 24, 0.75, step * rng.uniform(0.7, 1.8))
