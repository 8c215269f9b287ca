"""One stream of steps: slots of one size, the rows that stand in them, and the graphs that move them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from looper.generation.batch import round_up, sharing
from looper.generation.kernels.choice import Kernels
from looper.generation.kernels.fused_step import make_fused_step
from looper.generation.sampling import SamplingRule, any_rule, sampling_rule
from looper.generation.slots import HALVES, Slots, row_bytes
from looper.generation.step import finish_step, make_step
from looper.generation.tasks import DecodeError, RowTask
from looper.model.kv_cache import windows
from looper.model.transformer import Transformer
from looper.runtime.cuda_graph import Graphed, GraphPool

ROUND = 16  # steps between looks at the device, for rows that are done, broken or cancelled
CPU_WINDOW = 16  # attention looks at a multiple of so many columns and tokens: see `looper.model.attention`
CUDA_WINDOWS = 3  # of a lane's columns; each is a graph of its own for each number of rows
MOST_STEPS_KEPT = 64


class LaneKind(NamedTuple):
    """What the slots of a lane have room for."""

    columns: int
    text: int
    ahead: int = 0

    @property
    def cached(self) -> int:
        """Columns of the caches."""
        return self.ahead + self.columns


class StepKey(NamedTuple):
    """What a step's constant shapes depend on."""

    rows: int
    columns: int
    text: int
    rule: SamplingRule | None


def few_shapes(device: torch.device) -> bool:
    """Whether steps keep to a few shapes, each of which is a graph."""
    return device.type == "cuda"


