"""What a decode step is made of, as a table of functions, and ATen's own of each: the reference of the kernels.

Products give partial sums [split, rows, n], which whatever reads them adds up in order; ATen's have a split of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from looper.generation.sampling import any_rule, draw
from looper.generation.slots import HALVES, Slots
from looper.model.linear import BatchInvariantLinear
from looper.model.transformer import Norm, one_attention_kernel


@dataclass(frozen=True)
class Operations:
    """The parts of a step; `rows` are whole rows, the tensors of the layers have both halves of each.

    Attributes
    ----------
    embed : callable
        (slots, rows) -> the layers' input [2 rows, dim] float32.
    add_norm : callable
        (x, parts or None, norm, every) -> norm of x in the weights' type, after the sum of `parts` was added to
        every `every`-th row of x in place.
    product : callable
        (linear, x) -> partial sums of x @ weight.T, float32.
    product_gelu : callable
        (linear, x) -> gelu(x @ weight.T) in the weights' type.
    self_attention : callable
        (parts of q, k and v, one layer's cache, position [rows], columns to look at) -> [2 rows, dim]; writes k and
        v at each row's position first.
    cross_attention : callable
        (parts of q, one layer's texts, their lengths [rows]) -> [rows, dim].
    sample : callable
        (parts of logits, slots, rows): guides, draws and writes each row's next column, and spoils its check where
        a number is not finite.
    """

    embed: Callable[[Slots, int], Tensor]
    add_norm: Callable[[Tensor, Tensor | None, Norm, int], Tensor]
    product: Callable[[BatchInvariantLinear, Tensor], Tensor]
    product_gelu: Callable[[BatchInvariantLinear, Tensor], Tensor]
    self_attention: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    cross_attention: Callable[[Tensor, Tensor, Tensor], Tensor]
    sample: Callable[[Tensor, Slots, int], None]


NAMES = tuple(field.name for field in fields(Operations))


def total(parts: Tensor) -> Tensor:
    """Add partial sums up, from the first to the last."""
    summed = parts[0]
    for part in parts[1:]:
        summed = summed + part
    return summed


def embed(slots: Slots, rows: int) -> Tensor:
    """See `Operations`."""
    t, numbers, position = slots.transformer, slots.rows[:rows], slots.position[:rows]
    x = t.embed(slots.sequence[numbers, :, position][..., None])[:, 0] + slots.positions[position]
    if slots.clock is not None:
        x = x + slots.clock[numbers, position]
    return x.repeat_interleave(HALVES, dim=0)


def add_norm(x: Tensor, parts: Tensor | None, norm: Norm, every: int, dtype: torch.dtype) -> Tensor:
    """See `Operations`."""
    if parts is not None:
        x[::every] += total(parts)
    return norm(x).to(dtype)


def product(linear: BatchInvariantLinear, x: Tensor) -> Tensor:
    """See `Operations`."""
    return linear(x).float()[None]


def product_gelu(linear: BatchInvariantLinear, x: Tensor) -> Tensor:
    """See `Operations`."""
    return F.gelu(linear(x))


def self_attention(parts: Tensor, cache: Tensor, position: Tensor, length: int) -> Tensor:
    """See `Operations`."""
    heads, head_dim = cache.shape[1] // 2, cache.shape[3]
    qkv = total(parts).to(cache.dtype)
    rows = len(qkv)
    q, kv = qkv.view(rows, -1, head_dim).split((heads, 2 * heads), dim=1)
    both = position.repeat_interleave(HALVES)
    numbers = torch.arange(rows, device=cache.device)
    part = cache[:rows]
    part[numbers, :, both] = kv
    seen = numbers.new_ones(length).cumsum(0) - 1 <= both[:, None]
    mask = torch.where(seen, 0.0, -math.inf).to(cache.dtype)[:, None, None]
    k, v = part[:, :, :length].chunk(2, dim=1)
    with one_attention_kernel(cache.device):
        mixed = F.scaled_dot_product_attention(q[:, :, None], k, v, mask)
    return mixed.flatten(1)


def cross_attention(parts: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
    """See `Operations`."""
    heads, head_dim = text.shape[1] // 2, text.shape[3]
    q = total(parts).to(text.dtype)
    rows = len(q)
    k, v = text[:rows].chunk(2, dim=1)
    seen = torch.arange(text.shape[2], device=text.device) < lengths[:, None]
    mask = torch.where(seen, 0.0, -math.inf).to(text.dtype)[:, None, None]
    with one_attention_kernel(text.device):
        mixed = F.scaled_dot_product_attention(q.view(rows, heads, 1, head_dim), k, v, mask)
    return mixed.flatten(1)


def sample(parts: Tensor, slots: Slots, rows: int) -> None:
    """See `Operations`."""
    t, values, numbers = slots.transformer, slots.values.of(rows), slots.rows[:rows]
    told, null = total(parts).view(rows, HALVES, t.n_q, t.card).unbind(dim=1)
    scale = values.guidance[:, None, None]
    logits = torch.where(scale == 1, told, null + (told - null) * scale)
    slots.check[:rows] += logits.sum(dim=(1, 2))
    column = slots.position[:rows] + 1
    tokens = draw(logits, slots.uniforms[numbers, column], values, any_rule(t.card))
    given = slots.sequence[numbers, :, column]
    slots.sequence[numbers, :, column] = torch.where(given < 0, tokens, given)


def aten(dtype: torch.dtype) -> Operations:
    """The reference, for weights of some type."""

    def normed(x: Tensor, parts: Tensor | None, norm: Norm, every: int) -> Tensor:
        return add_norm(x, parts, norm, every, dtype)

    return Operations(embed, normed, product, product_gelu, self_attention, cross_attention, sample)
