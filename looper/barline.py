"""Which beat is the bar line: a small fitted scorer over every level, phase and beat of the bar.

A convolution over beats turns a reading's slots into evidence, which is averaged over all bars; a
softmax over (level, phase, beat of the bar) says where bars begin and how sure that is.
``training/fit_downbeat.py`` fits the weights on clips made by ``training/clips.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from looper.downbeat import LEVELS, Reading

WEIGHTS = Path(__file__).with_name("beats.npz")
FORETOLD = 20.0  # odds that a bar line said to be known is one


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
    with np.load(WEIGHTS, allow_pickle=False) as file:
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


def known(lines: list[BarLine], near: float, bar: float) -> tuple[BarLine, float]:
    """Find the bar line that is known to be near a time, and how far the music agrees.

    Parameters
    ----------
    lines : list of BarLine
        Most probable first.
    near, bar : float
        Seconds: where the bar line is, and a bar of the asked tempo.

    Returns
    -------
    line : BarLine
        The bar line, at the likeliest beat within 70 ms.
    sure : float
        Probability that bars begin there, knowing it beforehand.
    """

    def gap(line: BarLine) -> float:
        return (line.line - near + line.bar / 2) % line.bar - line.bar / 2

    close = [line for line in lines if abs(gap(line)) < 0.07]
    found = near + (gap(close[0]) if close else 0.0)
    mine = BarLine(found, bar, 1.0, 0.0)
    agreed = sum(line.probability for line in lines if _holds(line, mine) or _holds(mine, line))
    return mine, FORETOLD * agreed / (1 + (FORETOLD - 1) * agreed)


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
    on_shown = [line for line in likely if _holds(shown, line)]
    cut = max(on_shown, key=lambda v: safe(v) - 1e-3 * v.bar)
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
