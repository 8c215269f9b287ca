"""Clicks at known times, and the features of them."""

from __future__ import annotations

import numpy as np

from looper.beats.features import BANDS, TIMBRE_BANDS, Features, extract_features

RATE = 32_000


def clicks(times: np.ndarray, seconds: float) -> Features:
    """Features of a short noise burst at each of `times`, the same each time."""
    x = np.zeros(round(seconds * RATE), np.float32)
    burst = np.random.default_rng(0).standard_normal(900) * np.exp(-np.arange(900) / 150)
    for at in np.round(times * RATE).astype(int):
        x[at : at + 900] += burst[: len(x) - at]
    return extract_features(x, RATE)


def blank(seconds: float, **changed: np.ndarray) -> Features:
    """Features of nothing at round rates, 200 quick frames a second and 25 slow ones, but for what is `changed`."""
    quick, slow = round(seconds * 200) + 1, round(seconds * 25) + 1
    nothing = {
        "rise": np.zeros((BANDS, quick)),
        "onset": np.zeros(quick),
        "mel": np.zeros((BANDS, quick)),
        "chroma": np.zeros((24, slow)),
        "timbre": np.ones((TIMBRE_BANDS, slow)),
        "peak_times": np.zeros(0),
        "peak_weights": np.zeros(0),
    }
    return Features(rate=200.0, duration=seconds, chroma_rate=25.0, **(nothing | changed))
