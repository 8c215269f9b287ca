"""The moment a loop starts again: how it is closed, and how it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

CLICK = 1.5
"""Click ratios above this one are heard as a click."""

_ORDER = 32
_REACH = 24
_PERCENTILE = 99.9
_FADE_SECONDS = 0.02
_PREROLL_SECONDS = 0.008


@dataclass(frozen=True)
class SeamReport:
    """How a loop runs into itself.

    Attributes
    ----------
    click_ratio : float
        `click_ratio` at the wrap; above 1.5 is a click.
    level_step_db : float
        How much louder (or, negative, quieter) the crossfade is than what it fades between.
    fade_ms : float
        Length of the crossfade.
    correlation : float
        Likeness of the two sides of the crossfade, -1..1.
    preroll_ms : float
        How far before the downbeat the file starts, so that the attack stays whole.
    """

    click_ratio: float
    level_step_db: float = 0.0
    fade_ms: float = 0.0
    correlation: float = 1.0
    preroll_ms: float = 0.0


@dataclass(frozen=True)
class _Predictor:
    """An AR model of one loop and what it usually leaves unexplained."""

    coefficients: np.ndarray
    scale: float


def _columns(samples: np.ndarray) -> np.ndarray:
    """[n] or [n, C] as float64 [n, C]."""
    samples = np.asarray(samples, float)
    return samples[:, None] if samples.ndim == 1 else samples


def _predictor(signal: np.ndarray) -> _Predictor:
    """Fit AR(32) by the autocorrelation method to one channel [n] of a loop."""
    around = np.concatenate([signal[-_ORDER:], signal])
    lags = np.array([signal @ around[_ORDER - k : len(around) - k] for k in range(_ORDER + 1)])
    if lags[0] <= 1e-12 * len(signal):
        return _Predictor(np.r_[1.0, np.zeros(_ORDER)], 1e-6)
    # white noise 70 dB down keeps the equations solvable for pure tones
    lags[0] *= 1 + 1e-7
    coefficients = np.r_[1.0, -solve_toeplitz(lags[:-1], lags[1:])]
    residual = lfilter(coefficients, 1.0, around)[_ORDER:]
    return _Predictor(coefficients, max(float(np.percentile(np.abs(residual), _PERCENTILE)), 1e-6))


def _surprise(model: _Predictor, before: np.ndarray, after: np.ndarray) -> float:
    """Largest residual within `_REACH` samples of the joint, over what is usual."""
    joint = np.concatenate([before[-(_ORDER + _REACH) :], after[:_REACH]])
    residual = lfilter(model.coefficients, 1.0, joint)[_ORDER:]
    return float(np.abs(residual).max()) / model.scale


def click_ratio(samples: np.ndarray) -> float:
    """How far the wrap of a loop stands out of what the loop itself does.

    The peak residual of a 32nd-order linear prediction within 24 samples of the wrap, over the
    99.9th percentile of the loop's own residual, for the worst channel. Above `CLICK` it is heard.

    Parameters
    ----------
    samples : np.ndarray
        [n] or [n, C], at least 256 samples.

    Returns
    -------
    float
        0 for silence; about 1 for the loudest ordinary moment of the loop.
    """
    return float(cross_click_ratios([samples])[0, 0])


def cross_click_ratios(loops: Sequence[np.ndarray]) -> np.ndarray:
    """`click_ratio` of loop i running into loop j, as a matrix [i, j].

    A joint of two loops is a click when neither loop's own prediction explains it.

    Parameters
    ----------
    loops : sequence of np.ndarray
        Each [n] or [n, C], with one number of channels.

    Returns
    -------
    np.ndarray
        float64 [len(loops), len(loops)]; the diagonal is each loop's own wrap.
    """
    columns = [_columns(loop) for loop in loops]
    models = [[_predictor(channel) for channel in loop.T] for loop in columns]
    ratios = np.zeros((len(columns), len(columns)))
    for i, j in product(range(len(columns)), repeat=2):
        for c, (before, after) in enumerate(zip(columns[i].T, columns[j].T, strict=True)):
            surprise = min(_surprise(model[c], before, after) for model in (models[i], models[j]))
            ratios[i, j] = max(ratios[i, j], surprise)
    return ratios


def _fade(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, float]:
    """Crossfade two equally long pieces [F, C], keeping the power whatever their likeness.

    Between alike pieces gains add up to one, between unlike ones their squares do
    (Fink, Holters, Zölzer: Signal-matched power-complementary cross-fading, DAFx 2016).
    """
    power = float(np.sqrt((old**2).sum() * (new**2).sum()))
    likeness = float((old * new).sum()) / power if power > 0 else 1.0
    # opposite phases would ask for boundless gain: below this they are faded as if unlike
    bounded = float(np.clip(likeness, -0.3, 1.0))
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(len(old)) + 0.5) / len(old))[:, None]
    fall = 1 - rise
    return (fall * old + rise * new) / np.sqrt(fall**2 + rise**2 + 2 * bounded * fall * rise), likeness


@dataclass(frozen=True)
class _Splice:
    """Where the music of the loop's end hands over to that of its start, around the downbeat."""

    first: int  # offset of the crossfade from the downbeat, samples
    length: int
    cost: float


def _frames_db(mono: np.ndarray, size: int) -> np.ndarray:
    """Power of every `size` samples from each sample on, in dB."""
    total = np.cumsum(np.r_[0.0, mono**2])
    return 10 * np.log10((total[size:] - total[:-size]) / size + 1e-10)


