"""What speaks for a bar line: a recording read on every beat grid that it may be heard on.

For each metrical level and each phase that the beat may have, the recording is read in sixteenth slots
of that beat: onsets per band, level, and how far the harmony changes. `downbeats` weighs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looper.beats import tempo
from looper.beats.features import BANDS, Features

SLOTS = 4  # per beat
TIGHT_SECONDS = 0.02  # seconds around a slot in which a hit counts as on it
HARMONY_SPANS_BEATS = (0.5, 1.0, 2.0, 4.0, 8.0)  # beats on either side over which harmony is compared
TIMBRE_SPANS_BEATS = (1.0, 2.0, 4.0, 8.0)  # the same for what sounds, and how much
PER_SLOT = BANDS + 4 + BANDS + 2 * len(HARMONY_SPANS_BEATS) + 2 * len(TIMBRE_SPANS_BEATS)
PER_BEAT = SLOTS * PER_SLOT + 6


def _running(x: np.ndarray) -> np.ndarray:
    """Cumulative sum along time with a leading zero, ``[F, T + 1]``."""
    return np.concatenate([np.zeros((len(x), 1)), np.cumsum(x, axis=1, dtype=np.float64)], axis=1)


def _until(total: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Running sum ``[F, ...]`` at frame positions, fractions allowed."""
    last = total.shape[1] - 1
    inside = np.clip(position, 0, last)
    low = np.minimum(inside.astype(int), last - 1)
    part = inside - low
    before, after = (np.take(total, at, axis=1) for at in (low, low + 1))
    return before + (after - before) * part


