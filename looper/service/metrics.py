"""What a container counts, for Prometheus: see `looper.service.probes` for where it is read.

Labels are words of ours: nothing that a request says becomes one. What the Rust server refuses before our code
is asked (409: all slots are taken) cannot be counted here: count it at the ingress.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from looper.pipeline.session import CANDIDATES
from looper.runtime.memory import out_of_memory

if TYPE_CHECKING:
    from looper.pipeline.result import Report

OUTCOMES = ("ok", "refused", "failed", "out_of_memory", "cancelled")
STAGES = ("candidates", "variations", "loops", "export")
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
        for outcome in OUTCOMES:  # a rate needs the zero that it starts from
            self.predictions.labels(outcome)
        for stage in STAGES:
            self.seconds.labels(stage)

    @contextmanager
    def prediction(self) -> Iterator[None]:
        """Count what happens in the block as one prediction."""
        outcome = "ok"
        try:
            with self.in_flight.track_inprogress():
                yield
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            self.predictions.labels(outcome).inc()

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
        return not self.registry.get_sample_value("looper_predictions_in_flight")

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return bytes(generate_latest(self.registry))


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
