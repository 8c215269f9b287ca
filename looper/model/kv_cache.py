"""Keys and values of the steps so far, and of the texts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

# per layer the keys and values of the steps so far, [rows, 2 * heads, length, head_dim], keys first
Cache = tuple[Tensor, ...]


@dataclass(frozen=True)
class Window:
    """One layer's cache and the part of it to look at."""

    whole: Tensor
    k: Tensor
    v: Tensor


def windows(cache: Cache, length: int) -> tuple[Window, ...]:
    """Look at the first `length` steps of a cache."""
    return tuple(Window(layer, *layer[:, :, :length].chunk(2, dim=1)) for layer in cache)


class Cross:
    """Keys and values of the texts, as in `Cache`; `mask` [rows, 1, 1, text] is 0 where there is text, else -inf."""

    def __init__(self, layers: Cache, mask: Tensor) -> None:
        self.layers, self.mask = layers, mask
        self.windows = windows(layers, mask.shape[-1])

    def of(self, rows: slice) -> Cross:
        """Take some of the rows."""
        return Cross(tuple(layer[rows] for layer in self.layers), self.mask[rows])
