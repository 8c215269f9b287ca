"""The tempo of a recording of which nothing is known: several candidates, each with the probability that it is right.

Every period between 50 and 220 BPM is scored as one near a known tempo is (`looper.beats.tempo`), with a mild
preference for the tempi that people tap to (van Noorden and Moelants 1999). A tempo and its half or double are
candidates of their own: which of them a player counts is a matter of taste, and the probabilities say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looper.beats.constraints import check_rate
from looper.beats.features import Features, extract_features
from looper.beats.pulse import excerpt
from looper.beats.tempo import SCORE_PER_LIKENESS, best_periods, clarity_at, pulse_scores, settled_period
from looper.samples import is_silent, mono

SLOWEST_BPM, FASTEST_BPM = 50.0, 220.0
TAPPED_BPM, TAPPED_OCTAVES = 110.0, 0.3  # the tempo that is tapped most, and the spread around it
LOG_STEP = 0.002
LEAST_CLARITY = 5.3  # of the pulse: noise reaches 5.1 somewhere in so wide a range, music has 5.5 to 32
CANDIDATES = 5
WIDE_SCORE_PER_LIKENESS = 5.0
TEMPERATURE = (
    4.0  # of the scores' softmax, by which the best of 103 labelled clips is right as often as it says
)
SHORTEST_SECONDS = 1.5


@dataclass(frozen=True)
class TempoCandidate:
    """A tempo that a recording may have.

    Attributes
    ----------
    bpm : float
        Beats per minute.
    confidence : float
        Probability that a player would count it so, 0..1; those of all candidates add up to 1.
    """

    bpm: float
    confidence: float


def find_tempi(samples: np.ndarray, sample_rate: int) -> list[TempoCandidate]:
    """Tempi that a recording may have, the likeliest first; none where there is no beat.

    Parameters
    ----------
    samples : numpy.ndarray
        ``[T]`` or ``[T, C]``, floating point or integer.
    sample_rate : int
        Hz, 4000 to 400000.

    Raises
    ------
    ValueError
        If the samples are empty, not finite, or last less than 1.5 s.

    Examples
    --------
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 16)  # two a second
    >>> round(find_tempi(clicks, 32_000)[0].bpm, 1)
    120.0
    """
    check_rate(sample_rate)
    x = mono(samples)
    seconds = len(x) / sample_rate
    if seconds < SHORTEST_SECONDS:
        raise ValueError(
            f"the recording lasts {seconds:.2f} s, too short to find its tempo in: name the tempo, or pass "
            f"{SHORTEST_SECONDS:g} s or more"
        )
    if is_silent(x):
        return []
    part, _ = excerpt(extract_features(x, sample_rate))
    return _candidates(part)


def _candidates(features: Features) -> list[TempoCandidate]:
    periods = np.exp(np.arange(np.log(60 / FASTEST_BPM), np.log(60 / SLOWEST_BPM), LOG_STEP))
    octaves = np.log2(60 / periods / TAPPED_BPM)
    scores = pulse_scores(features, periods, 4, WIDE_SCORE_PER_LIKENESS)
    preferred = scores - 0.5 * (octaves / TAPPED_OCTAVES) ** 2
    rough = best_periods(periods, preferred, CANDIDATES)
    pulse = pulse_scores(features, periods, 4, SCORE_PER_LIKENESS)
    if clarity_at(features, float(pulse.max())) < LEAST_CLARITY:
        return []
    found = np.interp(rough, periods, preferred)
    shares = np.exp((found - found.max()) / TEMPERATURE)
    shares /= shares.sum()
    return [
        TempoCandidate(60 / settled_period(features, period), float(share))
        for period, share in zip(rough, shares, strict=True)
    ]
