"""How fast: the machine, the step, its kernels, whole requests, many of them at once."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch

from bench.gpu.setting import Finding, Setting, synchronize
from bench.speed import decode, serving
from bench.speed.roofline import ATEN, best_way, step_bytes, step_ms
from looper.generation.engine import Engine
from looper.generation.generator import Generator
from looper.generation.kernels.fused_step import make_fused_step
from looper.generation.lane import Lane, LaneKind
from looper.generation.lane_pool import FREE_SHARE
from looper.generation.sampling import any_rule
from looper.generation.slots import Slots, row_bytes
from looper.generation.step import make_step
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest
from looper.runtime.cuda_graph import Graphed
from looper.runtime.memory import free_bytes

TEXT = 64
EMPTY_NODES = 1000
WARM_STEPS = 3
GOALS = {("medium", 1): 0.65, ("medium", 20): 0.70, ("large", 1): 0.75}  # on an H100, of a measured copy
GOAL_REQUEST_SECONDS = 4.0
GOAL_TIMES = 40.0  # the original's way


def machine(setting: Setting, made: Engine) -> list[Finding]:
    """Bandwidths, and what an empty node of a graph takes."""
    device = setting.device
    big = torch.zeros((1 << 30) if setting.on_gpu else (1 << 22), device=device)
    read, _ = decode.seconds(device, lambda: big.sum(), 3)
    cell = torch.zeros(1, device=device)
    empty = Graphed(lambda: [cell.add_(1) for _ in range(EMPTY_NODES)], made.pool)
    for _ in range(2):
        empty()
    node, _ = decode.seconds(device, empty, 3)
    figures = {
        "copy_gb_s": decode.copy_bandwidth(device) / 1e9,
        "read_gb_s": big.numel() * 4 / read / 1e9,
        "empty_node_us": 1e6 * node / EMPTY_NODES,
    }
    return [Finding("machine", "bandwidth and nodes", None, figures)]


def step_seconds(made: Engine, rows: int, seconds: float, kernels: bool, setting: Setting) -> float:
    """Of a step in the middle of rows of so many seconds."""
    t, position = made.transformer, int(seconds * 50 / 2)
    columns = _columns(made, seconds)
    slots = Slots(t, rows, columns, TEXT)
    slots.cross.lengths.fill_(20)
    slots.cross.mask[..., :20] = 0
    window = next(
        w for w in Lane(t, LaneKind(columns, TEXT), rows)._windows() if position + setting.timed_steps < w
    )
    if kernels and made.kernels is not None:
        step = make_fused_step(slots, rows, window, made.kernels.operations)
    else:
        step = make_step(slots, rows, window, TEXT, any_rule(t.card))
    graphed = Graphed(step, made.pool)
    for _ in range(WARM_STEPS):
        slots.position.fill_(position)
        graphed()
    synchronize(setting)
    started = time.perf_counter()
    for _ in range(setting.timed_steps):
        graphed()
    synchronize(setting)
    return (time.perf_counter() - started) / setting.timed_steps


def steps(name: str, made: Engine, copy_gb_s: float, setting: Setting) -> list[Finding]:
    """Milliseconds a step, with kernels and without, and their share of the peak and of a measured copy."""
    found, card, shape = [], setting.card, setting.shapes[name]
    made.release()
    for rows in setting.rows:
        for seconds in setting.seconds:
            if not _fits(made, rows, seconds):
                found.append(Finding("steps", f"{name}, {rows} rows of {seconds:g} s: no room", None))
                continue
            for way, kernels in (("kernels", True), ("ATen", False)):
                taken = made.call(lambda: step_seconds(made, rows, seconds, kernels, setting))  # noqa: B023
                moved = step_bytes(shape, rows, seconds * 50 / 2) / taken
                figures: dict[str, Any] = {"ms": 1e3 * taken, "of_copy": moved / (copy_gb_s * 1e9)}
                if card is not None:
                    model = best_way(card) if kernels else ATEN
                    figures["of_peak"] = moved / card.peak
                    figures["predicted_ms"] = model and step_ms(card, shape, rows, seconds * 25, model)
                if kernels and seconds == setting.seconds[0] and (name, rows) in GOALS:
                    figures["goal_of_copy_on_h100"] = GOALS[name, rows]
                found.append(Finding("steps", f"{name}, {rows} rows of {seconds:g} s, {way}", None, figures))
    return found


def _columns(made: Engine, seconds: float) -> int:
    return next(columns for columns in made.lanes.columns if seconds * 50 <= columns)


def _fits(made: Engine, rows: int, seconds: float) -> bool:
    """Whether the card has room for the rows' caches beside all else."""
    needed = rows * row_bytes(made.transformer, _columns(made, seconds), TEXT)
    return needed < FREE_SHARE * free_bytes(made.transformer.device)


