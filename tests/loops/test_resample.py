"""A loop at another rate: the same round, and no peak that was allowed is touched."""

from __future__ import annotations

import numpy as np
import pytest

from looper.loops.loudness import true_peak
from looper.loops.resample import at_rate, resampled


def wave(n: int, peak: float) -> np.ndarray:
    """Four periods whose peaks lie on samples, wherever 16 divides n."""
    return peak * np.sin(2 * np.pi * 4 * np.arange(n) / n)


@pytest.mark.parametrize("peak", [0.5, 0.8890, 0.8912])  # -1 dBTP is 0.89125
@pytest.mark.parametrize("channels", [1, 2])
def test_what_stays_under_the_ceiling_is_the_resampled_round_to_the_bit(peak, channels):
    samples = wave(3200, peak) if channels == 1 else np.stack([wave(3200, peak), 0.5 * wave(3200, peak)], 1)
    found = at_rate(samples, 4800, 48_000)
    assert found.dtype == np.float32 and found.shape == (4800, *samples.shape[1:])
    assert np.array_equal(found, resampled(samples, 4800).astype(np.float32))
    assert found.max() == pytest.approx(peak, abs=1e-6)


@pytest.mark.parametrize("peak", [0.8920, 0.8935, 1.2])
def test_what_peaks_above_the_ceiling_is_turned_down_to_it(peak):
    assert 0.8 < true_peak(at_rate(wave(3200, peak), 4800, 48_000)) <= 0.891251


@pytest.mark.parametrize("n", [2205, 4800])
def test_the_channels_of_a_round_are_resampled_each_by_itself(n):
    left, right = wave(3200, 0.5), np.cos(2 * np.pi * 7 * np.arange(3200) / 3200)
    found = resampled(np.stack([left, right], 1), n)
    assert np.abs(found[:, 0] - wave(n, 0.5)).max() < 1e-9
    assert np.abs(found[:, 1] - np.cos(2 * np.pi * 7 * np.arange(n) / n)).max() < 1e-9
