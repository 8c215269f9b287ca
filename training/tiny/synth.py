"""A narrow, frame-locked sound world: drums and a bass line, synthesised with numpy.

Every hit starts exactly on a 640-sample codec frame and is the same waveform each time, so that a bar that
repeats in the music also repeats in the codes. Tempi are whole frames per beat (3000 / k BPM at 50 frames/s);
sixteenths of an odd k are rounded to the frame. Levels and kits are fixed: a small codec then learns them well.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 32_000
HOP_LENGTH = 640
FRAME_RATE = 50
FRAMES_PER_BEAT = tuple(range(20, 41))  # one octave of tempi: 150 down to 75 BPM
SLOTS = 16  # sixteenths in a bar of 4/4
KITS = ("808", "909", "acoustic")
BASSES = ("sub", "saw", "square", "none")
LEVELS = {"kick": 0.75, "snare": 0.5, "hat": 0.22, "open": 0.2, "bass": 0.36}


@dataclass(frozen=True)
class Score:
    """One loop as notes: patterns over bars of sixteen slots.

    Attributes
    ----------
    style, kit, bass, mood, density : str
        What the prompt may name.
    frames_per_beat : int
        Tempo as codec frames, 3000 / BPM.
    kick, snare, hat, open : tuple of str
        One 16-character pattern a bar ("x" hit, "." rest); cycled over the bars.
    notes : tuple of tuple
        Bass notes a bar as (slot, slots long, MIDI pitch); cycled over the bars.
    """

    style: str
    kit: str
    bass: str
    mood: str
    density: str
    frames_per_beat: int
    kick: tuple[str, ...]
    snare: tuple[str, ...]
    hat: tuple[str, ...]
    open: tuple[str, ...]
    notes: tuple[tuple[tuple[int, int, int], ...], ...]

    @property
    def bpm(self) -> float:
        return 60 * FRAME_RATE / self.frames_per_beat


def slot_frame(slot: int, frames_per_beat: int) -> int:
    """Frame, counted from the first bar line, on which sixteenth `slot` starts."""
    return int(np.floor(slot * frames_per_beat / 4 + 0.5))


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _noise(name: str, n: int, low: float, high: float) -> np.ndarray:
    """Band-passed noise that is the same at every call."""
    white = np.random.default_rng(list(name.encode())).standard_normal(n)
    spectrum = np.fft.rfft(white)
    freq = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    spectrum *= 1 / (1 + (low / np.maximum(freq, 1)) ** 6) / (1 + (freq / high) ** 6)
    band = np.fft.irfft(spectrum, n)
    return band / np.abs(band).max()


def _sweep(t: np.ndarray, base: float, depth: float, speed: float) -> np.ndarray:
    return np.sin(2 * np.pi * (base * t + depth / speed * (1 - np.exp(-speed * t))))


def _fade(x: np.ndarray, seconds: float = 0.02) -> np.ndarray:
    n = min(len(x), int(seconds * SAMPLE_RATE))
    x = x.copy()
    x[len(x) - n :] *= np.linspace(1, 0, n) ** 2
    return x


@functools.cache
def drum(kit: str, voice: str) -> np.ndarray:
    """One hit of a kit, float32 [n], peak near 1."""
    if voice == "kick":
        base, depth, speed, decay, seconds = {
            "808": (48, 130, 28, 6.5, 0.5),
            "909": (54, 230, 38, 10, 0.36),
            "acoustic": (66, 90, 45, 15, 0.26),
        }[kit]
        t = _time(seconds)
        click = _noise("click" + kit, len(t), 800, 6000) * np.exp(-t * 250)
        x = np.tanh(1.6 * _sweep(t, base, depth, speed) * np.exp(-decay * t)) + 0.25 * click
    elif voice == "snare":
        t = _time(0.24)
        tone, decay, bright = {"808": (180, 24, 7000), "909": (210, 17, 9000), "acoustic": (195, 21, 5000)}[
            kit
        ]
        body = np.sin(2 * np.pi * tone * t) * np.exp(-t * 28) + 0.5 * np.sin(
            2 * np.pi * tone * 1.7 * t
        ) * np.exp(-t * 38)
        rattle = _noise("snare" + kit, len(t), 900, bright) * np.exp(-t * decay)
        if kit == "909":  # a clap: three bursts before the tail
            burst = sum(np.exp(-((t - s) % 1) * 220) * (t >= s) for s in (0, 0.009, 0.018))
            x = 0.9 * _noise("clap", len(t), 900, 4000) * (0.5 * burst + np.exp(-t * 16)) + 0.15 * body
        else:
            x = 0.6 * body + 0.8 * rattle
    else:
        decay, seconds = (55, 0.08) if voice == "hat" else (9, 0.3)
        low, high = {"808": (8000, 15000), "909": (6500, 14000), "acoustic": (5000, 12000)}[kit]
        t = _time(seconds)
        x = _noise(voice + kit, len(t), low, high) * np.exp(-t * decay)
    return _fade(x / np.abs(x).max()).astype(np.float32)


@functools.cache
def bass_note(bass: str, pitch: int, frames: int) -> np.ndarray:
    """One bass note, float32 [frames * 640], always from phase zero."""
    t = _time(frames * HOP_LENGTH / SAMPLE_RATE)
    f = 440 * 2 ** ((pitch - 69) / 12)
    if bass == "sub":
        x = np.sin(2 * np.pi * f * t) + 0.25 * np.sin(4 * np.pi * f * t) + 0.08 * np.sin(6 * np.pi * f * t)
        x *= np.exp(-0.8 * t)
    else:
        step, close = (1, 1.6) if bass == "saw" else (2, 2.4)
        x = sum(
            np.sin(2 * np.pi * h * f * t) / h * np.exp(-close * h * t)
            for h in range(1, 24, step)
            if h * f < 3000
        )
        x = x * np.exp(-1.5 * t)
    attack = min(len(t), int(0.004 * SAMPLE_RATE))
    x[:attack] *= np.linspace(0, 1, attack)
    return _fade(x / np.abs(x).max(), 0.03).astype(np.float32)


def _place(out: np.ndarray, frame: int, sound: np.ndarray, gain: float, limit: int | None = None) -> None:
    start = frame * HOP_LENGTH
    if start >= len(out):
        return
    if limit is not None and limit * HOP_LENGTH < len(sound):
        sound = _fade(sound[: limit * HOP_LENGTH])
    end = min(len(out), start + len(sound))
    out[start:end] += gain * sound[: end - start]


def render(score: Score, frames: int) -> np.ndarray:
    """Play `score` for `frames` codec frames.

    Returns
    -------
    ndarray
        float32 [frames * 640], within -1..1; sample 0 is a bar line.
    """
    out = np.zeros(frames * HOP_LENGTH, np.float32)
    k = score.frames_per_beat
    bars = frames // (4 * k) + 1
    for bar in range(bars):
        at = lambda slot, bar=bar: slot_frame(bar * SLOTS + slot, k)
        hats = sorted(
            [(s, "hat") for s, c in enumerate(score.hat[bar % len(score.hat)]) if c == "x"]
            + [(s, "open") for s, c in enumerate(score.open[bar % len(score.open)]) if c == "x"]
        )
        for i, (slot, voice) in enumerate(hats):
            after = hats[i + 1][0] if i + 1 < len(hats) else SLOTS
            gain = LEVELS[voice] * (1.0 if slot % 4 == 0 else 0.8)
            _place(out, at(slot), drum(score.kit, voice), gain, at(after) - at(slot))  # a hat chokes the last
        for voice, rows in (("kick", score.kick), ("snare", score.snare)):
            for slot, c in enumerate(rows[bar % len(rows)]):
                if c == "x":
                    _place(out, at(slot), drum(score.kit, voice), LEVELS[voice])
        if score.bass != "none":
            for slot, length, pitch in score.notes[bar % len(score.notes)]:
                n = at(slot + length) - at(slot)
                _place(out, at(slot), bass_note(score.bass, pitch, n), LEVELS["bass"])
    return np.tanh(out) * 0.9
