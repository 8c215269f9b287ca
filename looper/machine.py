"""What the machine says of itself: whether its GPU answers, and how its memory stands."""

from __future__ import annotations

import ctypes
import logging
from contextlib import suppress

log = logging.getLogger(__name__)

_ARENAS = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h


def few_arenas() -> None:
    """Keep glibc from giving each of many short-lived threads a heap of its own, which it never gives back."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, _ARENAS)


def return_memory() -> None:
    """Hand freed memory back to the system: what a long prediction took is not kept for the short ones."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def gpu_answers() -> bool:
    """Tell whether the GPU still computes: after a fault every call to a lost one raises."""
    import torch

    try:
        return torch.ones(1, device="cuda").add(1).item() == 2
    except RuntimeError as error:
        log.error("the GPU does not answer: %s", error)
        return False


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on a GPU or not."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's words for it on a CPU
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def peak_memory_mb() -> float:
    """Most memory used so far, MiB: the GPU's where there is one, else the process's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
