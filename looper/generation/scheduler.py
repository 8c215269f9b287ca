"""The order in which rows of many requests get their turn, and what becomes of them when a lane fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from looper.generation.batch import Row
from looper.generation.lane import Lane
from looper.generation.lane_pool import LanePool
from looper.generation.tasks import DecodeError, RequestTask, RowTask
from looper.request import Sampling
from looper.runtime.memory import out_of_memory


class Scheduler:
    """The requests in flight and the lanes their rows run in; its owner calls one method at a time.

    Parameters
    ----------
    lanes : LanePool
    delays : sequence of int
        Of the model's codebooks.
    """

    def __init__(self, lanes: LanePool, delays: Sequence[int]) -> None:
        self.lanes, self.delays = lanes, delays
        self._requests: list[RequestTask] = []
        self._arrived = 0

    @property
    def rows_running(self) -> int:
        """Rows in slots."""
        return sum(len(lane.tasks) for lane in self.lanes)

    @property
    def rows_waiting(self) -> int:
        """Rows that wait for a slot."""
        return sum(len(request.waiting) for request in self._requests)

    def add(self, rows: Sequence[Row], frames: int, sampling: Sampling) -> RequestTask:
        """Take a call's rows in; they wait for slots."""
        self._arrived += 1
        request = RequestTask.of(self._arrived, rows, frames, sampling, self.delays)
        self._requests.append(request)
        return request

    def cancel(self, request: RequestTask) -> None:
        """Have a request's rows leave at the end of the round."""
        request.waiting.clear()
        request.error = request.error or DecodeError("cancelled")

    def admit(self) -> None:
        """Give free slots to waiting rows: the request with the fewest running first, then the earliest."""
        while True:
            waiting = self.rows_waiting
            running = self.rows_running
            ready = [
                request
                for request in self._requests
                if request.waiting and (not request.held_at or running < request.held_at)
            ]
            lanes = [self.lanes.lane_for(request.waiting[0], waiting) for request in ready]
            found = [(request, lane) for request, lane in zip(ready, lanes, strict=True) if lane is not None]
            if not found:
                return
            request, lane = min(found, key=lambda pair: (pair[0].running, pair[0].number))
            lane.add(request.waiting.popleft())
            request.running += 1
            request.held_at = 0

    def left(self, tasks: list[RowTask]) -> None:
        """Note that rows have left their slots."""
        for task in tasks:
            task.request.running -= 1

    def settle(self) -> None:
        """Tell the callers of requests that are over, and take what rows they have left out of the lanes."""
        over = [request for request in self._requests if request.over]
        for request in over:
            self._requests.remove(request)
            request.ended.set()
        for lane in self.lanes if over else ():
            lane.leave([task for task in lane.tasks if task.request.error is not None])

    def recover(
        self, lane: Lane, error: BaseException, make_room: Callable[[], bool], alone: bool = True
    ) -> None:
        """Begin a failed lane's rows anew where memory ran out; other errors end their requests.

        Parameters
        ----------
        lane : Lane
        error : BaseException
        make_room : callable
            Gives memory back; returns whether there was any to give.
        alone : bool
            Whether no other lane ran.
        """
        tasks = lane.release()
        self.left(tasks)
        for task in tasks:
            task.begin_anew()
            if task.request.error is None and out_of_memory(error):
                task.request.waiting.append(task)
            elif task.request.error is None:
                task.request.error = error
        for request in {id(task.request): task.request for task in tasks}.values():
            request.waiting = deque(sorted(request.waiting, key=lambda task: task.index))
        if out_of_memory(error) and not make_room():
            self._shrink(lane, tasks, error, alone)

    def fail(self, error: BaseException) -> None:
        """End all requests with an error and forget all lanes."""
        for request in self._requests:
            request.error = request.error or error
            request.ended.set()
        self._requests.clear()
        self.lanes.clear()

    def _shrink(self, lane: Lane, tasks: list[RowTask], error: BaseException, alone: bool) -> None:
        """Go on with half as many slots, a single row when others have left; alone and too many, there is no way on."""
        if len(tasks) > 1:
            self.lanes.shrink(lane, len(tasks))
            return
        if not alone:
            tasks[0].request.held_at = max(1, self.rows_running)
            return
        failure = DecodeError("out of memory with a single variation: ask for less audio")
        failure.__cause__ = error
        tasks[0].request.waiting.clear()
        tasks[0].request.error = failure
