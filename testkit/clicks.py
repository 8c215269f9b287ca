"""Clicks at known times, and the features of them."""

from __future__ import annotations

import numpy as np

from looper.beats.features import Features, extract_features

RATE = 32_000


def clicks(times: np.ndarray, seconds: float) -> Features:
    """Features of a short noise burst at each of `times`, the same each time."""
    x = np.zeros(round(seconds * RATE), np.float32)
    burst = np.random.default_rng(0).standard_normal(900) * np.exp(-np.arange(900) / 150)
    for at in np.round(times * RATE).astype(int):
        x[at : at + 900] += burst[: len(x) - at]
    return extract_features(x, RATE)
