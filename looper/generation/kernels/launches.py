"""The operations of a step as launches of the kernels.

Sizes of blocks and how far K is split depend on a product's shape alone: with the number of rows they would make a
row's bits depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from looper.generation.kernels import programs
from looper.generation.kernels.operations import Operations
from looper.generation.kernels.sampler_program import sample as sample_program
from looper.generation.slots import HALVES, Slots
from looper.model.linear import BatchInvariantLinear
from looper.model.transformer import Norm

TILE = 64  # rows of a product, halves counted: as many as a lane has at most
PROGRAMS = 128  # of a product, at least, so that all of a card's processors read weights
MOST_PARTS = 6  # that K is split into
CHUNK = 128  # columns that attention takes at a time
ATTENTION_WARPS = 8
TEXT_CHUNK = 16
STAGES = 4  # of a product's loads in flight
DEPENDENT_LAUNCH = 9  # the capability that has it

Launch = Callable[..., None]


class Blocks(NamedTuple):
    """How a product is cut: outputs and inputs of a block, and parts that K is split into."""

    n: int
    k: int
    split: int


def blocks(n: int, k: int, whole: bool = False) -> Blocks:
    """The cut of a product of `n` outputs of `k` inputs; `whole` keeps K in one part.

    Examples
    --------
    >>> blocks(1536, 1536)  # medium's output of attention
    Blocks(n=64, k=64, split=6)
    >>> blocks(6144, 1536, whole=True)  # and its way up
    Blocks(n=64, k=64, split=1)
    """
    block_n = next(size for size in (64, 32, 16) if n % size == 0)
    block_k = next(size for size in (64, 32, 16) if k % size == 0)
    splits = [s for s in range(1, MOST_PARTS + 1) if k % (s * block_k) == 0]
    enough = (s for s in splits if n // block_n * s >= PROGRAMS)
    return Blocks(block_n, block_k, 1 if whole else next(enough, splits[-1]))


def power_of_two(size: int) -> int:
    """The next one up."""
    return 1 << (size - 1).bit_length()


def launch(
    kernel: Any, grid: tuple[int, ...], *args: Any, warps: int = 4, stages: int = 3, **constants: Any
) -> None:
    """Run a kernel on the device that its tensors are on."""
    options = {"launch_pdl": True} if constants["PDL"] else {}
    kernel[grid](*args, **constants, num_warps=warps, num_stages=stages, **options)


class Launches:
    """The kernels for one model.

    Parameters
    ----------
    dtype : torch.dtype
        Of the weights.
    capability : int
        The card's, its first digit.
    launch : callable, optional
        In place of `launch`, to count or to compile.
    """

    def __init__(self, dtype: torch.dtype, capability: int, launch: Launch = launch) -> None:
        self.dtype, self.launch = dtype, launch
        self.dependent = capability >= DEPENDENT_LAUNCH

    def operations(self) -> Operations:
        """All of them as a table."""
        return Operations(
            self.embed,
            self.add_norm,
            self.product,
            self.product_gelu,
            self.self_attention,
            self.cross_attention,
            self.sample,
        )

    def embed(self, slots: Slots, rows: int) -> Tensor:
        """See `Operations`."""
        t = slots.transformer
        x = torch.empty(HALVES * rows, t.dim, device=t.device)
        tensors = (slots.sequence, t.embeddings, slots.positions, slots.clock, slots.position, x)
        self.launch(
            programs.embed,
            (rows,),
            *(slots.positions if tensor is None else tensor for tensor in tensors),
            slots.sequence.shape[2],
            len(slots.columns),
            Q=t.n_q,
            CARD=t.card,
            DIM=t.dim,
            WIDTH=power_of_two(t.dim),
            CLOCKED=slots.clock is not None,
            PDL=self.dependent,
        )
        return x

    def add_norm(self, x: Tensor, parts: Tensor | None, norm: Norm, every: int) -> Tensor:
        """See `Operations`."""
        rows, dim = x.shape
        out = torch.empty(rows, dim, dtype=self.dtype, device=x.device)
        self.launch(
            programs.add_norm,
            (rows,),
            x,
            x if parts is None else parts,
            norm.weight,
            norm.bias,
            out,
            rows,
            norm.eps,
            DIM=dim,
            WIDTH=power_of_two(dim),
            SPLIT=0 if parts is None else len(parts),
            EVERY=every,
            PDL=self.dependent,
        )
        return out

    def product(self, linear: BatchInvariantLinear, x: Tensor) -> Tensor:
        """See `Operations`."""
        n, k = linear.weight.shape
        cut = blocks(n, k)
        out = torch.empty(cut.split, x.shape[0], n, device=x.device)
        self._multiply(x, linear.weight, out, cut, gelu=False)
        return out

    def product_gelu(self, linear: BatchInvariantLinear, x: Tensor) -> Tensor:
        """See `Operations`."""
        n, k = linear.weight.shape
        out = torch.empty(x.shape[0], n, dtype=self.dtype, device=x.device)
        self._multiply(x, linear.weight, out, blocks(n, k, whole=True), gelu=True)
        return out

    def _multiply(self, x: Tensor, weight: Tensor, out: Tensor, cut: Blocks, gelu: bool) -> None:
        (n, k), rows = weight.shape, x.shape[0]
        if rows > TILE:
            raise ValueError(f"up to {TILE} rows fit, got {rows}")
        self.launch(
            programs.product,
            (n // cut.n, cut.split),
            x,
            weight,
            out,
            rows,
            STRIDE=x.stride(0),
            N=n,
            K=k,
            SPLIT=cut.split,
            BLOCK_N=cut.n,
            BLOCK_K=cut.k,
            TILE=TILE,
            GELU=gelu,
            PDL=self.dependent,
            stages=STAGES,
        )

    def self_attention(self, parts: Tensor, cache: Tensor, position: Tensor, length: int) -> Tensor:
        """See `Operations`; a row's length is read from its position."""
        split, rows, _ = parts.shape
        _, both, columns, head_dim = cache.shape
        heads = both // 2
        out = torch.empty(rows, heads * head_dim, dtype=cache.dtype, device=cache.device)
        self.launch(
            programs.self_attention,
            (rows * heads,),
            parts,
            cache,
            position,
            out,
            rows,
            columns,
            head_dim**-0.5,
            H=heads,
            D=head_dim,
            SPLIT=split,
            CHUNK=CHUNK,
            PDL=self.dependent,
            warps=ATTENTION_WARPS,
        )
        return out

    def cross_attention(self, parts: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        """See `Operations`."""
        split, rows, _ = parts.shape
        _, both, room, head_dim = text.shape
        heads = both // 2
        out = torch.empty(rows, heads * head_dim, dtype=text.dtype, device=text.device)
        self.launch(
            programs.cross_attention,
            (rows * heads,),
            parts,
            text,
            lengths,
            out,
            rows,
            room,
            text.stride(0),
            head_dim**-0.5,
            H=heads,
            D=head_dim,
            SPLIT=split,
            CHUNK=TEXT_CHUNK,
            PDL=self.dependent,
        )
        return out

    def sample(self, parts: Tensor, slots: Slots, rows: int) -> None:
        """See `Operations`."""
        t, values = slots.transformer, slots.values
        self.launch(
            sample_program,
            (rows * t.n_q,),
            parts,
            slots.uniforms,
            slots.sequence,
            slots.position,
            values.temperature,
            values.top_k,
            values.top_p,
            values.guidance,
            values.nucleus,
            values.greedy,
            slots.check,
            rows,
            slots.sequence.shape[2],
            Q=t.n_q,
            CARD=t.card,
            WIDTH=power_of_two(t.card),
            SPLIT=len(parts),
            PDL=self.dependent,
        )
