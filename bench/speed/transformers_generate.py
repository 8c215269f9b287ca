"""transformers' own MusicGen as a second baseline of `bench.speed.decode`: another implementation, read by many.

Its weights are random and its own: speed does not depend on them. What it decodes is what ours does: the same layers,
heads, codebooks, text and guidance, sampled by top_k 250, as many frames.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

CACHES = ("dynamic", "static")
HOP_LENGTH = 640  # samples a frame of the codec


@dataclass(frozen=True)
class Fastest:
    """The quickest of its ways.

    Attributes
    ----------
    seconds, cpu_seconds : float
        Wall and CPU time of one call.
    cache : str
        Its `cache_implementation`.
    threads : int
        torch's threads.
    """

    seconds: float
    cpu_seconds: float
    cache: str
    threads: int


def model_like(transformer: Any) -> Any:
    """A `MusicgenForConditionalGeneration` of the shape of our `Transformer`, on its device and in its precision.

    Its codec and text encoder are so small that what they take is not to be seen.
    """
    from testkit.musicgen_hf import random_musicgen

    model = random_musicgen(
        codebooks=transformer.n_q,
        hidden_size=transformer.dim,
        num_hidden_layers=len(transformer.layers),
        num_attention_heads=transformer.heads,
        ffn_dim=4 * transformer.dim,
        vocab_size=transformer.card,
    )
    return model.to(transformer.device, transformer.dtype)


def fastest(model: Any, rows: int, frames: int, text_tokens: int, threads: tuple[int, ...]) -> Fastest:
    """Time every pair of cache and thread count once, after a short call that warms it up."""
    before = torch.get_num_threads()
    try:
        return min(
            (
                _timed(model, rows, frames, text_tokens, cache, count)
                for cache, count in product(CACHES, threads)
            ),
            key=lambda found: found.seconds,
        )
    finally:
        torch.set_num_threads(before)


def _timed(model: Any, rows: int, frames: int, text_tokens: int, cache: str, threads: int) -> Fastest:
    torch.set_num_threads(threads)
    _generate(model, rows, 4, text_tokens, cache)
    wall, cpu = time.perf_counter(), time.process_time()
    _generate(model, rows, frames, text_tokens, cache)
    return Fastest(time.perf_counter() - wall, time.process_time() - cpu, cache, threads)


def _generate(model: Any, rows: int, frames: int, text_tokens: int, cache: str) -> None:
    tokens = torch.full((rows, text_tokens), 5, device=model.device)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        audio = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=frames + model.decoder.num_codebooks - 1,
            do_sample=True,
            top_k=min(250, model.decoder.config.vocab_size),
            guidance_scale=3.0,
            cache_implementation=cache,
        )
    assert audio.shape[-1] == frames * HOP_LENGTH, f"{audio.shape[-1] / HOP_LENGTH} of {frames} frames"
