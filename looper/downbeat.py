"""Which beat is the bar line: a small fitted scorer over every phase and every beat of the bar.

For each phase that the beat may have, the recording is read in sixteenth slots of that beat. A
convolution over beats turns the slots into evidence, which is averaged over all bars; a softmax over
(phase, beat of the bar) says where bars begin and how sure that is. ``training/fit_downbeat.py``
fits the weights on clips made by ``training/clips.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from looper import tempo
from looper.onsets import BANDS, Frames

SLOTS = 4  # per beat
TIGHT = 0.02  # seconds around a slot in which a hit counts as on it
AHEAD = 1  # beats read before the first whole one and after the last
SPANS = (0.5, 1.0, 2.0, 4.0)  # beats on either side over which harmony is compared
PER_SLOT = BANDS + 4 + BANDS + 2 * len(SPANS)
PER_BEAT = SLOTS * PER_SLOT + 6


def _running(x: np.ndarray) -> np.ndarray:
    """Cumulative sum along time with a leading zero, ``[F, T + 1]``."""
    return np.concatenate([np.zeros((len(x), 1)), np.cumsum(x, axis=1, dtype=np.float64)], axis=1)


def _between(total: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of each feature from frame ``start`` to ``end`` (fractions allowed), and the width inside."""
    last = total.shape[1] - 1
    a, b = np.clip(start, 0, last), np.clip(end, 0, last)

    def at(position: np.ndarray) -> np.ndarray:
        low = np.minimum(position.astype(int), last - 1) if last else np.zeros(position.shape, int)
        part = position - low
        return total[:, low] * (1 - part) + total[:, np.minimum(low + 1, last)] * part

    return at(b) - at(a), b - a


@dataclass(frozen=True)
class Listening:
    """Running sums of one recording's features, scaled by its own spread."""

    rise: np.ndarray
    mel: np.ndarray
    chroma: np.ndarray
    rate: float
    chroma_rate: float
    duration: float
    begins_silent: float


def listen(frames: Frames) -> Listening:
    """Prepare the features that every phase is then read from.

    Parameters
    ----------
    frames : Frames
        Features of one recording.

    Returns
    -------
    Listening
        Running sums, normalised per band.
    """
    rise = frames.rise / (frames.rise.mean() + 1e-6)
    mel = frames.mel - frames.mel.mean(axis=1, keepdims=True)
    mel = mel / (mel.std() + 1e-3)
    head = frames.mel[:, : max(1, round(0.01 * frames.rate))].mean()
    return Listening(
        rise=_running(rise),
        mel=_running(mel),
        chroma=_running(frames.chroma),
        rate=frames.rate,
        chroma_rate=frames.chroma_rate,
        duration=frames.duration,
        begins_silent=float(head < 0.25 * frames.mel.mean()),
    )


def _novelty(heard: Listening, times: np.ndarray, span: float) -> np.ndarray:
    """Change of harmony at each time, ``[2, N]`` (whole range and bass), 0..1."""
    at = times * heard.chroma_rate
    before, _ = _between(heard.chroma, at - span * heard.chroma_rate, at)
    after, _ = _between(heard.chroma, at, at + span * heard.chroma_rate)
    change = []
    for part in (slice(0, 12), slice(12, 24)):
        x, y = before[part], after[part]
        size = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
        change.append(np.where(size > 1e-3, 1 - (x * y).sum(axis=0) / (size + 1e-9), 0.0))
    return np.array(change)


