"""Cut loops made a set: equally loud, each running into each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from looper.loops import clicks, seam
from looper.loops.loop import Loop
from looper.loops.loudness import TARGET_LUFS, limit, match
from looper.runtime.threads import thread_pool


def level(loops: Sequence[Loop]) -> list[Loop]:
    """Bring loops to one integrated loudness without DC, no true peak over -1 dBTP.

    Parameters
    ----------
    loops : sequence of Loop
        The loops of one request; the first sets the loudness.

    Returns
    -------
    list of Loop
        Same order; silent loops stay silent.

    Examples
    --------
    >>> from looper import cut
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 8).astype(np.float32)
    >>> len(level([cut(clicks, 32_000, 120), cut(clicks / 2, 32_000, 120)]))
    2
    """
    return list(map(_with_samples, loops, _levelled(loops, map)))


def join(loops: Sequence[Loop]) -> list[Loop]:
    """Make loops run into each other: all take the few milliseconds around the first one's wrap.

    Parameters
    ----------
    loops : sequence of Loop
        Levelled loops of one length.

    Returns
    -------
    list of Loop
        Same order; the first as it was.

    Raises
    ------
    ValueError
        If the loops differ in length, sample rate or channels.

    Examples
    --------
    >>> from looper import cut
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 8).astype(np.float32)
    >>> one, other = join([cut(clicks, 32_000, 120), cut(clicks / 2, 32_000, 120)])
    >>> one.samples.shape == other.samples.shape
    True
    """
    joined = _joined(loops, [loop.samples for loop in loops], map)
    return [*loops[:1], *map(_with_samples, loops[1:], joined[1:])]


def finish(loops: Sequence[Loop], loudness: float = TARGET_LUFS) -> list[Loop]:
    """Make cut loops a set: equally loud (`level`), each running into each (`join`).

    A loop comes out the same however many others follow it. `loudness` in LUFS is that of the first one, or as near
    to it as its peaks allow.

    Examples
    --------
    >>> from looper import cut
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 8).astype(np.float32)
    >>> len(finish([cut(clicks, 32_000, 120)]))
    1
    """
    with thread_pool() as pool:
        joined = _joined(loops, _levelled(loops, pool.map, loudness), pool.map)
        return list(pool.map(_with_samples, loops, joined))


_Map = Callable[..., Iterable[Any]]


def _levelled(loops: Sequence[Loop], each: _Map, target: float = TARGET_LUFS) -> list[np.ndarray]:
    if not loops:
        return []
    matched = match([loop.samples for loop in loops], loops[0].sample_rate, target, each=each)
    return [samples.astype(np.float32) for samples in matched]


def _joined(loops: Sequence[Loop], levelled: Sequence[np.ndarray], each: _Map) -> list[np.ndarray]:
    if len({(loop.samples.shape, loop.sample_rate) for loop in loops}) > 1:
        raise ValueError("loops that run into each other must agree in length, sample rate and channels")
    if len(loops) < 2:
        return list(levelled)
    shape, rate = loops[0].samples.shape, loops[0].sample_rate
    first = levelled[0].reshape(len(levelled[0]), -1)
    models = clicks.predictors(first)

    def bridged(samples: np.ndarray) -> np.ndarray:
        crossed = seam.bridge(samples.reshape(first.shape), first, rate, models).reshape(shape)
        return limit(crossed, rate).astype(np.float32)

    return [levelled[0], *each(bridged, levelled[1:])]


def _with_samples(loop: Loop, samples: np.ndarray) -> Loop:
    return replace(loop, samples=samples, seam=replace(loop.seam, click_ratio=clicks.click_ratio(samples)))


def cross_clicks(loops: Sequence[Loop]) -> np.ndarray:
    """Click ratio of loop i running into loop j, as a matrix [i, j]; above 1.5 is a click.

    Examples
    --------
    >>> from looper import cut
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 8).astype(np.float32)
    >>> cross_clicks([cut(clicks, 32_000, 120)] * 2).shape
    (2, 2)
    """
    return clicks.cross_click_ratios([loop.samples for loop in loops])
