"""The rows that are decoded together, each at a position of its own, at addresses that stay."""

from __future__ import annotations

import torch
from torch import Tensor

from looper.generation.batch import codes_of, given_sequence
from looper.generation.sampling import SamplingValues, row_uniforms
from looper.generation.tasks import RowTask
from looper.model.kv_cache import zeros
from looper.model.transformer import Transformer
from looper.runtime.device import to_host

HALVES = 2  # of a row: with its text and without, side by side


class Slots:
    """Everything a step reads and writes, for rows of any requests.

    Row i takes places 2 i (with its text) and 2 i + 1 (without) of the caches, so that the first rows are a
    prefix of every tensor.

    Parameters
    ----------
    transformer : Transformer
    count : int
        Rows there is room for.
    columns, text_length, ahead : int
        Room of each row, for music, text and what stands in front of the music; a `text_length` of 0 is a model
        without cross-attention.
    """

    def __init__(
        self, transformer: Transformer, count: int, columns: int, text_length: int, ahead: int = 0
    ) -> None:
        t, device = transformer, transformer.device
        self.transformer, self.count, self.last = transformer, count, columns - 1
        self.cache = t.new_cache(HALVES * count, ahead + columns)
        self.cross = t.new_cross(count, text_length) if text_length else None
        self.sequence = torch.full((count, t.n_q, columns + 1), t.special, dtype=torch.long, device=device)
        self.uniforms = zeros((count, columns + 1, t.n_q), torch.float32, device)
        self.positions = t.positions(ahead + columns)
        clocked = t.clock_weight is not None
        self.clock = zeros((count, columns, t.dim), torch.float32, device) if clocked else None
        self.position = torch.zeros(count, dtype=torch.long, device=device)
        self.ahead = torch.zeros(count, dtype=torch.long, device=device) if ahead else None
        self.columns = torch.arange(ahead + columns, device=device)
        self.rows = torch.arange(count, device=device)
        self.halves = torch.arange(HALVES * count, device=device)
        self.check = torch.zeros(count, device=device)
        self.values = SamplingValues.room(count, device)

    def fill(self, task: RowTask) -> None:
        """Write a row into its slot: given tokens, random numbers, sampling values."""
        t, slot, end = self.transformer, task.slot, task.columns + 1
        self.check[slot] = 0
        self.position[slot] = task.start
        if self.ahead is not None:
            self.ahead[slot] = task.ahead
        given = given_sequence([task.row], task.frames, t.delays, t.special)[0]
        self.sequence[slot, :, :end] = given.to(t.device)
        numbers = torch.from_numpy(row_uniforms([task.row.key], end, t.n_q)[0])
        self.uniforms[slot, :end] = numbers.to(t.device)
        self.values.set([slot], task.sampling, t.card)

    def fill_shared(self, tasks: list[RowTask]) -> None:
        """Write text and clock of rows that share them."""
        t, rows, row = self.transformer, [task.slot for task in tasks], tasks[0].row
        if self.clock is not None:
            self.clock[rows] = t.clock(row.clock, self.clock.shape[1])
        if self.cross is not None:
            assert row.text is not None
            t.write_text(self.cross, rows, row.text)

    def given(self, task: RowTask) -> Tensor:
        """What a row's layers are fed first: what stands in front, and what is given; [HALVES, time, dim]."""
        t, slot, ahead = self.transformer, task.slot, task.ahead
        x = t.embed(self.sequence[slot : slot + 1, :, : task.start])
        x = x + self.positions[ahead : ahead + task.start]
        if self.clock is not None:
            x = x + self.clock[slot : slot + 1, : task.start]
        x = x.repeat(HALVES, 1, 1)
        if task.row.prefix is None:
            return x
        return torch.cat([task.row.prefix.to(x) + self.positions[:ahead], x], dim=1)

    def store(self, slots: list[int], scratch: tuple[Tensor, ...], length: int) -> None:
        """Copy one row's keys and values of the first `length` columns to some slots."""
        for half in range(HALVES):
            there = [HALVES * slot + half for slot in slots]
            for target, source in zip(self.cache, scratch, strict=True):
                target[there, :, :length] = source[half]

    def move(self, source: int, target: int, columns: int) -> None:
        """Let a row go on in another slot; of its caches `columns` are filled."""
        for layer in self.cache:
            for half in range(HALVES):
                layer[HALVES * target + half, :, :columns] = layer[HALVES * source + half, :, :columns]
        tensors = [self.sequence, self.uniforms, self.position, self.check]
        tensors += [] if self.clock is None else [self.clock]
        tensors += [] if self.ahead is None else [self.ahead]
        tensors += [] if self.cross is None else [*self.cross.layers, self.cross.mask, self.cross.lengths]
        for tensor in tensors:
            tensor[target] = tensor[source]
        self.values.copy_row(source, target)

    def clear(self, slot: int) -> None:
        """Forget numbers that are not finite: a masked place is multiplied by zero, which leaves them as they are."""
        for layer in self.cache:
            layer[HALVES * slot : HALVES * (slot + 1)] = 0
        self.check[slot] = 0

    def codes(self, tasks: list[RowTask]) -> list[Tensor]:
        """Codes [n_q, frames] of rows that are done, on the CPU."""
        rows = torch.tensor([task.slot for task in tasks], device=self.sequence.device)
        sequences, delays = to_host(self.sequence[rows]), self.transformer.delays
        return [
            codes_of(sequence, task.frames, delays) for sequence, task in zip(sequences, tasks, strict=True)
        ]


def row_bytes(transformer: Transformer, columns: int, text_length: int, ahead: int = 0) -> int:
    """Bytes that a row's caches take."""
    t = transformer
    size = torch.finfo(t.dtype).bits // 8
    return 2 * len(t.layers) * t.dim * (HALVES * (columns + ahead) + text_length) * size
