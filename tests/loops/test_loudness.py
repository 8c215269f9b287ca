"""True peaks, the limiter and loudness, by formulas and filters that are not ours."""

from __future__ import annotations

import numpy as np
import pytest
from pyloudnorm import Meter
from scipy.signal import resample

from looper.loops.loudness import CEILING_DBTP, limit, match, true_peak

RATE = 32_000
CEILING = 10 ** (CEILING_DBTP / 20)


def hissing(n, loudest, seed=0):
    """Noise bursts over a tone: what a drum loop asks of a limiter."""
    t = np.arange(n) / RATE
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    spectrum[np.fft.rfftfreq(n, 1 / RATE) > 12_000] = 0
    noise = np.fft.irfft(spectrum, n) * np.exp(-30 * (t % 0.25))
    music = 0.2 * np.sin(2 * np.pi * 220 * np.round(t[-1]) / t[-1] * t) + noise
    return music / np.abs(music).max() * loudest


def heard_peak(loop):
    """Largest magnitude of a repeating loop, 16 times oversampled by its Fourier series."""
    return np.abs(resample(loop, 16 * len(loop), axis=0)).max()


@pytest.mark.parametrize("frequency", [8000, 4000, 1000, 7999.0])
@pytest.mark.parametrize("n", [32_000, 31_999, 300, 65])
def test_true_peak_of_a_tone_is_its_amplitude_where_no_sample_reaches_it(frequency, n):
    whole = max(1, round(frequency * n / RATE)) / n  # whole periods, so that the loop repeats
    tone = np.sin(2 * np.pi * whole * np.arange(n) + np.pi / 4)
    # four places a sample: up to a half of a quarter of a sample from the top, and the filter's ripple
    lowest = np.cos(np.pi * whole / 4)
    assert lowest * 0.998 <= true_peak(tone) <= 1.002


def hats(n, lowest, seed):
    """Decaying noise from `lowest` Hz up to the Nyquist frequency itself, its largest sample 1."""
    noise = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    noise[np.fft.rfftfreq(n, 1 / RATE) < lowest] = 0
    loop = np.fft.irfft(noise, n) * np.exp(-60 * (np.arange(n) / RATE % 0.125))
    return loop / np.abs(loop).max()


@pytest.mark.slow
@pytest.mark.parametrize("lowest", [0, 9000, 13_000, 15_500])
@pytest.mark.parametrize("seed", range(3))
def test_hats_up_to_the_nyquist_frequency_are_heard_and_limited_by_their_real_peak(lowest, seed):
    loop = hats(32_000, lowest, seed)
    heard = np.abs(resample(loop, 64 * len(loop))).max()
    assert abs(20 * np.log10(true_peak(loop) / heard)) < 0.05
    limited = limit(CEILING * loop, RATE)
    assert np.abs(resample(limited, 64 * len(loop))).max() <= CEILING
    assert np.std(limited) > 0.7 * np.std(CEILING * loop)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_loudest_channel_counts(channels):
    loop = 0.1 * np.random.default_rng(1).standard_normal((4000, channels))
    loop[:, -1] *= 3
    assert true_peak(loop) == pytest.approx(true_peak(loop[:, -1]))


@pytest.mark.slow
@pytest.mark.parametrize("n", [32_000, 31_997, 500])
@pytest.mark.parametrize("loudest", [1.0, 1.5, 4.0])
def test_nothing_passes_the_ceiling_and_what_is_far_from_a_peak_is_left(n, loudest):
    loop = hissing(n, loudest)
    limited = limit(loop, RATE)
    assert heard_peak(limited) <= CEILING
    assert (np.abs(limited) <= np.abs(loop) + 1e-12).all()
    loud = np.abs(resample(loop, 4 * n)).reshape(n, 4).max(axis=1) > 0.7 * CEILING
    near = np.convolve(np.r_[loud, loud, loud], np.ones(2 * round(0.012 * RATE) + 1), "same")[n : 2 * n] > 0
    np.testing.assert_allclose(limited[~near], loop[~near], rtol=1e-12)


def test_the_limiter_runs_around_the_wrap():
    loop = np.roll(hissing(32_000, 2.0), 5)
    turned = np.roll(limit(np.roll(loop, 12_345), RATE), -12_345)
    np.testing.assert_allclose(turned, limit(loop, RATE), atol=1e-6)


def test_a_loop_under_the_ceiling_is_not_touched():
    loop = hissing(32_000, 0.5)
    assert limit(loop, RATE) is loop


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.01, 0.1, 1.0])
def test_peaky_and_steady_loops_leave_equally_loud(gain):
    steady = 0.1 * np.random.default_rng(3).standard_normal(64_000)
    loops = [steady, gain * hissing(64_000, 1.0, seed=4), gain * steady[::-1], np.zeros(64_000)]
    matched = match(loops, RATE)
    loudness = [Meter(RATE).integrated_loudness(loop) for loop in matched[:3]]
    assert np.ptp(loudness) < 0.2
    assert max(heard_peak(loop) for loop in matched) <= CEILING
    assert not matched[3].any()


