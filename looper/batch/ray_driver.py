"""The driver on Ray Core: one worker a GPU, workers and nodes that come and go, none of them trusted to live.

The driver alone hands out lines and writes the manifest. Ray's own retries are off: while a node is missing
they burn out. A worker that dies is replaced, and its lines go back into the queue. Whoever was being made
when it died is a suspect from then on, and is made alone: so the line that kills its workers is found, is given
to three of them and then recorded as lost, and the others that were there with it come to no harm.

Workers write packs into the batch's folder, which every machine must see under the same path. On a cluster
Ray listens on all interfaces: see SECURITY.md.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from looper.batch.batch import Batch
from looper.batch.driver import IN_FLIGHT, check_models
from looper.batch.record import Record
from looper.batch.remote import RemotePacks
from looper.batch.requests import FORMAT, MODEL, BatchLine, read_requests
from looper.batch.worker import DeviceLostError, Load, PackWorker, load_model
from looper.request import LoopRequest

logger = logging.getLogger(__name__)

MOST_TRIES = 3  # workers that a line may kill
MOST_FALSE_STARTS = 10  # in a row, of workers that end before they are ready
POLL_SECONDS = 5.0  # how often new GPUs are looked for
OBJECT_STORE_BYTES = 100_000_000  # lines and records are small


@dataclass(frozen=True)
class RayPlan:
    """How a batch is spread.

    Attributes
    ----------
    address : str
        "local" starts Ray on this machine for the time of the batch; "auto" finds the cluster that this
        machine belongs to; else a cluster's address.
    workers : int or None
        How many; None: one a GPU, growing with the cluster, and one where there is none.
    in_flight : int
        Requests at a time for each worker.
    zips : bool
        As `PackWorker`.
    copy_to : str or None
        As `looper.batch.run`.
    load : callable
        What loads models; importable on every machine.
    worker : type
        What makes packs; the same.
    """

    address: str = "local"
    workers: int | None = None
    in_flight: int = IN_FLIGHT
    zips: bool = False
    copy_to: str | None = None
    load: Load = load_model
    worker: type[PackWorker] = PackWorker

    @property
    def remote(self) -> RemotePacks | None:
        """The store that `copy_to` names."""
        return RemotePacks(self.copy_to) if self.copy_to else None


def run_on_ray(
    requests: str | Path | Iterable[Mapping[str, Any] | LoopRequest],
    out: str | Path,
    plan: RayPlan | None = None,
    *,
    model: str = MODEL,
    format: str = FORMAT,
) -> Generator[Record, None, None]:
    """Make a pack of every request as `looper.batch.run`, on the workers of `plan`.

    Raises
    ------
    ModuleNotFoundError
        While iterating, if Ray is not installed.
    RuntimeError, OSError, ValueError
        As `looper.batch.run`; also while iterating, if workers cannot start.
    """
    lines = read_requests(requests, model=model, format=format)
    check_models(lines)
    plan = plan or RayPlan()
    return _run(lines, Path(out), plan, plan.remote)


def _run(
    lines: list[BatchLine], out: Path, plan: RayPlan, remote: RemotePacks | None
) -> Generator[Record, None, None]:
    with Batch(lines, out, remote) as batch:
        yield from make_packs_on_ray(batch, plan)


def make_packs_on_ray(batch: Batch, plan: RayPlan) -> Generator[Record, None, None]:
    """Make what a batch has to do on the workers of `plan`; each record is in the manifest first."""
    if not batch.todo:
        return
    ray = _import_ray(local=plan.address == "local")
    _connect(ray, plan)
    try:
        for record in _Crew(ray, batch.out, plan, batch.todo).records():
            batch.keep(record)
            yield record
    finally:
        ray.shutdown()  # ends all workers


def _import_ray(local: bool) -> ModuleType:
    """Ray with what it reads when it is imported: no telemetry, and on this machine alone a token.

    It listens on all interfaces, whatever address it is given: nobody without the token may use it.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if local and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Ray is not installed: `pip install 'musicgen-looper[batch]'`, or leave --ray out"
        ) from error
    module: ModuleType = ray
    return module


def _connect(ray: ModuleType, plan: RayPlan) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if plan.address != "local":
        ray.init(address=plan.address, **quiet)
        return
    ray.init(
        address="local",
        num_cpus=max(plan.workers or 1, os.cpu_count() or 1),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        **quiet,
    )


