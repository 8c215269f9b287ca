"""Turn parts written in beats into notes in seconds: chords, swing, drift and human timing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.clips.styles import Style

SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10))
DEGREES = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 0), (1, 4, 0, 0), (0, 6, 5, 4), (0, 3, 0, 4),
           (0, 5, 1, 4), (0, 0, 3, 0), (0, 0, 3, 4), (0, 0, 0, 4),
           (5, 5, 3, 4), (0, 4, 3, 3), (0, 2, 3, 4), (0, 1, 0, 1), (0, 3, 0, 3), (0, 0, 0, 0), (0, 6, 3, 0))  # fmt: skip


@dataclass(frozen=True)
class Note:
    """One note: seconds, General MIDI channel (9 is drums), key, velocity, seconds of length."""

    time: float
    channel: int
    key: int
    velocity: int
    length: float


def warp(rng: np.random.Generator, bpm: float, beats: int) -> tuple[np.ndarray, float]:
    """Beat times ``[beats]`` of a piece, steady in two thirds of the draws, and the drift's width."""
    drift = 0.0 if rng.random() < 0.65 else float(rng.uniform(-0.012, 0.012))
    position = np.linspace(-0.5, 0.5, beats)
    curve = position if rng.random() < 0.5 else 0.5 * np.sin(2 * np.pi * (position + rng.random()))
    period = 60 / bpm * (1 + drift * curve)
    return np.r_[0.0, np.cumsum(period[:-1])], drift


class Player:
    """Turns parts into notes on one piece's beats: chords, feel and human timing included."""

    def __init__(self, style: Style, rng: np.random.Generator, bpm: float, bars: int) -> None:
        self.style, self.rng, self.bars, self.bpb = style, rng, bars, style.beats
        self.beat_times, self.drift = warp(rng, bpm, bars * style.beats + 2)
        self.swing = float(rng.uniform(*style.swing)) if rng.random() < 0.7 else style.swing[0]
        self.jitter = float(rng.choice([0.0, 0.003, 0.006, 0.01]))
        self.late = {c: float(rng.normal(0, 0.003)) if self.jitter else 0.0 for c in range(16)}
        self.level = {c: float(rng.uniform(0.55, 1.0)) for c in range(16)}
        self.notes: list[Note] = []
        scale, self.key = SCALES[rng.integers(len(SCALES))], int(rng.integers(12))
        self.scale = np.array([s + 12 * o for o in range(8) for s in scale])
        progression = DEGREES[rng.integers(len(DEGREES))]
        if rng.random() < 0.4:
            progression = tuple(int(d) for d in rng.integers(0, 7, 4))
        span = rng.choice([0.5, 1, 1, 1, 1, 2]) if style.beats % 2 == 0 else rng.choice([1, 1, 1, 2])
        total = bars * self.bpb
        change = max(1, round(span * self.bpb))
        turn = progression[1:] + progression[:1] if rng.random() < 0.1 else progression
        self.chords = np.array([turn[(b // change) % len(turn)] for b in range(total + self.bpb)])
        self.change = change

    def seconds(self, beat: float) -> float:
        """Time of a position in beats, swung."""
        whole, part = int(np.floor(beat)), beat - np.floor(beat)
        unit = 0.5 if self.style.swing16 else 1.0
        inner = (part / unit) % 1.0
        bent = inner * 2 * self.swing if inner <= 0.5 else self.swing + (inner - 0.5) * 2 * (1 - self.swing)
        part = (part // unit + bent) * unit if abs(inner * 4 % 1) < 1e-6 else part
        a, b = self.beat_times[min(whole, len(self.beat_times) - 2) : whole + 2][:2]
        return float(a + (b - a) * part)

    def play(self, channel: int, beat: float, key: int, velocity: float, length: float) -> None:
        """Add one note at a position in beats, ``length`` beats long, velocity 0..1."""
        if not 0 <= beat < self.bars * self.bpb:
            return
        start = self.seconds(beat) + self.late[channel] + self.rng.normal(0, self.jitter) * 0.7
        loud = velocity * self.level[channel] * self.rng.uniform(0.85, 1.0)
        seconds = length * (self.beat_times[1] - self.beat_times[0])
        key, loud = int(np.clip(key, 20, 108)), int(np.clip(127 * loud, 8, 127))
        self.notes.append(Note(max(0.0, start), channel, key, loud, max(0.03, seconds * 0.95)))

    def chord(self, beat: float, size: int = 3, low: int = 52) -> list[int]:
        """Return keys of the chord that sounds at a beat, close voicing above ``low``."""
        degree = self.chords[int(min(max(beat, 0), len(self.chords) - 1))]
        keys = [self.key + int(self.scale[degree + 2 * i]) for i in range(size)]
        return sorted(low + (k - low) % 12 for k in keys)

    def root(self, beat: float, low: int = 33) -> int:
        """Key of the chord's root in the bass."""
        degree = self.chords[int(min(max(beat, 0), len(self.chords) - 1))]
        return low + (self.key + int(self.scale[degree]) - low) % 12
