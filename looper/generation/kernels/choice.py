"""Which operations of a step run as kernels: those that have proven right and no slower on this card with this model."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from looper.generation.kernels.operations import NAMES, Operations, aten
from looper.generation.kernels.trial import Stopwatch, Verdict, graph_seconds, trial
from looper.model.transformer import Layer, Transformer
from looper.runtime.cuda_graph import GraphPool, StepCounts

logger = logging.getLogger(__name__)

VARIABLE = "LOOPER_KERNELS"
ALLOWED = ("off", "auto", "require")
LEAST_CAPABILITY = 8  # Triton has no tensor cores for older cards, and spills
HEAD_SIZES = (16, 32, 64, 128)


class KernelError(RuntimeError):
    """Kernels were required, and one of them can't be used; the message says why."""


@dataclass(frozen=True)
class Kernels:
    """A step's operations, some of them kernels.

    Attributes
    ----------
    operations : Operations
    used : tuple of str
        Names of those that are kernels.
    verdicts : tuple of Verdict
    """

    operations: Operations
    used: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def running(self) -> dict[str, bool]:
        """Whether each operation is a kernel."""
        return {name: name in self.used for name in NAMES}

    @property
    def read_lengths(self) -> bool:
        """Whether one graph serves rows of any length: attention reads how long they are."""
        return "self_attention" in self.used


def kernels_wanted() -> str:
    """What `LOOPER_KERNELS` asks for: off, auto (where it is not set) or require.

    Raises
    ------
    ValueError
        For anything else.
    """
    asked = os.environ.get(VARIABLE, "") or "auto"
    if asked not in ALLOWED:
        raise ValueError(f"{VARIABLE} must be off, auto or require, got {asked!r:.80}")
    return asked


def choose_kernels(transformer: Transformer, pool: GraphPool | None, rows: int) -> Kernels | None:
    """The kernels for a model on its device; None where none is tried, as on every CPU.

    Parameters
    ----------
    transformer : Transformer
    pool : GraphPool or None
        Where steps are captured.
    rows : int
        The most that are decoded at once.

    Raises
    ------
    ValueError
        If `LOOPER_KERNELS` is set to something it may not be.
    KernelError
        If it asks for kernels and one of them can't be used.
    """
    wanted = kernels_wanted()
    if wanted == "off":
        return None
    obstacle = what_prevents(transformer)
    if obstacle is not None:
        if wanted == "require":
            raise KernelError(f"{VARIABLE}=require, but {obstacle}; unset it to decode all the same")
        if transformer.device.type == "cuda":
            logger.info("steps run without kernels of ours: %s", obstacle)
        return None
    from looper.generation.kernels.launches import Launches

    capability, _ = torch.cuda.get_device_capability(transformer.device)
    candidate = Launches(transformer.dtype, capability).operations()
    with torch.inference_mode(), torch.cuda.device(transformer.device):
        chosen = tried(transformer, candidate, (1, rows), graph_seconds(pool), wanted == "require")
    if pool is not None:
        pool.counts = StepCounts()  # of requests' steps
    return chosen


def tried(
    transformer: Transformer,
    candidate: Operations,
    row_counts: Sequence[int],
    stopwatch: Stopwatch,
    required: bool = False,
) -> Kernels:
    """Take those of `candidate` that pass their trial, and ATen's in place of the others."""
    started = time.perf_counter()
    reference = aten(transformer.dtype)
    verdicts = trial(transformer, reference, candidate, row_counts, stopwatch)
    for verdict in verdicts:
        if verdict.refused is not None:
            logger.warning("the kernel %s is not used: %s", verdict.name, verdict.refused)
    refused = [verdict for verdict in verdicts if verdict.refused is not None]
    if required and refused:
        named = "; ".join(f"{verdict.name}: {verdict.refused}" for verdict in refused)
        raise KernelError(f"{VARIABLE}=require, but not all kernels can be used: {named}")
    used = tuple(verdict.name for verdict in verdicts if verdict.refused is None)
    told = ", ".join(f"{verdict.name} {verdict.speedup:.1f}x" for verdict in verdicts if verdict.name in used)
    logger.info("kernels in use (tried in %.1f s): %s", time.perf_counter() - started, told or "none")
    table = {name: getattr(candidate if name in used else reference, name) for name in NAMES}
    return Kernels(Operations(**table), used, tuple(verdicts))


def what_prevents(transformer: Transformer) -> str | None:
    """Why a model on its device is not for the kernels, in words; None where it is."""
    device = transformer.device
    if device.type != "cuda":
        return f"the model is on {device}, and kernels need an NVIDIA GPU"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability[0] < LEAST_CAPABILITY:
        return f"the GPU is of capability {capability[0]}.{capability[1]}, and kernels need 8.0"
    return what_model_prevents(transformer)


def what_model_prevents(transformer: Transformer) -> str | None:
    """Why a model is not for the kernels, on whatever device."""
    t = transformer
    head_dim = t.dim // t.heads
    special = next(filter(None, map(_special, t.layers)), None)
    if special is None and t.output.bias is not None:
        special = "biases"
    if special is not None:
        return f"the model has {special}"
    if not t.has_cross:
        return "the model has no text"
    if head_dim not in HEAD_SIZES or t.dim % 16 or t.n_q * t.card % 16:
        return f"the model has heads of {head_dim} and a width of {t.dim}"
    return None


def _special(layer: Layer) -> str | None:
    linears = (layer.qkv, layer.out, layer.up, layer.down)
    if any(linear.bias is not None for linear in linears):
        return "biases"
    if layer.scale1 is not None or layer.scale2 is not None:
        return "layer scales"
    if layer.qk_norm or (layer.has_cross and layer.cross_qk_norm):
        return "norms of queries and keys"
    if layer.activation is not F.gelu:
        return "another activation than GELU"
    return None