@dataclass
class _Job:
    """A line, and how many workers have died over it."""

    line: BatchLine
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """An actor with the jobs that were handed to it; `ready` is asked before the first one."""

    actor: Any
    ready: Any
    jobs: dict[Any, _Job] = field(default_factory=dict)

    def refs(self) -> list[Any]:
        """What is to be waited for."""
        return [*self.jobs] if self.ready is None else [self.ready]

    def takes(self, job: _Job, depth: int) -> bool:
        """Whether `job` may be handed to it now: suspects alone, and one model at a time."""
        if self.ready is not None or len(self.jobs) >= depth:
            return False
        others = list(self.jobs.values())
        if job.deaths or any(other.deaths for other in others):
            return not others
        return all(other.line.model == job.line.model for other in others)


class _Crew:
    """The workers, and the lines that are still to be made."""

    def __init__(self, ray: ModuleType, out: Path, plan: RayPlan, lines: list[BatchLine]) -> None:
        self.ray, self.plan = ray, plan
        self.queue = deque(map(_Job, lines))
        self.workers: list[_Worker] = []
        self.false_starts = 0
        self._looked = float("-inf")
        self._wait_for_a_node()
        actor = ray.remote(
            max_restarts=0,
            max_task_retries=0,
            num_cpus=1,
            num_gpus=min(1, self._gpus()),
            max_concurrency=plan.in_flight,
        )(plan.worker)
        self._start = partial(
            actor.remote, out.absolute(), zips=plan.zips, load=plan.load, remote=plan.remote
        )

    def records(self) -> Iterator[Record]:
        """Records as they come, until every line has one."""
        while self.queue or any(worker.jobs for worker in self.workers):
            self._hire()
            self._hand_out()
            owners = {ref: worker for worker in self.workers for ref in worker.refs()}
            finished, _ = self.ray.wait(list(owners), timeout=POLL_SECONDS)
            for ref in finished:
                yield from self._settle(owners[ref], ref)

    def _wait_for_a_node(self) -> None:
        """Wait for the first node that works; without it, nobody knows whether workers shall have GPUs."""
        while not self.ray.cluster_resources().get("CPU"):
            logger.warning("waiting for a node with CPUs to join the Ray cluster")
            time.sleep(POLL_SECONDS)

    def _gpus(self) -> int:
        return int(self.ray.cluster_resources().get("GPU", 0))

    def _hire(self) -> None:
        """Have as many workers as there should be; those that find no place yet wait for a node."""
        for _ in range(self._wanted() - len(self.workers)):
            actor = self._start()
            self.workers.append(_Worker(actor, actor.__ray_ready__.remote()))

    def _wanted(self) -> int:
        """How many; the cluster is asked once in a while."""
        if self.plan.workers is not None:
            return self.plan.workers
        if time.monotonic() - self._looked >= POLL_SECONDS:
            self._looked = time.monotonic()
            self._most = max(1, self._gpus())
        return self._most

    def _hand_out(self) -> None:
        """Give every worker what it has room for, and one line more, so that none waits for the driver."""
        depth = self.plan.in_flight + 1
        for worker in self.workers:
            while self.queue and worker.takes(self.queue[0], depth):
                job = self.queue.popleft()
                worker.jobs[worker.actor.make.remote(job.line, job.deaths + 1)] = job

    def _settle(self, worker: _Worker, ref: Any) -> Iterator[Record]:
        """Take what has come of `ref`; nothing, where the worker was buried a moment ago."""
        if ref not in worker.refs():
            return
        try:
            record = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, DeviceLostError):
                raise (error.cause or RuntimeError(str(error))) from None  # a full disk, no weights
            yield from self._bury(worker, error)
        except self.ray.exceptions.RayError as error:
            yield from self._bury(worker, error)
        else:
            self.false_starts = 0
            if ref == worker.ready:
                worker.ready = None
                return
            del worker.jobs[ref]
            yield record

    def _bury(self, worker: _Worker, error: Exception) -> Iterator[Record]:
        """Let a worker go; what it had goes back into the queue, under suspicion."""
        self.workers.remove(worker)
        self.ray.kill(worker.actor)
        if worker.ready is not None:
            self._note_false_start(error)
        logger.info("a worker ended (%s) with %d lines", type(error).__name__, len(worker.jobs))
        for job in worker.jobs.values():
            job.deaths += 1
            if job.deaths < MOST_TRIES:
                self.queue.append(job)
            else:
                why = f"its worker ended {job.deaths} times ({type(error).__name__})"
                yield Record.of(job.line, "lost", error=why, tries=job.deaths)
        worker.jobs.clear()

    def _note_false_start(self, error: Exception) -> None:
        self.false_starts += 1
        if self.false_starts >= MOST_FALSE_STARTS:
            last = str(error).strip().splitlines()[-1:]
            raise RuntimeError(f"workers cannot start on Ray: {' '.join(last) or type(error).__name__}")