def profiled(name: str, made: Engine, setting: Setting) -> Finding:
    """Microseconds of a step by kernel, of the longest ten."""
    from torch.profiler import ProfilerActivity, profile

    def watched() -> profile:  # in the engine's own thread
        with profile(
            activities=[ProfilerActivity.CUDA if setting.on_gpu else ProfilerActivity.CPU], acc_events=True
        ) as seen:
            step_seconds(made, setting.rows[0], setting.seconds[0], True, setting)
        return seen

    seen, steps = made.call(watched), setting.timed_steps + WARM_STEPS
    kind = "self_device_time_total" if setting.on_gpu else "self_cpu_time_total"
    times = {event.key[:60]: getattr(event, kind) / steps for event in seen.key_averages()}
    longest = sorted(times.items(), key=lambda item: -item[1])[:10]
    return Finding("profile", f"{name}, {setting.rows[0]} rows", bool(longest), dict(longest))


def audiocraft_step(name: str, generator: Generator, setting: Setting) -> float:
    """Seconds of a step of audiocraft's own loop, one row, over a short passage."""
    frames = max(8, setting.timed_steps)
    taken, _ = decode.audiocraft_seconds(generator, 1, frames, 1, torch.get_num_threads())
    return taken / (frames + generator.engine.transformer.n_q - 1)


def against_audiocraft(name: str, generator: Generator, setting: Setting) -> list[Finding]:
    """One row of audiocraft's, and our requests against as many calls of it."""
    theirs = audiocraft_step(name, generator, setting)
    one_row = Finding("steps", f"{name}, 1 row, audiocraft", None, {"ms": 1e3 * theirs})
    return [one_row, *requests(name, generator, theirs, setting)]


def requests(name: str, generator: Generator, theirs: float, setting: Setting) -> list[Finding]:
    """A whole request, first and second, against the original's way: one call of audiocraft's after another."""
    maker, engine = LoopMaker(generator), generator.engine
    started = time.perf_counter()
    generator.prepare()
    prepared, captured = time.perf_counter() - started, engine.status().steps.captured
    eager = engine.status().steps.eager
    taken = []
    for seed in (1, 2):
        request = LoopRequest(
            "deep house",
            bpm=120,
            variations=setting.request_variations,
            max_duration=setting.request_seconds,
            seed=seed,
        )
        started = time.perf_counter()
        loops = maker.make(request)
        taken.append(time.perf_counter() - started)
    original = setting.request_variations * theirs * (setting.request_seconds * generator.frame_rate + 3)
    status = engine.status()
    figures = {
        "first_s": taken[0],
        "second_s": taken[1],
        "original_s": original,
        "times": original / taken[1],
        "goal_s_on_h100": GOAL_REQUEST_SECONDS,
        "goal_times": GOAL_TIMES,
        "prepare_s": prepared,
        "graphs": captured,
    }
    whole = len(loops) == setting.request_variations
    quiet = status.steps.eager == eager and status.steps.captured == captured
    return [
        Finding(
            "requests",
            f"{name}, {setting.request_variations} of {setting.request_seconds:g} s",
            whole,
            figures,
        ),
        Finding("requests", f"{name}: nothing captured or run eagerly in a request", quiet),
        Finding("requests", f"{name}: graphs captured at set-up", captured > 0 or not setting.on_gpu),
    ]


def served(name: str, generator: Generator, setting: Setting) -> list[Finding]:
    """Requests that come at random, at three loads; a load of 1 is what one after another can serve."""
    maker, longest, mix, found = LoopMaker(generator), setting.longest, setting.mix, []
    mean = serving.mean_alone(serving.seconds_alone(maker, longest, mix), longest, mix)
    before = generator.engine.status().steps.eager
    for load in setting.loads:
        calls = serving.arrivals(load / mean, setting.serving_seconds, longest, mix=mix, at_least=2)
        taken, wall, _ = serving.serve(maker, calls, nullcontext())
        loops = sum(call.request.variations for call in calls)
        p50, p95 = serving.percentiles(taken)
        figures = {"requests": len(calls), "p50_s": p50, "p95_s": p95, "loops_a_minute": 60 * loops / wall}
        fine = generator.engine.status().steps.eager == before
        found.append(Finding("serving", f"{name}, load {load:g}", fine, figures))
    return found
