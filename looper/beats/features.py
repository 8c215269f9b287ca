"""Waveform to frames: what the beat grid listens to.

Two short-time spectra are taken: a quick one (23 ms window, 5 ms hop) whose log-mel
rise shows where notes begin, and a slow one (186 ms window, 40 ms hop) whose chroma shows which
harmony sounds. Both are scaled by the signal's own level, so gain and polarity change nothing.

References
----------
Böck, Widmer: Maximum filter vibrato suppression for onset detection, DAFx 2013.
Müller: Fundamentals of Music Processing, chapters 3 and 6, Springer 2015.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import next_fast_len, rfft

MAX_RATE_HZ = 32_000  # higher rates are brought down first: nothing above 16 kHz is listened to
MAX_RATIO_TERM = 441  # of the ratio of two rates: 320 to 441 for 44100 Hz
HOP_SECONDS = 0.005  # seconds between quick frames
BANDS = 8
MELS_PER_BAND = 5
PIECE_SAMPLES = 100_000  # samples of windows whose spectra are taken at once
TIMBRE_BANDS, LOWEST_BAND_HZ = 16, 40.0  # bands of equal ratio in which bars are compared
MIN_CHROMA_NORM = 0.3  # chroma magnitude (music has tens) of pauses, whose rounding noise is no harmony
# How late an attack is found, by how sharp it is (log ratio of energy after and before): medians
# over rendered notes whose beats are known. A click is found where it is, a bowed note late.
SHARPNESS = (0.0, 0.5, 1.5, 2.8, 4.2, 5.5)
LATENESS_SECONDS = (0.009, 0.008, 0.004, 0.002, 0.001, -0.0002)


@dataclass(frozen=True)
class Features:
    """Features of one recording, on frame times that start at 0 s.

    Attributes
    ----------
    rate : float
        Quick frames per second (about 200).
    duration : float
        Seconds of audio.
    rise : numpy.ndarray
        ``[BANDS, T]``, onset strength per band, low to high, non-negative.
    onset : numpy.ndarray
        ``[T]``, the bands' sum less its local mean, non-negative.
    mel : numpy.ndarray
        ``[BANDS, T]``, log level per band.
    chroma_rate : float
        Slow frames per second (about 25).
    chroma : numpy.ndarray
        ``[24, S]``, unit-norm pitch classes of the whole range and below 260 Hz.
    timbre : numpy.ndarray
        ``[TIMBRE_BANDS, S]``, power per band from 40 Hz to half the sample rate, on the slow frames.
    peak_times, peak_weights : numpy.ndarray
        ``[N]``, onsets in seconds, between frames, and their strengths.
    """

    rate: float
    duration: float
    rise: np.ndarray
    onset: np.ndarray
    mel: np.ndarray
    chroma_rate: float
    chroma: np.ndarray
    timbre: np.ndarray
    peak_times: np.ndarray
    peak_weights: np.ndarray


@lru_cache(maxsize=8)
def _mel_filters(rate: int, n_fft: int) -> np.ndarray:
    import librosa

    top = min(rate / 2, 12_000.0)
    return librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=BANDS * MELS_PER_BAND, fmin=30, fmax=top)


@lru_cache(maxsize=8)
def _chroma_filters(rate: int, n_fft: int) -> np.ndarray:
    import librosa

    whole = librosa.filters.chroma(sr=rate, n_fft=n_fft, octwidth=None)
    hz = np.arange(whole.shape[1]) * rate / n_fft
    low = np.where((hz > 50) & (hz < 260), 1.0, 0.0)
    high = np.where((hz >= 130) & (hz < 4000), 1.0, 0.0)
    return np.concatenate([whole * high, whole * low]).astype(np.float32)


@lru_cache(maxsize=8)
def _timbre_filters(rate: int, n_fft: int) -> np.ndarray:
    """Mean power over bands of equal ratio, ``[TIMBRE_BANDS, F]``; each holds two bins at least."""
    edges = (np.geomspace(LOWEST_BAND_HZ, rate / 2, TIMBRE_BANDS + 1) * n_fft / rate).astype(int)[:, None]
    bins = np.arange(n_fft // 2 + 1)
    inside = (bins >= edges[:-1]) & (bins < edges[1:])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


def _fft_length(window: float, rate: int) -> int:
    """Samples, even, of an FFT that holds a window of so many seconds."""
    n_fft = next_fast_len(2 * round(window * rate / 2), real=True)
    return n_fft + n_fft % 2


def _filtered(x: np.ndarray, filters: np.ndarray, hop: int, root: int) -> np.ndarray:
    """Short-time spectra through ``filters [B, F]``, ``[B, T]``: power, or its ``root`` square roots.

    The ends are mirrored, so that a cut is no onset. The spectra are made a piece at a time: a piece
    stays in the cache, and an hour of them in no memory.
    """
    from scipy.signal.windows import hann

    n_fft = 2 * (filters.shape[1] - 1)
    if len(x) <= n_fft // 2:
        x = np.pad(x, (0, n_fft // 2 + 1 - len(x)))
    frames = sliding_window_view(np.pad(x, n_fft // 2, mode="reflect"), n_fft)[::hop]
    # roots would lift the rounding noise of single precision out of pauses
    window = hann(n_fft, sym=False).astype(np.float64 if root else np.float32)
    out = np.empty((len(frames), len(filters)), np.float32)
    step = PIECE_SAMPLES // n_fft
    for first in range(0, len(frames), step):
        spectrum = rfft(frames[first : first + step] * window, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)
        for _ in range(root):
            np.sqrt(power, out=power)
        np.matmul(power, filters.T, out=out[first : first + step])
    return np.ascontiguousarray(out.T)


def _local_mean(x: np.ndarray, frames: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter1d

    return uniform_filter1d(x, 2 * frames + 1, axis=-1, mode="nearest")


def _peaks(onset: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima of the onset curve, placed between frames by a parabola."""
    middle = onset[1:-1]
    at = 1 + np.flatnonzero((middle > onset[:-2]) & (middle >= onset[2:]))
    if not len(at):
        return np.zeros(0), np.zeros(0)
    at = at[onset[at] > 0.05 * np.percentile(onset[at], 95)]
    left, here, right = onset[at - 1], onset[at], onset[at + 1]
    bend = np.minimum(left - 2 * here + right, -1e-9)
    shift = 0.5 * (left - right) / bend
    shift = np.clip(shift, -0.5, 0.5)
    # the rise of frame i lies between frames i-1 and i
    return (at - 0.5 + shift) / rate, here


