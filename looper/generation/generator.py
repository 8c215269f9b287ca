"""Text and audio prompts in, waveforms out: the model behind one small interface."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, SupportsInt

import numpy as np
import torch
from torch import Tensor

from looper.checkpoints import load
from looper.checkpoints.store import find
from looper.generation.batch import Row
from looper.generation.engine import Engine
from looper.generation.likelihood import Passage, log_likelihoods
from looper.generation.output import GenerationOutput, Heard, ModelSpec
from looper.generation.sampling import Key
from looper.model.codec import Codec
from looper.model.conditioning import encode_text
from looper.model.musicgen import Model
from looper.request import Sampling
from looper.runtime.threads import cores
from looper.runtime.validation import whole

logger = logging.getLogger(__name__)

SMALL_MODEL = 30_000_000


class Generator:
    """Make audio with a loaded model; calls from several threads are decoded together.

    Parameters
    ----------
    model : looper.model.musicgen.Model
    disable_graphs : bool
        Never use CUDA graphs.

    Attributes
    ----------
    name : str
        The model's name, from its manifest.
    sample_rate : int
        Of all audio in and out, Hz.
    hop_length : int
        Samples per frame.
    frame_rate : float
        Frames per second.
    window_seconds : float
        Longest audio, prompt included.
    clocked : bool
        Whether the model takes a beat clock.
    codec : looper.model.codec.Codec
        Between samples and codes.
    """

    def __init__(self, model: Model, disable_graphs: bool = False) -> None:
        self.model = model
        self.name = model.name
        self.sample_rate = int(model.codec.sample_rate)
        self.frame_rate = float(model.codec.frame_rate)
        self.window_seconds = model.window_seconds
        self.clocked = model.clock is not None
        here = cores() if model.device.type == "cpu" else 1
        small = sum(p.numel() for p in model.lm.transformer.parameters()) < SMALL_MODEL
        self.threads, self.workers = (1, min(here, 4)) if small else (here, 1)
        self.engine = Engine(model, disable_graphs, self.threads, self.workers)
        self.codec = Codec(model.codec, model.device)
        self.hop_length = self.codec.hop_length

    @property
    def spec(self) -> ModelSpec:
        """What a plan must know of the model."""
        return ModelSpec(self.frame_rate, self.hop_length, self.window_seconds, self.clocked)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str | torch.device | None = None) -> Generator:
        """Load a model by name or folder; `device` defaults to the GPU where there is one.

        Raises
        ------
        looper.checkpoints.sources.WeightsError
            If the weights are missing or broken.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load.load(find(folder), device)
        if torch.device(device).index:
            torch.cuda.set_device(device)  # graphs are captured on the current one
        return cls(model)

    def prepare(self) -> None:
        """Do now what requests would have to wait for: on a GPU, capture the steps of all numbers of rows."""
        self.engine.capture()

    def release(self) -> None:
        """Give back what is kept between requests; the next one makes it anew."""
        self.engine.release()

    def generate(
        self,
        prompts: Sequence[str],
        frames: int | Sequence[int],
        *,
        keys: Sequence[Key],
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        audio_prompts: np.ndarray | None = None,
        clock: np.ndarray | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Generate one waveform per prompt, all in one batch.

        Parameters
        ----------
        prompts : sequence of str
            Texts, one per row.
        frames : int or sequence of int
            Length in frames, audio prompt included; of all rows, or of each.
        keys : sequence of (int, int, int)
            (seed, variation, attempt) of each row: the only source of randomness. A row's samples hang
            on its own text, key, audio prompt and clock, and on nothing else in the call; they repeat
            bit for bit on the same kind of device.
        sampling : Sampling
        audio_prompts : np.ndarray, optional
            [rows or 1, n * hop_length] samples to continue; they are encoded, and come back decoded at
            the beginning of the result.
        clock : np.ndarray, optional
            Beat clock features [T, C] or [rows, T, C], for a `clocked` model.
        progress : callable, optional
            Called with (steps done, steps in all) every few steps; what it raises ends the call.

        Returns
        -------
        np.ndarray
            float32 [rows, frames * hop_length]; silence after the end of a shorter row.

        Raises
        ------
        ValueError
            For arguments out of range or that don't fit together.
        looper.generation.tasks.DecodeError
            If decoding fails in flight.
        """
        return self.draw(
            prompts,
            frames,
            keys=keys,
            sampling=sampling,
            audio_prompts=audio_prompts,
            clock=clock,
            progress=progress,
        ).samples

    def draw(
        self,
        prompts: Sequence[str],
        frames: int | Sequence[int],
        *,
        keys: Sequence[Key],
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        audio_prompts: np.ndarray | None = None,
        clock: np.ndarray | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> GenerationOutput:
        """As `generate`, but return the codes too, and how fast they came."""
        started = time.perf_counter()
        codes = self.codes(prompts, frames, keys, sampling, audio_prompts, clock, progress)
        numbers = codes.cpu().numpy()  # waits for the device
        taken = time.perf_counter() - started
        given = 0 if audio_prompts is None else np.shape(audio_prompts)[-1] // self.hop_length
        steps = codes.shape[-1] + max(self.engine.delays) - given
        return GenerationOutput(self.decode_audio(codes), numbers, steps / taken)

    def codes(
        self,
        prompts: Sequence[str],
        frames: int | Sequence[int],
        keys: Sequence[Key],
        sampling: Sampling,
        audio_prompts: np.ndarray | None = None,
        clock: np.ndarray | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """As `generate`, but return the codes [rows, n_q, frames], -1 after the end of a shorter row."""
        each = [frames] * len(prompts) if isinstance(frames, SupportsInt) else frames
        lengths = [whole("frames", length) for length in each]
        self._check(prompts, lengths, keys, audio_prompts)
        # what continues an audio prompt comes after what told of its text
        tell = audio_prompts is None
        texts = {prompt: self.encode_text(prompt, tell) for prompt in dict.fromkeys(prompts)}
        heard = _spread(audio_prompts, len(prompts), self.encode_audio)
        clocks = _spread(self._clock(clock), len(prompts), torch.from_numpy)
        rows = [
            Row(texts[prompt], tuple(key), audio, ticks, length)  # type: ignore[arg-type]
            for prompt, key, audio, ticks, length in zip(prompts, keys, heard, clocks, lengths, strict=True)
        ]
        return self.engine.decode(rows, max(lengths), sampling, progress)

    def log_likelihoods(self, prompt: str, passages: Sequence[Heard]) -> np.ndarray:
        """How likely the model finds the ends of passages under a text: nats per token, float32 [passages]."""
        text = self.encode_text(prompt, tell=False)
        asked = [
            Passage(
                text,
                torch.from_numpy(heard.codes),
                heard.start,
                None if heard.clock is None or not self.clocked else torch.from_numpy(heard.clock),
            )
            for heard in passages
        ]
        found = self.engine.call(lambda: log_likelihoods(self.engine.transformer, asked))
        return found.numpy()

    def encode_text(self, prompt: str, tell: bool = True) -> Tensor:
        """Encode one text, [tokens, dim]; see `looper.model.conditioning.encode_text`."""
        return self.engine.call(lambda: encode_text(self.model.lm, prompt, tell))

    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """Encode samples [n * hop_length] to codes [n_q, n]."""
        return self.engine.call(lambda: self.codec.encode(samples))

    def decode_audio(self, codes: Tensor) -> np.ndarray:
        """Decode codes [rows, n_q, frames] to samples [rows, frames * hop_length]; -1 stands for silence."""
        return self.codec.decode(codes, self.engine.map)

    def _clock(self, clock: np.ndarray | None) -> np.ndarray | None:
        if clock is None or self.model.clock is None:
            return None
        clock = np.asarray(clock, dtype=np.float32)
        wanted = self.model.clock.weight.shape[1]
        if clock.ndim not in (2, 3) or clock.shape[-1] != wanted or clock.shape[-2] == 0:
            raise ValueError(f"clock must be [T, {wanted}] or [rows, T, {wanted}], got {clock.shape}")
        return clock if clock.ndim == 3 else clock[None]

    def _check(
        self,
        prompts: Sequence[str],
        lengths: list[int],
        keys: Sequence[Key],
        audio_prompts: np.ndarray | None,
    ) -> None:
        """Raise ValueError for arguments that cannot be right."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError("prompts must be a list of at least one text")
        if len(keys) != len(prompts):
            raise ValueError(f"one key per prompt is needed, got {len(keys)} keys for {len(prompts)} prompts")
        if len(lengths) != len(prompts):
            raise ValueError(
                f"frames must be one number or one per prompt ({len(prompts)}), got {len(lengths)}"
            )
        window, frames = int(self.window_seconds * self.frame_rate), min(lengths)
        for wrong in (length for length in lengths if not 1 <= length <= window):
            raise ValueError(
                f"frames must be between 1 and {window} ({self.window_seconds:g} s), got {wrong}"
            )
        if audio_prompts is None:
            return
        shape = np.shape(audio_prompts)
        if (
            len(shape) != 2
            or shape[0] not in (1, len(prompts))
            or shape[1] == 0
            or shape[1] % self.hop_length
        ):
            raise ValueError(
                f"audio_prompts must be [{len(prompts)} or 1, n * {self.hop_length}] samples, got {shape}"
            )
        if not np.isfinite(audio_prompts).all():
            raise ValueError("audio_prompts holds samples that are not finite")
        if shape[1] >= frames * self.hop_length:
            raise ValueError(
                f"the audio prompt ({shape[1] / self.sample_rate:g} s) must be shorter than the "
                f"{frames / self.frame_rate:g} s to generate, which include it"
            )


def _spread(batch: np.ndarray | None, rows: int, encode: Callable[[Any], Tensor]) -> list[Tensor | None]:
    """Encode each different item once: [rows or 1, ...] -> one per row, shared where equal."""
    if batch is None:
        return [None] * rows
    if len(batch) not in (1, rows):
        raise ValueError(f"got {len(batch)} clocks or audio prompts for {rows} rows")
    done: dict[bytes, Tensor] = {}
    for item in batch:
        name = item.tobytes()
        if name not in done:
            done[name] = encode(item)
    encoded = [done[item.tobytes()] for item in batch]
    return encoded * rows if len(encoded) == 1 else encoded  # type: ignore[return-value]
