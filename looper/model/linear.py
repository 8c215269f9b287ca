"""Linear layers whose rows do not depend on each other.

A matrix product may add up a row's terms in another order when the batch has another size, or where the row
stands elsewhere in it, and one last bit is enough to turn a sampled token, after which everything differs. So
a row must come out the same to the bit whatever stands beside it, and wherever it stands.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ROWS = 64  # in one product on a CPU
SMALL = 8  # rows: a packed weight must serve so few without padding them further


class BatchInvariantLinear:
    """`x @ weight.T + bias` in the weight's type, bit for bit independent of the other rows.

    Parameters
    ----------
    weight : torch.Tensor
        [out, in].
    bias : torch.Tensor or None
        [out].
    tile : int or None
        Multiply this many rows at a time, padded: one shape, hence one kernel, whatever the batch. Calls
        of up to a tile share one buffer for it, so they must not run at the same time. None pads to the
        nearest number of rows that `padded_counts` found to be safe on this CPU.
    packing : bool
        Keep a reordered copy of the weight where that is faster.
    buffers : dict, optional
        Padding buffers [tile, in] by their width: layers that are given the same dictionary share them.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        tile: int | None = None,
        packing: bool = True,
        buffers: dict[int, Tensor] | None = None,
    ) -> None:
        self.weight, self.bias = weight.contiguous(), bias
        self.packed = None
        self.buffer = None if tile is None else self._shared(tile, {} if buffers is None else buffers)
        if tile is None:
            self.packed, self.counts = self._choose(pack(self.weight) if packing else None)
            # rows of zeros at hand: `F.pad` takes three times as long for so few
            most = max(count - rows for rows, count in enumerate(self.counts))
            self.padding = self.weight.new_zeros(most, self.weight.shape[1])

    def _shared(self, tile: int, buffers: dict[int, Tensor]) -> Tensor:
        """One buffer for all layers of a width, so that it stays in a GPU's cache."""
        width = self.weight.shape[1]
        if width not in buffers:
            buffers[width] = self.weight.new_zeros(tile, width)
        return buffers[width]

    def _choose(self, packed: Tensor | None) -> tuple[Tensor | None, tuple[int, ...]]:
        """Take the packed weight where products of few rows are safe with it."""
        shape, threads, biased = self.weight.shape, torch.get_num_threads(), self.bias is not None
        if packed is not None:
            counts = padded_counts(*shape, threads, True, biased)
            if len(counts) > SMALL and counts[1] <= SMALL:
                return packed, counts
        return None, padded_counts(*shape, threads, False, biased)

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]."""
        product = self.padded(x)
        return product if product.shape[0] == x.shape[0] else product[: x.shape[0]]

    def padded(self, x: Tensor) -> Tensor:
        """As calling it, but any rows of padding stay at the end, for the next layer to take as they are."""
        if self.buffer is not None:
            return self._in_tile(x)
        x = x.to(self.weight.dtype)
        most = len(self.counts) - 1
        if x.shape[0] <= most:
            return self._multiply(self._fill_up(x))
        # all but the last are as many rows as can be multiplied at once, and so without padding
        return torch.cat([self._multiply(self._fill_up(piece)) for piece in x.split(most)])

    def _in_tile(self, x: Tensor) -> Tensor:
        assert self.buffer is not None
        rows = x.shape[0]
        if rows > len(self.buffer):
            # many rows are one prompt's or one text's: nobody else's rows are among them
            return self._multiply(x.to(self.weight.dtype))
        if rows < len(self.buffer) or x.dtype != self.buffer.dtype:
            # one copy casts and pads; what an earlier call left in the other rows is of no consequence
            self.buffer[:rows].copy_(x)
            x = self.buffer
        return self._multiply(x)

    def _fill_up(self, x: Tensor) -> Tensor:
        missing = self.counts[x.shape[0]] - x.shape[0]
        return torch.cat((x, self.padding[:missing])) if missing else x

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
def padded_counts(n_out: int, n_in: int, threads: int, packed: bool, biased: bool) -> tuple[int, ...]:
    """Try this CPU's products: for 0, 1, 2 ... rows, the next number whose rows come out the same to the bit.

    The same as each other, wherever a row stands, and as in all other numbers listed. `threads` is how many
    torch uses in the calling thread; the result differs from one number to another, and from CPU to CPU.

    Returns
    -------
    tuple of int
        At index m the rows to multiply for m of them; more than the last index must be cut into pieces.
    """
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(n_out, n_in, generator=random)
    x = torch.randn(MOST_ROWS, n_in, generator=random)
    bias = torch.randn(n_out, generator=random) if biased else None
    ready = pack(weight) if packed else None
    most = next(
        rows for rows in (64, 32, 16, 8, 4, 2, 1) if _one_row_everywhere(x, rows, weight, ready, bias)
    )
    whole = multiply(x[:most], weight, ready, bias)
    counts = range(1, most + 1)
    safe = [m for m in counts if torch.equal(multiply(x[:m], weight, ready, bias), whole[:m])]
    return (0, *(next(count for count in safe if count >= m) for m in counts))


def _one_row_everywhere(
    x: Tensor, rows: int, weight: Tensor, packed: Tensor | None, bias: Tensor | None
) -> bool:
    """Tell whether copies of a row all come out the same."""
    products = (multiply(row.repeat(rows, 1), weight, packed, bias) for row in x[:3])
    return all(torch.equal(product, product[:1].expand_as(product)) for product in products)
