"""How the next token is drawn: audiocraft's distributions, without a device sync.

`torch.multinomial` stops the host at every step and takes one generator for the whole batch. Here
each token is drawn by inverting its cumulative distribution at one uniform number, and the numbers
of a row come from a generator of the row's own, so a row never depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

Key = tuple[int, int, int]
COLDEST = 1e-3  # temperatures below are greedy: dividing by them would overflow
SCANNED = 256  # rows of a running sum on CUDA: 32 variations of 8 codebooks
Plan = tuple[str, int]  # the drawing rule, and how many tokens it looks at


@dataclass(frozen=True)
class Sampling:
    """Sampling values, with audiocraft's meaning.

    Attributes
    ----------
    top_k : int
        Keep the k likeliest tokens; 0 keeps all.
    top_p : float
        Where above 0, keep the likeliest tokens up to this probability, and ignore `top_k`.
    temperature : float
        Divides the logits; 0 takes the likeliest token.
    cfg_coef : float
        Classifier-free guidance: null + cfg_coef * (conditional - null). 1 turns it off.

    Raises
    ------
    ValueError
        If a value is out of range or not finite.
    """

    top_k: int = 250
    top_p: float = 0.0
    temperature: float = 1.0
    cfg_coef: float = 3.0

    def __post_init__(self) -> None:
        if isinstance(self.top_k, bool) or int(self.top_k) != self.top_k or self.top_k < 0:
            raise ValueError(f"top_k must be a whole number from 0 up, got {self.top_k!r}")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p must be between 0 and 1, got {self.top_p!r}")
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature must be between 0 and 100, got {self.temperature!r}")
        if not -100 <= self.cfg_coef <= 100:
            raise ValueError(f"cfg_coef must be between -100 and 100, got {self.cfg_coef!r}")

    @property
    def guided(self) -> bool:
        """Whether the unconditional half must be computed at all."""
        return self.cfg_coef != 1.0

    def plan(self, card: int) -> Plan:
        """Name the drawing rule and how many tokens it looks at; constant shapes hang on these alone.

        Raises
        ------
        ValueError
            If `top_k` counts and is larger than the `card` tokens there are.
        """
        if self.temperature < COLDEST:
            return "greedy", 1
        if self.top_p > 0:
            return "top_p", card
        if self.top_k > card:
            raise ValueError(f"top_k must be between 0 and {card} for this model, got {self.top_k}")
        return "top_k", int(self.top_k) or card


def row_uniforms(keys: Sequence[Key], steps: int, n_q: int) -> np.ndarray:
    """Uniform numbers in [0, 1), [rows, steps, n_q] float32, each row from its own generator.

    The same key gives the same numbers whatever the batch, the device or the machine, and a longer
    request begins with the shorter one's.
    """
    rows = [
        np.random.default_rng(np.random.SeedSequence(key)).random((steps, n_q), dtype=np.float32)
        for key in keys
    ]
    return np.stack(rows)


def draw(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    plan: Plan,
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
    plan : tuple
        From `Sampling.plan`.
    temperature, top_p : torch.Tensor
        Scalars on the device.

    Returns
    -------
    torch.Tensor
        Tokens [...] int64.
    """
    rule, width = plan
    if rule == "greedy":
        return logits.argmax(dim=-1)
    if rule == "top_p":
        ranked, tokens = logits.sort(dim=-1, descending=True)
        probabilities = (ranked / temperature).softmax(dim=-1)
        # audiocraft keeps the token that crosses p: those before it sum to p or less
        kept = running_sum(probabilities) - probabilities <= top_p
        return tokens.gather(-1, _invert(probabilities * kept, uniforms)[..., None])[..., 0]
    if width < logits.shape[-1]:
        least = logits.topk(width, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
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
