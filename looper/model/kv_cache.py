"""Keys and values of the steps so far, and of the texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# per layer the keys and values of the steps so far, [rows, 2 * heads, length, head_dim], keys first
Cache = tuple[Tensor, ...]
_ALIGNED = 64  # bytes: what torch's own allocations begin at multiples of


@dataclass(frozen=True)
class Window:
    """One layer's cache and the part of it to look at; all rows stand at the same positions."""

    whole: Tensor
    k: Tensor
    v: Tensor

    def write(self, position: Tensor, kv: Tensor) -> None:
        """Store keys and values [rows, 2 * heads, time, head_dim] at `position` [time]."""
        self.whole.index_copy_(2, position, kv)


@dataclass(frozen=True)
class RowWindow(Window):
    """As `Window`, but each row stands at a position of its own, one step at a time.

    Attributes
    ----------
    rows : torch.Tensor
        0, 1, 2 ... [rows].
    """

    rows: Tensor

    def write(self, position: Tensor, kv: Tensor) -> None:
        """Store keys and values [rows, 2 * heads, 1, head_dim] at each row's `position` [rows]."""
        self.whole[self.rows, :, position] = kv[:, :, 0]


def windows(cache: Cache, length: int) -> tuple[Window, ...]:
    """Look at the first `length` steps of a cache."""
    return tuple(Window(layer, *layer[:, :, :length].chunk(2, dim=1)) for layer in cache)


def row_windows(cache: Cache, rows: Tensor, length: int) -> tuple[RowWindow, ...]:
    """Look at the first `length` steps of a cache's first rows, numbered by `rows`."""
    found = []
    for layer in cache:
        part = layer[: len(rows)]
        k, v = part[:, :, :length].chunk(2, dim=1)
        found.append(RowWindow(part, k, v, rows))
    return tuple(found)


class Cross:
    """Keys and values of the texts, as in `Cache`.

    `mask` [rows, 1, 1, text] is 0 where there is text, else -inf; `lengths` [rows] is how many tokens there are.
    """

    def __init__(self, layers: Cache, mask: Tensor, lengths: Tensor) -> None:
        self.layers, self.mask, self.lengths = layers, mask, lengths
        self.windows = windows(layers, mask.shape[-1])

    def of(self, rows: slice, length: int | None = None) -> Cross:
        """Take some of the rows, and of their room the first `length` tokens."""
        layers = tuple(layer[rows, :, :length] for layer in self.layers)
        return Cross(layers, self.mask[rows, :, :, :length], self.lengths[rows])


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU their memory is taken from the system only where something is written."""
    if device.type != "cpu" or dtype != torch.float32:
        return torch.zeros(shape, dtype=dtype, device=device)
    size = int(np.prod(shape)) * 4
    memory = np.zeros(size + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    return torch.from_numpy(memory[start : start + size]).view(dtype).view(shape)
