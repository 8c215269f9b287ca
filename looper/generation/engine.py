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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from looper.generation.batch import Row, check_rows
from looper.generation.device_jobs import POLL_SECONDS, DeviceJobs, result_of
from looper.generation.kernels.choice import choose_kernels
from looper.generation.lane import ROUND, Lane
from looper.generation.lane_pool import MOST_ROWS, LanePool
from looper.generation.sampling import check_sampling
from looper.generation.scheduler import Scheduler
from looper.generation.tasks import EngineStatus, RequestTask
from looper.model.conditioning import usual_prefix
from looper.model.musicgen import Model
from looper.model.transformer import Transformer
from looper.request import Sampling
from looper.runtime.cuda_graph import GraphPool, StepCounts, graphs_wanted
from looper.runtime.memory import out_of_memory

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
T = TypeVar("T")

JOB_SHARE = 0.25  # of the time of the last steps: longer, and other work waits for the next round

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Decode rows of any requests together; calls from any thread.

    Parameters
    ----------
    model : looper.model.musicgen.Model
    disable_graphs : bool
        Run every step eagerly on CUDA too; so does the environment's `LOOPER_NO_CUDA_GRAPH=1`.
    threads, workers : int
        Threads within a product on a CPU, and lanes of a kind.

    Raises
    ------
    ValueError, KernelError
        See `looper.generation.kernels.choice.choose_kernels`.
    """

    def __init__(
        self, model: Model, disable_graphs: bool = False, threads: int = 1, workers: int = 1
    ) -> None:
        self.threads, self.workers = threads, workers
        before = torch.get_num_threads()
        torch.set_num_threads(threads)  # products are tried with as many as they will run with
        self.transformer = Transformer(model.lm, model.clock.weight if model.clock else None)
        torch.set_num_threads(before)
        self.delays, device = self.transformer.delays, self.transformer.device
        window = int(model.window_seconds * float(model.codec.frame_rate)) + max(self.delays)
        if device.type == "cuda":  # sums of products stay in fp32
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        graphs = not disable_graphs and graphs_wanted(device)
        self.pool = GraphPool(device) if graphs else None
        self.kernels = choose_kernels(self.transformer, self.pool, MOST_ROWS)
        self.lanes = LanePool(self.transformer, window, workers, self.pool, self.kernels, usual_prefix(model))
        self._changed = threading.Condition()
        self._scheduler = Scheduler(self.lanes, self.delays)
        self._jobs = DeviceJobs()
        self._at_work, self._release_wanted, self._round_seconds = False, False, 0.0
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
        if frames + max(self.delays) > self.lanes.columns[-1]:
            raise ValueError(f"up to {self.lanes.columns[-1] - max(self.delays)} frames fit, got {frames}")
        with self._changed:
            request = self._scheduler.add(rows, frames, sampling)
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
            return [result_of(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def status(self) -> EngineStatus:
        """What the engine is doing now."""
        with self._changed:
            return EngineStatus(
                self._scheduler.rows_running,
                self._scheduler.rows_waiting,
                sum(lane.size for lane in self.lanes if lane.slots is not None),
                self.lanes.used_bytes,
                self._round_seconds / ROUND,
                self.pool.counts if self.pool else StepCounts(),
                self.kernels.running if self.kernels else {},
            )

    def release(self) -> None:
        """Give back what is kept between requests; the next one makes it anew."""
        with self._changed:
            if self._at_work:
                self._release_wanted = True
            else:
                self.lanes.release_idle()

    def capture(self) -> None:
        """Capture the steps of all numbers of rows now, so that no request waits for that."""
        if self.pool is not None:
            self.call(self._capture)

    # --- from here on: the engine's own thread, but for what is said otherwise

    def _submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Queue other work; from any thread, whose context it has: what it logs is told where it was asked for."""
        function = partial(copy_context().run, function)
        if self._job_threads is not None:
            return self._job_threads.submit(self._prepared, function)
        with self._changed:
            future = self._jobs.add(function)
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
            self._scheduler.cancel(request)
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
                self._scheduler.fail(error)
                self._jobs.fail(error)
            raise

    def _round(self) -> bool:
        """Admit rows, advance all lanes, see who is done; tell whether anything is left to do."""
        with self._changed:
            if self._release_wanted:
                self._release_wanted = False
                self.lanes.release_idle()
            self._scheduler.settle()
            self._scheduler.admit()
            lanes = self.lanes.busy
            if not lanes and not self._jobs:
                self.lanes.release_what_need_not_be_kept()
                self._at_work = False
                return False
        self._jobs.work_off(JOB_SHARE * self._round_seconds if lanes else None, self._with_room)
        started = time.perf_counter()
        failures = self._advance(lanes)
        if lanes:
            self._round_seconds = time.perf_counter() - started
        with self._changed:
            for lane, error in failures:
                self._scheduler.recover(lane, error, self._make_room, alone=len(lanes) == 1)
            self._scheduler.settle()
            self._changed.notify_all()
        return True

    def _advance(self, lanes: list[Lane]) -> list[tuple[Lane, BaseException]]:
        """Advance the lanes by a round; return those that failed."""

        def one(lane: Lane) -> BaseException | None:
            try:
                lane.advance()
                left = lane.take_out()
                with self._changed:
                    self._scheduler.left(left)
            except Exception as error:  # of whatever kind: it must end these requests, not the engine
                return error
            return None

        if self._lane_threads is None or len(lanes) < 2:
            errors = [one(lane) for lane in lanes]
        else:
            errors = list(self._lane_threads.map(lambda lane: self._prepared(lambda: one(lane)), lanes))
        return [(lane, error) for lane, error in zip(lanes, errors, strict=True) if error is not None]

    def _with_room(self, function: Callable[[], T]) -> T:
        """Run other work, a second time where memory ran out and there is some to give back."""
        try:
            return function()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or not self._make_room():
                raise
        return function()

    def _make_room(self) -> bool:
        """Give back the memory of lanes without rows, of other models too; tell whether there was any."""
        with self._changed:
            released = self.lanes.release_idle()
        for engine in _engines:
            if engine is not self and engine._changed.acquire(blocking=False):
                try:
                    if not engine._at_work:
                        released = engine.lanes.release_idle() or released
                finally:
                    engine._changed.release()
        if released and self.transformer.device.type == "cuda":
            torch.cuda.empty_cache()
        return released

    def _capture(self) -> None:
        for kind in self.lanes.all_kinds():
            with self._changed:
                lanes = self.lanes.of(kind)
            for lane in lanes:
                lane.capture()
