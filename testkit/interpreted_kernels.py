"""Run the decode step's kernels in Triton's interpreter, on a CPU, and print as JSON what came of it.

    python -m testkit.interpreted_kernels

A process of its own: the interpreter must be asked for before Triton is imported.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

import looper  # noqa: F401  (it lets audiocraft be imported without PyAV)
from looper.generation.kernels.fused_step import fused_step
from looper.generation.kernels.launches import Launches
from looper.generation.kernels.operations import aten
from looper.generation.kernels.trial import SAMPLINGS, trial
from looper.generation.sampling import any_rule, draw
from looper.generation.slots import Slots
from looper.generation.step import make_step
from looper.model.linear import BatchInvariantLinear
from looper.model.transformer import Transformer
from testkit import checkpoints

SHAPE = checkpoints.Shape(dim=32, num_heads=2, num_layers=1, n_q=2, card=48, text="lut")
OLDEST = 8  # the capability without what the interpreter does not know
ROWS = 3


def with_index() -> None:
    """Let loops have bounds known at run time alone: NumPy 2.4 makes no number of an array of one any more."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched


def with_known_builtins() -> None:
    """Look for a module's builtins once, not at each call of a function: that took half of all time."""

    @cache
    def names(package: Any) -> list[str]:
        return [name for name, member in inspect.getmembers(package) if tl.core.is_builtin(member)]

    def patched(package: Any, builder: Any, scope: Any) -> None:
        for name in names(package):
            member = getattr(package, name)
            if tl.core.is_builtin(member):  # not where a caller is interpreted already
                interpreter._patch_attr(package, name, member, builder, scope)

    interpreter._patch_builtin = patched


@cache
def model(dtype: torch.dtype) -> Transformer:
    lm = checkpoints.random_model(SHAPE).lm
    lm.transformer.to(dtype)
    return Transformer(lm, torch.randn(SHAPE.dim, 5, generator=torch.Generator().manual_seed(4)))


def tried(dtype: torch.dtype) -> list[dict[str, Any]]:
    """The set-up check's verdicts, as if all were faster than ATen."""
    seconds = iter(10 * [2.0, 1.0] * 7)
    kernels = Launches(dtype, OLDEST).operations()
    verdicts = trial(model(dtype), aten(dtype), kernels, (1, ROWS), lambda function: next(seconds))
    return [asdict(verdict) for verdict in verdicts]


def filled(t: Transformer) -> Slots:
    """Rows that stand at positions of their own, with texts and samplings of their own."""
    random = torch.Generator().manual_seed(1)
    slots = Slots(t, ROWS, 160, 32)
    slots.sequence.fill_(-1)
    slots.uniforms.copy_(torch.rand(slots.uniforms.shape, generator=random))
    for row, position in enumerate((0, 127, 150)):  # the first column, a chunk's border, beyond it
        slots.position[row] = position
        slots.sequence[row, :, position] = torch.randint(t.card, (t.n_q,), generator=random)
        slots.sequence[row, 0, position + 2] = 7  # given
        t.write_text(slots.cross, [row], torch.randn(1 + 15 * row, t.dim, generator=random))
        slots.values.set([row], replace(SAMPLINGS[row], top_k=min(SAMPLINGS[row].top_k, 20)), t.card)
    slots.clock.copy_(torch.randn(slots.clock.shape, generator=random))
    for layer in slots.cache:
        layer.copy_(torch.randn(layer.shape, generator=random))
    return slots


def whole_steps() -> dict[str, Any]:
    """The same rows by the step of kernels and by the plain one."""
    t = model(torch.float32)
    ours, plain, alone = filled(t), filled(t), filled(t)
    kernels = Launches(torch.float32, OLDEST).operations()
    other = make_step(plain, ROWS, 160, 32, any_rule(t.card))
    for _ in range(2):
        fused_step(ours, ROWS, 0, kernels)  # they need not be told how many columns to look at
        other()
    for _ in range(2):
        fused_step(alone, 1, 0, kernels)
    return {
        "tokens": ours.sequence.tolist() == plain.sequence.tolist(),
        "given": ours.sequence[:, 0, :].tolist() == plain.sequence[:, 0, :].tolist(),
        "positions": ours.position.tolist(),
        "cache": float((ours.cache[0] - plain.cache[0]).abs().max()),
        "alone": bool(torch.equal(alone.sequence[0], ours.sequence[0]))
        and bool(torch.equal(alone.cache[0][:2], ours.cache[0][:2])),
        "drawn": int((ours.sequence >= 0).sum() - (filled(t).sequence >= 0).sum()),
    }


