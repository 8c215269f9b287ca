"""Linear layers whose rows do not hang on each other.

A matrix product may add up a row's terms in another order when the batch has another size, and one
last bit is enough to turn a sampled token, after which everything differs. So a row must come out
the same to the bit whatever stands beside it.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# MKL and oneDNN have kernels of their own for fewer rows, with another order of summation
MIN_ROWS = 4
TILE = 8


class Dense:
    """``x @ weight.T + bias`` in the weight's type, bit for bit independent of the other rows.

    Parameters
    ----------
    weight : torch.Tensor
        [out, in].
    bias : torch.Tensor or None
        [out].
    tile : int or None
        Multiply this many rows at a time, padded: one shape, hence one kernel, whatever the batch. Calls
        of up to a tile share one room for it, so they must not run at the same time. None multiplies all
        rows at once where that was seen to be safe (a CPU's kernels are tried once per shape), else in
        tiles of 8.
    packing : bool
        Keep a reordered copy of the weight where that is faster.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, tile: int | None = None, packing: bool = True
    ) -> None:
        self.weight, self.bias, self.tile = weight.contiguous(), bias, tile
        self.packed = pack(self.weight) if packing else None
        self.room = None if tile is None else self.weight.new_zeros(tile, weight.shape[1])
        if tile is None and not rows_independent(
            *weight.shape, torch.get_num_threads(), self.packed is not None
        ):
            self.tile = TILE

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]."""
        return self.padded(x)[: x.shape[0]]

    def padded(self, x: Tensor) -> Tensor:
        """As calling it, but any rows of padding stay at the end, for the next layer to take as they are."""
        rows = x.shape[0]
        if self.room is not None and rows <= len(self.room):
            if rows < len(self.room) or x.dtype != self.room.dtype:
                # one copy casts and pads; what an earlier call left in the other rows is of no consequence
                self.room[:rows].copy_(x)
                x = self.room
            return self._multiply(x)
        x = x.to(self.weight.dtype)
        if self.room is not None and x.device.type == "cuda":
            return self._multiply(
                x
            )  # many rows are one prompt's or one text's: nobody else's rows are among them
        if self.tile is None and rows >= MIN_ROWS:
            return self._multiply(x)
        size = self.tile or MIN_ROWS
        x = F.pad(x, (0, 0, 0, -rows % size))
        tiles = [self._multiply(tile) for tile in x.split(size)]
        return tiles[0] if len(tiles) == 1 else torch.cat(tiles)

    def _multiply(self, x: Tensor) -> Tensor:
        return multiply(x, self.weight, self.packed, self.bias)


def pack(weight: Tensor) -> Tensor | None:
    """Reorder a float32 weight for oneDNN, which halves the time of a CPU's step; None where it can't."""
    usable = (
        weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    )
    if not usable or weight.numel() < 200_000:  # small ones gain nothing
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def multiply(x: Tensor, weight: Tensor, packed: Tensor | None, bias: Tensor | None) -> Tensor:
    """One product [rows, in] x [out, in] -> [rows, out]."""
    if packed is None:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


@cache
def rows_independent(n_out: int, n_in: int, threads: int, packed: bool) -> bool:
    """Try whether this CPU's product gives a row the same bits in batches of many sizes."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n_out, n_in, generator=generator)
    x = torch.randn(64, n_in, generator=generator)
    ready = pack(weight) if packed else None
    whole = multiply(x, weight, ready, None)
    sizes = (4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 40, 48, 63)
    return all(torch.equal(multiply(x[:size], weight, ready, None), whole[:size]) for size in sizes)