def beat_features(heard: Listening, phase: float, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Read a recording on one beat grid.

    Parameters
    ----------
    heard : Listening
        The recording.
    phase, period : float
        Seconds: beats fall at ``phase + k * period``.

    Returns
    -------
    features : numpy.ndarray
        ``[K, PER_BEAT]`` float32.
    beat_times : numpy.ndarray
        ``[K]`` seconds, from just before 0 s.
    """
    first = np.ceil((-0.03 - phase) / period)
    beat_times = phase + period * np.arange(first, np.ceil((heard.duration - 0.03 - phase) / period))
    slot = period / SLOTS
    times = (beat_times[:, None] + slot * np.arange(SLOTS)).ravel()
    # the rise of frame i lies between frames i-1 and i, and begins before the attack is heard
    at = times * heard.rate + 0.5
    half = 0.5 * slot * heard.rate
    wide, _ = _between(heard.rise, at - half, at + half)
    tight, _ = _between(heard.rise, at - TIGHT * heard.rate, at + TIGHT * heard.rate)
    level, size = _between(heard.mel, at, at + 2 * half)
    rows = [
        np.log1p(wide),
        np.log1p(tight.reshape(4, 2, -1).sum(axis=1)),
        level / np.maximum(size, 1.0),
        *(_novelty(heard, times, span * period) for span in SPANS),
    ]
    slots = np.concatenate(rows).T.reshape(len(beat_times), SLOTS * PER_SLOT)
    near = np.abs(beat_times) < np.minimum(0.07, 0.2 * period)
    flags = np.stack(
        [
            near * 1.0,
            near * heard.begins_silent,
            (np.arange(len(beat_times)) == 0) * 1.0,
            np.full(len(beat_times), heard.begins_silent),
            np.full(len(beat_times), np.log2(60 / period / 115)),
            np.minimum(1.0, (heard.duration - beat_times) / period),
        ],
        axis=1,
    )
    return np.concatenate([slots, flags], axis=1).astype(np.float32), beat_times


@dataclass(frozen=True)
class Reading:
    """One way to read the beats: a level of the pulse and a phase, with its features.

    Attributes
    ----------
    level : float
        Period over the asked one: 0.5, 1 or 2.
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
SHORTEST, LONGEST = 0.22, 1.6  # seconds a read beat may last


def readings(frames: Frames, period: float) -> list[Reading]:
    """Read a recording at half, once and twice the period, at each likely phase.

    Parameters
    ----------
    frames : Frames
        Features.
    period : float
        Seconds per beat at the asked level.

    Returns
    -------
    list of Reading
        Never empty.
    """
    heard = listen(frames)
    found = []
    for level in LEVELS:
        beat = period * level
        if level != 1 and not SHORTEST < beat < min(LONGEST, frames.duration):
            continue
        pulses = tempo.phases(frames, beat, PHASES)
        _, offsets, _ = tempo.fit_line(frames, beat, np.array([p.phase for p in pulses]))
        for pulse, offset in zip(pulses, offsets, strict=True):
            features, beat_times = beat_features(heard, float(offset % beat), beat)
            if len(beat_times):
                found.append(Reading(level, beat, float(offset % beat), pulse.weight, features, beat_times))
    return found


@dataclass(frozen=True)
class BarLine:
    """One way to draw the bar lines: ``line + k * bar`` seconds, its probability, its read level."""

    line: float
    bar: float
    level: float
    probability: float


@lru_cache(maxsize=1)
def _weights() -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Return the fitted networks, whose votes are averaged, and the calibration."""
    with np.load(Path(__file__).with_name("beats.npz"), allow_pickle=False) as file:
        arrays = {name: file[name].astype(np.float32) for name in file.files}
    calibration = arrays.pop("calibration")
    count = len(arrays["mu"])
    return [{name: array[i] for name, array in arrays.items()} for i in range(count)], calibration


def _convolve(h: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int) -> np.ndarray:
    """Same-length convolution over beats: ``h [K, H]``, ``weight [H, H, 5]``."""
    reach = dilation * (weight.shape[2] // 2)
    padded = np.pad(h, ((reach, reach), (0, 0)))
    out = sum(
        padded[i * dilation : i * dilation + len(h)] @ weight[:, :, i].T for i in range(weight.shape[2])
    )
    return np.maximum(0.0, out + bias)


def _logits(reading: Reading, beats_per_bar: int, net: dict[str, np.ndarray]) -> np.ndarray:
    """Evidence ``[beats_per_bar]`` that each beat of the bar is its first."""
    h = (reading.features - net["mu"]) / net["sd"]
    h = np.maximum(0.0, h @ net["inp.weight"].T + net["inp.bias"])
    h = h + _convolve(h, net["c1.weight"], net["c1.bias"], 1)
    h = h + _convolve(h, net["c2.weight"], net["c2.bias"], 2)
    place = np.arange(len(h)) % beats_per_bar
    fold = np.zeros((beats_per_bar, h.shape[1]), np.float32)
    np.add.at(fold, place, h)
    fold /= np.maximum(1, np.bincount(place, minlength=beats_per_bar))[:, None]
    weight = np.full((beats_per_bar, 1), reading.weight, np.float32)
    both = np.concatenate([fold, fold - fold.mean(axis=0), weight], axis=1)
    metre = net["meter.weight"][min(beats_per_bar, len(net["meter.weight"]) - 1)]
    hidden = np.maximum(0.0, both @ net["h1.weight"].T + net["h1.bias"] + metre)
    bend = np.log2(60 / reading.period / 115)
    level = [reading.level == v for v in LEVELS]
    place_of_level = net["lev.weight"][0] @ np.array([*level, bend, bend * bend]) + net["lev.bias"][0]
    return hidden @ net["h2.weight"][0] + net["h2.bias"][0] + place_of_level


def bar_lines(found: list[Reading], beats_per_bar: int) -> list[BarLine]:
    """Weigh every beat of every reading as the beginning of bars.

    Parameters
    ----------
    found : list of Reading
        From ``readings``.
    beats_per_bar : int
        Beats per bar.

    Returns
    -------
    list of BarLine
        Most probable first; probabilities sum to 1.
    """
    nets, _ = _weights()
    logits = np.array([[_logits(r, beats_per_bar, net) for r in found] for net in nets]).reshape(
        len(nets), -1
    )
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely = (likely / likely.sum(axis=1, keepdims=True)).mean(axis=0)
    lines = [
        BarLine(float(r.beat_times[0] + m * r.period), beats_per_bar * r.period, r.level, 0.0)
        for r in found
        for m in range(beats_per_bar)
    ]
    order = np.argsort(-likely)
    return [replace(lines[i], probability=float(likely[i])) for i in order]


def _holds(fine: BarLine, coarse: BarLine) -> bool:
    """Whether every line of ``coarse`` is a line of ``fine``."""
    if coarse.bar < 0.9 * fine.bar:
        return False
    gap = (coarse.line - fine.line + fine.bar / 2) % fine.bar - fine.bar / 2
    return abs(gap) < 0.05


def choose(lines: list[BarLine]) -> tuple[BarLine, BarLine, float]:
    """Choose the bar lines to show and those to cut at.

    Reading bars twice too long loses every other line but starts no loop in a wrong place; reading
    them too short does the opposite. So lines are shown where the expected F-measure is highest and
    cut where the probability that a true bar begins is.

    Parameters
    ----------
    lines : list of BarLine
        Most probable first.

    Returns
    -------
    shown, cut : BarLine
        ``cut``'s lines are among those shown, or as many bars apart.
    sure : float
        Probability, before calibration, that bars begin at the lines of ``cut``.
    """
    likely = [line for line in lines[:40] if line.probability > 0.003] or lines[:1]

    def worth(mine: BarLine) -> float:
        total = 0.0
        for true in likely:
            ratio = max(mine.bar / true.bar, true.bar / mine.bar)
            if _holds(true, mine) or _holds(mine, true):
                total += true.probability * 2 / (1 + ratio)
        return total

    def safe(mine: BarLine) -> float:
        return sum(true.probability for true in likely if _holds(true, mine))

    shown = max(likely, key=worth)
    cut = max((line for line in likely if _holds(shown, line)), key=lambda v: (round(safe(v), 3), -v.bar))
    return shown, cut, safe(cut)


def calibrated(sure: float, clarity: float) -> float:
    """Turn the scorer's probability into the share of loops that are right at it.

    Parameters
    ----------
    sure : float
        Probability from ``choose``.
    clarity : float
        Of the pulse, from ``tempo.find_period``.

    Returns
    -------
    float
        Confidence, 0..1 (Platt's logistic scaling, fitted on held-out clips).
    """
    x = np.clip(sure, 1e-3, 1 - 1e-3)
    slope, pulse, bias = _weights()[1]
    return float(1 / (1 + np.exp(-(slope * np.log(x / (1 - x)) + pulse * np.log(max(clarity, 1.0)) + bias))))
