"""Bar-exact loops: cut from a recording on its beat grid, brought to tempo, closed, levelled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from looper.loops import clicks as _clicks
from looper.loops import loudness as _level
from looper.loops import seam as _seam
from looper.loops import stretch as _stretch
from looper.loops.seam import SeamReport
from looper.request import finite, whole
from looper.runtime.threads import workers

if TYPE_CHECKING:
    from pydub import AudioSegment

    from looper.beats.grid import BeatGrid
    from looper.loops.key import Key

_NOTHING: Mapping[str, object] = MappingProxyType({})
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

    @cached_property
    def key(self) -> Key | None:
        """The key, or None where it is not clear."""
        from looper.loops.key import find_key

        return find_key(self.samples, self.sample_rate)

    def save(self, path: str | Path, *, format: str | None = None, subtype: str | None = None) -> Path:
        """Write to a WAV, MP3, FLAC or OGG file; see `looper.files.write.write`."""
        from looper.files.write import write

        return write(self, path, format=format, subtype=subtype)

    def segment(self, times: int = 1) -> AudioSegment:
        """As pydub's AudioSegment of 16 bit, to layer, fade and chain; repeated `times` times without a gap."""
        from looper.files.read import segment

        return segment(np.tile(self.samples.T, times).T, self.sample_rate)


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
    if whole("sample_rate", sample_rate) <= 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}")
    if finite("bpm", bpm) <= 0:
        raise ValueError(f"bpm must be a positive number, got {bpm}")
    return np.ascontiguousarray(samples.reshape(len(samples), -1), dtype=np.float32)


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
        from looper.beats.grid import fit_grid

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
    body, origin = _stretch.in_tempo(columns, sample_rate, grid, n)
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
    return list(map(_with_samples, loops, _levelled(loops, map)))


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
    joined = _joined(loops, [loop.samples for loop in loops], map)
    return [*loops[:1], *map(_with_samples, loops[1:], joined[1:])]


def finish(loops: Sequence[Loop]) -> list[Loop]:
    """Make cut loops a set: equally loud (`level`), each running into each (`join`).

    A loop comes out the same however many others follow it.
    """
    with workers() as pool:
        joined = _joined(loops, _levelled(loops, pool.map), pool.map)
        return list(pool.map(_with_samples, loops, joined))


_Map = Callable[..., Iterable[Any]]


def _levelled(loops: Sequence[Loop], each: _Map) -> list[np.ndarray]:
    if not loops:
        return []
    matched = _level.match([loop.samples for loop in loops], loops[0].sample_rate, each=each)
    return [samples.astype(np.float32) for samples in matched]


def _joined(loops: Sequence[Loop], levelled: Sequence[np.ndarray], each: _Map) -> list[np.ndarray]:
    if len({(loop.samples.shape, loop.sample_rate) for loop in loops}) > 1:
        raise ValueError("loops that run into each other must agree in length, sample rate and channels")
    if len(loops) < 2:
        return list(levelled)
    shape, rate = loops[0].samples.shape, loops[0].sample_rate
    first = levelled[0].reshape(len(levelled[0]), -1)
    models = _clicks.predictors(first)

    def bridged(samples: np.ndarray) -> np.ndarray:
        crossed = _seam.bridge(samples.reshape(first.shape), first, rate, models).reshape(shape)
        return _level.limit(crossed, rate).astype(np.float32)

    return [levelled[0], *each(bridged, levelled[1:])]


def _with_samples(loop: Loop, samples: np.ndarray) -> Loop:
    return replace(loop, samples=samples, seam=replace(loop.seam, click_ratio=_clicks.click_ratio(samples)))


def cross_clicks(loops: Sequence[Loop]) -> np.ndarray:
    """Click ratio of loop i running into loop j, as a matrix [i, j]; above 1.5 is a click."""
    return _clicks.cross_click_ratios([loop.samples for loop in loops])
