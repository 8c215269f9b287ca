"""Text and audio prompts in, waveforms out: the model behind one small interface."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from looper.checkpoints import load
from looper.checkpoints.store import find
from looper.generation.batch import Row
from looper.generation.engine import Engine, Progress
from looper.generation.likelihood import log_likelihoods
from looper.generation.messages import GenerationOutput, GenerationRequest, ModelSpec, Passage
from looper.model.codec import Codec
from looper.model.conditioning import Condition, EncodedText, condition, encode_text, usual_prefix
from looper.model.musicgen import Model
from looper.runtime.remembered import Remembered
from looper.runtime.threads import cores

logger = logging.getLogger(__name__)

SMALL_MODEL = 30_000_000
TEXTS_KEPT = 16  # encoded; of 512 tokens at most, 50 MB in all
AUDIO_KEPT = 4  # prompts and melodies


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
        self.codec = Codec(model.codec, model.device, model.channels)
        self.hop_length = self.codec.hop_length
        self._texts, self._audio = Remembered[EncodedText](TEXTS_KEPT), Remembered[Tensor](AUDIO_KEPT)

    @property
    def spec(self) -> ModelSpec:
        """What a plan must know of the model."""
        melody = self.model.melody
        return ModelSpec(
            self.frame_rate,
            self.hop_length,
            self.window_seconds,
            self.clocked,
            self.model.channels,
            None if melody is None else melody.shortest,
        )

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
        self._texts.clear()
        self._audio.clear()
        self.engine.release()

    def generate(self, request: GenerationRequest, progress: Progress | None = None) -> GenerationOutput:
        """Generate one waveform per prompt.

        Parameters
        ----------
        request : GenerationRequest
        progress : callable, optional
            Called with (steps done, steps in all) every few steps; what it raises ends the call.

        Raises
        ------
        ValueError
            For a request that the model cannot take.
        looper.generation.tasks.DecodeError
            If decoding fails in flight.

        Examples
        --------
        >>> from looper.generation.messages import NoiseKey
        >>> asked = GenerationRequest(["techno drums, 125 bpm"], frames=50, keys=[NoiseKey(1, 0, 0)])
        >>> Generator.load("tiny", "cpu").generate(asked).samples.shape
        (1, 32000)
        """
        started = time.perf_counter()
        codes = self.generate_codes(request, progress)
        numbers = codes.cpu().numpy()  # waits for the device
        taken = time.perf_counter() - started
        steps = codes.shape[-1] + max(self.engine.delays) - request.prompt_samples // self.hop_length
        return GenerationOutput(self.decode_audio(codes), numbers, steps / taken)

    def generate_codes(self, request: GenerationRequest, progress: Progress | None = None) -> Tensor:
        """As `generate`, but only the codes [rows, n_q, frames], -1 after the end of a shorter row."""
        request.check(self.spec)
        prompts, lengths = request.prompts, request.lengths
        # what continues an audio prompt comes after what told of its text
        tell = request.audio_prompts is None
        melody = self._encode_melody(request.melody)
        told = {p: self._condition(self.encode_text(p, tell), melody) for p in dict.fromkeys(prompts)}
        heard = _spread(request.audio_prompts, len(prompts), self.encode_audio)
        clocks = _spread(self._clock(request.clock), len(prompts), torch.from_numpy)
        rows = [
            Row(told[prompt].text, key, audio, clock, length, told[prompt].prefix)
            for prompt, key, audio, clock, length in zip(
                prompts, request.keys, heard, clocks, lengths, strict=True
            )
        ]
        return self.engine.decode(rows, max(lengths), request.sampling, progress)

    def log_likelihoods(
        self, prompt: str, passages: Sequence[Passage], melody: np.ndarray | None = None
    ) -> np.ndarray:
        """How likely the model finds the ends of passages under a text: nats per token, float32 [passages]."""
        told = self._condition(self.encode_text(prompt, tell=False), self._encode_melody(melody))
        judged = [passage if self.clocked else replace(passage, clock=None) for passage in passages]
        texts = [told.text] * len(judged)
        front = None if told.prefix is None else told.prefix[0]
        return self.engine.call(
            lambda: log_likelihoods(self.engine.transformer, judged, texts, front)
        ).numpy()

    def _condition(self, text: Tensor, melody: Tensor | None) -> Condition:
        if not usual_prefix(self.model):  # nothing is to be put together: no wait for the engine's round
            return Condition(text)
        return self.engine.call(lambda: condition(self.model, text, melody))

    def _encode_melody(self, samples: np.ndarray | None) -> Tensor | None:
        encoder = self.model.melody
        if samples is None or encoder is None:
            return None
        return self._once("melody", samples, lambda: encoder.encode(samples))

    def encode_text(self, prompt: str, tell: bool = True) -> Tensor:
        """Encode one text, [tokens, dim]; of one that has to be cut, `tell` says so in the log."""
        encoded = self._texts.get(
            prompt, lambda: self.engine.call(lambda: encode_text(self.model.lm, prompt))
        )
        if tell:
            encoded.tell()
        return encoded.vectors

    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """Encode samples [n * hop_length], of a stereo model also [.., 2], to codes [n_q, n]."""
        return self._once("audio", samples, lambda: self.codec.encode(samples))

    def _once(self, kind: str, samples: np.ndarray, encode: Callable[[], Tensor]) -> Tensor:
        """Encode samples on the device; the same ones again are not, which continuations drawn anew are told."""
        key = (kind, samples.shape, samples.dtype.str, samples.tobytes())
        return self._audio.get(key, lambda: self.engine.call(encode))

    def decode_audio(self, codes: Tensor) -> np.ndarray:
        """Decode codes [rows, n_q, frames] to samples [rows, frames * hop_length], in stereo [.., 2]; -1 is silence."""
        return self.codec.decode(codes, self.engine.map)

    def _clock(self, clock: np.ndarray | None) -> np.ndarray | None:
        if clock is None or self.model.clock is None:
            return None
        clock = np.asarray(clock, dtype=np.float32)
        wanted = self.model.clock.weight.shape[1]
        if clock.ndim not in (2, 3) or clock.shape[-1] != wanted or clock.shape[-2] == 0:
            raise ValueError(f"clock must be [T, {wanted}] or [rows, T, {wanted}], got {clock.shape}")
        return clock if clock.ndim == 3 else clock[None]


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
