"""Build modules whose weights are loaded next, without drawing random ones first."""

from __future__ import annotations

from typing import Any

from torch.overrides import TorchFunctionMode

# what torch.nn.init calls; on the meta device normal_ would even import PyTorch's compiler
_DRAWS = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "erfinv_"})


class EmptyWeights(TorchFunctionMode):
    """Inside this context weights stay as they were allocated.

    Example
    -------
    >>> import torch
    >>> with EmptyWeights():
    ...     layer = torch.nn.Linear(4096, 4096)
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Pass everything on but the drawing of random numbers into a tensor."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
