"""Bar-exact loops: cut from a recording on its beat grid, brought to tempo, closed, levelled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from looper import clicks as _clicks
from looper import level as _level
from looper import seam as _seam
from looper import stretch as _stretch
from looper.seam import SeamReport

if TYPE_CHECKING:
    from looper.beats import BeatGrid

_NOTHING: Mapping[str, object] = MappingProxyType({})
_STILL_SECONDS = 0.01
_WARP_SECONDS = 0.003
# beats.py lets a beat that begins or ends a loop lie this far outside the recording
_SLACK_SECONDS = 0.031


@dataclass(frozen=True, eq=False)  # arrays have no one equality
class Loop:
    """Music that repeats: its first sample is the downbeat, its last leads back to it.

    Attributes
    ----------
    samples : np.ndarray
        float32 [n] or [n, C], n = `loop_length(beats, bpm, sample_rate)`.
    sample_rate : int
        Hz.
    bpm : float
        The asked tempo, exactly.
    beats_per_bar : int
        Beats of one bar.
    beats : int
        Whole beats of the loop.
    grid : BeatGrid
        What was found in the recording it was cut from.
    seam : SeamReport
        How it runs into itself.
    info : Mapping[str, object]
        What it was made from: prompt, seed, variation, model.
    """

    samples: np.ndarray
    sample_rate: int
    bpm: float
    beats_per_bar: int
    beats: int
    grid: BeatGrid
    seam: SeamReport
    info: Mapping[str, object] = field(default_factory=lambda: _NOTHING)

    @property
    def bars(self) -> float:
        """Length in bars; below one for a loop of a few beats."""
        return self.beats / self.beats_per_bar

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    def save(self, path: str | Path, *, format: str | None = None, subtype: str | None = None) -> Path:
        """Write to a WAV, MP3, FLAC or OGG file; see `looper.export.write`."""
        from looper.export import write

        return write(self, path, format=format, subtype=subtype)


def loop_length(beats: int, bpm: float, sample_rate: int) -> int:
    """Count the samples of `beats` beats: round(beats * 60 / bpm * sample_rate)."""
    return round(beats * 60 / bpm * sample_rate)


def loop_beats(bpm: float, max_seconds: float, beats_per_bar: int = 4) -> int:
    """Beats of the longest loop that fits `max_seconds`.

    The largest power-of-two number of bars; where no whole bar fits, two beats or one.

    Raises
    ------
    ValueError
        If not even one beat fits.
    """
    beat = 60 / bpm
    # a hair of slack: 4 bars at 120 BPM are 8 s, and must fit 8 s in floating point too
    fitting = math.floor(max_seconds / beat + 1e-9)
    if fitting >= beats_per_bar:
        return beats_per_bar * 2 ** int(math.log2(fitting // beats_per_bar))
    for beats in (2, 1):
        if fitting >= beats:
            return beats
    raise ValueError(
        f"not even one beat of {bpm:g} BPM ({beat:.2f} s) fits into {max_seconds:g} s; "
        f"raise max_duration to {math.ceil(beat)} or the bpm to {math.ceil(60 / max_seconds)}"
    )


def _checked(samples: np.ndarray, sample_rate: int, bpm: float) -> np.ndarray:
    """Return `samples` as float32 [T, C], or an error that says what is wrong with them."""
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or len(samples) == 0:
        raise ValueError(
            f"samples must be [time] or [time, channels] and not empty, got shape {samples.shape}"
        )
    if samples.ndim == 2 and samples.shape[1] > 8:
        raise ValueError(f"samples must be [time, channels], got {samples.shape}: transpose them")
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples must be floating point within -1..1, got {samples.dtype}")
    if not np.isfinite(samples).all():
        raise ValueError("samples hold NaN or infinity; repair the recording first")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}")
    if not (math.isfinite(bpm) and bpm > 0):
        raise ValueError(f"bpm must be a positive number, got {bpm}")
    return np.ascontiguousarray(samples.reshape(len(samples), -1), dtype=np.float32)


def _excerpt(samples: np.ndarray, first: int, last: int) -> np.ndarray:
    """samples[first:last], with silence where the recording has ended or not begun."""
    before, after = max(0, -first), max(0, last - len(samples))
    return np.pad(samples[max(0, first) : max(0, last)], ((before, after), (0, 0)))


def _beats_of_loop(grid: BeatGrid) -> np.ndarray:
    """Find the loop's beats and its end in seconds where the grid wanders, else just its two ends."""
    start, end = grid.loop_start, grid.loop_end
    ends = np.array([start, end])
    times = np.asarray(grid.beat_times, float)
    slack = 0.25 * (end - start) / grid.beats
    inside = times[(times > start + slack) & (times < end - slack)]
    if len(inside) != grid.beats - 1:
        return ends
    played = np.r_[start, inside, end]
    wander = np.abs(played - np.linspace(start, end, len(played))).max()
    return played if wander > _WARP_SECONDS else ends


