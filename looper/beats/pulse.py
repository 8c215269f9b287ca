"""The beat of a recording near a target tempo: its period, its clarity, and its course where the tempo drifts."""

from __future__ import annotations

import numpy as np

from looper.beats.constraints import Constraints
from looper.beats.features import Features, crop
from looper.beats.tempo import find_period, phases
from looper.beats.tempo_map import TempoMap, follow

EXCERPT_SECONDS = 20.0  # in which the tempo is first looked for; the rest is followed from there


def find_pulse(features: Features, wanted: Constraints) -> tuple[TempoMap, float]:
    """Find the period near the target and follow it: the pulse's map and how clear it is.

    Parameters
    ----------
    features : Features
        Of the recording.
    wanted : Constraints
        Of which the target tempo and the beats per bar matter here.

    Returns
    -------
    pulse : TempoMap
        Some beat's position is 0; bars are not known yet.
    clarity : float
        See `BeatGrid`.

    Examples
    --------
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 16)
    >>> from looper.beats.features import extract_features
    >>> pulse, _ = find_pulse(extract_features(clicks.astype(np.float32), 32_000), Constraints(118))
    >>> round(60 / pulse.period, 1)
    120.0
    """
    part, start = excerpt(features)
    period, clarity = find_period(part, wanted.target_period, wanted.beats_per_bar)
    pulse = max(phases(part, period), key=lambda p: p.weight)
    centre = start + part.duration / 2
    return follow(features, period, start + pulse.phase, centre), clarity


def excerpt(features: Features) -> tuple[Features, float]:
    """Return the stretch with most onsets, as features that start at 0 s, and where it starts."""
    if features.duration <= EXCERPT_SECONDS * 1.25:
        return features, 0.0
    size, total = round(EXCERPT_SECONDS * features.rate), np.cumsum(np.r_[0.0, features.onset])
    first = int(np.argmax(total[size:] - total[:-size]))
    return crop(features, first, first + size), first / features.rate
