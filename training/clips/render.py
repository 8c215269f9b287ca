"""Make labelled clips: our own patterns, rendered, degraded and cropped, with their true beats.

    python -m training.clips.render --out training/work/clips --count 3000 --seed 1

Needs Debian's ``fluidsynth`` and General MIDI soundfonts (``fluid-soundfont-gm``,
``timgm6mb-soundfont``); nothing of them is shipped. Writes 32 kHz mono FLAC files and ``truth.json``
in the form that the evaluation's scorer reads. A third of the kits are synthesised here instead.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import butter as butterworth
from scipy.signal import fftconvolve, sosfilt

from training.clips.compose import Piece, compose
from training.clips.styles import STYLES

RATE = 32_000
TICKS = 9_600  # per second: the file says one quarter a second
FONTS = ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "/usr/share/sounds/sf2/TimGM6mb.sf2")
GAP = 2.0  # seconds of silence between pieces of one rendering


def _length(value: int) -> bytes:
    """Variable-length quantity of a MIDI file."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | (value & 0x7F))
    return bytes(out[::-1])


def midi(pieces: list[tuple[Piece, float]], skip_drums: list[bool]) -> bytes:
    """One MIDI file that plays every piece from its start time in seconds."""
    events: list[tuple[int, int, bytes]] = []
    for (piece, start), silent in zip(pieces, skip_drums, strict=True):
        tick = round(start * TICKS)
        for channel, program in piece.programs.items():
            events.append((tick, 0, bytes([0xB0 | channel, 120, 0])))
            events.append((tick, 1, bytes([0xC0 | channel, program])))
        for n in piece.notes:
            if n.channel == 9 and silent:
                continue
            on = round((start + n.time) * TICKS)
            events.append((on, 3, bytes([0x90 | n.channel, n.key, n.velocity])))
            events.append((on + round(n.length * TICKS), 2, bytes([0x80 | n.channel, n.key, 0])))
    events.sort(key=lambda e: e[:2])
    track, last = b"\x00\xff\x51\x03\x0f\x42\x40", 0
    for tick, _, data in events:
        track += _length(tick - last) + data
        last = tick
    track += b"\x00\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + track