def _in_tempo(samples: np.ndarray, sample_rate: int, grid: BeatGrid, n: int) -> tuple[np.ndarray, int]:
    """Return the loop at `n` samples with its surroundings, and its downbeat's index.

    Only real audio is returned around it: no padding.
    """
    played = _beats_of_loop(grid) * sample_rate
    # all that can be of use: the loop and a second on both sides
    spare = max(0, int(played[0]) - sample_rate)
    samples, played = samples[spare : int(played[-1]) + sample_rate], played - spare
    if len(played) > 2:
        samples = _stretch.straighten(samples, sample_rate, played / sample_rate)
    start, end = played[0], played[-1]
    factor = (end - start) / n
    first = round(start)
    drift = abs(end - start - n)
    if abs(factor - 1) <= _stretch.TOLERANCE and drift <= _STILL_SECONDS * sample_rate:
        return samples, first
    context = round(_stretch.CONTEXT * sample_rate / factor)
    # the vocoder maps index i to i / factor: a lead that is a whole number of output samples keeps the phase
    lead = round(context * factor)
    excerpt = _excerpt(samples, first - lead, round(end) + lead)
    stretched = _stretch.stretch(excerpt, sample_rate, factor)
    real_first = max(0, context - int(first / factor))
    real_last = min(len(stretched), context + int((len(samples) - first) / factor))
    return stretched[real_first:real_last], context - real_first


def cut(
    samples: np.ndarray,
    sample_rate: int,
    bpm: float,
    beats_per_bar: int = 4,
    *,
    max_seconds: float | None = None,
    grid: BeatGrid | None = None,
) -> Loop:
    """Cut a loop of exactly `bpm` from a recording of about that tempo.

    The loop is aligned to the beat grid, stretched with real audio around it (not at all within
    0.1 % of the tempo), cut to the exact number of samples, and closed by a crossfade last of all.

    Parameters
    ----------
    samples : np.ndarray
        float [T] or [T, C] within -1..1.
    sample_rate : int
        Hz.
    bpm : float
        The asked tempo.
    beats_per_bar : int
        Beats of one bar.
    max_seconds : float, optional
        Longest loop; the recording's own length when not given.
    grid : BeatGrid, optional
        Where the beats are; found by `looper.analyse` when not given.

    Returns
    -------
    Loop
        With `loop_length(beats, bpm, sample_rate)` samples, shaped like the input.

    Raises
    ------
    ValueError
        If the samples are unusable, too short for one beat, or more than 30 % off the tempo.
    """
    columns = _checked(samples, sample_rate, bpm)
    if grid is None:
        from looper.beats import fit_grid

        grid = fit_grid(columns.mean(axis=1), sample_rate, bpm, beats_per_bar, max_seconds=max_seconds)
    n = loop_length(grid.beats, bpm, sample_rate)
    if n < 256:
        raise ValueError(f"a loop must have at least 256 samples, got {n}: raise sample_rate or the length")
    missing = grid.loop_end - len(columns) / sample_rate
    if max(missing, -grid.loop_start) > _SLACK_SECONDS:
        raise ValueError(
            f"the loop reaches {max(missing, -grid.loop_start):.2f} s outside the recording; "
            "pass a longer recording or a smaller max_seconds"
        )
    body, origin = _in_tempo(columns, sample_rate, grid, n)
    lacking = max(0, origin + n - len(body))
    body = np.pad(body, ((max(0, -origin), lacking), (0, 0)))
    closed, report = _seam.close(body, max(0, origin), n, sample_rate)
    shaped = closed[:, 0].copy() if np.ndim(samples) == 1 else closed
    return Loop(shaped, sample_rate, float(bpm), beats_per_bar, int(grid.beats), grid, report)


def level(loops: Sequence[Loop]) -> list[Loop]:
    """Bring loops to one integrated loudness without DC, no true peak over -1 dBTP.

    Parameters
    ----------
    loops : sequence of Loop
        The loops of one request; the first sets the loudness.

    Returns
    -------
    list of Loop
        Same order; silent loops stay silent.
    """
    if not loops:
        return []
    matched = _level.match([loop.samples for loop in loops], loops[0].sample_rate)
    return [_with_samples(loop, samples) for loop, samples in zip(loops, matched, strict=True)]


def join(loops: Sequence[Loop]) -> list[Loop]:
    """Make loops run into each other: all take the few milliseconds around the first one's wrap.

    Parameters
    ----------
    loops : sequence of Loop
        Levelled loops of one length.

    Returns
    -------
    list of Loop
        Same order; the first as it was.

    Raises
    ------
    ValueError
        If the loops differ in length, sample rate or channels.
    """
    if len({(loop.samples.shape, loop.sample_rate) for loop in loops}) > 1:
        raise ValueError("loops that run into each other must agree in length, sample rate and channels")
    joined = list(loops[:1])
    for loop in loops[1:]:
        pair = (loop.samples.reshape(len(loop.samples), -1), loops[0].samples.reshape(len(loop.samples), -1))
        bridged = _seam.bridge(*pair, loop.sample_rate).reshape(loop.samples.shape)
        joined.append(_with_samples(loop, _level.limit(bridged, loop.sample_rate)))
    return joined


def finish(loops: Sequence[Loop]) -> list[Loop]:
    """Make cut loops a set: equally loud (`level`), each running into each (`join`).

    A loop comes out the same however many others follow it.
    """
    return join(level(loops))


def _with_samples(loop: Loop, samples: np.ndarray) -> Loop:
    samples = samples.astype(np.float32)
    return replace(loop, samples=samples, seam=replace(loop.seam, click_ratio=_clicks.click_ratio(samples)))


def cross_clicks(loops: Sequence[Loop]) -> np.ndarray:
    """Click ratio of loop i running into loop j, as a matrix [i, j]; above 1.5 is a click."""
    return _clicks.cross_click_ratios([loop.samples for loop in loops])
