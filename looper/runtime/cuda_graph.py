"""Run a function of constant shapes as one CUDA graph."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from looper.runtime.memory import out_of_memory

logger = logging.getLogger(__name__)

KILL_SWITCH = "LOOPER_NO_CUDA_GRAPH"


def graphs_wanted(device: torch.device) -> bool:
    """Whether to capture: on CUDA, unless ``LOOPER_NO_CUDA_GRAPH`` is set to anything but 0."""
    return device.type == "cuda" and os.environ.get(KILL_SWITCH, "0") in ("", "0")


class Graphed:
    """Call `function` eagerly at first, then replay a captured graph of it.

    The one rule: it takes no arguments and returns nothing; it reads and writes tensors that stay
    where they are. With ``disable`` (and so on every CPU) it is the plain function.
    """

    def __init__(self, function: Callable[[], None], disable: bool = False, pool: Any = None) -> None:
        self.function, self.disable, self.pool = function, disable, pool
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = False

    def __call__(self) -> None:
        """Do one step."""
        if self.disable:
            self.function()
        elif self.graph is not None:
            self.graph.replay()
        elif not self.warm:
            # the first call does real work outside any graph: it loads kernels and grows workspaces
            self.function()
            self.warm = True
        else:
            self._capture()

    def _capture(self) -> None:
        """Record the function and run it once; eagerly, and from then on, where that cannot be done."""
        torch.cuda.synchronize()
        stream, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        try:
            # other threads' work, such as a health probe, does not break a capture of this thread
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                self.function()
        except BaseException as error:  # a cancellation may come between any two lines
            # half a graph must not be kept, nor its stream: `torch.cuda.graph` leaves both where ending it fails
            with suppress(RuntimeError):
                if torch.cuda.is_current_stream_capturing():
                    graph.capture_end()
            torch.cuda.set_stream(stream)
            if not isinstance(error, RuntimeError) or out_of_memory(error):
                raise
            logger.warning("no CUDA graph could be captured, going on without: %s", error)
            self.disable = True
            self.function()
        else:
            self.graph = graph
            graph.replay()
