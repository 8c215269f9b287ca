"""What a container counts, for Prometheus: see `looper.service.probes` for where it is read.

Labels are words of ours or names of models: nothing that a request says becomes one. What the Rust server refuses
before our code is asked (409: all slots are taken) cannot be counted here: count it at the ingress.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from looper.pipeline.session import CANDIDATES
from looper.runtime.memory import out_of_memory

if TYPE_CHECKING:
    from looper.generation.tasks import EngineStatus
    from looper.pipeline.result import Report

OUTCOMES = ("ok", "refused", "failed", "out_of_memory", "cancelled")
STAGES = ("candidates", "variations", "loops", "export")
Value = Callable[["EngineStatus"], float]
GAUGES: dict[str, tuple[str, Value]] = {
    "rows_running": ("Rows being decoded", lambda status: status.rows_running),
    "rows_waiting": ("Rows that wait for a slot", lambda status: status.rows_waiting),
    "slots": ("Rows there is memory for by now", lambda status: status.slots),
    "cache_bytes": ("Memory of the rows' caches", lambda status: status.cache_bytes),
    "step_seconds": ("Time of a step in the last round", lambda status: status.step_seconds),
}
COUNTERS: dict[str, tuple[str, Value]] = {
    "eager_steps": ("Steps that ran without a graph on a GPU", lambda status: status.steps.eager),
    "replayed_steps": ("Steps that ran as a graph", lambda status: status.steps.replayed),
    "captures": ("Graphs captured", lambda status: status.steps.captured),
}
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)


class Metrics:
    """What a service counts, in a registry of its own."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        new = self.registry
        self.predictions = Counter("looper_predictions", "Predictions by outcome", ["outcome"], registry=new)
        self.in_flight = Gauge("looper_predictions_in_flight", "Predictions under way", registry=new)
        self.loops = Counter("looper_loops", "Loops made", registry=new)
        self.redraws = Counter(
            "looper_redraws", "Rounds of draws beyond the first that loops were taken from", registry=new
        )
        self.seconds = Histogram(
            "looper_stage_seconds", "Wall time of a stage", ["stage"], buckets=_SECONDS, registry=new
        )
        self.under_way = 0
        self._counting = threading.Lock()
        self.in_flight.set_function(lambda: self.under_way)
        for outcome in OUTCOMES:  # a rate needs the zero that it starts from
            self.predictions.labels(outcome)
        for stage in STAGES:
            self.seconds.labels(stage)

    @contextmanager
    def prediction(self) -> Iterator[None]:
        """Count what happens in the block as one prediction."""
        outcome = "ok"
        with self._counting:
            self.under_way += 1
        try:
            yield
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            with self._counting:
                self.under_way -= 1
            self.predictions.labels(outcome).inc()

    def watch(self, engines: Callable[[], Mapping[str, EngineStatus]]) -> None:
        """Report on the engines, too, that `engines` names by their models; asked at every reading."""
        self.registry.register(_Engines(engines))

    def add(self, report: Report) -> None:
        """Count the loops of a finished prediction."""
        self.loops.inc(len(report.attempts))
        first, *others = report.attempts
        self.redraws.inc((first - 1) // CANDIDATES + sum(others) - len(others))
        for stage in STAGES:
            if stage in report.seconds:
                self.seconds.labels(stage).observe(report.seconds[stage])

    @property
    def idle(self) -> bool:
        """Whether no prediction is under way."""
        return not self.under_way

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return bytes(generate_latest(self.registry))


class _Engines(Collector):
    """The engines' state as it is when it is read."""

    def __init__(self, engines: Callable[[], Mapping[str, EngineStatus]]) -> None:
        self.engines = engines

    def collect(self) -> Iterator[Metric]:
        """One family of samples after the other, each with one sample a model; of kernels, one for each of them."""
        found = self.engines()
        for name, (text, value) in GAUGES.items():
            gauge = GaugeMetricFamily(f"looper_engine_{name}", text, labels=["model"])
            for model, status in found.items():
                gauge.add_metric([model], value(status))
            yield gauge
        for name, (text, value) in COUNTERS.items():
            counter = CounterMetricFamily(f"looper_engine_{name}", text, labels=["model"])
            for model, status in found.items():
                counter.add_metric([model], value(status))
            yield counter
        kernels = GaugeMetricFamily(
            "looper_engine_kernel",
            "Whether a part of the step is a kernel of ours",
            labels=["model", "kernel"],
        )
        for model, status in found.items():
            for kernel, used in status.kernels.items():
                kernels.add_metric([model, kernel], used)
        yield kernels


def _outcome(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "cancelled"
    if isinstance(error, ValueError):
        return "refused"
    return "out_of_memory" if any(map(out_of_memory, _chain(error))) else "failed"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
