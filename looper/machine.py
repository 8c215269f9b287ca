"""What the machine says of itself: whether its GPU answers, and how its memory stands."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


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
