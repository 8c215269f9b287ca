"""Each step of closing a loop, worked out by hand or sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from looper.loops import seam
from looper.loops.clicks import CLICK, predictor, predictors
from looper.loops.seam import SeamReport, _Scene, bridge, close

RATE, MS = 32_000, 32.0


def noise(n, seed=0, channels=1):
    return np.random.default_rng(seed).standard_normal((n, channels)) * 0.1


# --- the crossfade ---------------------------------------------------------------------------------


def gains(n):
    rise = np.array([(1 - np.cos(np.pi * (k + 0.5) / n)) / 2 for k in range(n)])
    return 1 - rise, rise


@pytest.mark.parametrize("size", [0.001, 1, 30])
def test_unlike_sounds_keep_their_power_and_alike_ones_their_level(size):
    fall, rise = gains(6)
    old, new = np.zeros((6, 1)), np.zeros((6, 1))
    old[::2], new[1::2] = size, 2 * size  # never at once: nothing alike
    faded, likeness = seam._fade(old, new)
    power = np.sqrt(fall**2 + rise**2)
    assert likeness == 0
    assert faded[:, 0] == pytest.approx(np.where(np.arange(6) % 2, 2 * rise, fall) * size / power)
    same, likeness = seam._fade(old, old * 3)
    assert likeness == pytest.approx(1) and same == pytest.approx((fall + 3 * rise)[:, None] * old)


@pytest.mark.parametrize("likeness", [-1, -0.6, -0.3, -0.1, 0.4, 0.9])
def test_between_them_gains_go_by_likeness_but_opposites_ask_for_no_more_than_three_tenths(likeness):
    """old and new are of one power, with just this correlation."""
    fall, rise = gains(8)
    old = np.tile([[1.0], [0.0]], (4, 1))
    new = likeness * old + np.sqrt(1 - likeness**2) * np.roll(old, 1, axis=0)
    faded, found = seam._fade(old, new)
    assert found == pytest.approx(likeness)
    power = np.sqrt(fall**2 + rise**2 + 2 * max(likeness, -0.3) * fall * rise)
    assert faded[:, 0] == pytest.approx((fall * old[:, 0] + rise * new[:, 0]) / power)


def test_silence_fades_into_silence_as_alike():
    faded, likeness = seam._fade(np.zeros((5, 2)), np.zeros((5, 2)))
    assert not faded.any() and likeness == 1


# --- attacks ---------------------------------------------------------------------------------------


def rises_one_by_one(mono, floor, ms):
    half, span = max(2, round(2 * ms)), max(2, round(3 * ms))
    steps = np.r_[0.0, np.diff(mono)] ** 2
    around = np.pad(steps, half, mode="symmetric")
    level = [10 * np.log10(around[half + k - half // 2 :][:half].mean() + floor) for k in range(len(mono))]
    before = np.pad(level, (span, 0), mode="symmetric")[1:]
    return np.array([np.clip(level[k] - before[k : k + span].min() - 3, 0, 20) for k in range(len(mono))])


@pytest.mark.parametrize("ms", [0.5, 8.0, 8.3])
@pytest.mark.parametrize("burst", [0, 1.0, 300.0])
def test_a_rise_is_what_is_beyond_3_db_over_the_three_milliseconds_before_up_to_20(ms, burst):
    mono = noise(200, 3)[:, 0]
    mono[120:] += burst * noise(80, 4)[:, 0]
    found = seam._rises(mono, 1e-4, ms)
    assert found == pytest.approx(rises_one_by_one(mono, 1e-4, ms), abs=1e-6)
    if ms > 1:
        assert (found.max() == 20) == (burst > 100)


@pytest.mark.parametrize(
    ("total", "origin", "n", "first", "last"),
    [
        (60_000, 3_000, 32_000, -1600, 2240),  # 50 ms before and 70 ms after
        (60_000, 1_000, 32_000, -1000, 2240),  # no more than there is
        (35_500, 3_000, 32_000, -1600, 500),
        (60_000, 3_000, 3_001, -1600, 1500),  # and no more than half the loop
        (35_000, 3_000, 32_000, -1600, 0),
        (60_000, 0, 32_000, 0, 2240),
    ],
)
def test_a_scene_is_what_there_is_around_the_loops_end_and_around_its_start(total, origin, n, first, last):
    samples = noise(total, 5, 2) * np.linspace(0.5, 2, total)[:, None]
    scene = seam._scene(samples, origin, n, MS)
    mono = samples.mean(axis=1)
    assert (scene.first, scene.ms) == (first, MS)
    assert np.array_equal(scene.new, mono[origin + first : origin + last])
    assert np.array_equal(scene.old, mono[origin + n + first : origin + n + last])
    floor = 1e-3 * np.mean(np.diff(mono[origin : origin + n]) ** 2) + 1e-12
    assert np.array_equal(scene.new_rise, seam._rises(scene.new, floor, MS))
    assert np.array_equal(scene.old_rise, seam._rises(scene.old, floor, MS))


def test_what_rises_from_nothing_is_measured_from_120_db_down():
    samples = np.zeros((50_000, 1))
    samples[39_000:40_000, 0] = 3e-6 * (-1.0) ** np.arange(1000)  # after the loop, and all that there is
    scene = seam._scene(samples, 3_000, 36_000, MS)
    assert scene.old_rise.max() == pytest.approx(10 * np.log10((36e-12 + 1e-12) / 1e-12) - 3, abs=1e-6)


# --- where to splice -------------------------------------------------------------------------------


def scene_of(first, length, old=None, new=None, size=1.0):
    """Equal noise on both sides, with attacks of so many dB at some samples from the downbeat."""
    same = size * np.random.default_rng(0).standard_normal(length)
    rises = np.zeros((2, length))
    for rise, attacks in zip(rises, (old, new), strict=True):
        for at, db in (attacks or {}).items():
            rise[at - first] = db
    return _Scene(same, same, rises[0], rises[1], first, MS)


@pytest.mark.parametrize("n", [100_000, 2560, 2559, 1280, 1279, 640, 639])
@pytest.mark.parametrize(
    ("first", "length"), [(-1600, 3840), (-1600, 3136), (-1599, 3135), (-1600, 3135), (-700, 900), (0, 300)]
)
def test_splices_are_all_those_for_which_there_is_audio_on_both_sides_the_longest_first(n, first, length):
    """A fade of 20, 10 or 5 ms, no more than a quarter of the loop, that ends every 2 ms from -30 to 48."""
    wanted = [
        (2 * half * 32 - size, size)
        for size in (640, 320, 160)
        for half in range(-15, 25)
        if 4 * size <= n and 2 * half * 32 - size >= first and 2 * half * 32 <= first + length
    ]
    assert list(seam._windows(scene_of(first, length), n)) == wanted


@pytest.mark.parametrize(
    ("at", "found"),
    [
        (0, (0, 8.0)),
        (-480, (-480, 8.0)),
        (479, (479, 8.0)),
        (-481, (-480, 0.0)),  # farther than 15 ms: there is none
        (480, (-480, 0.0)),
    ],
)
def test_an_attack_counts_within_15_ms_of_the_downbeat(at, found):
    scene = scene_of(-1600, 3840, {at: 8.0})
    assert seam._attack(scene.old_rise, scene) == found


def test_where_nothing_is_before_the_downbeat_an_attack_is_looked_for_from_there_on():
    scene = scene_of(-100, 2000, {-100: 3.0, 50: 5.0, 700: 9.0})
    assert seam._attack(scene.old_rise, scene) == (50, 5.0)
    first = scene_of(-100, 2000, {-100: 6.0, 50: 5.0})
    assert seam._attack(first.old_rise, first) == (-100, 6.0)


QUIET, LATE = (-1000, 320), (200, 320)  # windows of 10 ms: a third for not being twice as long


@pytest.mark.parametrize(
    ("window", "old", "new", "cost"),
    [
        (QUIET, {}, {}, 1 / 3),
        ((-1000, 640), {}, {}, 0.0),
        ((-1000, 160), {}, {}, 0.5),
        (LATE, {}, {}, 1 / 3 + 0.2),  # after the downbeat
        ((-320, 320), {}, {}, 1 / 3),  # just before it
        ((-319, 320), {}, {}, 1 / 3 + 0.2),
        # attacks far from the downbeat are blurred where the fade, and two ms around it, touch them
        (QUIET, {-1064: 5.0}, {}, 1 / 3 + 0.5),
        (QUIET, {-1065: 5.0}, {}, 1 / 3),
        (QUIET, {}, {-617: 5.0}, 1 / 3 + 0.5),
        (QUIET, {}, {-616: 5.0}, 1 / 3),
        (QUIET, {-800: 5.0}, {-900: 7.0, -800: 2.0}, 1 / 3 + 0.7),
        ((-1600, 320), {-1600: 5.0}, {}, 1 / 3 + 0.5),  # at the very beginning of what there is
        ((-1600, 320), {-1200: 5.0}, {}, 1 / 3),
        ((-1560, 320), {-1600: 5.0}, {}, 1 / 3 + 0.5),
        # those near the downbeat must lie on one side of the middle of the splice
        (LATE, {-200: 6.0}, {100: 4.0}, 1 / 3 + 0.2),
        (LATE, {-200: 6.0}, {470: 4.0}, 1 / 3 + 0.2 + 0.4 + 0.75),
        (LATE, {470: 6.0}, {-200: 8.0}, 1 / 3 + 0.2 + 0.6 + 1.0),
        (LATE, {360: 4.0}, {470: 4.0}, 1 / 3 + 0.2 + 0.4),  # the middle itself is after it
        (LATE, {359: 4.0}, {470: 4.0}, 1 / 3 + 0.2 + 0.4 + 0.5),
        (LATE, {470: 4.0}, {360: 4.0}, 1 / 3 + 0.2 + 0.4),
        ((200, 321), {360: 4.0}, {470: 4.0}, (20 - 321 / 32) / 30 + 0.2 + 0.4),
    ],
)
def test_a_splice_costs_length_place_and_the_attacks_that_it_blurs_or_doubles(window, old, new, cost):
    assert seam._cost(scene_of(-1600, 3840, old, new), window) == pytest.approx(cost, abs=1e-9)


@pytest.mark.parametrize("size", [1e-4, 1.0, 10.0])
def test_a_splice_between_unlike_sounds_costs_their_unlikeness(size):
    scene = scene_of(-1600, 3840, size=size)
    rng = np.random.default_rng(1)
    other = scene.old + size * rng.standard_normal(len(scene.old))
    unlike = _Scene(scene.old, other, scene.old_rise, scene.new_rise, -1600, MS)
    a, b = scene.old[600:1240], other[600:1240]
    correlation = a @ b / np.sqrt((a @ a) * (b @ b))
    assert seam._cost(unlike, (-1000, 640)) == pytest.approx(1 - correlation)
    against = _Scene(scene.old, -scene.old, scene.old_rise, scene.new_rise, -1600, MS)
    assert seam._cost(against, (-1000, 640)) == pytest.approx(2)


def test_a_splice_in_silence_costs_nothing():
    assert seam._cost(scene_of(-1600, 3840, size=0.0), (-1000, 640)) == 0


# --- where the file begins -------------------------------------------------------------------------


def opening_one_by_one(mono, ms):
    """The quietest millisecond of the eight before the downbeat, half a decibel a ms; there, the nearest zero crossing."""
    n, frame = len(mono), max(2, round(ms))
    reach = min(round(8 * ms), n // 8)

    def cost(early):
        around = np.take(mono, range(-early - frame // 2, -early + frame - frame // 2), mode="wrap")
        return 10 * np.log10(np.mean(around**2) + 1e-10) + 0.5 * early / ms

    quiet = min(range(reach + 1), key=cost)
    near = range(max(0, quiet - frame // 2), quiet + frame // 2 + 1)
    crossings = []
    for early in near:
        here, before = mono[-early % n], mono[(-early - 1) % n]
        if here * before <= 0 and abs(here) <= abs(before):
            crossings.append(early)
    if crossings:
        return min(crossings, key=lambda early: abs(early - quiet))
    return min(near, key=lambda early: abs(mono[-early % n]))


def rings():
    rng = np.random.default_rng(6)
    t = np.arange(3000)
    for scale in (1.0, 3e-5, 1e-5, 4e-6):
        for k in range(7):
            tone = np.sin(2 * np.pi * t * (3 + 5 * k) / 3000 + k)
            swell = 1 + 0.9 * np.sin(2 * np.pi * t * (8 + k) / 3000)
            yield scale * (tone * swell + (0.3 * k % 5) * 0.1 * rng.standard_normal(3000))
    yield np.zeros(4000)
    yield np.ones(4000)
    yield 1 + 0.1 * rng.standard_normal(4000)  # never crosses
    for n in (256, 263, 300):
        yield rng.standard_normal(n)
        late = rng.standard_normal(n)  # quiet an eighth of the loop before the downbeat
        late[-n // 8 - 20 : -n // 8 + 12] *= 1e-3
        yield late


@pytest.mark.parametrize("ms", [32.0, 8.0, 44.1, 0.6])
def test_the_file_begins_at_a_crossing_in_the_quietest_moment_before_the_downbeat(ms):
    for number, mono in enumerate(rings()):
        ring = np.stack([mono * 1.5, mono * 0.5], axis=1)
        assert seam._opening(ring, ms) == opening_one_by_one(ring.mean(axis=1), ms), number


@pytest.mark.parametrize(
    ("samples", "begin"),
    [
        ({5: 0.0, 12: -0.5}, 5),  # a sample that is nothing is a crossing
        ({6: -1.0}, 5),  # of two as far from zero either will do
        ({7: -0.5}, 7),  # of two the nearer to zero
        ({9: 0.5}, 9),  # where nothing crosses, the smallest
        ({15: -0.5}, 15),  # half a millisecond around the quietest place is looked at
        ({**dict.fromkeys(range(29, 61), 0.1), 29: -0.05}, 29),
    ],
)
def test_a_crossing_is_where_the_sign_changes_at_its_smaller_side(samples, begin):
    mono = np.ones(4000)
    for early, value in samples.items():
        mono[-early] = value
    assert seam._opening(mono[:, None], 32.0) == begin


# --- the splice itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("window", [(-600, 500), (-500, 500), (-200, 640), (0, 160), (300, 320)])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_ring_has_the_music_after_the_splice_and_the_music_around_its_end_before_it(window, channels):
    samples, origin, n = noise(9000, 7, channels), 1500, 6000
    first, size = window
    ring = seam._spliced(samples, origin, n, window)
    assert ring.shape == (n, channels)
    for place in range(first + size, first + n):
        assert np.array_equal(ring[place % n], samples[origin + place])
    faded, _ = seam._fade(samples[origin + n + first :][:size], samples[origin + first :][:size])
    assert np.array_equal(ring[np.arange(first, first + size) % n], faded)


@pytest.mark.parametrize(("n", "size"), [(6000, 160), (640, 160), (400, 100), (399, 99)])
def test_before_a_recording_that_begins_on_its_loop_comes_what_its_first_samples_foretell(n, size):
    samples = np.cumsum(noise(7000, 8, 2), axis=0) * 0.1
    longer, ahead = seam._foreshadowed(samples, 500, n, MS)
    assert ahead == size and np.array_equal(longer[size:], samples[500 : 500 + n])
    for channel in range(2):
        body = samples[500 : 500 + n, channel]
        weights = -predictor(body).coefficients[1:]
        told = list(body[:32])
        for _ in range(size):
            told.insert(0, float(np.dot(weights, told[:32])))
        assert longer[:size, channel] == pytest.approx(told[:size], rel=1e-6, abs=1e-9)


def test_a_tone_that_begins_on_its_loop_is_foretold_as_the_tone():
    t = np.arange(8000)
    tone = np.sin(2 * np.pi * t / 80)[:, None]
    longer, size = seam._foreshadowed(tone, 0, 8000, MS)
    assert longer[:size, 0] == pytest.approx(np.sin(2 * np.pi * np.arange(-size, 0) / 80), abs=0.02)


@pytest.mark.parametrize(
    ("clicks", "taken", "looked_at"),
    [
        ([0.5], 0, 1),
        ([0.75, 0.74], 1, 2),  # half of what is heard is just too much
        ([2.0, 1.0, 0.9, 0.1], 3, 4),
        ([1.2, 0.9, 1.0] + [1.1] * 30, 1, 24),
        ([1.2] * 23 + [0.8, 0.1], 23, 24),
        ([1.2] * 23 + [0.7], 23, 24),
        ([0.75] * 24, 0, 24),
    ],
)
def test_of_the_cheapest_splices_the_first_without_a_click_is_taken(monkeypatch, clicks, taken, looked_at):
    music, origin, n = noise(20_000, 9, 2), 5_000, 8_000
    told = [value for click in clicks for value in (click, 0.1)]  # the first of two channels, and the second
    asked = iter(told)
    count = []

    models = [predictor(channel) for channel in music[origin : origin + n].T]

    def surprise(model, before, after):
        assert np.array_equal(model.coefficients, models[len(count) % 2].coefficients) and before is after
        count.append(before)
        return next(asked)

    monkeypatch.setattr(seam, "surprise", surprise)
    loop, report = close(music, origin, n, RATE)
    assert len(count) == 2 * looked_at
    scene = seam._scene(music, origin, n, MS)
    window = sorted(seam._windows(scene, n), key=lambda window: seam._cost(scene, window))[taken]
    ring = seam._spliced(music, origin, n, window)
    start = seam._opening(ring, MS)
    assert np.array_equal(loop, np.roll(ring, start, axis=0).astype(np.float32))
    assert report.fade_ms == window[1] / 32 and report.preroll_ms == start / 32


@pytest.mark.parametrize("worse", [0, 1])
def test_the_worst_channel_decides(monkeypatch, worse):
    asked = iter(([2.0, 0.1] if worse == 0 else [0.1, 2.0]) + [0.1, 0.1])
    monkeypatch.setattr(seam, "surprise", lambda model, before, after: next(asked))
    close(noise(20_000, 9, 2), 5_000, 8_000, RATE)
    assert next(asked, None) is None, "the first splice was refused for one channel's click"


@pytest.mark.parametrize("channels", [1, 2])
def test_the_report_compares_the_fade_with_what_it_fades_between(channels):
    music, origin, n = noise(20_000, 10, channels), 5_000, 8_000
    music[:9_000] *= 3
    report = seam._report(music, origin, n, (-700, 640), np.roll(music[:n], 0, axis=0), 48, MS)
    old, new = music[12_300:12_940], music[4_300:4_940]
    faded, likeness = seam._fade(old, new)
    sides = (np.mean(old**2) + np.mean(new**2)) / 2
    assert report.level_step_db == pytest.approx(10 * np.log10(np.mean(faded**2) / sides), abs=1e-5)
    assert (report.fade_ms, report.preroll_ms, report.correlation) == (20.0, 1.5, likeness)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 3e-5])
def test_near_silence_has_no_step_to_speak_of(scale):
    music = np.full((20_000, 1), scale)
    report = seam._report(music, 5_000, 8_000, (-700, 640), noise(8_000), 0, MS)
    assert report.level_step_db == pytest.approx(0, abs=1e-9)
    music[:9_000] = 0  # half of the power is gone, against 1e-10 that counts as none
    report = seam._report(music, 5_000, 8_000, (-700, 640), noise(8_000), 0, MS)
    fall, rise = gains(640)
    wanted = np.mean((fall * scale) ** 2 / (fall**2 + rise**2 + 2 * fall * rise)) + 1e-10
    assert report.level_step_db == pytest.approx(10 * np.log10(wanted / (scale**2 / 2 + 1e-10)), abs=1e-6)


def test_a_report_of_a_click_alone_tells_of_no_fade():
    assert SeamReport(0.5) == SeamReport(0.5, 0.0, 0.0, 1.0, 0.0)


# --- a set's common wrap ---------------------------------------------------------------------------


def bridged_one_by_one(samples, first, rate, clicks):
    """The two fades, out of the first loop's wrap and into it, that cost least; `clicks` tells of each joint."""
    ms, n = rate / 1000, len(samples)
    sizes = [round(fade * ms) for fade in (20, 10, 5, 3, 2, 1) if 2 <= round(fade * ms) <= n // 4]
    floor = 1e-3 * np.mean(np.diff(samples.mean(axis=1)) ** 2) + 1e-12
    rises = rises_one_by_one(samples[: 2 * sizes[0]].mean(axis=1), floor, ms)

    def cost(before, old, new, after):
        faded, likeness = seam._fade(old, new)
        joint = np.concatenate([faded, after[:24]])
        worst = max(min(clicks(k, own, joint) for own in (True, False)) for k in range(samples.shape[1]))
        return 1 - likeness + 20 * max(0.0, worst - CLICK / 2) - len(faded) / ms / 30

    def head(size):
        swallowed = rises[: size + round(ms)].max() / 10
        return cost(first, first[:size], samples[:size], samples[size:]) + swallowed

    def tail(size):
        return cost(samples[:-size], samples[-size:], first[-size:], first)

    out = samples.copy()
    begins, ends = min(sizes, key=head), min(sizes, key=tail)
    out[:begins] = seam._fade(first[:begins], samples[:begins])[0]
    out[-ends:] = seam._fade(samples[-ends:], first[-ends:])[0]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("rate", [32_000, 8_000, 1_500])
@pytest.mark.parametrize("loudest", [0.0, 0.72, 0.8, 1.6])
def test_a_bridge_fades_out_of_the_first_loops_wrap_and_into_it_where_least_is_lost(
    monkeypatch, loudest, rate
):
    """Joints click as their lengths and channels say; what either loop's own way explains is no click."""
    models = {}

    def clicks(channel, own, joint):
        return loudest * (0.5 + 0.5 * np.sin(len(joint) * 0.7 + channel + 2 * own))

    monkeypatch.setattr(seam, "predictors", lambda x: [(k, id(x) not in models) for k in range(x.shape[1])])
    monkeypatch.setattr(seam, "surprise", lambda model, before, joint, reach: clicks(*model, joint))
    for seed in range(12):
        n = (700, 1900, 2561, 2560)[seed % 4]
        alike = noise(n, seed, 2)
        first = alike + seed % 3 * noise(n, seed + 100, 2)
        swell = np.where(np.arange(n) < 40 * (seed % 5), 0.05, 1.0)[:, None]
        samples = alike * swell * 10.0 ** -(seed % 4)
        models.clear()
        models[id(first)] = True
        wanted = bridged_one_by_one(samples, first, rate, clicks)
        assert np.abs(bridge(samples, first, rate) - wanted).max() < 1e-12, seed


@pytest.mark.parametrize(
    ("rate", "n", "sizes"),
    [
        (32_000, 2560, [640, 320, 160, 96, 64, 32]),  # 20 ms are just a quarter of the loop
        (32_000, 2559, [320, 160, 96, 64, 32]),
        (2_000, 300, [40, 20, 10, 6, 4, 2]),
        (1_200, 300, [24, 12, 6, 4, 2]),  # a fade of one sample is none
    ],
)
def test_fades_are_20_to_1_ms_long_and_the_one_that_does_not_click_is_taken(monkeypatch, rate, n, sizes):
    first, samples = noise(n, 1), noise(n, 2)
    tried = set()
    for size in sizes:

        def surprise(model, before, joint, reach, size=size):
            tried.add(len(joint) - 24)
            return 0.0 if len(joint) == size + 24 else 9.0

        monkeypatch.setattr(seam, "surprise", surprise)
        bridged = bridge(samples, first, rate)
        changed = np.flatnonzero((bridged != samples).any(axis=1))
        assert changed.tolist() == [*range(size), *range(n - size, n)]
    assert tried == set(sizes)


@pytest.mark.parametrize(("click", "size"), [(0.74, 640), (0.7664, 640), (0.7669, 320)])
def test_ten_milliseconds_are_worth_a_third_and_a_click_costs_twenty_times_what_is_beyond_half(
    monkeypatch, click, size
):
    """A fade of 20 ms that clicks a little, against one of 10 ms that does not; the sounds are alike."""
    clicks = {640: click, 320: 0.75}
    monkeypatch.setattr(
        seam, "surprise", lambda model, before, joint, reach: clicks.get(len(joint) - 24, 9.0)
    )
    samples = noise(4000, 1)
    bridged = bridge(samples, 2 * samples, RATE)
    changed = np.flatnonzero((bridged != samples)[2000:, 0]) + 2000
    assert changed.tolist() == [*range(4000 - size, 4000)]


def test_a_bridge_takes_the_first_loops_models_where_they_are_given(monkeypatch):
    first, other = noise(4000, 1), noise(4000, 2)
    wanted = bridge(other, first, RATE)
    models = predictors(first)
    made = []
    monkeypatch.setattr(seam, "predictors", lambda x: made.append(x) or predictors(x))
    assert np.array_equal(bridge(other, first, RATE, models), wanted) and len(made) == 1
