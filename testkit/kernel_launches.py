"""What a decode step launches at the published models' sizes, without a GPU or weights.

Fake tensors carry shapes, types and devices alone; the kernels' launches are written down instead of made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from looper.checkpoints import load
from looper.generation.kernels.fused_step import fused_step
from looper.generation.kernels.launches import Launches
from looper.generation.sampling import any_rule
from looper.generation.slots import Slots
from looper.generation.step import make_step
from looper.model.transformer import Transformer
from testkit import checkpoints
from testkit.checkpoints import Shape

COLUMNS, TEXT = 704, 64


@dataclass(frozen=True)
class LaunchRecord:
    """One launch: the kernel, its grid, its arguments in order, and how it is compiled."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int
    stages: int

    @property
    def name(self) -> str:
        """The kernel, and what tells its launches apart."""
        told = {key: self.constants[key] for key in ("N", "K", "SPLIT", "EVERY") if key in self.constants}
        return " ".join([self.kernel.__name__, *(f"{key}={value}" for key, value in told.items())])


class Nodes(TorchDispatchMode):
    """Counts what ATen would launch: operations that are neither views nor allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        storages = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        made = [t for t in tree_leaves(out) if torch.is_tensor(t)]
        inplace = function._schema.is_mutable
        new = any(t.untyped_storage()._cdata not in storages for t in made)
        name = function.overloadpacket.__name__
        if (inplace or new) and not name.startswith(("empty", "new_empty")):
            self.names.append(name)
        return out


@contextmanager
def on_a_gpu_of_air() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        yield


def transformer(shape: Shape) -> Transformer:
    """A model of fake tensors; call it within `on_a_gpu_of_air`."""
    config = OmegaConf.create(checkpoints.lm_config(replace(shape, text="lut")))
    with unset_fake_temporarily():
        lm = load.build_lm(config, None, torch.device("meta"))
    for module in lm.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=torch.float16, device="cuda")
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=False)
    return Transformer(lm)


def launches(shape: Shape, rows: int, capability: int = 9) -> tuple[list[LaunchRecord], list[str]]:
    """What a step of kernels launches: kernels, and ATen's operations beside them."""
    records: list[LaunchRecord] = []

    def note(kernel, grid, *args, warps=4, stages=3, **constants):
        records.append(LaunchRecord(kernel, grid, args, constants, warps, stages))

    with on_a_gpu_of_air():
        t = transformer(shape)
        slots = Slots(t, rows, COLUMNS, TEXT)
        with Nodes() as nodes:
            fused_step(slots, rows, COLUMNS, Launches(t.dtype, capability, note).operations())
    return records, nodes.names


def aten_nodes(shape: Shape, rows: int) -> list[str]:
    """What the plain step launches, by name."""
    with on_a_gpu_of_air():
        t = transformer(shape)
        slots = Slots(t, rows, COLUMNS, TEXT)
        step = make_step(slots, rows, COLUMNS, TEXT, any_rule(t.card))
        # which kernel of attention there is only a driver knows
        with (
            Nodes() as nodes,
            patch("looper.model.transformer.one_attention_kernel", lambda device: nullcontext()),
        ):
            step()
    return nodes.names


def two_layers(shape: Shape) -> Shape:
    """A model's shape with as many layers as have all the launches there are."""
    return replace(shape, num_layers=2)


def distinct(records: list[LaunchRecord]) -> list[LaunchRecord]:
    """One of each that is compiled by itself."""
    return list({(r.kernel.__name__, repr(sorted(r.constants.items()))): r for r in records}.values())
