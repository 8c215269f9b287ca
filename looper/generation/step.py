"""One decode step over tensors that stay in place: constant shapes, no look at a value on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from looper.generation.sampling import SamplingRule, draw
from looper.model.kv_cache import Window, windows
from looper.model.transformer import Transformer
from looper.request import Sampling

KEPT_SHARE = 0.3  # of a GPU's memory
KEPT_ON_CPU = 1 << 30


def kept_bytes(device: torch.device) -> int:
    """Most that states of earlier requests may hold."""
    if device.type != "cuda":
        return KEPT_ON_CPU
    return int(KEPT_SHARE * torch.cuda.get_device_properties(device).total_memory)


def state_bytes(transformer: Transformer, rows: int, columns: int, text_length: int, guided: bool) -> int:
    """Bytes of the caches of a `State` of these sizes."""
    steps = rows * ((2 if guided else 1) * columns + text_length)
    return 2 * len(transformer.layers) * transformer.dim * steps * (torch.finfo(transformer.dtype).bits // 8)


class State:
    """Everything a step reads and writes, at addresses that stay.

    Parameters
    ----------
    transformer : Transformer
    rows : int
        Variations in the batch; with guidance each has a second, unconditional half.
    columns, text_length : int
        Room in the caches.
    guided : bool
    """

    def __init__(
        self,
        transformer: Transformer,
        rows: int,
        columns: int,
        text_length: int,
        guided: bool,
    ) -> None:
        device = transformer.device
        self.halves = 2 if guided else 1
        self.cache = transformer.new_cache(rows * self.halves, columns)
        self.cross = transformer.new_cross(rows, text_length) if text_length else None
        self.sequence = torch.full((rows, transformer.n_q, columns + 1), -1, dtype=torch.long, device=device)
        self.uniforms = torch.zeros(rows, columns + 1, transformer.n_q, device=device)
        self.positions = transformer.positions(columns)
        clocked = transformer.clock_weight is not None
        self.clock = torch.zeros(rows, columns, transformer.dim, device=device) if clocked else None
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.columns = torch.arange(columns, device=device)
        self.check = torch.zeros((), device=device)
        self.temperature, self.top_p, self.cfg_coef = (torch.zeros((), device=device) for _ in range(3))

    @property
    def nbytes(self) -> int:
        """Bytes of the caches."""
        text = self.cross.layers if self.cross else ()
        return sum(layer.nbytes for layer in (*self.cache, *text))

    def adopt(self, other: State, rows: list[int]) -> None:
        """Go on where `other`, which has as many columns, stands, with some of its rows."""
        count = other.sequence.shape[0]
        at = torch.tensor(rows, device=self.position.device)
        both = torch.cat([at + half * count for half in range(self.halves)])
        pairs = [(mine, theirs, both) for mine, theirs in zip(self.cache, other.cache, strict=True)]
        pairs += [(self.sequence, other.sequence, at), (self.uniforms, other.uniforms, at)]
        if self.cross is not None and other.cross is not None:
            texts = zip(self.cross.layers, other.cross.layers, strict=True)
            pairs += [(mine, theirs, at) for mine, theirs in texts]
            pairs += [(self.cross.mask, other.cross.mask, at)]
        if self.clock is not None and other.clock is not None:
            pairs += [(self.clock, other.clock, at)]
        for mine, theirs, which in pairs:
            mine.copy_(theirs[which])
        self.position.copy_(other.position)
        self.check.copy_(other.check)

    def set_sampling(self, sampling: Sampling) -> None:
        """Fill in the values that a captured step may change between requests."""
        self.temperature.fill_(sampling.temperature or 1.0)
        self.top_p.fill_(sampling.top_p)
        self.cfg_coef.fill_(sampling.cfg_coef)


def make_step(transformer: Transformer, state: State, rule: SamplingRule, length: int) -> Callable[[], None]:
    """Prepare the step that looks at the first `length` columns of the cache."""
    window, columns = windows(state.cache, length), state.columns[:length]
    return lambda: step(transformer, state, rule, window, columns)


def step(
    transformer: Transformer, state: State, rule: SamplingRule, window: tuple[Window, ...], columns: Tensor
) -> None:
    """Feed the column at ``state.position`` and fill the next one; no host sync, constant shapes.

    `window` is the part of the cache to look at, whose `columns` reach beyond the position.
    """
    position = state.position
    x = transformer.embed(state.sequence.index_select(2, position)) + state.positions.index_select(
        0, position
    )
    if state.clock is not None:
        x = x + state.clock.index_select(1, position)
    mask = transformer.mask(columns <= position)[None]
    hidden = transformer(x.repeat(state.halves, 1, 1), window, state.cross, position, mask)
    finish_step(transformer, state, hidden, rule, position + 1)
    position.add_(1)


def finish_step(
    transformer: Transformer, state: State, hidden: Tensor, rule: SamplingRule, column: Tensor
) -> None:
    """Guide, draw and write `column`, except where its token is given."""
    if state.halves == 2:
        # guided before the heads: they are linear, so that is the same for half their work
        conditional, null = hidden.chunk(2)
        hidden = null + (conditional - null) * state.cfg_coef
    logits = transformer.logits(hidden)
    # a NaN or an infinity anywhere stays in the sum: one add instead of a look at every step
    state.check.add_(logits.sum())
    uniforms = state.uniforms.index_select(1, column)[:, 0]
    tokens = draw(logits, uniforms, rule, state.temperature, state.top_p)
    given = state.sequence.index_select(2, column)[..., 0]
    state.sequence.index_copy_(2, column, torch.where(given < 0, tokens, given)[..., None])
