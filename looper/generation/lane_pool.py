"""The lanes of an engine: which of them a row may enter, how many slots memory allows, and what is kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch

from looper.generation.batch import prefix_length, round_up, text_length
from looper.generation.kernels.choice import Kernels
from looper.generation.lane import Lane, LaneKind
from looper.generation.slots import row_bytes
from looper.generation.tasks import RowTask
from looper.model.transformer import Transformer
from looper.runtime.cuda_graph import GraphPool
from looper.runtime.memory import free_bytes

logger = logging.getLogger(__name__)

SHORT_COLUMNS = 704  # 8 s of music with a bar before and after, at all but the slowest tempi
MOST_ROWS = 32  # in a lane: on CUDA one tile of products
FEWEST_PER_LANE = 4  # fewer rows are mostly Python, which threads do not share
FREE_SHARE = 0.8  # of the free memory that a lane may plan with
KEPT_SHARE = 0.3  # of a GPU's memory that a model's lanes may keep between requests
KEPT_ON_CPU = 1 << 30  # bytes


class LanePool:
    """The lanes of one model; its owner calls one method at a time.

    Parameters
    ----------
    transformer : Transformer
    window : int
        Columns of the longest row.
    workers : int
        Lanes of a kind.
    graphs : GraphPool or None
        Where the lanes' CUDA graphs live.
    kernels : Kernels or None
        What the lanes' steps are made of.
    ahead : int
        Tokens that usually stand in front of the music.

    Attributes
    ----------
    columns : list of int
        The lengths that slots come in.
    by_kind : dict
        The lanes of each kind.
    """

    def __init__(
        self,
        transformer: Transformer,
        window: int,
        workers: int,
        graphs: GraphPool | None,
        kernels: Kernels | None = None,
        ahead: int = 0,
    ) -> None:
        self.transformer, self.workers, self.graphs = transformer, workers, graphs
        self.kernels, self.ahead = kernels, ahead
        self.columns = sorted({min(SHORT_COLUMNS, round_up(window, 16)), round_up(window, 16)})
        self.by_kind: dict[LaneKind, list[Lane]] = {}
        self._sizes: dict[LaneKind, int] = {}  # that memory has taught

    def __iter__(self) -> Iterator[Lane]:
        return (lane for lanes in self.by_kind.values() for lane in lanes)

    @property
    def busy(self) -> list[Lane]:
        """Lanes with rows."""
        return [lane for lane in self if lane.tasks]

    @property
    def used_bytes(self) -> int:
        """Memory of all lanes."""
        return sum(lane.used_bytes for lane in self)

    def lane_for(self, task: RowTask, waiting: int) -> Lane | None:
        """A lane with a free slot for a row, where there is one; of each kind, few rows share one lane, more are spread.

        Parameters
        ----------
        task : RowTask
        waiting : int
            Rows of all requests that wait for a slot.
        """
        text = 0 if task.row.text is None else text_length(task.row.text.shape[0])
        columns = next(columns for columns in self.columns if task.columns <= columns)
        lanes = self.of(LaneKind(columns, text, prefix_length(task.ahead)))
        free = [lane for lane in lanes if len(lane.tasks) < lane.size]
        if not free:
            return None
        rows = sum(len(lane.tasks) for lane in lanes) + waiting
        choose = min if rows >= len(lanes) * FEWEST_PER_LANE else max
        return choose(free, key=lambda lane: len(lane.tasks))

    def of(self, kind: LaneKind) -> list[Lane]:
        """The lanes of a kind, made where there are none; their memory comes with the first row."""
        if kind not in self.by_kind:
            size = min(self._sizes.get(kind, MOST_ROWS), self._rows_that_fit(kind))
            self.by_kind[kind] = [
                Lane(self.transformer, kind, size, self.graphs, self.kernels) for _ in range(self.workers)
            ]
        return self.by_kind[kind]

    def all_kinds(self) -> list[LaneKind]:
        """The kinds that requests with texts of a usual length need."""
        text = text_length(1) if self.transformer.has_cross else 0
        return [LaneKind(columns, text, prefix_length(self.ahead)) for columns in self.columns]

    def shrink(self, lane: Lane, rows: int) -> None:
        """Go on with half as many slots in lanes of this kind, of which `rows` were too many for the memory."""
        size = (rows + 1) // 2
        logger.warning("out of memory with %d variations at once, going on with %d", rows, size)
        self._sizes[lane.kind] = size
        for other in self.by_kind.get(lane.kind, []):
            other.size = size if other.slots is None else other.size

    def release_idle(self) -> bool:
        """Let lanes without rows go; tell whether there were any with memory."""
        return self._release_beyond(-1)

    def release_what_need_not_be_kept(self) -> bool:
        """Let lanes without rows go until the rest is no more than may be kept between requests."""
        return self._release_beyond(self._kept_bytes())

    def clear(self) -> None:
        """Forget all lanes, whatever they hold."""
        self.by_kind.clear()

    def _release_beyond(self, room: int) -> bool:
        lanes = [lane for lane in self if lane.slots is not None]
        kept, released = sum(lane.used_bytes for lane in lanes), False
        for lane in lanes:
            if kept > room and not lane.tasks:
                kept -= lane.used_bytes
                lane.release()
                released = True
        used = lambda lanes: any(lane.tasks or lane.slots is not None for lane in lanes)
        self.by_kind = {kind: lanes for kind, lanes in self.by_kind.items() if used(lanes)}
        return released

    def _rows_that_fit(self, kind: LaneKind) -> int:
        """How many rows the free memory holds, and on a GPU what may be kept of it, beside the other lanes."""
        device = self.transformer.device
        room = int(FREE_SHARE * free_bytes(device))
        if device.type == "cuda":
            room = min(room, int(self._kept_bytes() * (0.5 if kind.columns == self.columns[0] else 1)))
            room -= self.used_bytes
        return max(1, min(MOST_ROWS, room // row_bytes(self.transformer, *kind)))

    def _kept_bytes(self) -> int:
        """Most that lanes may keep between requests."""
        if self.transformer.device.type != "cuda":
            return KEPT_ON_CPU
        total = torch.cuda.get_device_properties(self.transformer.device).total_memory
        return int(KEPT_SHARE * total)