class Lane:
    """Rows of any requests, decoded side by side in slots 0, 1, 2 ...

    Parameters
    ----------
    transformer : Transformer
    kind : LaneKind
    size : int
        Slots; their memory is taken when the first row joins.
    pool : GraphPool or None
        Where steps are captured; None runs them eagerly.
    kernels : Kernels or None
        What steps are made of; ATen's own step where it is None, or none of them is used.
    """

    def __init__(
        self,
        transformer: Transformer,
        kind: LaneKind,
        size: int,
        pool: GraphPool | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.transformer, self.kind, self.size, self.pool = transformer, kind, size, pool
        # kernels know of nothing that stands in front of the music
        self.kernels = kernels if kernels is not None and kernels.used and not kind.ahead else None
        self.slots: Slots | None = None
        self.running: list[RowTask] = []
        self.joining: list[RowTask] = []
        self.most = 0  # rows at once since the slots were made
        self._steps: dict[StepKey, Graphed] = {}

    @property
    def tasks(self) -> list[RowTask]:
        """All rows here."""
        return self.running + self.joining

    @property
    def used_bytes(self) -> int:
        """Bytes of the caches that rows have written to, or may have."""
        if self.slots is None:
            return 0
        rows = self.most if self.transformer.device.type == "cpu" else self.size
        return rows * row_bytes(self.transformer, *self.kind)

    def add(self, task: RowTask) -> None:
        """Let a row join at the next round."""
        self.joining.append(task)

    def release(self) -> list[RowTask]:
        """Give the memory back; return the rows that were here, to begin anew elsewhere."""
        tasks = self.tasks
        self.running, self.joining, self.most = [], [], 0
        self._steps.clear()
        if self.slots is not None and self.transformer.device.type == "cuda":
            torch.cuda.synchronize()  # a replay may still read it
        self.slots = None
        return tasks

    def take_out(self) -> list[RowTask]:
        """Let rows leave that are done, their codes with their request, or broken; return them."""
        broken = self.broken()
        for task in broken:
            step = task.position - task.start + 1
            task.request.error = DecodeError(
                f"the model's output stopped being finite at step {step}: its weights are broken or "
                "overflow; check them with `looper weights verify`"
            )
        done = [task for task in self.running if not task.remaining and task.request.error is None]
        assert self.slots is not None
        for task, codes in zip(done, self.slots.codes(done) if done else [], strict=True):
            task.request.codes[task.index] = codes
        self.leave([*broken, *done])
        return [*broken, *done]

    def leave(self, tasks: list[RowTask]) -> None:
        """Take rows out; the last ones move to their slots, so that those in use stay the first."""
        leaving = {id(task) for task in tasks}
        self.joining = [task for task in self.joining if id(task) not in leaving]
        for task in [task for task in self.running if id(task) in leaving]:
            last = self.running.pop()
            if last is not task:
                assert self.slots is not None
                self.slots.move(last.slot, task.slot, min(last.ahead + last.position, self.kind.cached))
                self.running[task.slot] = last
                last.slot = task.slot

    def advance(self) -> None:
        """Let new rows join, then take up to `ROUND` steps; nothing looks at the device."""
        slots = self.slots = self.slots or self._new_slots()
        first = len(self.running)
        for slot, task in enumerate(self.joining, first):
            task.slot, task.position = slot, task.start
        joining, self.joining = self.joining, []
        self.running += joining
        self.most = max(self.most, len(self.running))
        for task in joining:
            slots.fill(task)
        for mates in sharing(joining, lambda task: (id(task.row.text), id(task.row.clock))):
            slots.fill_shared([joining[i] for i in mates])
        prompts = lambda task: tuple(
            id(part) for part in (task.row.text, task.row.prefix, task.row.prompt, task.row.clock)
        )
        for mates in sharing(joining, prompts):
            self._prefill(slots, [joining[i] for i in mates])
        for _ in range(min(ROUND, max(task.remaining for task in self.running))):
            self._step(slots)

    def broken(self) -> list[RowTask]:
        """Rows whose numbers are not finite any more; their slots are made clean. The one look at the device."""
        assert self.slots is not None
        finite = self.slots.check[: len(self.running)].isfinite().tolist()
        broken = [task for task, fine in zip(self.running, finite, strict=True) if not fine]
        for task in broken:
            self.slots.clear(task.slot)
        return broken

    def capture(self) -> None:
        """Capture every step there may be, on slots that hold nothing."""
        self.slots = self.slots or self._new_slots()
        text = self.kind.text
        for rows in self._row_counts():
            for columns in self._windows():
                step = self._prepared(StepKey(rows, columns, text, any_rule(self.transformer.card)))
                for _ in range(2):
                    step()
        self.slots.position.zero_()

    def _new_slots(self) -> Slots:
        return Slots(self.transformer, self.size, *self.kind)

    def _step(self, slots: Slots) -> None:
        self._prepared(self._key(slots))()
        for task in self.running:
            if task.remaining:
                task.steps += 1
                task.position += 1

    def _prepared(self, key: StepKey) -> Graphed:
        """The step for some shapes, captured where it was before."""
        if key not in self._steps:
            while self.pool is None and len(self._steps) >= MOST_STEPS_KEPT:
                del self._steps[next(iter(self._steps))]
            self._steps[key] = Graphed(self._make_step(key), self.pool)
        return self._steps[key]

    def _make_step(self, key: StepKey) -> Callable[[], None]:
        assert self.slots is not None
        if self.kernels is None:
            return make_step(self.slots, *key)
        return make_fused_step(self.slots, key.rows, key.columns, self.kernels.operations)

    def _key(self, slots: Slots) -> StepKey:
        """The shapes of the next step: on CUDA few, so that few graphs serve all; else what the rows need."""
        count = len(self.running)
        needed = min(self.kind.cached, 1 + max(task.ahead + task.position for task in self.running))
        if few_shapes(self.transformer.device):
            rows = next(rows for rows in self._row_counts() if rows >= count)
            columns = next(columns for columns in self._windows() if columns >= needed)
            return StepKey(rows, columns, self.kind.text, any_rule(self.transformer.card))
        texts = (0 if task.row.text is None else len(task.row.text) for task in self.running)
        rule = self._rule(self.running)
        return StepKey(count, round_up(needed, CPU_WINDOW), round_up(max(texts), CPU_WINDOW), rule)

    def _rule(self, tasks: list[RowTask]) -> SamplingRule | None:
        """The rule that serves some rows; on a CPU none where they draw in different ways: see `draw_apart`."""
        rule = sampling_rule((task.sampling for task in tasks), self.transformer.card)
        return None if rule.mixed and not few_shapes(self.transformer.device) else rule

    def _row_counts(self) -> list[int]:
        """1, 2, 4, 8 ... up to all slots."""
        counts = [1]
        while counts[-1] < self.size:
            counts.append(min(2 * counts[-1], self.size))
        return counts

    def _windows(self) -> list[int]:
        """Columns to look at, in a few steps up to all there are; all where attention reads how many rows need."""
        if self.kernels is not None and self.kernels.read_lengths:
            return [self.kind.cached]
        thirds = (self.kind.cached * part / CUDA_WINDOWS for part in range(1, CUDA_WINDOWS + 1))
        return [min(self.kind.cached, round_up(int(part), 64)) for part in thirds]

    def _prefill(self, slots: Slots, tasks: list[RowTask]) -> None:
        """Feed what is given to rows that share it in one pass, and draw their next columns."""
        t, one = self.transformer, tasks[0]
        length = one.ahead + one.start
        position = torch.arange(length, device=t.device)
        cross = slots.cross and slots.cross.of(slice(one.slot, one.slot + 1))
        scratch = t.new_cache(HALVES, length)
        causal = t.mask(position[None, :] <= position[:, None])
        hidden = t(slots.given(one), windows(scratch, length), cross, position, causal)
        slots.store([task.slot for task in tasks], scratch, length)
        rows = torch.tensor([task.slot for task in tasks], device=t.device)
        rule = self._rule(tasks)
        both = hidden.repeat(len(tasks), 1)
        finish_step(slots, both, rows, slots.position[rows], slots.values.at(rows), rule)
        for task in tasks:
            task.steps += 1