def _candidates(lead: int, rest: int, early: int, sample_rate: int) -> list[tuple[int, int]]:
    """Possible crossfades (offset from the downbeat, length), given real audio on both sides.

    `lead` samples before the downbeat, `rest` samples after the loop's end; `early` is how far
    before the loop's end the music's own next downbeat may strike.
    """
    ms = sample_rate / 1000
    found = []
    for length in (20, 12, 6, 3, 1.5):
        size = round(length * ms)
        for end in (0, -2, -4, -8, -12):
            last = round(end * ms) - early
            if last - size >= -lead and last <= rest:
                found.append((last - size, size))
    if found:
        return found
    # no music before the downbeat: fade from what follows the loop's last beat into its first
    for length in (20, 12, 6, 3, 1.5):
        size = round(length * ms)
        if size - lead <= rest:
            found.append((-lead, size))
    return found


def _splice(mono: np.ndarray, origin: int, n: int, window: tuple[int, int], sample_rate: int) -> _Splice:
    """Judge one crossfade: unlike material, a swallowed attack and shortness all cost."""
    first, size = window
    new = mono[origin + first : origin + first + size]
    old = mono[origin + n + first : origin + n + first + size]
    power = np.sqrt((new**2).sum() * (old**2).sum())
    likeness = float((new * old).sum() / power) if power > 1e-9 else 1.0
    frame = max(1, round(sample_rate / 1000))
    rise = 0.0
    if size > frame:
        levels = _frames_db(new, frame)
        rise = float(np.clip(levels.max() - np.median(levels[: max(1, len(levels) // 2)]), 0, 40))
    brevity = 0.02 * sample_rate / size
    return _Splice(first, size, (1 - likeness) + rise / 20 + 0.05 * brevity)


def _start(ring: np.ndarray, sample_rate: int) -> int:
    """How many samples before the downbeat the file starts: the quietest place, at a zero crossing.

    The quietest millisecond wins only where it is clearly quieter than the downbeat itself, half a
    decibel for each millisecond it lies further away.
    """
    mono = ring.mean(axis=1)
    frame = max(2, round(sample_rate / 1000))
    reach = min(round(_PREROLL_SECONDS * sample_rate), len(mono) // 8)
    around = np.concatenate([mono[-(reach + frame) :], mono[:frame]])
    levels = _frames_db(around, frame)[: reach + frame]
    # levels[k] covers the millisecond that ends reach + frame - k - frame samples before the downbeat
    distance = np.arange(len(levels))[::-1][: reach + 1]
    cost = levels[-(reach + 1) :] + 0.5 * distance * 1000 / sample_rate
    start = int(distance[int(np.argmin(cost))])
    near = np.arange(max(0, start - frame // 2), start + frame // 2 + 1)
    values = mono[(-near) % len(mono)]
    earlier = mono[(-near - 1) % len(mono)]
    crossing = near[(values == 0) | (values * earlier <= 0)]
    if len(crossing) == 0:
        return int(near[int(np.argmin(np.abs(values)))])
    return int(crossing[int(np.argmin(np.abs(crossing - start)))])


def close(
    samples: np.ndarray, origin: int, n: int, sample_rate: int, *, early: int = 0
) -> tuple[np.ndarray, SeamReport]:
    """Cut `n` samples from `origin` on so that they run into themselves.

    What is heard across the wrap is music as it was: the end of the loop fades into the audio that
    really led to its downbeat. Where the recording starts on the downbeat there is no such audio;
    then the audio that really followed the loop's last beat fades into the loop's first milliseconds.

    Parameters
    ----------
    samples : np.ndarray
        float32 [T, C], already in tempo, with what real audio there is around the loop.
    origin : int
        Index of the downbeat.
    n : int
        Samples of the loop.
    sample_rate : int
        Hz.
    early : int
        How many samples before `origin + n` the next downbeat really comes.

    Returns
    -------
    tuple[np.ndarray, SeamReport]
        float32 [n, C] and its figures.
    """
    lead, rest = origin, len(samples) - origin - n
    windows = _candidates(lead, rest, early, sample_rate)
    if not windows:
        # nothing around the loop at all: mirror its first milliseconds to have something to fade into
        lead = min(round(0.003 * sample_rate), n - 1)
        mirrored = 2 * samples[origin] - samples[origin + 1 : origin + lead + 1][::-1]
        padded = np.concatenate([mirrored, samples[origin : origin + n]])
        return close(padded, lead, n, sample_rate)
    mono = samples.mean(axis=1)
    best = min((_splice(mono, origin, n, w, sample_rate) for w in windows), key=lambda s: s.cost)
    first, size = best.first, best.length
    new = samples[origin + first : origin + first + size].astype(float)
    old = samples[origin + n + first : origin + n + first + size].astype(float)
    faded, likeness = _fade(old, new)
    # the ring starts with the crossfade and goes on with the loop
    ring = np.concatenate([faded, samples[origin + first + size : origin + first + n]])
    ring = np.roll(ring, first, axis=0)
    start = _start(ring, sample_rate)
    closed = np.roll(ring, start, axis=0).astype(np.float32)
    expected = np.sqrt(((old**2).mean() + (new**2).mean()) / 2)
    level = 20 * np.log10((np.sqrt((faded**2).mean()) + 1e-9) / (expected + 1e-9))
    report = SeamReport(
        click_ratio(closed),
        float(level),
        1000 * size / sample_rate,
        likeness,
        1000 * start / sample_rate,
    )
    return closed, report
