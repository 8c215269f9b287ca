"""The beat clock: where each codec frame lies in the bar, as features for a model that was trained with them.

MusicGen medium and large have no clock. weights/tiny has: one linear layer adds these features to the input of
its transformer, so that a very small model can keep time. Its tempi are whole codec frames per beat; the pipeline
stretches from there to the asked tempo.
"""

from __future__ import annotations

import math

import numpy as np

SLOTS_PER_BEAT = 4
_LONGEST_SLOT = 10  # frames, at the slowest tempo
_SLOT_NAMES = 16
_HARMONICS = (1, 2, 4, 8, 16, 32)
FEATURES = _SLOT_NAMES + 2 * _LONGEST_SLOT + 2 * len(_HARMONICS) + 4 + 1


def frames_per_beat(bpm: float, frame_rate: float = 50.0, fewest: int = 20, most: int = 40) -> int:
    """Whole frames per beat nearest to `bpm`, at the octave of it that lies within fewest..most.

    Parameters
    ----------
    bpm : float
        The asked tempo, beats per minute.
    frame_rate : float
        Codec frames per second.
    fewest, most : int
        The range the model was trained on; one octave, so that every tempo has a place in it.

    Returns
    -------
    int
        Frames per beat of the nearest tempo; the music may play at half or double of the asked one.
    """
    period = float(60 * frame_rate / bpm)
    folds = [period * 2.0**octave for octave in range(-4, 5)]

    def strain(fold: float) -> tuple[float, float]:
        return abs(round(fold) / fold - 1), abs(math.log2(fold / period))

    nearest = min((fold for fold in folds if fewest <= round(fold) <= most), key=strain)
    return round(nearest)


def slot_starts(slots: int, period: int) -> np.ndarray:
    """First frame of each sixteenth, int [slots], for `period` frames per beat."""
    return np.floor(np.arange(slots) * period / SLOTS_PER_BEAT + 0.5).astype(int)


def clock_features(frames: int, period: int, beats_per_bar: int = 4, start_beat: int = 0) -> np.ndarray:
    """Features of frames 0..frames-1, where frame 0 is beat `start_beat` of a bar.

    Parameters
    ----------
    frames : int
        How many frames.
    period : int
        Frames per beat.
    beats_per_bar : int
        Beats in a bar.
    start_beat : int
        Where in the bar frame 0 lies; 0 is the downbeat.

    Returns
    -------
    ndarray
        float32 [frames, FEATURES]: which sixteenth of the bar, frames since it began and until the next, sine and
        cosine of the bar's and of the four-bar phase, and the tempo.
    """
    t = np.arange(frames) + start_beat * period
    starts = slot_starts((t[-1] + 1) * SLOTS_PER_BEAT // period + 3, period)
    slot = np.searchsorted(starts, t, side="right") - 1
    since, until = t - starts[slot], starts[slot + 1] - t
    bar = t / (period * beats_per_bar)
    one_hot = lambda index, size: np.eye(size)[np.clip(index, 0, size - 1)]
    waves = [f(2 * np.pi * h * bar) for h in _HARMONICS for f in (np.sin, np.cos)]
    waves += [f(2 * np.pi * h * bar / 4) for h in (1, 2) for f in (np.sin, np.cos)]
    return np.concatenate(
        [
            one_hot(slot % (beats_per_bar * SLOTS_PER_BEAT) % _SLOT_NAMES, _SLOT_NAMES),
            one_hot(since, _LONGEST_SLOT),
            one_hot(until - 1, _LONGEST_SLOT),
            np.stack(waves, 1),
            np.full((frames, 1), (period - 30) / 10),
        ],
        axis=1,
    ).astype(np.float32)
