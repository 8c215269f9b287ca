"""Devices: which there are, and whether the GPU still answers."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from looper.runtime.validation import FieldError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def has_gpu() -> bool:
    """Tell whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def gpu_answers() -> bool:
    """Tell whether the GPU still computes: after a fault every call to a lost one raises.

    Nor does one whose captures fail: see `looper.runtime.cuda_graph`.
    """
    import torch

    from looper.runtime.cuda_graph import captures_work

    if not captures_work():
        logger.error("a CUDA graph could not be captured: the process must be replaced")
        return False
    try:
        return torch.ones(1, device="cuda").add(1).item() == 2
    except RuntimeError as error:
        logger.error("the GPU does not answer: %s", error)
        return False


def check_device(device: str | None) -> None:
    """Raise ValueError for a name that is no device's, without importing torch; None stands for the best."""
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d{1,2})?", device):
        raise FieldError("device", f"must be cpu, cuda or cuda:N, got {device!r:.80}")


def find_device(device: str | torch.device) -> torch.device:
    """The device, if it is here."""
    import torch

    check_device(str(device))
    asked = torch.device(device)
    count = torch.cuda.device_count()
    if asked.type == "cuda" and (asked.index or 0) >= count:
        here = {0: "no GPU that PyTorch can use", 1: "only cuda:0"}.get(
            count, f"only cuda:0 to cuda:{count - 1}"
        )
        raise ValueError(f"device {asked} is not here: this machine has {here}; cpu is always there")
    return asked


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's values on the CPU: from a GPU in one copy, through memory that it can reach by itself."""
    if tensor.device.type == "cpu":
        return tensor
    import torch

    host = _reachable(tensor)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return host


def _reachable(tensor: torch.Tensor) -> torch.Tensor:
    """Pinned memory for a tensor's values; torch keeps it for the next of that size."""
    import torch

    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
