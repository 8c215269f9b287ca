"""Closing a loop, and the measure of a click."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import toeplitz
from scipy.signal import lfilter

from looper.loops.clicks import CLICK, click_ratio, cross_click_ratios, predictor
from looper.loops.seam import _attack, _cost, _Scene, bridge, close
from testkit.properties import examples

RATE = 32_000


def tones(seconds, frequencies, seed=0, noise=1e-4):
    t = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(seed)
    return sum(0.2 * np.sin(2 * np.pi * f * t) for f in frequencies) + noise * rng.standard_normal(len(t))


def test_whole_periods_do_not_click():
    assert click_ratio(tones(1, (200, 300))) < 1.2


@pytest.mark.parametrize("shape", ["mono", "left", "right"])
def test_a_step_at_the_wrap_clicks_in_whichever_channel_it_is(shape):
    clean, broken = tones(1, (200, 300)), tones(1.00125, (200, 300))
    stereo = {"mono": broken, "left": np.stack([broken, tones(1.00125, (320,))], 1)}
    stereo["right"] = np.stack([np.resize(clean, len(broken)) * 0 + 0.01 * broken, broken], 1)
    assert click_ratio(stereo[shape]) > CLICK


def test_a_step_elsewhere_in_the_loop_is_not_the_seams_fault():
    music = tones(1, (200, 300))
    music[RATE // 3 : RATE // 2] += 0.3
    assert click_ratio(music) < CLICK
    assert click_ratio(np.roll(music, -RATE // 3)) > CLICK


@pytest.mark.parametrize("size", [0.005, 0.05, 0.5])
def test_the_ratio_grows_with_the_step(size):
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal(RATE)
    noise[0] += size
    usual = np.percentile(np.abs(noise), 99.9)
    # white noise predicts nothing: the ratio is the step itself over what is usual
    assert click_ratio(noise) == pytest.approx(
        max(np.abs(noise[-24:]).max(), np.abs(noise[:24]).max()) / usual, rel=0.1
    )


def test_silence_and_single_tones_have_finite_ratios():
    assert click_ratio(np.zeros(1000)) == 0
    assert np.isfinite(click_ratio(tones(1, (250,), noise=0)))


def test_the_matrix_has_the_loops_own_wraps_on_its_diagonal():
    a, b = tones(1, (200, 300)), tones(1.00125, (250, 410), seed=1)
    matrix = cross_click_ratios([a, b])
    assert matrix.shape == (2, 2)
    assert np.diag(matrix) == pytest.approx([click_ratio(a), click_ratio(b)])


@pytest.mark.slow
@given(
    st.lists(st.floats(60, 4000), min_size=1, max_size=4),
    st.integers(0, RATE // 2),
    st.integers(4000, RATE),
    st.integers(0, 3),
)
@examples(40)
def test_any_cut_through_any_chord_closes_without_a_click(frequencies, origin, n, seed):
    music = tones(3, frequencies, seed, noise=1e-3)[:, None].astype(np.float32)
    loop, report = close(music, origin, n, RATE)
    assert loop.shape == (n, 1)
    assert report.click_ratio < CLICK
    assert click_ratio(loop) == pytest.approx(report.click_ratio, rel=1e-3)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_every_sample_rate_closes(rate):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2 * rate, 2)).astype(np.float32) * 0.1
    loop, report = close(noise, rate // 4, rate, rate)
    assert loop.shape == (rate, 2)
    assert report.click_ratio < CLICK


@pytest.mark.parametrize("n", [256, 300, 1000])
def test_the_shortest_loops_close(n):
    music = tones(1, (440, 700)).astype(np.float32)[:, None]
    assert close(music, 4000, n, RATE)[0].shape == (n, 1)
    assert np.isfinite(close(music[4000 : 4000 + n], 0, n, RATE)[0]).all()


def test_the_file_opens_before_the_attack_at_a_zero_crossing():
    t = np.arange(RATE * 3) / RATE
    music = 0.01 * np.sin(2 * np.pi * 97 * t)
    for k in range(6):
        at = 8000 + k * RATE // 2
        music[at : at + 4000] += np.sin(2 * np.pi * 180 * t[:4000]) * np.exp(-t[:4000] * 40)
    loop, report = close(music.astype(np.float32)[:, None], 8000, RATE, RATE)
    first_loud = int(np.argmax(np.abs(loop[:, 0]) > 0.2))
    assert 0 <= report.preroll_ms <= 8.5
    assert first_loud == pytest.approx(report.preroll_ms * RATE / 1000, abs=0.002 * RATE)
    assert abs(loop[0, 0]) < 0.005


def test_power_holds_through_the_fade_between_unlike_and_like_sounds():
    rng = np.random.default_rng(3)
    noise = 0.1 * rng.standard_normal((4 * RATE, 1)).astype(np.float32)
    steady = tones(4, (200.0,)).astype(np.float32)[:, None]
    unlike = close(noise, RATE, 2 * RATE, RATE)[1]
    like = close(steady, RATE, 2 * RATE, RATE)[1]
    assert abs(unlike.level_step_db) < 1.5
    assert abs(like.level_step_db) < 0.1
    assert like.correlation > 0.99


def test_what_is_not_near_the_seam_is_untouched():
    music = tones(3, (150.3, 402.2), noise=0.01).astype(np.float32)[:, None]
    loop, report = close(music, RATE, RATE, RATE)
    first = RATE - round(report.preroll_ms * RATE / 1000)
    kept = slice(RATE // 10, -RATE // 10)
    assert np.array_equal(loop[kept], music[first : first + RATE][kept])


def test_a_bridged_loop_begins_and_ends_as_the_first_one():
    first = close(tones(3, (200.3, 407)).astype(np.float32)[:, None], RATE, RATE, RATE)[0]
    other = close(tones(3, (311.3, 523), 1).astype(np.float32)[:, None], RATE, RATE, RATE)[0]
    bridged = bridge(other, first, RATE)
    assert np.abs(bridged[[0, -1]] - first[[0, -1]]).max() < 0.02
    assert np.array_equal(bridged[RATE // 20 : -RATE // 20], other[RATE // 20 : -RATE // 20].astype(float))


@pytest.mark.parametrize("n", [256, 1000, 1040, 32_000, 31_999])
def test_the_predictor_is_the_autocorrelation_methods(n):
    music = np.cumsum(np.random.default_rng(n).standard_normal(n)) * 0.01
    music -= music.mean()
    around = np.r_[music[-32:], music]
    lags = [music @ around[32 - k : len(around) - k] for k in range(33)]
    lags[0] *= 1 + 1e-7
    wanted = np.linalg.solve(toeplitz(lags[:32]), lags[1:])
    found = predictor(music)
    np.testing.assert_allclose(-found.coefficients[1:], wanted, rtol=1e-5, atol=1e-6)
    residual = lfilter(found.coefficients, 1.0, around)[32:]
    assert found.scale == pytest.approx(np.percentile(np.abs(residual), 99.9), rel=1e-4)


def scene_of(old_attack, new_attack, first=-960, length=1920):
    """Equal noise on both sides at 32 samples a millisecond, with attacks of 8 dB at these samples from the downbeat."""
    same = np.random.default_rng(0).standard_normal(length)
    rises = np.zeros((2, length))
    for rise, at in zip(rises, (old_attack, new_attack), strict=True):
        rise[at - first] = 8.0
    return _Scene(same, same, rises[0], rises[1], first, 32.0)


@pytest.mark.parametrize("at", [-200, -31, 0, 17, 200])
@pytest.mark.parametrize("first", [-960, -320, -250])
def test_an_attack_near_the_downbeat_is_placed_from_the_downbeat(at, first):
    scene = scene_of(at, at, first)
    assert _attack(scene.old_rise, scene) == (at, 8.0)


@pytest.mark.parametrize(
    ("attacks", "ms", "cost"),
    [
        ((-200, -200), 10, 1 / 3),  # between equal sounds: half the longest fade
        ((-200, -200), 20, 0.0),
        ((-400, 400), 10, 1 / 3 + 8 / 8 + 0.2),  # heard twice, or never, and after the downbeat
        ((-500, -500), 10, 1 / 3 + 8 / 10),  # blurred by the fade
    ],
)
def test_a_splice_costs_what_is_lost_by_it(attacks, ms, cost):
    size = ms * 32
    end = -320 if attacks[0] == attacks[1] else 160
    found = _cost(scene_of(*attacks), (end - size, size))
    assert found == pytest.approx(cost, abs=1e-9)
