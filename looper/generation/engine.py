"""One device, many requests: the thread that owns the device, and the order in which rows get their turn.

Rows of any requests stand in the slots of a few lanes (`looper.generation.lane`). They join and leave between
rounds of 16 steps, and a row's codes are bit for bit those it has alone. All other work on the device (texts,
audio prompts, waveforms, likelihoods) is called here too, and runs between rounds.

A small model on a CPU has several lanes of a kind, each advanced by a thread of its own: for it that is faster
than threads within each product, which wait for each other a thousand times a step. Its other work runs beside.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from looper.generation.batch import Row, check_rows, round_up, text_length
from looper.generation.lane import ROUND, Lane, LaneKind
from looper.generation.sampling import check_sampling
from looper.generation.slots import row_bytes
from looper.generation.tasks import DecodeError, RequestTask, RowTask
from looper.model.musicgen import Model
from looper.model.transformer import Transformer
from looper.request import Sampling
from looper.runtime.cuda_graph import GraphPool, StepCounts, graphs_wanted
from looper.runtime.memory import free_bytes, out_of_memory

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
T = TypeVar("T")

SHORT_COLUMNS = 704  # 8 s of music with a bar before and after, at all but the slowest tempi
MOST_ROWS = 32  # in a lane: on CUDA one tile of products
FEWEST_PER_LANE = 4  # fewer rows are mostly Python, which threads do not share
FREE_SHARE = 0.8  # of the free memory that a lane may plan with
KEPT_SHARE = 0.3  # of a GPU's memory that a model's lanes may keep between requests
KEPT_ON_CPU = 1 << 30
JOB_SHARE = 0.25  # of the time of the last steps: longer, and other work waits for the next round
POLL_SECONDS = 0.05  # between a waiting caller's looks at its progress

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


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
    """

    rows_running: int
    rows_waiting: int
    slots: int
    cache_bytes: int
    step_seconds: float
    steps: StepCounts


