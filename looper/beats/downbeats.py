"""Which beat is the bar line: a small fitted scorer over every level, phase and beat of the bar.

A convolution over beats turns a reading's slots into evidence, which is averaged over all bars; a
softmax over (level, phase, beat of the bar) says where bars begin and how sure that is.
``training.downbeats`` fits the weights on rendered clips and on MusicGen's own music.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from looper.beats.hypotheses import LEVELS, MetricalHypothesis

WEIGHTS = Path(__file__).with_name("beats.npz")
GAP_BEATS = 8  # as far as a convolution reaches
KNOWN_LINE_ODDS = 20.0  # odds that a bar line said to be known is one


@dataclass(frozen=True)
class DownbeatHypothesis:
    """One way to draw the bar lines: ``line + k * bar`` seconds, its probability, its read level."""

    line: float
    bar: float
    level: float
    probability: float


_in_use = [WEIGHTS]


def use_weights(path: Path = WEIGHTS) -> None:
    """Listen with other networks than the shipped ones, for benches and training; not thread-safe."""
    _in_use[:] = [path]
    _weights.cache_clear()


@lru_cache(maxsize=1)
def _weights() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the fitted networks, stacked ``[N, ...]``, whose evidence is averaged, and the calibration."""
    with np.load(_in_use[0], allow_pickle=False) as file:
        nets = {name: file[name].astype(np.float32) for name in file.files}
    return nets, nets.pop("calibration")


def _linear(x: np.ndarray, nets: dict[str, np.ndarray], layer: str) -> np.ndarray:
    """One layer of every network, ``[N, ..., H]``."""
    return x @ nets[f"{layer}.weight"].swapaxes(1, 2) + nets[f"{layer}.bias"][:, None]


