"""How much a joint of two pieces of audio stands out of what they do anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg import solve_toeplitz

CLICK = 1.5
"""Click ratios above this one are heard as a click."""

_ORDER = 32
_REACH = 24
_PERCENTILE = 99.9
_BLOCK = 64  # samples that one row of a matrix product stands for: several times faster than a filter


@dataclass(frozen=True)
class Predictor:
    """An AR model of one loop and what it usually leaves unexplained."""

    coefficients: np.ndarray
    scale: float


def _columns(samples: np.ndarray) -> np.ndarray:
    """[n] or [n, C] as float64 [n, C]."""
    samples = np.asarray(samples, float)
    return samples[:, None] if samples.ndim == 1 else samples


def _autocorrelation(blocks: np.ndarray) -> np.ndarray:
    """Sums of products `_ORDER` .. 0 samples apart, from overlapping blocks [N, _ORDER + _BLOCK]."""
    products = blocks[:, _ORDER:].T @ blocks
    return np.array([np.trace(products, _ORDER - k) for k in range(_ORDER + 1)])


def _residual(blocks: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """What the prediction leaves of blocks [N, _ORDER + _BLOCK], float32 [N, _BLOCK]."""
    filters = np.zeros((_ORDER + _BLOCK, _BLOCK), np.float32)
    for column in range(_BLOCK):
        filters[column : column + _ORDER + 1, column] = coefficients[::-1]
    return blocks.astype(np.float32) @ filters


def predictor(signal: np.ndarray) -> Predictor:
    """Fit AR(32) by the autocorrelation method to one channel [n] of a loop, n >= 32.

    Examples
    --------
    >>> predictor(np.sin(np.arange(4000) / 20)).__class__.__name__
    'Predictor'
    """
    n = len(signal)
    around = np.concatenate([signal[-_ORDER:], signal, np.zeros(-n % _BLOCK)])
    blocks = np.ascontiguousarray(sliding_window_view(around, _ORDER + _BLOCK)[::_BLOCK])
    lags = _autocorrelation(blocks)
    if lags[0] <= 1e-12 * n:
        return Predictor(np.r_[1.0, np.zeros(_ORDER)], 1e-6)
    # white noise 70 dB down keeps the equations solvable for pure tones
    lags[0] *= 1 + 1e-7
    coefficients = np.r_[1.0, -solve_toeplitz(lags[:-1], lags[1:])]
    residual = np.abs(_residual(blocks, coefficients).ravel()[:n])
    return Predictor(coefficients, max(float(np.percentile(residual, _PERCENTILE)), 1e-6))


def predictors(columns: np.ndarray) -> list[Predictor]:
    """Fit one for each channel of a loop [n, C].

    Examples
    --------
    >>> len(predictors(np.random.default_rng(0).normal(size=(4000, 2))))
    2
    """
    return [predictor(channel) for channel in columns.T.astype(float)]


def surprise(model: Predictor, before: np.ndarray, after: np.ndarray, reach: int = _REACH) -> float:
    """Largest residual from 24 samples before the joint to `reach` after it, over what is usual.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=4000)
    >>> model = predictor(noise)
    >>> surprise(model, noise[:2000], noise[2000:]) < 2 < surprise(model, noise[:2000], noise[2000:] + 50)
    True
    """
    joint = np.concatenate([before[-(_ORDER + _REACH) :], after[:reach]])
    residual = np.convolve(joint, model.coefficients, mode="valid")
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

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * np.arange(32_000) / 100)
    >>> click_ratio(tone) < 1.5 < click_ratio(tone[:-25])  # a wrap in the middle of a wave
    True
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

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * np.arange(32_000) / 100)
    >>> cross_click_ratios([tone, -tone]).shape
    (2, 2)
    """
    columns = [_columns(loop) for loop in loops]
    models = [predictors(loop) for loop in columns]
    ratios = np.zeros((len(columns), len(columns)))
    for i, j in product(range(len(columns)), repeat=2):
        for c, (before, after) in enumerate(zip(columns[i].T, columns[j].T, strict=True)):
            worst = min(surprise(model[c], before, after) for model in (models[i], models[j]))
            ratios[i, j] = max(ratios[i, j], worst)
    return ratios