def _sharpen(x: np.ndarray, rate: float, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move rough onset times to the steepest rise of energy nearby.

    Returns the times, corrected for how late an attack of that sharpness is found, and the sharpness:
    the log ratio of the energies 5 ms after and before.
    """
    edged = np.append(x[:1], x[1:] - 0.95 * x[:-1])
    total = np.concatenate([[0.0], np.cumsum(edged.astype(np.float64) ** 2)])
    window = 0.005 * rate
    floor = 1e-4 * total[-1] / len(x) * window + 1e-20
    near = np.arange(-0.012, 0.0121, 0.0005)
    at = (times[:, None] + near) * rate

    def energy(position: np.ndarray) -> np.ndarray:
        inside = np.clip(position, 0, len(x))
        low = np.minimum(inside.astype(int), len(x) - 1)
        return total[low] + (inside - low) * (total[low + 1] - total[low])

    here = energy(at)
    rise = np.log((energy(at + window) - here + floor) / (here - energy(at - window) + floor))
    best = np.argmax(rise, axis=1)
    sharpness = rise[np.arange(len(times)), best]
    return times + near[best] - np.interp(sharpness, SHARPNESS, LATENESS_SECONDS), sharpness


def _at_most(x: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """The signal at `MAX_RATE_HZ` if it is at a higher rate, and its rate, which may miss that by some hertz."""
    if sample_rate <= MAX_RATE_HZ:
        return x, float(sample_rate)
    from scipy.signal import resample_poly

    ratio = Fraction(MAX_RATE_HZ, sample_rate).limit_denominator(MAX_RATIO_TERM)
    return resample_poly(x, ratio.numerator, ratio.denominator).astype(np.float32), float(sample_rate * ratio)


def extract_features(x: np.ndarray, sample_rate: int) -> Features:
    """Measure onset and harmony features.

    Parameters
    ----------
    x : numpy.ndarray
        ``[T]``, mono, not silent.
    sample_rate : int
        Hz.

    Returns
    -------
    Features
        Features of the whole signal.
    """
    duration = len(x) / sample_rate
    x, exact = _at_most(x, sample_rate)
    rate = round(exact)
    x = x / np.sqrt(np.mean(np.square(x, dtype=np.float64)) + 1e-20)
    x = x.astype(np.float32)

    hop = round(HOP_SECONDS * exact)
    n_fft = _fft_length(0.023, rate)
    log_mel = np.log1p(_filtered(x, _mel_filters(rate, n_fft), hop, 0) * np.float32(100 / n_fft))
    rise = np.maximum(0.0, np.diff(log_mel, axis=1, prepend=log_mel[:, :1]))
    rise = rise.reshape(BANDS, MELS_PER_BAND, rise.shape[1]).sum(axis=1)
    frame_rate = exact / hop
    onset = rise.sum(axis=0)
    onset = np.maximum(0.0, onset - _local_mean(onset, round(0.1 * frame_rate)))

    slow_hop = round(0.04 * exact)
    slow_fft = _fft_length(0.186, rate)
    chroma = _filtered(x, _chroma_filters(rate, slow_fft), slow_hop, 2)
    for part in (chroma[:12], chroma[12:]):
        part /= np.linalg.norm(part, axis=0) + MIN_CHROMA_NORM
    times, weights = _peaks(onset, frame_rate)
    times, sharpness = _sharpen(x, exact, times)
    return Features(
        rate=frame_rate,
        duration=duration,
        rise=rise,
        onset=onset,
        mel=log_mel.reshape(BANDS, MELS_PER_BAND, log_mel.shape[1]).mean(axis=1),
        chroma_rate=exact / slow_hop,
        chroma=chroma,
        timbre=_filtered(x, _timbre_filters(rate, slow_fft), slow_hop, 0),
        peak_times=times,
        peak_weights=(weights * np.clip(sharpness / 4, 0.1, 1.0)) ** 0.7,
    )


def crop(found: Features, first: int, last: int) -> Features:
    """Keep quick frames ``first`` to ``last``; times then start at 0 s again."""
    start, end = first / found.rate, last / found.rate
    kept = (found.peak_times >= start) & (found.peak_times < end)
    slow = slice(round(start * found.chroma_rate), round(end * found.chroma_rate))
    return replace(
        found,
        duration=end - start,
        rise=found.rise[:, first:last],
        onset=found.onset[first:last],
        mel=found.mel[:, first:last],
        chroma=found.chroma[:, slow],
        timbre=found.timbre[:, slow],
        peak_times=found.peak_times[kept] - start,
        peak_weights=found.peak_weights[kept],
    )