def products() -> dict[str, float]:
    """Largest error against float64, in parts of the largest number, of products that are split and not."""
    kernels, found = Launches(torch.float32, OLDEST), {}
    random = torch.Generator().manual_seed(2)
    for n, k in ((16, 16), (96, 64), (64, 768)):
        weight, x = torch.randn(n, k, generator=random), torch.randn(5, k, generator=random)
        linear = BatchInvariantLinear(weight, None, packing=False)
        exact = x.double() @ weight.double().T
        error = (kernels.product(linear, x).double().sum(0) - exact).abs().max() / exact.abs().max()
        found[f"{n} x {k}"] = float(error)
    return found


def drawn() -> dict[str, int]:
    """How many tokens are drawn, by all ways side by side, and how many other than `draw`'s.

    Those count apart whose number lies within 2e-6 of a border between two tokens: sums of another order may put
    the border on its other side.
    """
    t, columns = model(torch.float32), 7
    random = torch.Generator().manual_seed(3)
    ways = [replace(way, top_k=min(way.top_k, 20)) for way in SAMPLINGS]
    ways += [replace(ways[0], top_k=1), replace(ways[1], top_p=1e-6)]
    slots = Slots(t, len(ways), columns, 1)
    for row, way in enumerate(ways):
        slots.values.set([row], way, t.card)
    slots.uniforms.copy_(torch.rand(slots.uniforms.shape, generator=random))
    slots.uniforms[:, 1], slots.uniforms[:, 2] = 0.0, 1 - 2**-24
    other = on_border = 0
    for column in range(columns):
        logits = 3 * torch.randn(len(ways), 2, t.n_q, t.card, generator=random)
        slots.sequence[:, :, column + 1] = -1
        slots.position.fill_(column)
        Launches(torch.float32, OLDEST).sample(logits.reshape(1, 2 * len(ways), -1), slots, len(ways))
        found, near = slots.sequence[:, :, column + 1], _wanted(slots, logits, column + 1)
        different = found != near[0]
        beside = (found == near[1]) | (found == near[2])
        on_border += int((different & beside).sum())
        other += int((different & ~beside).sum())
    return {"other": other, "on_border": on_border, "of": len(ways) * columns * t.n_q}


def _wanted(slots: Slots, logits: Tensor, column: int) -> list[Tensor]:
    """What `draw` draws at a column's numbers, and a little below and above them."""
    told, null = logits.unbind(1)
    scale = slots.values.guidance[:, None, None]
    guided = torch.where(scale == 1, told, null + (told - null) * scale)
    numbers = slots.uniforms[:, column]
    near = (numbers, (numbers - 2e-6).clamp(min=0), (numbers + 2e-6).clamp(max=1 - 2**-24))
    return [draw(guided, u, slots.values, any_rule(guided.shape[-1])) for u in near]


def ties() -> dict[str, Any]:
    """What is drawn where many tokens are as likely, and which row is told broken where one is."""
    t = model(torch.float32)
    slots = Slots(t, 4, 2, 1)
    for row, sampling in enumerate(SAMPLINGS):
        slots.values.set([row], replace(sampling, top_k=min(sampling.top_k, 4), cfg_coef=1.0), t.card)
    slots.values.set([1], replace(SAMPLINGS[1], top_p=0.4, cfg_coef=1.0), t.card)
    slots.uniforms.fill_(0.7)
    logits = torch.zeros(8, t.n_q, t.card)
    logits[:, :, 5:15] = 40.0  # ten that share all of it
    slots.sequence.fill_(-1)
    kernels = Launches(torch.float32, OLDEST)
    kernels.sample(logits.reshape(1, 8, -1), slots, 4)
    tied = slots.sequence[:, 0, 1].tolist()
    whole = slots.check.tolist()
    logits[2, 0, 3], logits[6, 1, 2] = float("nan"), float("inf")
    slots.sequence.fill_(-1)
    kernels.sample(logits.reshape(1, 8, -1), slots, 4)
    inside = bool(((slots.sequence[:, :, 1] >= 0) & (slots.sequence[:, :, 1] < t.card)).all())
    finite = slots.check.isfinite().tolist()
    return {"tied": tied, "whole": whole, "finite": finite, "inside": inside}


def main() -> None:
    with_index()
    with_known_builtins()
    parts: dict[str, Callable[[], Any]] = {
        "tried float32": lambda: tried(torch.float32),
        "tried float16": lambda: tried(torch.float16),
        "whole steps": whole_steps,
        "products": products,
        "drawn": drawn,
        "ties": ties,
    }
    with torch.inference_mode(), np.errstate(all="ignore"):  # as a GPU's arithmetic does
        print(json.dumps({name: part() for name, part in parts.items()}))


if __name__ == "__main__":
    main()