def _between(total: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of each feature from frame ``start`` to ``end`` (fractions allowed), and the width inside."""
    last = total.shape[1] - 1
    return _until(total, end) - _until(total, start), np.clip(end, 0, last) - np.clip(start, 0, last)


@dataclass(frozen=True)
class CumulativeFeatures:
    """Running sums of one recording's features, scaled by its own spread."""

    rise: np.ndarray
    mel: np.ndarray
    chroma: np.ndarray
    rate: float
    chroma_rate: float
    duration: float
    begins_silent: float


def listen(features: Features) -> CumulativeFeatures:
    """Prepare the features that every phase is then read from.

    Parameters
    ----------
    features : Features
        Features of one recording.

    Returns
    -------
    CumulativeFeatures
        Running sums, normalised per band.
    """
    rise = features.rise / (features.rise.mean() + 1e-6)
    mel = features.mel - features.mel.mean(axis=1, keepdims=True)
    mel = mel / (mel.std() + 1e-3)
    head = features.mel[:, : round(0.01 * features.rate)].mean()
    return CumulativeFeatures(
        rise=_running(rise),
        mel=_running(mel),
        chroma=_running(features.chroma),
        rate=features.rate,
        chroma_rate=features.chroma_rate,
        duration=features.duration,
        begins_silent=float(head < 0.25 * features.mel.mean()),
    )


def _novelty(heard: CumulativeFeatures, times: np.ndarray, period: float) -> np.ndarray:
    """Change of harmony at each time over each span, ``[2 * len(HARMONY_SPANS_BEATS), N]`` (whole range and bass), 0..1."""
    reach = np.array(HARMONY_SPANS_BEATS)[:, None] * period * heard.chroma_rate
    at = times * heard.chroma_rate
    here = _until(heard.chroma, at)[:, None]
    sides = (here - _until(heard.chroma, at - reach), _until(heard.chroma, at + reach) - here)
    before, after = (side.reshape(2, 12, len(reach), len(at)).swapaxes(1, 2) for side in sides)
    size = np.sqrt((before**2).sum(axis=2) * (after**2).sum(axis=2))
    change = (1 - (before * after).sum(axis=2) / (size + 1e-9)) * np.minimum(1.0, size / 0.05)
    return change.swapaxes(0, 1).reshape(2 * len(HARMONY_SPANS_BEATS), len(at))


def _change(total: np.ndarray, at: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Mean after less mean before each frame position, per feature, ``[F, len(reach), N]``; 0 at the edges."""
    reach = reach[:, None]
    here = np.broadcast_to(at, (len(reach), len(at)))
    after, right = _between(total, here, here + reach)
    before, left = _between(total, here - reach, here)
    heard = np.minimum(left, right) / reach
    means = after / np.maximum(right, 1.0), before / np.maximum(left, 1.0)
    return (means[0] - means[1]) * np.minimum(1.0, 2 * heard)


def _timbre(heard: CumulativeFeatures, times: np.ndarray, period: float) -> np.ndarray:
    """How far the sound, and the number of onsets, change at each time, ``[2 * len(TIMBRE_SPANS_BEATS), N]``."""
    reach = np.array(TIMBRE_SPANS_BEATS) * period * heard.rate
    at = times * heard.rate
    sound = np.sqrt(np.square(_change(heard.mel, at, reach)).mean(axis=0))
    return np.concatenate([sound, _change(heard.rise, at, reach).mean(axis=0)])


def _beat_times(heard: CumulativeFeatures, phase: float, period: float) -> np.ndarray:
    """Seconds of the beats ``phase + k * period``, from just before 0 s."""
    first = np.ceil((-0.03 - phase) / period)
    return phase + period * np.arange(first, np.ceil((heard.duration - 0.03 - phase) / period))


def _flags(heard: CumulativeFeatures, beat_times: np.ndarray, period: float) -> np.ndarray:
    """Say which beats lie at the clip's edges, and how fast they go, ``[K, 6]``."""
    near = np.abs(beat_times) < np.minimum(0.07, 0.2 * period)
    return np.stack(
        [
            near,
            near * heard.begins_silent,
            np.arange(len(beat_times)) == 0,
            np.full(len(beat_times), heard.begins_silent),
            np.full(len(beat_times), np.log2(60 / period / 115)),
            np.minimum(1.0, (heard.duration - beat_times) / period),
        ],
        axis=1,
    )


def _slots(heard: CumulativeFeatures, beat_times: np.ndarray, period: float) -> np.ndarray:
    """Read the sixteenth slots of beats, ``[K, SLOTS * PER_SLOT]``."""
    slot = period / SLOTS
    times = (beat_times[:, None] + slot * np.arange(SLOTS)).ravel()
    # the rise of frame i lies between frames i-1 and i, and begins before the attack is heard
    at = times * heard.rate + 0.5
    half = 0.5 * slot * heard.rate
    wide, _ = _between(heard.rise, at - half, at + half)
    tight, _ = _between(heard.rise, at - TIGHT_SECONDS * heard.rate, at + TIGHT_SECONDS * heard.rate)
    level, size = _between(heard.mel, at, at + 2 * half)
    rows = [
        np.log1p(wide),
        np.log1p(tight.reshape(4, 2, len(at)).sum(axis=1)),
        level / np.maximum(size, 1.0),
        _novelty(heard, times, period),
        _timbre(heard, times, period),
    ]
    return np.concatenate(rows).T.reshape(len(beat_times), SLOTS * PER_SLOT)


def beat_features(
    heard: CumulativeFeatures, phases: np.ndarray, period: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read a recording on beat grids of one period.

    Parameters
    ----------
    heard : CumulativeFeatures
        The recording.
    phases : numpy.ndarray
        ``[P]`` seconds: beats fall at ``phase + k * period``.
    period : float
        Seconds.

    Returns
    -------
    list of (features, beat_times)
        For each phase ``[K, PER_BEAT]`` float32, and ``[K]`` seconds, from just before 0 s.
    """
    beats = [_beat_times(heard, float(phase), period) for phase in phases]
    slots = _slots(heard, np.concatenate(beats), period)
    parts = np.split(slots, np.cumsum([len(times) for times in beats])[:-1])
    return [
        (np.concatenate([part, _flags(heard, times, period)], axis=1).astype(np.float32), times)
        for part, times in zip(parts, beats, strict=True)
    ]


@dataclass(frozen=True)
class MetricalHypothesis:
    """One way to read the beats: a level of the pulse and a phase, with its features.

    Attributes
    ----------
    level : float
        Period over the target: 0.5, 1 or 2.
    period, phase : float
        Seconds.
    weight : float
        How strongly onsets gather at the phase, 0..1 of the strongest.
    features : numpy.ndarray
        ``[K, PER_BEAT]``.
    beat_times : numpy.ndarray
        ``[K]`` seconds.
    """

    level: float
    period: float
    phase: float
    weight: float
    features: np.ndarray
    beat_times: np.ndarray


LEVELS = (0.5, 1.0, 2.0)
PHASES = 6
MIN_BEAT_SECONDS, MAX_BEAT_SECONDS = 0.22, 1.6


def metrical_hypotheses(features: Features, period: float) -> list[MetricalHypothesis]:
    """Read a recording at half, once and twice the period, at each likely phase.

    Parameters
    ----------
    features : Features
        Features.
    period : float
        Seconds per beat at the target level.

    Returns
    -------
    list of MetricalHypothesis
        Never empty.
    """
    heard = listen(features)
    found = []
    for level in LEVELS:
        beat = period * level
        if level != 1 and not MIN_BEAT_SECONDS < beat < min(MAX_BEAT_SECONDS, features.duration):
            continue
        pulses = tempo.phases(features, beat, PHASES)
        _, offsets, _ = tempo.fit_line(features, beat, np.array([p.phase for p in pulses]))
        offsets %= beat
        grids = beat_features(heard, offsets, beat)
        for pulse, phase, (rows, beat_times) in zip(pulses, offsets, grids, strict=True):
            if len(beat_times):
                found.append(MetricalHypothesis(level, beat, float(phase), pulse.weight, rows, beat_times))
    return found
