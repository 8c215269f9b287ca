"""How the next token is drawn: audiocraft's distributions, without a device sync.

`torch.multinomial` stops the host at every step and takes one generator for the whole batch. Here
each token is drawn by inverting its cumulative distribution at one uniform number, and the numbers
of a row come from a generator of the row's own, so a row never depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from looper.request import Sampling
from looper.runtime.validation import FieldError

Key = tuple[int, int, int]
COLDEST = 1e-3  # temperatures below are greedy: dividing by them would overflow
SCANNED = 256  # rows of a running sum on CUDA: 32 variations of 8 codebooks


class SamplingRule(NamedTuple):
    """How tokens are drawn, and how many of them are looked at; constant shapes depend on these alone."""

    kind: str
    width: int


def sampling_rule(sampling: Sampling, card: int) -> SamplingRule:
    """Choose the rule for a model of `card` tokens.

    Raises
    ------
    ValueError
        If `top_k` counts and is larger than the `card` tokens there are.
    """
    if sampling.temperature < COLDEST:
        return SamplingRule("greedy", 1)
    if sampling.top_p > 0:
        return SamplingRule("top_p", card)
    if sampling.top_k > card:
        raise FieldError("top_k", f"must be between 0 and {card} for this model, got {sampling.top_k}")
    return SamplingRule("top_k", int(sampling.top_k) or card)


def row_uniforms(keys: Sequence[Key], steps: int, n_q: int) -> np.ndarray:
    """Uniform numbers in [0, 1), [rows, steps, n_q] float32, each row from its own generator.

    The same key gives the same numbers whatever the batch, the device or the machine, and a longer
    request begins with the shorter one's.
    """
    return np.stack(
        [np.random.default_rng(seed_sequence(key)).random((steps, n_q), dtype=np.float32) for key in keys]
    )


def seed_sequence(key: Key) -> np.random.SeedSequence:
    """Spread a key over words of a fixed width, the seed's upper half last: no two keys share them.

    NumPy takes as many words for a number as it needs, so that (2**32 + 42, 1, 0) and (42, 1, 1) would be one key.
    """
    seed, variation, attempt = key
    return np.random.SeedSequence([seed % 2**32, variation, attempt, seed >> 32])


def draw(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    rule: SamplingRule,
    temperature: torch.Tensor,
    top_p: torch.Tensor,
) -> torch.Tensor:
    """Draw one token per row and codebook.

    Parameters
    ----------
    logits : torch.Tensor
        [..., card] float32.
    uniforms : torch.Tensor
        [...] in [0, 1).
    rule : SamplingRule
    temperature, top_p : torch.Tensor
        Scalars on the device.

    Returns
    -------
    torch.Tensor
        Tokens [...] int64.
    """
    if rule.kind == "greedy":
        return logits.argmax(dim=-1)
    if rule.kind == "top_p":
        ranked, tokens = logits.sort(dim=-1, descending=True)
        probabilities = (ranked / temperature).softmax(dim=-1)
        # audiocraft keeps the token that crosses p: those before it sum to p or less
        kept = running_sum(probabilities) - probabilities <= top_p
        return tokens.gather(-1, _invert(probabilities * kept, uniforms)[..., None])[..., 0]
    if rule.width < logits.shape[-1]:
        least = logits.topk(rule.width, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return _invert((logits / temperature).softmax(dim=-1), uniforms)


def running_sum(weights: torch.Tensor) -> torch.Tensor:
    """Cumulative sum over the last axis, the same bits whatever the other rows.

    CUDA's scan shares a row among more threads, and so adds in another order, the fewer rows there are
    (ATen's `get_log_num_threads_x_inner_scan`): there it always gets as many.
    """
    if weights.device.type != "cuda":
        return weights.cumsum(dim=-1)
    rows = weights.flatten(0, -2)
    padded = F.pad(rows, (0, 0, 0, -len(rows) % SCANNED))
    return padded.cumsum(dim=-1)[: len(rows)].view_as(weights)


def _invert(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Index into `weights` [..., n] that each uniform number [...] falls on; never one of weight 0."""
    cumulative = running_sum(weights)
    total = cumulative[..., -1:]
    # rounding may lift the product to the total itself, past the last weight
    reached = torch.minimum(uniforms[..., None] * total, total.nextafter(torch.zeros_like(total)))
    return (cumulative <= reached).sum(dim=-1)
