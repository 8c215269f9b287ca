"""What must hold to the sample: the length of every written loop, and MP3 after two decoders."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
from imageio_ffmpeg import get_ffmpeg_exe
from scipy.signal import correlate

from bench.quality.labelled_clips import grid_of, true_grid
from looper.files import mp3
from looper.files.write import dithered, write
from looper.loops.cut import cut
from looper.loops.matching import finish

UNUSUAL_TEMPI = (41.7, 299.9, 127.003)


def tune(seconds: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise bursts over a chord: something that can be cut anywhere."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 277.2, 329.6)) * 0.1
    return (chord + 0.1 * rng.standard_normal(len(t)) * np.exp(-20 * (t % 0.5))).astype(np.float32)


def exact_lengths(count: int = 200) -> float:
    """Share of random requests whose written file has exactly round(beats * 60 / bpm * rate) samples."""
    rng, right = np.random.default_rng(5), 0
    with tempfile.TemporaryDirectory() as folder:
        for k in range(count):
            bpm = UNUSUAL_TEMPI[k] if k < len(UNUSUAL_TEMPI) else round(float(rng.uniform(40, 300)), 3)
            metre = int(rng.integers(2, 8))
            bars = 2 ** int(rng.integers(0, 3))
            rate = int(rng.choice([32000, 44100]))
            while bars > 1 and bars * metre * 60 / bpm > 12:
                bars //= 2
            seconds = bars * metre * 60 / bpm * float(rng.uniform(0.94, 1.06))
            start = float(rng.uniform(0, 0.7))
            audio = tune(start + seconds + float(rng.uniform(0.05, 1)), rate, rng)
            grid = grid_of(start, start + seconds, bars * metre, metre, np.array([]))
            loop = finish([cut(audio, rate, bpm, metre, grid=grid)])[0]
            path = write(loop, Path(folder) / "loop.wav")
            right += sf.info(path).frames == round(bars * metre * 60 / bpm * rate)
    return right / count


def decoded(path: Path, how: str, sample_rate: int) -> np.ndarray:
    if how == "libsndfile":
        return sf.read(path)[0]
    command = [
        shutil.which("ffmpeg") or get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-f",
        "f32le",
        "-ac",
        "1",
        "-ar",
        str(sample_rate),
        "-",
    ]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)


def _offsets(samples: np.ndarray, rate: int) -> Iterator[int]:
    """Yield errors of length and lag after MP3, by two decoders."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loop.mp3"
        path.write_bytes(mp3.encode(dithered(samples), rate, {"TIT2": "bench"}))
        for how in ("ffmpeg", "libsndfile"):
            heard = decoded(path, how, rate)
            lag = int(np.argmax(correlate(heard, samples, "full"))) - (len(samples) - 1)
            yield from (abs(len(heard) - len(samples)), abs(lag))


def mp3_offset(folder: Path, count: int = 8) -> int:
    """Most samples by which a decoded MP3 differs in length or lags behind the loop."""
    worst = 0
    clips = [clip for clip in json.loads((folder / "truth.json").read_text()) if true_grid(clip)]
    rng = np.random.default_rng(2)
    # every remainder of a 1152-sample frame can occur; the first 46 are where encoders go wrong
    for length in [20 * 1152 + r for r in (0, 1, 23, 46, 47, 575, 576, 577, 1105, 1151)]:
        worst = max(worst, *_offsets(0.1 * rng.standard_normal(length).astype(np.float32), 32000))
    for clip in clips[:: max(1, len(clips) // count)][:count]:
        samples, rate = sf.read(folder / clip["file"], dtype="float32")
        loop = finish(
            [cut(samples, rate, clip["requested_bpm"], clip["beats_per_bar"], grid=true_grid(clip))]
        )[0]
        worst = max(worst, *_offsets(loop.samples, rate))
    return worst