def _convolve(h: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int) -> np.ndarray:
    """Same-length convolution over beats: ``h [N, T, H]``, ``weight [N, H, H, 5]``."""
    reach = dilation * (weight.shape[3] // 2)
    padded = np.pad(h, ((0, 0), (reach, reach), (0, 0)))
    parts = [padded[:, i * dilation : i * dilation + h.shape[1]] for i in range(weight.shape[3])]
    kernel = weight.transpose(0, 3, 2, 1).reshape(len(weight), weight.shape[2] * weight.shape[3], h.shape[2])
    return np.maximum(0.0, np.concatenate(parts, axis=2) @ kernel + bias[:, None])


def _on_one_tape(
    found: list[MetricalHypothesis], beats_per_bar: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay readings one after another, with gaps wider than a convolution reaches.

    Returns the beats ``[T, PER_BEAT]``, which of them are no gap ``[T, 1]``, and the means over bars
    ``[R * beats_per_bar, T]`` of what a network makes of them.
    """
    lengths = np.array([len(reading.features) for reading in found])
    starts = np.concatenate([[0], np.cumsum(lengths + GAP_BEATS)[:-1]])
    tape = np.zeros((int(starts[-1] + lengths[-1]), found[0].features.shape[1]), np.float32)
    heard = np.zeros((len(tape), 1), np.float32)
    means = np.zeros((len(found), beats_per_bar, len(tape)), np.float32)
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        at, place = np.arange(start, start + length), np.arange(length) % beats_per_bar
        tape[at], heard[at] = found[i].features, 1.0
        means[i, place, at] = 1 / np.bincount(place)[place]
    return tape, heard, means.reshape(len(found) * beats_per_bar, len(tape))


def _logits(found: list[MetricalHypothesis], beats_per_bar: int, nets: dict[str, np.ndarray]) -> np.ndarray:
    """Evidence ``[N, R, beats_per_bar]`` of each network that each beat of the bar is its first."""
    tape, heard, means = _on_one_tape(found, beats_per_bar)
    h = (tape - nets["mu"][:, None]) / nets["sd"][:, None]
    h = np.maximum(0.0, _linear(h, nets, "inp")) * heard
    h = h + _convolve(h, nets["c1.weight"], nets["c1.bias"], 1) * heard
    h = h + _convolve(h, nets["c2.weight"], nets["c2.bias"], 2) * heard
    h = h + _convolve(h, nets["c3.weight"], nets["c3.bias"], 4)
    fold = (means @ h).reshape(len(h), len(found), beats_per_bar, h.shape[2])
    weight = np.array([reading.weight for reading in found], np.float32)[:, None, None]
    weight = np.broadcast_to(weight, (*fold.shape[:3], 1))
    both = np.concatenate([fold, fold - fold.mean(axis=2, keepdims=True), weight], axis=3)
    metre = nets["meter.weight"][:, beats_per_bar, None]
    both = both.reshape(len(h), len(means), both.shape[3])
    hidden = np.maximum(0.0, _linear(both, nets, "h1") + metre)
    bend = np.log2(60 / np.array([reading.period for reading in found]) / 115)
    level = [[float(reading.level == v) for v in LEVELS] for reading in found]
    sides = np.column_stack([level, bend, bend**2])
    return _linear(hidden, nets, "h2").reshape(fold.shape[:3]) + _linear(sides, nets, "lev")


def downbeat_hypotheses(found: list[MetricalHypothesis], beats_per_bar: int) -> list[DownbeatHypothesis]:
    """Weigh every beat of every reading as the beginning of bars.

    Parameters
    ----------
    found : list of MetricalHypothesis
        From ``readings``.
    beats_per_bar : int
        Beats per bar.

    Returns
    -------
    list of DownbeatHypothesis
        Most probable first; probabilities sum to 1.
    """
    nets, _ = _weights()
    logits = _logits(found, beats_per_bar, nets).mean(axis=0).ravel()
    likely = np.exp(logits - logits.max())
    likely /= likely.sum()
    readings_and_beats = [(reading, beat) for reading in found for beat in range(beats_per_bar)]
    return [
        DownbeatHypothesis(
            float(reading.beat_times[0] + beat * reading.period),
            beats_per_bar * reading.period,
            reading.level,
            float(likely[i]),
        )
        for i in np.argsort(-likely)
        for reading, beat in (readings_and_beats[i],)
    ]


def _holds(fine: DownbeatHypothesis, coarse: DownbeatHypothesis) -> bool:
    """Whether every line of ``coarse`` is a line of ``fine``."""
    if coarse.bar < 0.9 * fine.bar:
        return False
    gap = (coarse.line - fine.line + fine.bar / 2) % fine.bar - fine.bar / 2
    return abs(gap) < 0.05


def known(lines: list[DownbeatHypothesis], near: float, bar: float) -> tuple[DownbeatHypothesis, float]:
    """Find the bar line that is known to be near a time, and how far the music agrees.

    Parameters
    ----------
    lines : list of DownbeatHypothesis
        Most probable first.
    near, bar : float
        Seconds: where the bar line is, and a bar of the asked tempo.

    Returns
    -------
    line : DownbeatHypothesis
        The bar line, at the likeliest beat within 70 ms.
    confidence : float
        Probability that bars begin there, knowing it beforehand.
    """

    def gap(line: DownbeatHypothesis) -> float:
        return (line.line - near + line.bar / 2) % line.bar - line.bar / 2

    close = [line for line in lines if abs(gap(line)) < 0.07]
    found = near + (gap(close[0]) if close else 0.0)
    mine = DownbeatHypothesis(found, bar, 1.0, 0.0)
    agreed = sum(line.probability for line in lines if _holds(line, mine) or _holds(mine, line))
    return mine, KNOWN_LINE_ODDS * agreed / (1 + (KNOWN_LINE_ODDS - 1) * agreed)


def choose(lines: list[DownbeatHypothesis]) -> tuple[DownbeatHypothesis, DownbeatHypothesis, float]:
    """Choose the bar lines to show and those to cut at.

    MetricalHypothesis bars twice too long loses every other line but starts no loop in a wrong place; reading
    them too short does the opposite. So lines are shown where the expected F-measure is highest and
    cut where the probability that a true bar begins is.

    Parameters
    ----------
    lines : list of DownbeatHypothesis
        Most probable first.

    Returns
    -------
    shown, cut : DownbeatHypothesis
        ``cut``'s lines are among those shown, or as many bars apart.
    confidence : float
        Probability, before calibration, that bars begin at the lines of ``cut``.
    """
    likely = [line for line in lines[:40] if line.probability > 0.003] or lines[:1]

    def worth(mine: DownbeatHypothesis) -> float:
        total = 0.0
        for true in likely:
            ratio = max(mine.bar / true.bar, true.bar / mine.bar)
            if _holds(true, mine) or _holds(mine, true):
                total += true.probability * 2 / (1 + ratio)
        return total

    def safe(mine: DownbeatHypothesis) -> float:
        return sum(true.probability for true in likely if _holds(true, mine))

    shown = max(likely, key=worth)
    on_shown = [line for line in likely if _holds(shown, line)]
    cut = max(on_shown, key=lambda v: safe(v) - 1e-3 * v.bar)
    return shown, cut, safe(cut)


def calibrated(confidence: float, lead_in: float) -> float:
    """Turn the scorer's probability into the share of loops that are right at it.

    Parameters
    ----------
    confidence : float
        Probability from ``choose``.
    lead_in : float
        How much music leads to the loop's start, 0..1, from ``spans.lead_in``: the first line in a recording
        is the least sure.

    Returns
    -------
    float
        Confidence, 0..1: Platt's logistic scaling, fitted on clips of both kinds of music that the networks
        had not seen.
    """
    x = np.clip(confidence, 1e-3, 1 - 1e-3)
    slope, early, bias = _weights()[1]
    return float(1 / (1 + np.exp(-(slope * np.log(x / (1 - x)) + early * (1 - lead_in) + bias))))
