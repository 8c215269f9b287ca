"""A loop: samples that repeat, with what is known of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from looper.files.formats import check_rate
from looper.files.text import plain, tempo
from looper.files.write import Tags, encode, write
from looper.loops.seam import SeamReport
from looper.runtime.validation import positive, whole

if TYPE_CHECKING:
    from pydub import AudioSegment

    from looper.beats.grid import BeatGrid
    from looper.loops.key import HeardKey
    from looper.musical_key import Key

_NOTHING: Mapping[str, object] = MappingProxyType({})


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

    Examples
    --------
    >>> from looper import cut
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 16).astype(np.float32)
    >>> loop = cut(clicks, 32_000, bpm=121)
    >>> loop.bars, len(loop.samples) == loop_length(loop.beats, 121, 32_000)
    (4.0, True)
    """

    samples: np.ndarray
    sample_rate: int
    bpm: float
    beats_per_bar: int
    beats: int
    grid: BeatGrid
    seam: SeamReport
    info: Mapping[str, object] = field(default_factory=lambda: _NOTHING)

    def __repr__(self) -> str:
        """Its length, without its samples.

        Returns
        -------
        str
            Such as "<Loop: 4 bars at 124 BPM, 7.742 s, 32000 Hz>", with ", stereo" where it is.
        """
        size = f"{self.bars:g} bar{'s' * (self.bars != 1)} at {tempo(self.bpm)} BPM"
        stereo = ", stereo" * (self.channels == 2)
        return f"<Loop: {size}, {self.seconds:.3f} s, {self.sample_rate} Hz{stereo}>"

    def _repr_html_(self) -> str:
        """A player and a picture, in a notebook."""
        from looper.loops.notebook import loop_html

        return loop_html(self)

    @property
    def bars(self) -> float:
        """Length in bars; below one for a loop of a few beats."""
        return self.beats / self.beats_per_bar

    @property
    def channels(self) -> int:
        """How many there are in `samples`."""
        return 1 if self.samples.ndim == 1 else int(self.samples.shape[1])

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    @cached_property
    def key(self) -> Key | None:
        """The key, or None where it is not clear."""
        return self.heard_key.key if self.heard_key is not None and self.heard_key.clear else None

    @cached_property
    def heard_key(self) -> HeardKey | None:
        """The likeliest key and how sure it is, clear or not; None where nothing tells of any."""
        from looper.loops.key import hear_key

        return hear_key(self.samples, self.sample_rate)

    def save(self, path: str | Path, *, format: str | None = None, subtype: str | None = None) -> Path:
        """Write to a WAV, MP3, FLAC or OGG file; see `looper.files.write.write`."""
        return write(path, self.samples, self.sample_rate, self.tags, format=format, subtype=subtype)

    def encode(self, format: str, subtype: str = "PCM_16") -> bytes:
        """Return the bytes of such a file; see `looper.files.write.encode`."""
        return encode(self.samples, self.sample_rate, self.tags, format, subtype)

    @property
    def tags(self) -> Tags:
        """Metadata for a file of this loop."""
        key = self.key
        return Tags(
            title=plain(self.info.get("prompt", ""), 100) or "Loop",
            comment=_comment(self, key),
            bpm=self.bpm,
            beats=self.beats,
            beats_per_bar=self.beats_per_bar,
            root_note=None if key is None else 60 + key.root,
            key=None if key is None else key.id3,
        )

    def at_rate(self, sample_rate: int) -> Loop:
        """The same loop at 32000, 44100 or 48000 Hz: as many samples as its tempo asks there, without a new seam.

        Raises
        ------
        FieldError
            If the rate is none of the three.
        """
        return at_any_rate(self, check_rate(sample_rate))

    def segment(self, times: int = 1) -> AudioSegment:
        """As pydub's AudioSegment of 16 bit, to layer, fade and chain; repeated `times` times without a gap."""
        rounds = int(positive("times", whole("times", times)))
        return audio_segment(np.tile(self.samples.T, rounds).T, self.sample_rate)


def loop_length(beats: int, bpm: float, sample_rate: int) -> int:
    """Count the samples of `beats` beats: round(beats * 60 / bpm * sample_rate).

    Examples
    --------
    >>> loop_length(16, 121.7, 32_000)
    252424
    """
    return round(beats * 60 / float(bpm) * sample_rate)  # one of NumPy's narrow types would round on the way


def at_any_rate(loop: Loop, sample_rate: int) -> Loop:
    """The loop at another sample rate, be it one that no file is sold at; see `looper.loops.resample`.

    Examples
    --------
    >>> from looper import cut
    >>> clicks = np.tile(np.r_[np.ones(800), np.zeros(15_200)], 8).astype(np.float32)
    >>> len(at_any_rate(cut(clicks, 32_000, bpm=120), 22_050).samples)
    88200
    """
    from looper.loops.clicks import click_ratio
    from looper.loops.resample import at_rate

    if sample_rate == loop.sample_rate:
        return loop
    samples = at_rate(loop.samples, loop_length(loop.beats, loop.bpm, sample_rate), sample_rate)
    seam = replace(loop.seam, click_ratio=click_ratio(samples))
    return replace(loop, samples=samples, sample_rate=sample_rate, seam=seam)


def audio_segment(samples: np.ndarray, sample_rate: int) -> AudioSegment:
    """Samples float [T] or [T, C] as pydub's AudioSegment of 16 bit; what lies beyond -1..1 is clipped.

    Examples
    --------
    >>> len(audio_segment(np.zeros(32_000), 32_000))  # milliseconds
    1000
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses ffmpeg, which this does not take
        from pydub import AudioSegment

    whole = np.clip(np.rint(np.asarray(samples, float) * 32768), -32768, 32767).astype("<i2")
    channels = 1 if whole.ndim == 1 else whole.shape[1]
    return AudioSegment(whole.tobytes(), frame_rate=sample_rate, sample_width=2, channels=channels)


def _comment(loop: Loop, key: Key | None) -> str:
    """prompt, seed, variation, model, bpm, bars: all that makes the loop again."""
    facts = {
        # a semicolon in a prompt ends no field
        **{
            name: plain(value).replace("\\", "\\\\").replace(";", "\\;")
            for name, value in loop.info.items()
            if value is not None
        },
        "bpm": tempo(loop.bpm),
        "bars": f"{loop.bars:g}",
        "beats_per_bar": str(loop.beats_per_bar),
        **({"key": key.name} if key else {}),
    }
    return plain("; ".join(f"{name}: {value}" for name, value in facts.items()), 2000)
