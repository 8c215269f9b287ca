"""Run a function of constant shapes as one CUDA graph."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

KILL_SWITCH = "LOOPER_NO_CUDA_GRAPH"


def graphs_wanted(device: torch.device) -> bool:
    """Whether to capture: on CUDA, unless ``LOOPER_NO_CUDA_GRAPH`` is set to anything but 0."""
    return device.type == "cuda" and os.environ.get(KILL_SWITCH, "0") in ("", "0")


class Graphed:
    """Call `function` eagerly at first, then replay a captured graph of it.

    The one rule: it takes no arguments and returns nothing; it reads and writes tensors that stay
    where they are. With ``disable`` (and so on every CPU) it is the plain function.
    """

    def __init__(self, function: Callable[[], None], disable: bool = False) -> None:
        self.function, self.disable = function, disable
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
            # capturing records the step and does not run it
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.function()
            self.graph.replay()
