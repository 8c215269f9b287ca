"""The moment a loop starts again: its end fades into music that really led there.

A loop is a ring. Somewhere near the downbeat the ring is spliced: what comes before the splice is the music around the
loop's end, what comes after it the music around its start. Both are the same bar line of the same piece, so the splice
may lie before the attack (the loop's end fades into what led to its own downbeat) or after it (what followed the loop's
last beat, attack and all, fades into the loop's first beat): the choice between them is what copes with recordings that
start right on the downbeat. Where the ring is opened to become a file is a second, independent choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from looper.loops.clicks import CLICK, Predictor, click_ratio, predictor, predictors, surprise

_FADES_MS = (20.0, 10.0, 5.0)
_BRIDGES_MS = (20.0, 10.0, 5.0, 3.0, 2.0, 1.0)
_ENDS_MS = np.arange(-30.0, 50.0, 2.0)
_PREROLL_MS = 8.0
_NEAR_MS = 15.0
_TRIED = 24
_AFTERMATH = 24


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
class _Scene:
    """The two sides of a splice around the downbeat, [first, first + len(new)) samples from it."""

    old: np.ndarray
    new: np.ndarray
    old_rise: np.ndarray
    new_rise: np.ndarray
    first: int
    ms: float


def _rises(mono: np.ndarray, floor: float, ms: float) -> np.ndarray:
    """How many dB each moment is louder than the three milliseconds before it, above an ordinary 3 dB.

    Taken from the first difference, in which attacks stand out and bass notes do not count as bursts.
    """
    power = uniform_filter1d(np.diff(mono, prepend=mono[:1]) ** 2, max(2, round(2 * ms)))
    level = 10 * np.log10(power + floor)
    span = max(2, round(3 * ms))
    # origin shifts the window so that it ends at the current sample
    lowest = minimum_filter1d(level, span, origin=(span - 1) // 2)
    return np.clip(level - lowest - 3, 0, 20)


def _scene(samples: np.ndarray, origin: int, n: int, ms: float) -> _Scene:
    """Cut both sides out of `samples` [T, C]; `origin` is the downbeat."""
    first = -min(origin, round(50 * ms))
    last = min(len(samples) - origin - n, round(70 * ms), n // 2)
    mono = samples.mean(axis=1).astype(float)
    floor = 1e-3 * float((np.diff(mono[origin : origin + n]) ** 2).mean()) + 1e-12
    old, new = mono[origin + n + first : origin + n + last], mono[origin + first : origin + last]
    return _Scene(old, new, _rises(old, floor, ms), _rises(new, floor, ms), first, ms)


def _windows(scene: _Scene, n: int) -> Iterator[tuple[int, int]]:
    """Crossfades (first sample, length) for which both sides have real audio, longest first."""
    for fade in _FADES_MS:
        size = round(fade * scene.ms)
        if 4 * size > n:
            continue
        for end in _ENDS_MS:
            first = round(end * scene.ms) - size
            if first >= scene.first and first + size <= scene.first + len(scene.new):
                yield first, size


def _attack(rise: np.ndarray, scene: _Scene) -> tuple[int, float]:
    """Where the attack nearest the downbeat peaks, in samples from it, and how strong it is in dB."""
    start = max(0, round(-_NEAR_MS * scene.ms) - scene.first)
    near = rise[start : round(_NEAR_MS * scene.ms) - scene.first]
    at = int(np.argmax(near))
    return start + at + scene.first, float(near[at])


def _cost(scene: _Scene, window: tuple[int, int]) -> float:
    """Weigh what is lost by splicing there; 0 is a splice between equal sounds, away from every attack."""
    first, size = window
    at = first - scene.first
    old, new = scene.old[at : at + size], scene.new[at : at + size]
    power = float(np.sqrt((old**2).sum() * (new**2).sum()))
    likeness = float((old * new).sum()) / power if power > 0 else 1.0
    margin = round(2 * scene.ms)
    touched = slice(max(0, at - margin), at + size + margin)
    blurred = max(scene.old_rise[touched].max(), scene.new_rise[touched].max())
    middle = first + size // 2
    (old_at, old_db), (new_at, new_db) = _attack(scene.old_rise, scene), _attack(scene.new_rise, scene)
    # an attack before the splice on one side and after it on the other is heard twice, or never
    uneven = max(old_db, new_db) if (old_at < middle) != (new_at < middle) else 0.0
    after = 0.2 * (first + size > 0)
    return (1 - likeness) + blurred / 10 + uneven / 8 + (20 - size / scene.ms) / 30 + after


def _opening(ring: np.ndarray, ms: float) -> int:
    """How many samples before the downbeat the file starts: a quiet place, at a zero crossing.

    Half a decibel of quiet is worth one millisecond of distance.
    """
    mono = ring.mean(axis=1).astype(float)
    frame = max(2, round(ms))
    reach = min(round(_PREROLL_MS * ms), len(mono) // 8)
    margin = 2 * frame
    around = np.concatenate([mono[-(reach + margin) :], mono[:margin]])
    power = uniform_filter1d(around**2, frame)[margin : margin + reach + 1][::-1]
    early = np.arange(reach + 1)
    cost = 10 * np.log10(power + 1e-10) + 0.5 * early / ms
    quiet = int(np.argmin(cost))
    near = np.arange(max(0, quiet - frame // 2), quiet + frame // 2 + 1)
    here, before = mono[-near % len(mono)], mono[(-near - 1) % len(mono)]
    crossing = near[(here * before <= 0) & (np.abs(here) <= np.abs(before))]
    if len(crossing) == 0:
        return int(near[np.argmin(np.abs(here))])
    return int(crossing[np.argmin(np.abs(crossing - quiet))])


def _foreshadowed(samples: np.ndarray, origin: int, n: int, ms: float) -> tuple[np.ndarray, int]:
    """Put in front of a recording that has nothing around the loop what would have led to it.

    Its first milliseconds are continued backwards by linear prediction.
    """
    from scipy.signal import lfilter, lfiltic  # takes a second

    size = min(round(_FADES_MS[-1] * ms), n // 4)
    body = samples[origin : origin + n].astype(float)
    ahead = np.empty((size, body.shape[1]))
    for channel, column in enumerate(body.T):
        coefficients = predictor(column).coefficients
        past = lfiltic([1.0], coefficients, y=column[: len(coefficients) - 1])
        ahead[::-1, channel] = lfilter([1.0], coefficients, np.zeros(size), zi=past)[0]
    return np.concatenate([ahead, body]), size


def _spliced(samples: np.ndarray, origin: int, n: int, window: tuple[int, int]) -> np.ndarray:
    """Return the ring [n, C] with the downbeat at 0."""
    first, size = window
    at = origin + first
    faded, _ = _fade(samples[at + n : at + n + size].astype(float), samples[at : at + size].astype(float))
    return np.roll(np.concatenate([faded, samples[at + size : at + n]]), first, axis=0)


def close(samples: np.ndarray, origin: int, n: int, sample_rate: int) -> tuple[np.ndarray, SeamReport]:
    """Cut `n` samples from `origin` on so that they run into themselves.

    Parameters
    ----------
    samples : np.ndarray
        float32 [T, C], already in tempo, with what real audio there is around the loop.
    origin : int
        Index of the downbeat.
    n : int
        Samples of the loop, at least 256.
    sample_rate : int
        Hz.

    Returns
    -------
    tuple[np.ndarray, SeamReport]
        float32 [n, C] and its figures.

    Examples
    --------
    >>> close(np.zeros((40_000, 1), np.float32), 3_000, 32_000, 32_000)[0].shape
    (32000, 1)
    """
    ms = sample_rate / 1000
    scene = _scene(samples, origin, n, ms)
    windows = list(_windows(scene, n))
    if not windows:
        samples, origin = _foreshadowed(samples, origin, n, ms)
        scene, windows = _scene(samples, origin, n, ms), [(-origin, origin)]
    best = sorted(windows, key=lambda window: _cost(scene, window))[:_TRIED]
    models = predictors(samples[origin : origin + n])
    rounds = []
    for window in best:
        ring = _spliced(samples, origin, n, window)
        start = _opening(ring, ms)
        file = np.roll(ring, start, axis=0)
        clicks = max(surprise(m, c, c) for m, c in zip(models, file.T, strict=True))
        rounds.append((clicks, window, start, file))
        if clicks < CLICK / 2:
            break
    _, window, start, file = min(rounds, key=lambda r: r[0])
    return file.astype(np.float32), _report(samples, origin, n, window, file, start, ms)


def bridge(
    samples: np.ndarray, first: np.ndarray, sample_rate: int, models: Sequence[Predictor] | None = None
) -> np.ndarray:
    """Give a loop the wrap of another one, so that either runs into the other.

    The last milliseconds fade into those of `first`, and those after its downbeat fade into the
    loop's own: across the wrap both loops play the same few milliseconds.

    Parameters
    ----------
    samples, first : np.ndarray
        float [n, C]; `first` must be closed.
    sample_rate : int
        Hz.
    models : sequence of Predictor, optional
        `predictors(first)`, where many loops are bridged.

    Returns
    -------
    np.ndarray
        float64 [n, C].

    Examples
    --------
    >>> bridge(np.zeros((32_000, 1)), np.zeros((32_000, 1)), 32_000).shape
    (32000, 1)
    """
    ms = sample_rate / 1000
    bridged = np.array(samples, float)
    longest = len(samples) // 4
    sizes = [size for fade in _BRIDGES_MS if 2 <= (size := round(fade * ms)) <= longest]
    floor = 1e-3 * float((np.diff(bridged.mean(axis=1)) ** 2).mean()) + 1e-12
    rises = _rises(bridged[: 2 * sizes[0]].mean(axis=1), floor, ms)
    judges = list(zip(predictors(bridged), models or predictors(first), strict=True))

    def judged(
        before: np.ndarray, old: np.ndarray, new: np.ndarray, after: np.ndarray
    ) -> tuple[float, np.ndarray]:
        faded, likeness = _fade(old, new)
        joint = np.concatenate([faded, after[:_AFTERMATH]])
        # a fade too short for its material is itself a click; one that either loop's own ways explain is none
        clicks = max(
            min(surprise(model, b, j, len(j)) for model in pair)
            for pair, b, j in zip(judges, before.T, joint.T, strict=True)
        )
        return (1 - likeness) + 20 * max(0.0, clicks - CLICK / 2) - len(faded) / ms / 30, faded

    heads = [judged(first, first[:s], bridged[:s], bridged[s:]) for s in sizes]
    swallowed = [rises[: s + round(ms)].max() / 10 for s in sizes]
    best = min(range(len(sizes)), key=lambda k: heads[k][0] + swallowed[k])
    tails = [judged(bridged[:-s], bridged[-s:], first[-s:], first) for s in sizes]
    _, tail = min(tails, key=lambda judgement: judgement[0])
    bridged[: sizes[best]] = heads[best][1]
    bridged[-len(tail) :] = tail
    return bridged


def _report(
    samples: np.ndarray, origin: int, n: int, window: tuple[int, int], file: np.ndarray, start: int, ms: float
) -> SeamReport:
    first, size = window
    new = samples[origin + first : origin + first + size].astype(float)
    old = samples[origin + n + first : origin + n + first + size].astype(float)
    faded, likeness = _fade(old, new)
    sides = 0.5 * ((old**2).mean() + (new**2).mean())
    step = 10 * np.log10(((faded**2).mean() + 1e-10) / (sides + 1e-10))
    return SeamReport(click_ratio(file), float(step), size / ms, likeness, start / ms)
