"""What passes between the pipeline and a generator, as plain arrays: what is asked, what comes, what is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, SupportsInt

import numpy as np

from looper.melody import NEEDS_ANOTHER_MODEL
from looper.request import Sampling
from looper.runtime.validation import FieldError, whole
from looper.samples import is_silent


class NoiseKey(NamedTuple):
    """Names the generator of a row's random numbers."""

    seed: int
    variation: int
    attempt: int


@dataclass(frozen=True)
class ModelSpec:
    """What a plan must know of a model.

    Attributes
    ----------
    frame_rate : float
        Codec frames per second.
    hop_length : int
        Samples per frame.
    window_seconds : float
        Longest audio, prompt included.
    clocked : bool
        Whether the model takes a beat clock.
    channels : int
        Of its audio, 1 or 2.
    melody_samples : int or None
        Samples of the shortest melody it takes; None where it takes text alone.
    """

    frame_rate: float
    hop_length: int
    window_seconds: float
    clocked: bool
    channels: int = 1
    melody_samples: int | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """One batch to generate: a waveform per prompt.

    Attributes
    ----------
    prompts : sequence of str
        Texts, one per row.
    frames : int or sequence of int
        Length in frames, audio prompt included; of all rows, or of each.
    keys : sequence of NoiseKey
        Of each row: the only source of randomness. A row's samples depend
        on its own text, key, audio prompt and clock, and on nothing else in the request; they repeat
        bit for bit on the same kind of device.
    sampling : Sampling
    audio_prompts : np.ndarray or None
        [rows or 1, n * hop_length] samples to continue, for a stereo model also [.., 2]; they are encoded, and
        come back decoded at the beginning of the result.
    clock : np.ndarray or None
        Beat clock features [T, C] or [rows, T, C], for a clocked model.
    melody : np.ndarray or None
        Mono samples [T] of what shall be played from the first frame on, for a model that takes it.

    Raises
    ------
    ValueError
        For prompts, keys and lengths that don't fit together.

    Examples
    --------
    >>> asked = GenerationRequest(["house drums", "jazz"], 100, keys=[NoiseKey(1, 0, 0), NoiseKey(1, 1, 0)])
    >>> asked.lengths
    [100, 100]
    >>> GenerationRequest(["house drums"], 100, keys=[])
    Traceback (most recent call last):
    ValueError: one key per prompt is needed, got 0 keys for 1 prompts
    """

    prompts: Sequence[str]
    frames: int | Sequence[int]
    keys: Sequence[NoiseKey]
    sampling: Sampling = Sampling()  # noqa: RUF009  (frozen)
    audio_prompts: np.ndarray | None = None
    clock: np.ndarray | None = None
    melody: np.ndarray | None = None

    def __post_init__(self) -> None:
        rows = len(self.prompts)
        if isinstance(self.prompts, str) or not rows:
            raise ValueError("prompts must be a list of at least one text")
        if len(self.keys) != rows:
            raise ValueError(f"one key per prompt is needed, got {len(self.keys)} keys for {rows} prompts")
        if len(self.lengths) != rows:
            raise ValueError(f"frames must be one number or one per prompt ({rows}), got {len(self.lengths)}")

    @property
    def lengths(self) -> list[int]:
        """Frames of each row."""
        each = [self.frames] * len(self.prompts) if isinstance(self.frames, SupportsInt) else self.frames
        return [whole("frames", length) for length in each]

    @property
    def prompt_samples(self) -> int:
        """Samples of the audio prompt; 0 where there is none."""
        return 0 if self.audio_prompts is None else int(np.shape(self.audio_prompts)[1])

    def check(self, spec: ModelSpec) -> None:
        """Raise ValueError for lengths, audio prompts or a melody that a model cannot take."""
        window = int(spec.window_seconds * spec.frame_rate)
        for wrong in (length for length in self.lengths if not 1 <= length <= window):
            raise ValueError(
                f"frames must be between 1 and {window} ({spec.window_seconds:g} s), got {wrong}"
            )
        if self.audio_prompts is not None:
            self._check_audio_prompts(spec, self.audio_prompts)
        if self.melody is not None:
            check_melody(self.melody, spec)

    def _check_audio_prompts(self, spec: ModelSpec, audio_prompts: np.ndarray) -> None:
        shape, rows, hop = np.shape(audio_prompts), len(self.prompts), spec.hop_length
        fits = shape[2:] == () or (shape[2:] == (2,) and spec.channels == 2)  # mono stands for both of two
        if len(shape) < 2 or not fits or shape[0] not in (1, rows) or shape[1] == 0 or shape[1] % hop:
            stereo = " or, in stereo, [.., 2]" if spec.channels == 2 else ""
            raise ValueError(f"audio_prompts must be [{rows} or 1, n * {hop}] samples{stereo}, got {shape}")
        if not np.isfinite(audio_prompts).all():
            raise ValueError("audio_prompts holds samples that are not finite")
        frames = min(self.lengths)
        if shape[1] >= frames * hop:
            raise ValueError(
                f"the audio prompt ({shape[1] / hop / spec.frame_rate:g} s) must be shorter than the "
                f"{frames / spec.frame_rate:g} s to generate, which include it"
            )


def check_melody(melody: np.ndarray, spec: ModelSpec) -> None:
    """Raise FieldError where a melody, samples [T] at the model's rate, is none for the model."""
    if spec.melody_samples is None:
        raise FieldError("melody", NEEDS_ANOTHER_MODEL.format("this model"))
    if np.ndim(melody) != 1 or not np.isfinite(melody).all():
        raise FieldError("melody", f"must be finite samples [T] in mono, got {np.shape(melody)}")
    if len(melody) < spec.melody_samples:
        rate = spec.frame_rate * spec.hop_length
        raise FieldError(
            "melody",
            f"must last {spec.melody_samples / rate:.2f} s or longer, got {len(melody) / rate:.2f} s: pass a phrase",
        )
    if is_silent(melody):
        raise FieldError(
            "melody", "must not be silent: there is nothing in it to follow; pass another recording"
        )


@dataclass(frozen=True)
class GenerationOutput:
    """What a generator gives for a batch.

    Attributes
    ----------
    samples : np.ndarray
        float32 [rows, frames * hop_length], of a stereo model [.., 2]; silence after the end of a shorter row.
    codes : np.ndarray or None
        The codes [rows, n_q, frames] it was decoded from, where there are any; -1 after the end of a
        shorter row.
    steps_per_second : float
        Of the decode loop; 0 where that is not known.
    """

    samples: np.ndarray
    codes: np.ndarray | None = None
    steps_per_second: float = 0.0


@dataclass(frozen=True)
class Passage:
    """Codes for the model to judge, of which only the end counts.

    Attributes
    ----------
    codes : np.ndarray
        [n_q, frames].
    start : int
        First frame that counts; those before it are what the model has heard.
    clock : np.ndarray or None
        Beat clock features [columns, C]; the last one is repeated where there are too few.

    Raises
    ------
    ValueError
        If no frame counts.
    """

    codes: np.ndarray
    start: int = 0
    clock: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.codes.shape[1]:
            raise ValueError(
                f"a passage of {self.codes.shape[1]} frames has nothing to judge from frame {self.start} on"
            )
