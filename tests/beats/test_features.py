"""The spectra behind the beat grid, beside librosa's."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from looper.beats import features

RATE = 32_000


@pytest.mark.parametrize("seconds", [0.02, 0.3, 4.0, 21.7])
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
