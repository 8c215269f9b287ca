"""One decode step of a table of operations: eleven of them a layer, and four around."""

from __future__ import annotations

from collections.abc import Callable

from looper.generation.kernels.operations import Operations
from looper.generation.slots import HALVES, Slots


def make_fused_step(slots: Slots, rows: int, length: int, operations: Operations) -> Callable[[], None]:
    """Prepare the step of the first `rows` rows; where attention is ATen's, it looks at `length` columns."""
    return lambda: fused_step(slots, rows, length, operations)


def fused_step(slots: Slots, rows: int, length: int, operations: Operations) -> None:
    """Do what `looper.generation.step.step` does, for models that `looper.generation.kernels.choice` lets through."""
    do, t, cross, position = operations, slots.transformer, slots.cross, slots.position[:rows]
    assert cross is not None and slots.ahead is None
    norms = [*(layer.norm1 for layer in t.layers[1:]), t.out_norm]
    x = do.embed(slots, rows)
    normed = do.add_norm(x, None, t.layers[0].norm1, 1)
    for layer, cache, text, next_norm in zip(t.layers, slots.cache, cross.layers, norms, strict=True):
        mixed = do.self_attention(do.product(layer.qkv, normed), cache, position, length)
        normed = do.add_norm(x, do.product(layer.out, mixed), layer.norm_cross, 1)
        # of each row's halves, the first is told the text
        mixed = do.cross_attention(do.product(layer.cross_q, normed[::HALVES]), text, cross.lengths[:rows])
        normed = do.add_norm(x, do.product(layer.cross_out, mixed), layer.norm2, HALVES)
        wide = do.product_gelu(layer.up, normed)
        normed = do.add_norm(x, do.product(layer.down, wide), next_norm, 1)
    do.sample(do.product(t.output, normed), slots, rows)
    position.add_(1).clamp_(max=slots.last)  # a row that is done goes on until it leaves
