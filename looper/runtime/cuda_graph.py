"""Run a function of constant shapes as one CUDA graph."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from looper.runtime.memory import out_of_memory

logger = logging.getLogger(__name__)

KILL_SWITCH = "LOOPER_NO_CUDA_GRAPH"
# torch 2.11's allocator is broken after an operation that a graph may not hold: later captures and emptying the
# cache raise (pytorch#180395), so the process must be replaced
_invalidated = threading.Event()


def graphs_wanted(device: torch.device) -> bool:
    """Whether to capture: on CUDA, unless `LOOPER_NO_CUDA_GRAPH` is set to anything but 0."""
    return device.type == "cuda" and os.environ.get(KILL_SWITCH, "0") in ("", "0")


def captures_work() -> bool:
    """Tell whether no capture has been invalidated in this process."""
    return not _invalidated.is_set()


@dataclass
class StepCounts:
    """How often functions ran on a GPU: captured, replayed, or eagerly, which takes several times as long."""

    eager: int = 0
    captured: int = 0
    replayed: int = 0


class GraphPool:
    """Scratch memory that graphs share: they run one after another and leave nothing in it.

    torch refuses to use a pool again whose last graph has died while a block of it lives, and one always does:
    the workspace of cuBLAS. So a graph of one node is captured into it at once, and kept as long as the pool; that
    also shows whether this machine captures at all.
    """

    def __init__(self, device: torch.device) -> None:
        self.handle = torch.cuda.graph_pool_handle()
        self.counts = StepCounts()
        self._cell = torch.zeros(1, device=device)
        self.anchor = Graphed(lambda: self._cell.add_(1), self)
        for _ in range(2):
            self.anchor()
        self.counts = StepCounts()


class Graphed:
    """Call `function` eagerly at first, then replay a captured graph of it.

    The one rule: it takes no arguments and returns nothing that counts; it reads and writes tensors that stay
    where they are. Without a pool (and so on every CPU) it is the plain function.
    """

    def __init__(self, function: Callable[[], Any], pool: GraphPool | None = None) -> None:
        self.function, self.pool = function, pool
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = self.disabled = False

    def __call__(self) -> None:
        """Do one step."""
        if self.pool is None:
            self.function()
        elif self.graph is not None:
            self.graph.replay()
            self.pool.counts.replayed += 1
        elif self.warm and not self.disabled:
            self._capture(self.pool)
        else:
            # the first call does real work outside any graph: it loads kernels and grows workspaces
            self.function()
            self.warm = True
            self.pool.counts.eager += 1

    def _capture(self, pool: GraphPool) -> None:
        """Record the function and run it once; eagerly, and from then on, where that cannot be done."""
        torch.cuda.synchronize()
        stream, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        try:
            # other threads' work, such as a health probe, does not break a capture of this thread
            with torch.cuda.graph(graph, pool=pool.handle, capture_error_mode="thread_local"):
                self.function()
        except BaseException as error:  # a cancellation may come between any two lines
            # half a graph must not be kept, nor its stream: `torch.cuda.graph` leaves both where ending it fails
            with suppress(RuntimeError):
                if torch.cuda.is_current_stream_capturing():
                    graph.capture_end()
            torch.cuda.set_stream(stream)
            if not isinstance(error, RuntimeError) or out_of_memory(error):
                raise
            _invalidated.set()
            logger.error("no CUDA graph could be captured, going on without, several times slower: %s", error)
            self.disabled = True
            self.function()
            pool.counts.eager += 1
        else:
            self.graph = graph
            graph.replay()
            pool.counts.captured += 1
