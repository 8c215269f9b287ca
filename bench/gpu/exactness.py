"""What must be so to the bit, and how near half precision is to single."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout, ConditioningAttributes
from torch import Tensor

from bench.gpu.setting import Finding, Setting, engine
from looper.generation.batch import Row
from looper.generation.engine import Engine
from looper.generation.kernels.fused_step import fused_step
from looper.generation.kernels.operations import Operations, aten, total
from looper.generation.messages import NoiseKey
from looper.generation.slots import Slots
from looper.model.conditioning import encode_text
from looper.model.musicgen import Model
from looper.request import Sampling

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "deep house warm chords 120 bpm"
GUIDANCE = 3.0
LEAST_ERROR = 1e-4  # of logits: below, both are as good as exact
SIGMAS = 4  # of our error, beyond which the likeliest token must be single precision's


def rows_of(model: Model, made: Engine, count: int) -> list[Row]:
    text = made.call(lambda: encode_text(model.lm, PROMPT).vectors)
    return [Row(text, NoiseKey(7, k, 0)) for k in range(count)]


def codes(model: Model, made: Engine, count: int, frames: int, first: int = 0) -> Tensor:
    """Codes of rows first, first + 1, ..."""
    return made.decode(
        rows_of(model, made, first + count)[first:], frames, Sampling(top_k=min(250, made.transformer.card))
    )


def verdicts(name: str, made: Engine) -> list[Finding]:
    """What came of the check at set-up, of each kernel."""
    if made.kernels is None:
        return [Finding("kernels", f"{name}: in use", False)]
    return [
        Finding(
            "kernels",
            f"{name}: {verdict.name}",
            verdict.refused is None,
            {"error": verdict.error, "speedup": verdict.speedup, "refused": verdict.refused},
        )
        for verdict in made.kernels.verdicts
    ]


def a_rows_bits(name: str, model: Model, made: Engine, way: str, setting: Setting) -> list[Finding]:
    """Each of some rows among others and alone."""
    frames, found = setting.checked_frames, []
    alone = {row: codes(model, made, 1, frames, row)[0] for row in (0, setting.row_counts[-1] - 1)}
    for count in setting.row_counts:
        together = codes(model, made, count, frames)
        same = all(torch.equal(together[row], one) for row, one in alone.items() if row < count)
        found.append(Finding("bits", f"{name}, {way}: rows alone = among {count}", same))
    return found


def graphs_are_eager(name: str, model: Model, made: Engine, kernels: bool, setting: Setting) -> Finding:
    """Codes of captured steps and of eager ones."""
    eager = engine(model, kernels, setting, disable_graphs=True)
    count = min(4, setting.row_counts[-1])
    same = torch.equal(*(codes(model, one, count, setting.checked_frames) for one in (made, eager)))
    return Finding("bits", f"{name}: graphs = eager", same)


def digest(model: Model, made: Engine, setting: Setting) -> str:
    """Of some codes."""
    return hashlib.sha256(codes(model, made, 2, setting.checked_frames).numpy().tobytes()).hexdigest()


def another_process(name: str, model: Model, made: Engine, setting: Setting) -> Finding:
    """The same codes in another process, whose own check has chosen its kernels."""
    command = [sys.executable, "-m", "bench.gpu", "--digest", name, "--device", setting.device]
    command += [] if setting.on_gpu else ["--rehearse"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    there = done.stdout.split()[-1] if done.stdout.split() else "nothing"
    return Finding(
        "bits", f"{name}: another process", there == digest(model, made, setting), {"rc": done.returncode}
    )


def half_precision(name: str, model: Model, made: Engine, setting: Setting) -> list[Finding]:
    """Teacher-forced logits of audiocraft's way and of ours, against single precision's."""
    columns = setting.checked_frames
    random = torch.Generator().manual_seed(5)
    t = made.transformer
    tokens = torch.randint(t.card, (t.n_q, columns), generator=random).to(setting.device)
    theirs = audiocraft_logits(model.lm, tokens, setting)
    ways = {"ATen": aten(t.dtype)}
    if made.kernels is not None:
        ways["kernels"] = made.kernels.operations
    ours = {way: made.call(lambda do=do: our_logits(model, made, tokens, do)) for way, do in ways.items()}
    single = copy.deepcopy(model.lm).float()
    exact = audiocraft_logits(single, tokens, setting)
    del single
    spread = lambda logits: float((logits - exact).square().mean().sqrt())
    found = []
    for way, logits in ours.items():
        ranked = exact.topk(2, dim=-1).values
        sure = ranked[..., 0] - ranked[..., 1] > SIGMAS * spread(logits)
        agreed = logits.argmax(-1)[sure] == exact.argmax(-1)[sure]
        figures = {"ours": spread(logits), "audiocraft": spread(theirs), "sure": int(sure.sum())}
        near = spread(logits) <= max(figures["audiocraft"], LEAST_ERROR)
        found.append(Finding("precision", f"{name}, {way}: as near to fp32 as audiocraft", near, figures))
        found.append(Finding("precision", f"{name}, {way}: sure tokens are fp32's", bool(agreed.all())))
    return found


def audiocraft_logits(lm: Any, tokens: Tensor, setting: Setting) -> Tensor:
    """Guided logits [columns, n_q, card] of a sequence that is given, on the CPU."""
    asked = [ConditioningAttributes(text={"description": PROMPT})]
    asked += ClassifierFreeGuidanceDropout(p=1.0)(asked)
    half = torch.autocast("cuda", torch.float16, enabled=setting.on_gpu and not _is_single(lm))
    with torch.inference_mode(), half:
        tensors = lm.condition_provider(lm.condition_provider.tokenize(asked))
        told, null = lm(tokens[None].repeat(2, 1, 1), [], tensors).float().cpu()
    return (null + (told - null) * GUIDANCE).transpose(0, 1)


def _is_single(lm: Any) -> bool:
    return next(lm.transformer.parameters()).dtype == torch.float32


def our_logits(model: Model, made: Engine, tokens: Tensor, operations: Operations) -> Tensor:
    """As `audiocraft_logits`, of our step."""
    t, columns, seen = made.transformer, tokens.shape[1], []
    text = encode_text(model.lm, PROMPT).vectors
    slots = Slots(t, 1, -(-columns // 16) * 16, -(-len(text) // 16) * 16)
    slots.sequence[0, :, :columns] = tokens
    t.write_text(slots.cross, [0], text)

    def keep(parts: Tensor, slots: Slots, rows: int) -> None:
        told, null = total(parts).view(2, t.n_q, t.card).float().cpu()
        seen.append(null + (told - null) * GUIDANCE)

    watching = replace(operations, sample=keep)
    for _ in range(columns):
        fused_step(slots, 1, len(slots.columns), watching)
    return torch.stack(seen)


def all_findings(name: str, model: Model, engines: Sequence[Engine], setting: Setting) -> list[Finding]:
    """Everything of this module, of an engine with kernels and one without."""
    ours, plain = engines
    return [
        *verdicts(name, ours),
        *a_rows_bits(name, model, ours, "kernels", setting),
        *a_rows_bits(name, model, plain, "ATen", setting),
        graphs_are_eager(name, model, ours, True, setting),
        another_process(name, model, ours, setting),
        *half_precision(name, model, ours, setting),
    ]
