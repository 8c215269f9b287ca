"""What a card must get over: a cancellation, an empty engine, another model, too little memory."""

from __future__ import annotations

import gc

import torch

from bench.gpu.exactness import codes, rows_of
from bench.gpu.setting import Finding, Setting
from looper.generation.engine import Engine
from looper.generation.tasks import DecodeError
from looper.model.musicgen import Model
from looper.request import Sampling
from looper.runtime.cuda_graph import captures_work
from looper.runtime.memory import out_of_memory


class CancelledError(Exception):
    """As a prediction's end would be."""


def cancelled(model: Model, made: Engine, setting: Setting) -> None:
    """Leave a request in the midst of its first steps, where graphs are captured."""

    def stop(done: int, total: int) -> None:
        if done:
            raise CancelledError

    try:
        made.decode(rows_of(model, made, 2), 10 * setting.checked_frames, Sampling(top_k=20), stop)
    except CancelledError:
        return
    raise AssertionError("the cancellation was not raised")


def short_of_memory(model: Model, made: Engine, setting: Setting) -> None:
    """Decode where the card has next to nothing left: in fewer rows, or with an error that says so."""
    if not setting.on_gpu:
        return
    made.release()
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + (600 << 20)) / total))
    try:
        codes(model, made, setting.row_counts[-1], setting.checked_frames)
    except (DecodeError, RuntimeError) as error:
        if not out_of_memory(error) and not out_of_memory(error.__cause__ or error):
            raise
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        made.release()
        torch.cuda.empty_cache()


def all_findings(name: str, model: Model, made: Engine, other: Engine, setting: Setting) -> list[Finding]:
    """After each fault the same codes as before, and steps that are captured."""
    before, found = codes(model, made, 2, setting.checked_frames), []
    faults = {
        "a cancellation": lambda: cancelled(model, made, setting),
        "a release": made.release,
        "another engine's turn": lambda: codes(model, other, 2, setting.checked_frames),
        "too little memory": lambda: short_of_memory(model, made, setting),
    }
    for fault, happen in faults.items():
        try:
            happen()
            same = torch.equal(codes(model, made, 2, setting.checked_frames), before)
            steps = made.status().steps
            ok, told = same and captures_work(), {"captured": steps.captured, "eager": steps.eager}
        except Exception as error:  # one fault more or less is a finding
            ok, told = False, {"error": f"{type(error).__name__}: {error}"[:200]}
        found.append(Finding("faults", f"{name}: after {fault}", ok, told))
    if setting.on_gpu:
        steps = made.status().steps
        captured = steps.captured > 0 and steps.replayed > steps.eager
        found.append(Finding("faults", f"{name}: graphs are captured and used", captured))
    return found
