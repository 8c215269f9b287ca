"""What is measured on, and what a finding is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.speed.roofline import CARDS, Card
from bench.speed.serving import MIX
from looper.generation.engine import Engine
from looper.generation.kernels.choice import VARIABLE, tried
from looper.generation.kernels.operations import aten
from looper.generation.lane_pool import MOST_ROWS
from looper.model.musicgen import Model
from testkit.checkpoints import LARGE, MEDIUM, Shape

SMALL_MEDIUM = Shape(64, 4, 2, card=256, codec_filters=2)
SMALL_LARGE = Shape(96, 6, 2, card=256, codec_filters=2)


@dataclass(frozen=True)
class Setting:
    """A device and how much is done on it.

    Attributes
    ----------
    device : str
    shapes : dict
        Models by name.
    rows : tuple of int
        At which steps are timed.
    row_counts : tuple of int
        Among which a row's bits are compared.
    seconds : tuple of float
        Of audio, whose average step is timed.
    timed_steps, checked_frames : int
    request_variations : int
    request_seconds : float
    loads : tuple of float
    serving_seconds, longest : float
        How long requests come, and the longest loops they ask for.
    mix : dict
        How often each number of variations is asked for.
    """

    device: str
    shapes: dict[str, Shape]
    rows: tuple[int, ...] = (1, 4, 20, 32)
    row_counts: tuple[int, ...] = (1, 2, 4, 8, 20, 32)
    seconds: tuple[float, ...] = (8.0, 20.0)
    timed_steps: int = 64
    checked_frames: int = 40
    request_variations: int = 20
    request_seconds: float = 8.0
    loads: tuple[float, ...] = (0.3, 0.7, 1.4)
    serving_seconds: float = 20.0
    longest: float = 20.0
    mix: dict[int, int] = field(default_factory=lambda: dict(MIX))

    @property
    def on_gpu(self) -> bool:
        """Whether this is no rehearsal."""
        return self.device != "cpu"

    @property
    def card(self) -> Card | None:
        """The card, where its peak is known."""
        name = torch.cuda.get_device_name() if self.on_gpu else ""
        return next((card for card in CARDS if card.name.split("-")[0] in name), None)


def real(device: str, shapes: list[str]) -> Setting:
    """The published models' shapes."""
    return Setting(device, {name: {"medium": MEDIUM, "large": LARGE}[name] for name in shapes})


def rehearsal(shapes: list[str]) -> Setting:
    """All of the code, on a CPU, in seconds."""
    return Setting(
        "cpu",
        {name: {"medium": SMALL_MEDIUM, "large": SMALL_LARGE}[name] for name in shapes},
        rows=(1, 4),
        row_counts=(1, 2, 4),
        seconds=(0.5, 1.0),
        timed_steps=3,
        checked_frames=8,
        request_variations=1,
        request_seconds=2.0,
        loads=(4.0,),
        serving_seconds=0.0,
        longest=5.0,
        mix={1: 100},
    )


@dataclass(frozen=True)
class Finding:
    """One thing found out.

    Attributes
    ----------
    section, name : str
    ok : bool or None
        Whether it is as it must be; None for a figure.
    figures : dict
    """

    section: str
    name: str
    ok: bool | None
    figures: dict[str, Any] = field(default_factory=dict)


@contextmanager
def kernels_set_to(value: str) -> Iterator[None]:
    """`LOOPER_KERNELS` for what is made in the block."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = value
    try:
        yield
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})


def engine(model: Model, kernels: bool, setting: Setting, disable_graphs: bool = False) -> Engine:
    """An engine with kernels or without; where none is possible, in a rehearsal, ATen's operations stand for them."""
    with kernels_set_to("auto" if kernels and setting.on_gpu else "off"):
        made = Engine(model, disable_graphs)
    if kernels and not setting.on_gpu:
        turn = iter(1000 * [2.0, 1.0])
        with torch.inference_mode():
            operations = aten(made.transformer.dtype)
            made.kernels = tried(made.transformer, operations, (1, MOST_ROWS), lambda function: next(turn))
        made.lanes.kernels = made.kernels
    return made


def synchronize(setting: Setting) -> None:
    """Wait until the device has done all."""
    if setting.on_gpu:
        torch.cuda.synchronize()
