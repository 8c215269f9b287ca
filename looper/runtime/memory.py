"""Memory: how much is free, when it ran out, and handing it back."""

from __future__ import annotations

import ctypes
import gc
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MEMORY_FILE = Path("/proc/meminfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")
_ARENAS = 2
# torch's words for it on a CPU, and on a GPU where it is not torch's own allocator that runs out
_OUT_OF_MEMORY = (
    "allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
)
_LARGE = 1 << 20
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h


def tune_malloc() -> None:
    """Keep glibc's heap from breaking into pieces that it cannot give back.

    Large blocks are mapped, and so returned when they are freed; by itself glibc stops doing that after the
    first few. And many short-lived threads share two heaps instead of having one each.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def freeze_gc() -> None:
    """Let the garbage collector pass over all there is by now, so that a collection takes milliseconds."""
    gc.collect()
    gc.freeze()


def return_memory() -> None:
    """Hand freed memory back to the system: what a long prediction took is not kept for the short ones."""
    gc.collect()  # cycles hold waveforms
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_bytes(device: torch.device) -> int:
    """Memory that may be filled: the GPU's, or the machine's and the container's."""
    if device.type == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(_free_in_machine(), _free_in_container())


def _free_in_machine() -> int:
    try:
        lines = MEMORY_FILE.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30


def _free_in_container() -> int:
    """What the control group's limit leaves, of version 2 or 1; no end of it where there is no limit."""
    for folder, limit, used in (
        (CONTROL_GROUP, "memory.max", "memory.current"),
        (CONTROL_GROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # ValueError: "max"
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            return max(0, left + _cached_files(folder / "memory.stat"))
    return 1 << 62


def _cached_files(statistics: Path) -> int:
    """Count what counts as used and goes away when it is needed: files read a while ago, such as weights."""
    with suppress(OSError, StopIteration):
        lines = statistics.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return 0


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or the one that it was made of, means that memory ran out, on a GPU or not."""
    import torch

    if error.__cause__ is not None and out_of_memory(error.__cause__):
        return True
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def reset_peak_memory() -> None:
    """Begin to watch the GPU's peak anew; a process has one peak in its life."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """Most memory used, MiB: of the GPU since `reset_peak_memory` where there is one, else of the process so far."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
