"""The spectra behind the beat grid, beside librosa's."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from looper.beats import features
from testkit.clicks import blank, clicks

RATE = 32_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds", [0.02, 0.09375, 0.3, 4.0, 21.7]
)  # the second is half of the longer window
@pytest.mark.parametrize("window", [0.023, 0.186])
def test_spectra_are_librosas_whatever_the_length(seconds, window):
    x = np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    n_fft = features._fft_length(window, RATE)
    filters = np.random.default_rng(1).random((3, n_fft // 2 + 1)).astype(np.float32)
    padded = np.pad(x, (0, max(0, n_fft // 2 + 1 - len(x))))
    theirs = np.abs(librosa.stft(padded, n_fft=n_fft, hop_length=500, pad_mode="reflect"))
    np.testing.assert_allclose(features._filtered(x, filters, 500, 0), filters @ theirs**2, rtol=1e-3)
    np.testing.assert_allclose(features._filtered(x, filters, 500, 2), filters @ np.sqrt(theirs), rtol=1e-4)


def test_pauses_hold_no_harmony():
    music = np.zeros(4 * RATE, np.float32)
    music[:RATE] = np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)
    chroma = features.extract_features(music, RATE).chroma
    assert chroma[:, 2:20].max() > 0.5
    assert chroma[:, 32:].max() < 1e-2


@pytest.mark.parametrize(
    ("window", "rate", "length"),
    [
        (0.023, 32_000, 750),
        (0.023, 16_000, 376),
        (0.023, 22_050, 512),
        (0.186, 32_000, 6000),
        (0.186, 11_025, 2160),
    ],
)
def test_windows_are_even_lengths_that_are_quick_to_transform(window, rate, length):
    assert features._fft_length(window, rate) == length


@pytest.mark.parametrize(("rate", "top"), [(32_000, 12_000), (16_000, 8_000), (22_050, 11_025)])
def test_a_recording_is_heard_as_the_measures_in_its_description_say(rate, top):
    """By librosa: log-mel every 5 ms and its rise; chroma and the power of 16 bands every 40 ms."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal(rate) * (np.arange(rate) % (rate // 4) < rate // 9)).astype(np.float32)
    found = features.extract_features(3 * x, rate)
    x = x / np.sqrt(np.mean(x.astype(float) ** 2))
    n_fft, hop = features._fft_length(0.023, rate), round(rate / 200)
    assert found.rate == pytest.approx(rate / hop) and found.duration == 1.0

    def power(size, step):
        return np.abs(librosa.stft(x, n_fft=size, hop_length=step, pad_mode="reflect")) ** 2

    mel = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=40, fmin=30, fmax=top) @ power(n_fft, hop)
    log_mel = np.log1p(100 / n_fft * mel)
    np.testing.assert_allclose(found.mel, log_mel.reshape(8, 5, -1).mean(axis=1), rtol=1e-3, atol=1e-5)
    rise = np.maximum(0, log_mel - np.c_[log_mel[:, :1], log_mel[:, :-1]]).reshape(8, 5, -1).sum(axis=1)
    np.testing.assert_allclose(found.rise, rise, rtol=1e-3, atol=1e-3)
    total = np.pad(rise.sum(axis=0), 20, mode="edge")
    local = np.array([total[i : i + 41].mean() for i in range(rise.shape[1])])
    np.testing.assert_allclose(found.onset, np.maximum(0, rise.sum(axis=0) - local), rtol=1e-3, atol=5e-3)

    size, step = features._fft_length(0.186, rate), round(rate / 25)
    hz = np.arange(size // 2 + 1) * rate / size
    pitches = librosa.filters.chroma(sr=rate, n_fft=size, octwidth=None)
    assert found.chroma_rate == pytest.approx(25, rel=1e-3)
    for part, inside in (
        (found.chroma[:12], (hz >= 130) & (hz < 4000)),
        (found.chroma[12:], (hz > 50) & (hz < 260)),
    ):
        chroma = (pitches * inside) @ np.sqrt(np.sqrt(power(size, step)))
        np.testing.assert_allclose(
            part, chroma / (np.linalg.norm(chroma, axis=0) + 0.3), rtol=1e-3, atol=1e-4
        )
    edges = 40 * (rate / 2 / 40) ** (np.arange(17) / 16) * size / rate
    for band, low, high in zip(found.timbre, edges[:-1], edges[1:], strict=True):
        np.testing.assert_allclose(
            band, power(size, step)[int(low) : int(high)].mean(axis=0), rtol=1e-2, atol=1e-3
        )


@pytest.mark.parametrize(
    ("hz", "whole", "bass"),
    [
        (50, False, False),
        (51, False, True),
        (129, False, True),
        (130, True, True),
        (259, True, True),
        (260, True, False),
        (3999, True, False),
        (4000, False, False),
    ],
)
def test_harmony_is_heard_from_130_hz_to_4_khz_and_that_of_the_bass_from_50_to_260(hz, whole, bass):
    filters = features._chroma_filters(8_000, 8_000)[:, hz]  # 1 Hz a bin
    theirs = librosa.filters.chroma(sr=8_000, n_fft=8_000, octwidth=None)[:, hz]
    assert filters.tolist() == [*(whole * theirs).tolist(), *(bass * theirs).tolist()]


@pytest.mark.parametrize(
    ("onset", "frames", "heights"),
    [
        ([0, 1, 3, 2, 0, 0], [2 + 1 / 6], [3]),  # the parabola through 1, 3 and 2
        ([0, 2, 3, 1, 0, 0], [2 - 1 / 6], [3]),
        ([0, 2.9, 3, 0, 0], [2 - 29 / 62], [3]),
        ([0, 2, 2, 0], [1.5], [2]),  # of a flat top the middle, once
        ([0, 1, 0, 1, 0], [1, 3], [1, 1]),
        ([5, 1, 0, 0, 7], [], []),  # the ends are no peaks
        ([0, 0, 0, 0], [], []),
    ],
)
def test_peaks_lie_where_a_parabola_puts_them_half_a_frame_before_their_rise_is_counted(
    onset, frames, heights
):
    times, found = features._peaks(np.array(onset, float), 200.0)
    assert times == pytest.approx((np.array(frames) - 0.5) / 200) and found.tolist() == heights


@pytest.mark.parametrize(("faint", "kept"), [(0.15, True), (0.11, True), (0.1, False), (0.05, False)])
def test_peaks_under_a_twentieth_of_the_strong_ones_are_none(faint, kept):
    """Of 21 the second strongest is the 95th percentile."""
    onset = np.zeros(43)
    onset[1::2] = [faint, *[1.0] * 18, 2.0, 10.0]
    assert (faint in features._peaks(onset, 200.0)[1]) == kept


def stepping(sharpness, rate=32_000):
    """A second of a tone at the highest frequency whose energy rises in the middle by so many nepers."""
    x = (-1.0) ** np.arange(rate)
    x[: rate // 2] *= np.exp(-sharpness / 2)
    return x


LATE = [
    (0.25, 8.5),
    (0.5, 8),
    (1.0, 6),
    (1.5, 4),
    (2.15, 3),
    (2.8, 2),
    (3.5, 1.5),
    (4.2, 1),
    (4.85, 0.4),
    (8.0, -0.2),
]


@pytest.mark.parametrize(("sharpness", "late"), LATE)
def test_an_attack_is_moved_to_the_steepest_rise_nearby_less_what_one_so_sharp_is_found_late(sharpness, late):
    times, found = features._sharpen(stepping(sharpness), 32_000.0, 0.5 + np.array([-0.011, 0.0, 0.011]))
    assert found == pytest.approx(sharpness, abs=0.03 + 0.4 * (sharpness > 5))
    assert times == pytest.approx(0.5 - late / 1000, abs=1e-4)


@pytest.mark.parametrize("rate", [4_000, 32_000])
def test_sharpness_is_by_how_much_louder_five_milliseconds_are_than_the_five_before(rate):
    brief = stepping(3.0, rate)
    brief[rate // 2 + rate // 200 :] = brief[: rate // 2 - rate // 200]  # the old loudness again
    for x in (stepping(3.0, rate), brief):
        (time,), (sharpness,) = features._sharpen(x, float(rate), np.array([0.503]))
        assert time == pytest.approx(0.5 - 0.00188, abs=1e-4) and sharpness == pytest.approx(3, abs=0.08)


def test_silence_before_an_attack_counts_as_forty_decibels_under_the_mean():
    x = stepping(0.0)
    x[:16_000] = 0
    (time,), (sharpness,) = features._sharpen(x, 32_000.0, np.array([0.503]))
    assert time == pytest.approx(0.5002, abs=1e-6) and sharpness == pytest.approx(
        np.log(1 + 1e4 / 0.5), abs=0.02
    )


def test_what_only_stands_or_hums_hides_no_attack():
    """Nineteen twentieths of each sample are taken from the next."""
    x = np.ones(32_000)
    x[16_000:] += 0.2 * (-1.0) ** np.arange(16_000)
    _, (sharpness,) = features._sharpen(x, 32_000.0, np.array([0.5]))
    assert sharpness == pytest.approx(np.log(1 + (0.2 * 1.95 / 0.05) ** 2), abs=0.05)


def test_an_attack_further_off_than_twelve_milliseconds_is_another():
    places = 0.5 + np.array([0.012, -0.012, 0.015, -0.015])
    times, sharpness = features._sharpen(stepping(6.0), 32_000.0, places)
    assert times[:2] == pytest.approx(0.5002, abs=1e-4)
    assert sharpness[2] < 1 and times[3] < 0.4985


@pytest.mark.parametrize("place", [0.5, 0.500125, 0.50007, 0.4999])
def test_energies_are_measured_between_samples_too(place):
    x, window = stepping(3.0, 4_000), 20
    steps = np.r_[x[:1], x[1:] - 0.95 * x[:-1]]
    total = np.r_[0, np.cumsum(steps**2)]
    at = (place - 0.012 + 0.0005 * np.arange(49)) * 4_000
    here, before, after = (np.interp(at + d, np.arange(4_001), total) for d in (0, -window, window))
    floor = 1e-4 * total[-1] / 4_000 * window
    _, (sharpness,) = features._sharpen(x, 4_000.0, np.array([place]))
    assert sharpness == pytest.approx(
        np.log((after - here + floor) / (here - before + floor)).max(), abs=1e-3
    )


def test_attacks_at_the_very_ends_are_placed_too():
    x = stepping(0.0)
    (first, last), sharpness = features._sharpen(x, 32_000.0, np.array([0.003, 0.999]))
    assert first == pytest.approx(0.0002, abs=1e-4) and sharpness[0] > 8
    assert np.isfinite(last) and sharpness[1] < 0.1
    silent, _ = features._sharpen(np.zeros(3200), 32_000.0, np.array([0.05]))
    assert np.isfinite(silent).all()


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100])
def test_clicks_are_found_where_they_are_and_the_sharper_and_louder_weigh_more(rate):
    x, beats = np.zeros(3 * rate, np.float32), np.array([0.5, 1.0003, 1.5, 2.0007, 2.5])
    for beat, loud in zip(beats, (1.0, 1.0, 0.2, 1.0, 1.0), strict=True):
        burst = np.random.default_rng(0).standard_normal(rate // 40) * np.exp(
            -np.arange(rate // 40) / (rate / 200)
        )
        at = round(beat * rate)
        x[at : at + len(burst)] += loud * burst
    found = features.extract_features(x, rate)
    near = [int(np.argmin(np.abs(found.peak_times - beat))) for beat in beats]
    assert found.peak_times[near] == pytest.approx(beats, abs=1e-3)
    assert found.peak_weights[near[2]] < 0.9 * found.peak_weights[near[0]]


def test_a_soft_attack_weighs_less_a_tenth_at_least_and_all_from_a_sharpness_of_four_on(monkeypatch):
    sharpness = np.array([9.0, 4.0, 2.0, 0.4, 0.1, -3.0])
    monkeypatch.setattr(features, "_sharpen", lambda x, rate, times: (times, sharpness))
    found = clicks(np.arange(0.5, 3.5, 0.5), 4.0)
    heights = features._peaks(found.onset, found.rate)[1]
    shares = np.array([1, 1, 0.5, 0.1, 0.1, 0.1])
    assert found.peak_weights == pytest.approx((heights * shares) ** 0.7, rel=1e-5)


@pytest.mark.parametrize(
    ("rate", "exact"),
    [(8_000, 8_000), (32_000, 32_000), (44_100, 32_000), (48_000, 32_000), (192_000, 32_000)],
)
def test_higher_rates_are_brought_down_to_32_khz_and_lower_ones_left(rate, exact):
    x = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    lower, found = features._at_most(x, rate)
    assert (found, len(lower), lower.dtype) == (exact, exact, np.float32)
    assert (lower is x) == (rate <= 32_000)
    assert lower[exact // 4 : exact // 2] == pytest.approx(
        np.sin(2 * np.pi * 440 * np.arange(exact // 4, exact // 2) / exact), abs=1e-2
    )


def test_odd_rates_are_brought_down_to_about_that_and_their_own_is_told():
    x, found = features._at_most(np.zeros(45_001, np.float32), 45_001)
    assert found == pytest.approx(32_000, abs=20) and len(x) == pytest.approx(found, abs=1)


def test_silence_has_features_too():
    for value in vars(features.extract_features(np.zeros(8_000, np.float32), 8_000)).values():
        assert np.isfinite(value).all()


def test_a_part_of_a_recording_has_its_frames_and_onsets_at_times_of_its_own():
    frames, slow = np.arange(801.0), np.arange(101.0)
    whole = blank(
        4.0,
        rise=np.tile(frames, (8, 1)),
        onset=frames,
        mel=np.tile(frames, (8, 1)),
        chroma=np.tile(slow, (24, 1)),
        timbre=np.tile(slow, (16, 1)),
        peak_times=np.array([0.99, 1.0, 1.5, 2.4, 2.6, 3.0]),
        peak_weights=np.arange(6.0),
    )
    part = features.crop(whole, 200, 520)
    assert part.duration == pytest.approx(1.6)
    assert part.onset.tolist() == part.rise[3].tolist() == part.mel[7].tolist() == list(range(200, 520))
    assert part.chroma[23].tolist() == part.timbre[0].tolist() == list(range(25, 65))
    assert part.peak_times == pytest.approx([0.0, 0.5, 1.4]) and part.peak_weights.tolist() == [1.0, 2.0, 3.0]
    assert features.crop(whole, 200, 520 - 40).peak_weights.tolist() == [1.0, 2.0], "the end is not of it"