def test_what_becomes_of_a_loop_depends_on_the_first_alone():
    loops = [hissing(32_000, 0.9, seed) for seed in range(4)]
    for few, many in zip(match(loops[:2], RATE), match(loops, RATE), strict=False):
        np.testing.assert_array_equal(few, many)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 20, 400, 4000])
@pytest.mark.parametrize("height", [1.0, -1.0])
def test_levelling_alone_keeps_its_promise_for_clicks_to_one_side(width, height):
    """A click to one side over a soft tone: centring it lifts the other side, and the limiter leans."""
    t = np.arange(2 * RATE) / RATE
    loop = 0.01 * np.sin(2 * np.pi * 220 * t)
    loop[5000 : 5000 + width] += height
    soft = 0.3 * np.sin(2 * np.pi * 330 * t)
    levelled = match([soft, loop], RATE)
    for one in levelled:
        assert heard_peak(one) <= CEILING
        assert abs(one.mean()) < 1e-3


def test_a_peaky_first_loop_is_turned_down_and_not_limited():
    loop = hissing(64_000, 1.0)
    loop[1000:1003] += 0.9
    (matched,) = match([loop], RATE)
    centred = loop - loop.mean()
    gain = matched[5000] / centred[5000]
    np.testing.assert_allclose(matched, gain * centred, rtol=1e-9)
    assert 20 * np.log10(heard_peak(matched)) == pytest.approx(CEILING_DBTP - 1, abs=0.3)


def test_the_gain_of_the_limiter_is_smooth_and_lasts_milliseconds():
    loop = 0.5 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)
    loop[RATE // 2] = 2.0
    gain = limit(loop, RATE)[np.abs(loop) > 0.2] / loop[np.abs(loop) > 0.2]
    assert 1 < np.sum(gain < 0.999) * 1000 / RATE < 20
    assert np.abs(np.diff(gain)).max() < 0.1


def test_a_steady_loop_comes_to_fourteen_lufs_and_no_louder():
    steady = np.sin(2 * np.pi * 997 * np.arange(64_000) / RATE)
    for gain in (0.01, 0.3, 0.8):
        (matched,) = match([gain * steady], RATE)
        assert Meter(RATE).integrated_loudness(matched) == pytest.approx(-14, abs=0.05)


def test_what_was_too_quiet_to_be_measured_counts_once_it_is_louder():
    """Below -70 LUFS nothing is measured: a gain lifts the softer half over it, and the mean sinks."""
    steady = np.sin(2 * np.pi * 997 * np.arange(6 * RATE) / RATE)
    loop = steady * np.where(np.arange(len(steady)) < len(steady) // 2, 10 ** (-63 / 20), 10 ** (-70 / 20))
    (matched,) = match([loop], RATE)
    assert Meter(RATE).integrated_loudness(matched) == pytest.approx(-14, abs=0.2)


T = np.arange(16_000) / RATE
RANDOM = np.random.default_rng(0).standard_normal(len(T))
EXTREMES = {
    "silence": 0 * T,
    "a constant": 0.9 + 0 * T,
    "a constant and a breath": 0.9 + 1e-7 * RANDOM,
    "a square": np.sign(np.sin(2 * np.pi * 110 * T) + 1e-9),
    "clipped noise": np.clip(9 * RANDOM, -1, 1),
    "one sample": np.eye(1, len(T), 777)[0],
    "one sample downwards": -np.eye(1, len(T), 777)[0],
    "near silence": 1e-5 * RANDOM,
    "soft noise": 1e-3 * RANDOM,
    "no normal numbers": 1e-40 * RANDOM,
    "as large as samples may be": 1e29 * RANDOM,
    "the Nyquist frequency": np.cos(np.pi * np.arange(len(T))),
    "half of it clipped": np.where(T < 0.25, 0.0, 0.9 * np.sign(RANDOM)),
    "a step": np.where(T < 0.25, 0.9, -0.9),
    "to one side": np.maximum(0, np.sin(2 * np.pi * 50 * T)) ** 20,
    "under hearing": np.sin(2 * np.pi * 8 * T),
}


@pytest.mark.slow
@pytest.mark.parametrize("first", ["a square", "soft noise", "one sample"])
@pytest.mark.parametrize("other", EXTREMES)
def test_whatever_is_levelled_stays_finite_centred_and_under_the_ceiling(first, other):
    """What a model plays at extreme temperatures, and worse: loud, stuck, clipped, almost nothing."""
    for given, loop in zip(
        (EXTREMES[first], EXTREMES[other]), match([EXTREMES[first], EXTREMES[other]], RATE), strict=True
    ):
        assert np.isfinite(loop).all() and abs(loop.mean()) < 1e-3
        assert heard_peak(loop) <= CEILING or np.ptp(given) < 1e-6
        # below -70 LUFS nothing is heard, and nothing lifted; above, to -14 at most
        assert np.abs(loop).max() <= 10 ** (57 / 20) * np.abs(given - given.mean()).max() + 1e-30
