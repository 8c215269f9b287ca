"""One decode step over rows at positions of their own: constant shapes, no look at a value on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from looper.generation.sampling import SamplingRule, SamplingValues, draw, draw_apart
from looper.generation.slots import HALVES, Slots
from looper.model.kv_cache import Cross, RowWindow, row_windows


def make_step(
    slots: Slots, rows: int, length: int, text: int, rule: SamplingRule | None
) -> Callable[[], None]:
    """Prepare the step of the first `rows` rows that looks at `length` columns and `text` tokens.

    A `rule` serves all of them; with None each row is drawn by its own, for which the step looks at their values.
    """
    window = row_windows(slots.cache, slots.halves[: HALVES * rows], length)
    cross = slots.cross and slots.cross.of(slice(0, rows), text)
    return lambda: step(slots, window, cross, rule)


def step(slots: Slots, window: tuple[RowWindow, ...], cross: Cross | None, rule: SamplingRule | None) -> None:
    """Feed each row's column at its position and draw the next one; no host sync, constant shapes.

    `window` is the part of the caches of the first rows to look at, which reaches beyond their positions.
    """
    t = slots.transformer
    count = len(window[0].rows) // HALVES
    rows, position = slots.rows[:count], slots.position[:count]
    place = position if slots.ahead is None else position + slots.ahead[:count]  # in caches
    x = t.embed(slots.sequence[rows, :, position][..., None])[:, 0] + slots.positions[place]
    if slots.clock is not None:
        x = x + slots.clock[rows, position]
    both = place.repeat_interleave(HALVES)
    mask = t.mask(slots.columns[: window[0].k.shape[2]] <= both[:, None])[:, None, None]
    hidden = t(x.repeat_interleave(HALVES, dim=0)[:, None], window, cross, both, mask)
    finish_step(slots, hidden, rows, position + 1, slots.values.of(count), rule)
    position.add_(1).clamp_(max=slots.last)  # a row that is done goes on until it leaves


def finish_step(
    slots: Slots,
    hidden: Tensor,
    rows: Tensor,
    column: Tensor,
    values: SamplingValues,
    rule: SamplingRule | None,
) -> None:
    """Guide, draw and write a column of each of `rows`, except where its tokens are given."""
    conditional, null = hidden.view(len(rows), HALVES, -1).unbind(dim=1)
    # guided before the heads: they are linear, so that is the same for half their work
    scale = values.guidance[:, None]
    hidden = torch.where(scale == 1, conditional, null + (conditional - null) * scale)
    logits = slots.transformer.logits(hidden)
    # a NaN or an infinity anywhere stays in the sum: one add instead of a look at every step
    slots.check.index_add_(0, rows, logits.sum(dim=(1, 2)))
    uniforms = slots.uniforms[rows, column]
    tokens = draw_apart(logits, uniforms, values) if rule is None else draw(logits, uniforms, values, rule)
    given = slots.sequence[rows, :, column]
    slots.sequence[rows, :, column] = torch.where(given < 0, tokens, given)
