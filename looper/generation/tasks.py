"""What the engine works on, rows and the requests they belong to, and what it tells of itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from looper.generation.batch import Row, lengths_of
from looper.request import Sampling
from looper.runtime.cuda_graph import StepCounts


class DecodeError(RuntimeError):
    """Decoding failed in flight; the message says why."""


@dataclass(frozen=True)
class EngineStatus:
    """What an engine is doing, for metrics.

    Attributes
    ----------
    rows_running, rows_waiting, slots : int
        Rows in slots, rows that wait for one, and slots in all that have memory.
    cache_bytes : int
        Memory of the lanes.
    step_seconds : float
        Of a step in the last round; 0 before the first.
    steps : StepCounts
        How steps ran on a GPU.
    kernels : dict
        Whether each operation of a step runs as a kernel of ours; empty where none was tried.
    """

    rows_running: int
    rows_waiting: int
    slots: int
    cache_bytes: int
    step_seconds: float
    steps: StepCounts
    kernels: dict[str, bool] = field(default_factory=dict)


@dataclass(eq=False)
class RowTask:
    """One row on its way through the engine.

    Attributes
    ----------
    request : RequestTask
    index : int
        Its place in the request.
    row : Row
    frames, columns : int
        Its length, and how many columns of the delay pattern that takes.
    start : int
        The first column to feed after its prefill.
    sampling : Sampling
    slot, position, steps : int
        Where it stands and how many steps that took; known by counting, not by asking the device.
    """

    request: RequestTask
    index: int
    row: Row
    frames: int
    columns: int
    start: int
    sampling: Sampling
    slot: int = -1
    position: int = 0
    steps: int = 0

    def begin_anew(self) -> None:
        """Stand nowhere, with all steps to do."""
        self.slot, self.position, self.steps = -1, self.start, 0

    @property
    def ahead(self) -> int:
        """Tokens that stand in front of its music."""
        return 0 if self.row.prefix is None else self.row.prefix.shape[1]

    @property
    def remaining(self) -> int:
        """Steps until the last column is drawn."""
        return self.columns - self.position


@dataclass(eq=False)
class RequestTask:
    """The rows of one call, and what has become of them.

    Attributes
    ----------
    number : int
        The order of arrival.
    waiting : deque of RowTask
    running : int
        Rows in slots.
    codes : dict
        Codes [n_q, frames] of rows that are done, by their index.
    error : BaseException or None
    ended : threading.Event
        Set once nothing is left to do.
    held_at : int
        Rows of all requests that ran when memory ran out for a row of this one: with as many it waits; 0 where it need not.
    shown : int
        The most steps that `progress` has named.
    """

    number: int
    tasks: list[RowTask] = field(default_factory=list)
    waiting: deque[RowTask] = field(default_factory=deque)
    running: int = 0
    codes: dict[int, Tensor] = field(default_factory=dict)
    error: BaseException | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    held_at: int = 0
    shown: int = 0

    @classmethod
    def of(
        cls, number: int, rows: Sequence[Row], frames: int, sampling: Sampling, delays: Sequence[int]
    ) -> RequestTask:
        """Make the tasks of a call's rows."""
        request = cls(number)
        for index, (row, length) in enumerate(zip(rows, lengths_of(rows, frames), strict=True)):
            start = 1 + (0 if row.prompt is None else row.prompt.shape[1])
            task = RowTask(request, index, row, length, length + max(delays), start, sampling, -1, start)
            request.tasks.append(task)
        request.waiting.extend(request.tasks)
        return request

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.error is not None or len(self.codes) == len(self.tasks)

    def progress(self) -> tuple[int, int]:
        """Steps done and steps in all, as if the rows were decoded side by side."""
        total = max(task.columns - task.start + 1 for task in self.tasks)
        whole = sum(task.columns - task.start + 1 for task in self.tasks)
        # steps that memory ran out of are done again: what was shown stays
        self.shown = max(self.shown, total * sum(task.steps for task in self.tasks) // whole)
        return self.shown, total

    def result(self, frames: int) -> Tensor:
        """Codes [rows, n_q, frames]; -1 after the end of a shorter row."""
        first = self.codes[0]
        whole = torch.full((len(self.tasks), first.shape[0], frames), -1, device=first.device)
        for index, codes in self.codes.items():
            whole[index, :, : codes.shape[1]] = codes
        return whole