def render(pieces: list[tuple[Piece, float]], skip: list[bool], font: str, reverb: bool) -> np.ndarray:
    """Play the pieces through fluidsynth; float32 ``[T]`` at RATE."""
    with tempfile.TemporaryDirectory() as folder:
        score, wave = Path(folder) / "a.mid", Path(folder) / "a.wav"
        score.write_bytes(midi(pieces, skip))
        wet = "1" if reverb else "0"
        subprocess.run(
            ["fluidsynth", "-ni", "-q", "-g", "0.4", "-r", str(RATE), "-o", f"synth.reverb.active={wet}",
             "-o", f"synth.chorus.active={wet}", "-o", "synth.dynamic-sample-loading=1",
             "-F", str(wave), font, str(score)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return sf.read(wave, dtype="float32", always_2d=True)[0].mean(axis=1)


def _hit(rng: np.random.Generator, low: float, high: float, seconds: float, tone: float) -> np.ndarray:
    """A struck sound: a falling sine and filtered noise, ``tone`` of it sine."""
    t = np.arange(int(RATE * seconds)) / RATE
    pitch = low + (high - low) * np.exp(-t / rng.uniform(0.01, 0.05))
    sine = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    noise = rng.normal(0, 0.5, len(t))
    if tone < 0.9:
        edge = np.array([rng.uniform(200, 6000), 14_000])
        noise = sosfilt(butterworth(2, edge, "bandpass", fs=RATE, output="sos"), noise)
    decay = np.exp(-t / (seconds * rng.uniform(0.12, 0.3)))
    return ((tone * sine + (1 - tone) * noise) * decay).astype(np.float32)


def own_kit(piece: Piece, rng: np.random.Generator, length: int) -> np.ndarray:
    """Play the piece's drums on a kit synthesised for it."""
    kit: dict[int, np.ndarray] = {}
    out = np.zeros(length + 2 * RATE, np.float32)
    for n in piece.notes:
        at = round(n.time * RATE)
        if n.channel != 9 or at >= length:
            continue
        if n.key not in kit:
            if n.key in (36, 35, 41):
                kit[n.key] = 1.2 * _hit(
                    rng, rng.uniform(38, 60), rng.uniform(90, 400), rng.uniform(0.15, 0.7), 0.95
                )
            elif n.key in (38, 39, 37, 40):
                kit[n.key] = _hit(rng, 180, 300, rng.uniform(0.1, 0.35), rng.uniform(0.0, 0.5))
            elif n.key in (42, 44, 46, 49, 51, 53, 54, 70):
                kit[n.key] = 0.5 * _hit(rng, 300, 400, 0.5 if n.key in (46, 49, 51) else 0.09, 0.0)
            else:
                kit[n.key] = 0.8 * _hit(rng, rng.uniform(100, 700), rng.uniform(150, 900), 0.25, 0.8)
        sound = kit[n.key] * (n.velocity / 127) ** 1.5 * 0.4
        out[at : at + len(sound)] += sound[: len(out) - at]
    return out[:length]


def polish(x: np.ndarray, piece: Piece, rng: np.random.Generator) -> np.ndarray:
    """Mix effects: ducking under the kick, room, tilt, saturation, hiss."""
    kicks = [n.time for n in piece.notes if n.channel == 9 and n.key == 36]
    if kicks and rng.random() < 0.2:
        depth, t = rng.uniform(0.3, 0.9), np.arange(int(0.3 * RATE)) / RATE
        gain = np.ones(len(x) + len(t), np.float32)
        for k in kicks:
            at = round(k * RATE)
            part = gain[at : at + len(t)]
            part[:] = np.minimum(part, 1 - depth * np.exp(-t / 0.1)[: len(part)])
        x = x * gain[: len(x)]
    if rng.random() < 0.25:
        t = np.arange(int(RATE * rng.uniform(0.2, 1.0))) / RATE
        room = rng.normal(0, 1, len(t)) * np.exp(-5 * t / t[-1])
        x = x + rng.uniform(0.1, 0.5) * fftconvolve(x, room / np.linalg.norm(room))[: len(x)].astype(
            np.float32
        )
    if rng.random() < 0.35:
        edge, kind = (
            (rng.uniform(2000, 9000), "lowpass") if rng.random() < 0.6 else (rng.uniform(60, 250), "highpass")
        )
        x = sosfilt(butterworth(1, edge, kind, fs=RATE, output="sos"), x).astype(np.float32)
    x = x / (np.abs(x).max() + 1e-9)
    if rng.random() < 0.4:
        drive = rng.uniform(1.5, 6)
        x = np.tanh(drive * x) / np.tanh(drive)
    if rng.random() < 0.3:
        x = x + rng.normal(0, 10 ** rng.uniform(-4.0, -2.0), len(x))
    return x.astype(np.float32)


def codec(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Encode and decode some clips at a low bitrate, as a neural codec would blur them too."""
    kind = str(rng.choice(["none", "none", "mp3", "ogg", "blur"]))
    if kind in ("mp3", "ogg"):
        data = io.BytesIO()
        sf.write(data, x, RATE, format=kind.upper(), subtype="MPEG_LAYER_III" if kind == "mp3" else "VORBIS",
                 compression_level=float(rng.uniform(0.6, 0.99)))  # fmt: skip
        data.seek(0)
        decoded = sf.read(data, dtype="float32")[0]
        return np.pad(decoded, (0, max(0, len(x) - len(decoded))))[: len(x)], kind
    if kind == "blur":
        import librosa

        spectrum = librosa.stft(x, n_fft=1024, hop_length=256)
        step = rng.uniform(1.0, 6.0)  # dB: magnitudes are rounded, phases shaken
        level = np.round(20 * np.log10(np.abs(spectrum) + 1e-5) / step) * step
        angle = np.angle(spectrum) + rng.normal(0, rng.uniform(0.1, 0.7), spectrum.shape)
        x = librosa.istft(10 ** (level / 20) * np.exp(1j * angle), hop_length=256, length=len(x))
    return x.astype(np.float32), kind


def crop(
    x: np.ndarray, piece: Piece, rng: np.random.Generator, seconds: float
) -> tuple[np.ndarray, float, str]:
    """Choose the clip's first moment: the true beginning, a bar line, or anywhere."""
    bars = piece.beats[:: piece.beats_per_bar]
    how = str(rng.choice(["beginning", "bar", "random"], p=[0.16, 0.14, 0.7]))
    lead = 0.0 if rng.random() < 0.25 else float(rng.uniform(0, 0.06))
    if how == "beginning":
        start = bars[0] - lead
    elif how == "bar":
        start = bars[int(rng.integers(1, 5))] - lead
    else:
        start = float(rng.uniform(bars[0], bars[4]))
    at = round(start * RATE)
    out = x[max(0, at) : at + round(seconds * RATE)]
    return np.pad(out, (max(0, -at), 0))[: round(seconds * RATE)], start, how


def ask(piece: Piece, rng: np.random.Generator) -> tuple[float, float]:
    """Draw the tempo that was asked for, up to 6 % off, sometimes at half or double, and the level."""
    wanted = STYLES[piece.style].levels or (1, 1, 1, 1, 1, 2, 0.5, 0.5)
    levels = [v for v in wanted if 42 < piece.bpm * v < 290]
    if piece.beats_per_bar % 2 and 0.5 in levels and rng.random() < 0.7:
        levels = [v for v in levels if v != 0.5] or [1]
    level = float(rng.choice(levels)) if levels else 1.0
    off = rng.uniform(-0.06, 0.06) if rng.random() < 0.6 else rng.normal(0, 0.008)
    return float(np.clip(round(piece.bpm * level / (1 + off)), 40, 300)), level


def truth(piece: Piece, start: float, seconds: float) -> dict[str, object]:
    """True beats and downbeats inside the clip."""
    beats = piece.beats - start
    keep = (beats >= -1e-3) & (beats < seconds)
    index = np.arange(len(beats))
    down = keep & (index % piece.beats_per_bar == 0)
    musical = 60 * (keep.sum() - 1) / np.ptp(beats[keep])
    return {
        "musical_bpm": float(musical),
        "beats": [round(float(b), 5) for b in beats[keep]],
        "downbeats": [round(float(b), 5) for b in beats[down]],
    }


def make_batch(first: int, size: int, seed: int, out: Path, names: list[str]) -> list[dict[str, object]]:
    """Compose, render and write ``size`` clips of some styles; returns their truth rows."""
    rng = np.random.default_rng([seed, first])
    weights = np.array([STYLES[n].weight for n in names])
    pieces: list[tuple[Piece, float]] = []
    clock, lengths = 0.0, []
    for _ in range(size):
        name = str(rng.choice(names, p=weights / weights.sum()))
        lengths.append(float(rng.choice([8.0, 8.0, 10.0, 10.0, 12.0])) + 4.0 * (STYLES[name].bpm[1] < 70))
        piece = compose(rng, name, lengths[-1])
        pieces.append((piece, clock))
        clock += float(piece.beats[-1]) + GAP + 1
    own = [bool(rng.random() < 0.35) for _ in pieces]
    wave = render(pieces, own, str(rng.choice(FONTS)), bool(rng.random() < 0.5))
    wave = np.pad(wave, (0, max(0, round((clock + 2) * RATE) - len(wave))))
    rows = []
    for i, ((piece, clock), kit) in enumerate(zip(pieces, own, strict=True)):
        x = wave[round(clock * RATE) : round((clock + float(piece.beats[-1]) + 1) * RATE)]
        x = x + own_kit(piece, rng, len(x)) * rng.uniform(0.5, 1.5) if kit else x
        clip, start, how = crop(polish(x, piece, rng), piece, rng, lengths[i])
        clip, degrade = codec(clip, rng)
        clip = clip / (np.abs(clip).max() + 1e-9) * rng.uniform(0.3, 0.99)
        asked, level = ask(piece, rng)
        file = f"{first + i:05d}_{piece.style}.flac"
        sf.write(out / file, clip, RATE, subtype="PCM_16")
        rows.append({
            "file": file, "style": piece.style, "requested_bpm": asked, "level": level, "start": how,
            "drift": piece.drift, "degrade": degrade, "beats_per_bar": piece.beats_per_bar,
            "duration": len(clip) / RATE, **truth(piece, start, len(clip) / RATE),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("training/work/clips"))
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--styles", nargs="+", choices=list(STYLES), default=list(STYLES), metavar="STYLE")
    args = parser.parse_args()
    if shutil.which("fluidsynth") is None:
        parser.error(
            "fluidsynth is missing: apt-get install fluidsynth fluid-soundfont-gm timgm6mb-soundfont"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for first in range(0, args.count, 12):
        rows += make_batch(first, min(12, args.count - first), args.seed, args.out, args.styles)
        (args.out / "truth.json").write_text(json.dumps(rows))
        print(f"\r{len(rows)}/{args.count}", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