class Engine:
    """Decode rows of any requests together; calls from any thread.

    Parameters
    ----------
    model : looper.model.musicgen.Model
    disable_graphs : bool
        Run every step eagerly on CUDA too; so does the environment's `LOOPER_NO_CUDA_GRAPH=1`.
    threads, workers : int
        Threads within a product on a CPU, and lanes of a kind.
    """

    def __init__(
        self, model: Model, disable_graphs: bool = False, threads: int = 1, workers: int = 1
    ) -> None:
        self.threads, self.workers = threads, workers
        before = torch.get_num_threads()
        torch.set_num_threads(threads)  # products are tried with as many as they will run with
        self.transformer = Transformer(model.lm, model.clock.weight if model.clock else None)
        torch.set_num_threads(before)
        self.delays = self.transformer.delays
        window = int(model.window_seconds * float(model.codec.frame_rate)) + max(self.delays)
        self.columns = sorted({min(SHORT_COLUMNS, round_up(window, 16)), round_up(window, 16)})
        if self.transformer.device.type == "cuda":  # sums of products stay in fp32
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        graphs = graphs_wanted(self.transformer.device) and not disable_graphs
        self.pool = GraphPool(self.transformer.device) if graphs else None
        self.lanes: dict[LaneKind, list[Lane]] = {}
        self._sizes: dict[LaneKind, int] = {}  # that memory has taught
        self._changed = threading.Condition()
        self._requests: list[RequestTask] = []
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._arrived, self._at_work, self._release_wanted = 0, False, False
        self._round_seconds = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._lane_threads = ThreadPoolExecutor(workers, thread_name_prefix="lane") if workers > 1 else None
        self._job_threads = ThreadPoolExecutor(workers, thread_name_prefix="job") if workers > 1 else None
        _engines.add(self)

    def decode(
        self, rows: Sequence[Row], frames: int, sampling: Sampling, progress: Progress | None = None
    ) -> Tensor:
        """Decode codes [rows, n_q, frames], prompts included; -1 after the end of a shorter row.

        Parameters
        ----------
        rows : sequence of Row
        frames : int
            Frames of a row that does not say, and the most one may have.
        sampling : Sampling
        progress : callable, optional
            Called with (steps done, steps in all) every few steps, from this thread; what it raises
            ends the decoding: the rows leave within a round.

        Raises
        ------
        ValueError
            For arguments that don't fit together or the model.
        DecodeError
            If the model's numbers stop being finite, or memory runs out at a single row.
        """
        check_sampling(sampling, self.transformer.card)
        check_rows(rows, frames)
        if frames + max(self.delays) > self.columns[-1]:
            raise ValueError(f"up to {self.columns[-1] - max(self.delays)} frames fit, got {frames}")
        with self._changed:
            self._arrived += 1
            request = RequestTask.of(self._arrived, rows, frames, sampling, self.delays)
            self._requests.append(request)
        self._wake()
        try:
            self._wait(request, progress or (lambda done, total: None))
        except BaseException:
            self._cancel(request)
            raise
        if request.error is not None:
            raise request.error
        return request.result(frames)

    def call(self, function: Callable[[], T]) -> T:
        """Run other work on the device, and return what it returns; what it raises is raised here."""
        (result,) = self.map(lambda _: function(), [None])
        return result

    def map(self, function: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
        """As `call`, for each of some items."""
        futures = [self._submit(partial(function, item)) for item in items]
        try:
            return [_result(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def status(self) -> EngineStatus:
        """What the engine is doing now."""
        with self._changed:
            lanes = [lane for lanes in self.lanes.values() for lane in lanes]
            return EngineStatus(
                sum(len(lane.tasks) for lane in lanes),
                sum(len(request.waiting) for request in self._requests),
                sum(lane.size for lane in lanes if lane.slots is not None),
                sum(lane.used_bytes for lane in lanes),
                self._round_seconds / ROUND,
                self.pool.counts if self.pool else StepCounts(),
            )

    def release(self) -> None:
        """Give back what is kept between requests; the next one makes it anew."""
        with self._changed:
            if self._at_work:
                self._release_wanted = True
            else:
                self._release_idle()

    def capture(self) -> None:
        """Capture the steps of all numbers of rows now, so that no request waits for that."""
        if self.pool is not None:
            self.call(self._capture)

    # --- from here on: the engine's own thread, but for what is said otherwise

    def _submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Queue other work; from any thread."""
        if self._job_threads is not None:
            return self._job_threads.submit(self._prepared, function)
        future: Future[Any] = Future()
        with self._changed:
            self._jobs.append((future, function))
        self._wake()
        return future

    def _wake(self) -> None:
        """Start the loop where it rests; from any thread."""
        with self._changed:
            if self._at_work:
                return
            self._at_work = True
        self._thread.submit(self._run)

    def _wait(self, request: RequestTask, report: Progress) -> None:
        """Wait in the caller's thread, which a signal or a cancellation may reach at any time."""
        while not request.ended.is_set():
            report(*request.progress())
            with self._changed:
                if not request.ended.is_set():
                    self._changed.wait(POLL_SECONDS)
        if request.error is None:
            report(*request.progress())

    def _cancel(self, request: RequestTask) -> None:
        """Have a request's rows leave at the end of the round; from any thread."""
        with self._changed:
            request.waiting.clear()
            request.error = request.error or DecodeError("cancelled")
        self._wake()

    def _prepared(self, function: Callable[[], T]) -> T:
        """Run a function as work on the device is run, in whatever thread of the engine."""
        device = self.transformer.device
        torch.set_num_threads(self.threads)  # of this thread
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        with torch.inference_mode():
            return function()

    def _run(self) -> None:
        try:
            while self._prepared(self._round):
                pass
        except BaseException as error:
            logger.exception("the engine failed")
            with self._changed:
                self._at_work = False
                for request in self._requests:
                    request.error = request.error or error
                    request.ended.set()
                self._requests.clear()
                self.lanes.clear()
            raise

    def _round(self) -> bool:
        """Admit rows, advance all lanes, see who is done; tell whether anything is left to do."""
        with self._changed:
            if self._release_wanted:
                self._release_wanted = False
                self._release_idle()
            self._settle()
            self._admit()
            lanes = [lane for kind in self.lanes.values() for lane in kind if lane.tasks]
            if not lanes and not self._jobs:
                self._release_beyond(self._kept_bytes())
                self._at_work = False
                return False
        self._work_off_jobs(bool(lanes))
        started = time.perf_counter()
        failures = self._advance(lanes)
        if lanes:
            self._round_seconds = time.perf_counter() - started
        with self._changed:
            for lane, error in failures:
                self._recover(lane, error)
            self._settle()
            self._changed.notify_all()
        return True

    def _advance(self, lanes: list[Lane]) -> list[tuple[Lane, BaseException]]:
        """Advance the lanes by a round; return those that failed."""

        def one(lane: Lane) -> BaseException | None:
            try:
                lane.advance()
                self._take_out(lane)
            except Exception as error:  # of whatever kind: it must end these requests, not the engine
                return error
            return None

        if self._lane_threads is None or len(lanes) < 2:
            errors = [one(lane) for lane in lanes]
        else:
            errors = list(self._lane_threads.map(lambda lane: self._prepared(lambda: one(lane)), lanes))
        return [(lane, error) for lane, error in zip(lanes, errors, strict=True) if error is not None]

    def _take_out(self, lane: Lane) -> None:
        """Let rows leave that are done or broken."""
        broken = lane.broken()
        for task in broken:
            step = task.position - task.start + 1
            task.request.error = DecodeError(
                f"the model's output stopped being finite at step {step}: its weights are broken or "
                "overflow; check them with `looper weights verify`"
            )
        done = [task for task in lane.running if not task.remaining and task.request.error is None]
        assert lane.slots is not None
        for task in done:
            task.request.codes[task.index] = lane.slots.codes(task)
        left = [*broken, *done]
        lane.leave(left)
        with self._changed:
            for task in left:
                task.request.running -= 1

    def _work_off_jobs(self, busy: bool) -> None:
        """Do other work that waits: all of it, or, where lanes are busy, for a share of their time."""
        started = time.perf_counter()
        while self._jobs:
            future, function = self._jobs.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._with_room(function))
                except BaseException as error:
                    future.set_exception(error)
            if busy and time.perf_counter() - started > JOB_SHARE * self._round_seconds:
                return

    def _with_room(self, function: Callable[[], T]) -> T:
        """Run other work, a second time where memory ran out and there is some to give back."""
        try:
            return function()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or not self._make_room():
                raise
        return function()

    # --- who gets a slot; all with the lock held

    def _admit(self) -> None:
        """Give free slots to waiting rows: the request with the fewest running first, then the earliest."""
        while True:
            ready = [request for request in self._requests if request.waiting]
            found = [(request, lane) for request in ready if (lane := self._lane_for(request.waiting[0]))]
            if not found:
                return
            request, lane = min(found, key=lambda pair: (pair[0].running, pair[0].number))
            lane.add(request.waiting.popleft())
            request.running += 1

    def _lane_for(self, task: RowTask) -> Lane | None:
        """A lane with a free slot for a row; few rows share one lane, more are spread over all of a kind."""
        text = 0 if task.row.text is None else text_length(task.row.text.shape[0])
        columns = next(columns for columns in self.columns if task.columns <= columns)
        lanes = self._lanes(LaneKind(columns, text))
        free = [lane for lane in lanes if len(lane.tasks) < lane.size]
        if not free:
            return None
        rows = sum(len(lane.tasks) for lane in lanes) + sum(len(r.waiting) for r in self._requests)
        if rows >= len(lanes) * FEWEST_PER_LANE:
            return min(free, key=lambda lane: len(lane.tasks))
        return max(free, key=lambda lane: len(lane.tasks))

    def _lanes(self, kind: LaneKind) -> list[Lane]:
        if kind not in self.lanes:
            size = min(self._sizes.get(kind, MOST_ROWS), self._rows_that_fit(kind))
            self.lanes[kind] = [Lane(self.transformer, kind, size, self.pool) for _ in range(self.workers)]
        return self.lanes[kind]

    def _rows_that_fit(self, kind: LaneKind) -> int:
        """How many rows the free memory holds, and on a GPU what may be kept of it, beside the other lanes."""
        device = self.transformer.device
        room = int(FREE_SHARE * free_bytes(device))
        if device.type == "cuda":
            room = min(room, int(self._kept_bytes() * (0.5 if kind.columns == self.columns[0] else 1)))
            room -= sum(lane.used_bytes for lanes in self.lanes.values() for lane in lanes)
        return max(1, min(MOST_ROWS, room // row_bytes(self.transformer, *kind)))

    def _kept_bytes(self) -> int:
        """Most that lanes may keep between requests."""
        if self.transformer.device.type != "cuda":
            return KEPT_ON_CPU
        total = torch.cuda.get_device_properties(self.transformer.device).total_memory
        return int(KEPT_SHARE * total)

    def _settle(self) -> None:
        """Tell the callers of requests that are over, and take what rows they have left out of the lanes."""
        over = [request for request in self._requests if request.over]
        for request in over:
            self._requests.remove(request)
            request.ended.set()
        for lane in (lane for lanes in self.lanes.values() for lane in lanes if over):
            lane.leave([task for task in lane.tasks if task.request.error is not None])

    def _recover(self, lane: Lane, error: BaseException) -> None:
        """Begin a failed lane's rows anew where memory ran out; other errors end their requests."""
        tasks = lane.release()
        for task in tasks:
            request = task.request
            request.running -= 1
            task.begin_anew()
            if request.error is None and out_of_memory(error):
                request.waiting.append(task)
            elif request.error is None:
                request.error = error
        for request in {id(task.request): task.request for task in tasks}.values():
            request.waiting = deque(sorted(request.waiting, key=lambda task: task.index))
        if out_of_memory(error) and not self._make_room():
            self._shrink(lane, tasks, error)

    def _shrink(self, lane: Lane, tasks: list[RowTask], error: BaseException) -> None:
        """Go on with half as many slots; with a single row too many there is no way on."""
        if len(tasks) == 1:
            failure = DecodeError("out of memory with a single variation: ask for less audio")
            failure.__cause__ = error
            tasks[0].request.waiting.clear()
            tasks[0].request.error = failure
            return
        size = (len(tasks) + 1) // 2
        logger.warning("out of memory with %d variations at once, going on with %d", len(tasks), size)
        self._sizes[lane.kind] = size
        for other in self.lanes.get(lane.kind, []):
            other.size = size if other.slots is None else other.size

    def _make_room(self) -> bool:
        """Give back the memory of lanes without rows, of other models too; tell whether there was any."""
        with self._changed:
            released = self._release_idle()
        for engine in _engines:
            if engine is not self and engine._changed.acquire(blocking=False):
                try:
                    if not engine._at_work:
                        released = engine._release_idle() or released
                finally:
                    engine._changed.release()
        if released and self.transformer.device.type == "cuda":
            torch.cuda.empty_cache()
        return released

    def _release_idle(self) -> bool:
        return self._release_beyond(-1)

    def _release_beyond(self, room: int) -> bool:
        """Let lanes without rows go until what is kept fits in `room` bytes; tell whether any went."""
        lanes = [lane for lanes in self.lanes.values() for lane in lanes if lane.slots is not None]
        kept, released = sum(lane.used_bytes for lane in lanes), False
        for lane in lanes:
            if kept > room and not lane.tasks:
                kept -= lane.used_bytes
                lane.release()
                released = True
        used = lambda lanes: any(lane.tasks or lane.slots is not None for lane in lanes)
        self.lanes = {kind: lanes for kind, lanes in self.lanes.items() if used(lanes)}
        return released

    def _capture(self) -> None:
        for columns in self.columns:
            kind = LaneKind(columns, text_length(1) if self.transformer.has_cross else 0)
            with self._changed:
                lanes = self._lanes(kind)
            for lane in lanes:
                lane.capture()


def _result(future: Future[Any]) -> Any:
    """A future's result, waited for so that a signal or a cancellation can reach this thread."""
    while True:
        try:
            return future.result(POLL_SECONDS)
        except StillRunning:
            if future.done():
                raise  # the work's own
