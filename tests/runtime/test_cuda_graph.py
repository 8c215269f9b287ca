"""What is left of a capture that was broken off must never be replayed."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref

import pytest
import torch

from looper.runtime import cuda_graph
from looper.runtime.cuda_graph import Graphed, GraphPool, captures_work
from looper.runtime.device import gpu_answers


class Cancelled(BaseException):
    """As Cog's: not an Exception."""


class Graph:
    """Stands in for torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.whole, self.replays = False, 0
        self.made.append(self)

    def replay(self) -> None:
        self.replays += 1

    def capture_end(self) -> None:
        self.whole = False


class Memory:
    """Stands in for a pool of torch's: a block of it lives on, so that it is lost once its last graph has died."""

    def __init__(self) -> None:
        self.graphs = weakref.WeakSet()
        self.used = False

    def reopen(self) -> None:
        if self.used and not self.graphs:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        self.used = True

    def hold(self, graph) -> None:
        self.graphs.add(graph)


@pytest.fixture
def graphs(monkeypatch):
    """All graphs that were begun, on a machine that captures."""
    made: list[Graph] = []

    @contextlib.contextmanager
    def capture(graph, pool, **_):
        pool.reopen()
        yield
        graph.whole = True
        pool.hold(graph)

    monkeypatch.setattr(Graph, "made", made, raising=False)
    monkeypatch.setattr(cuda_graph, "_invalidated", threading.Event())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", Memory)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: "the usual stream")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    return made


@pytest.fixture
def streams(monkeypatch):
    used: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_stream", used.append)
    return used


def pool() -> GraphPool:
    """A pool whose own graph is not among those that were made."""
    made = GraphPool(torch.device("cpu"))
    Graph.made.clear()
    return made


def failing(error: BaseException, at: int):
    """A function whose call number `at` raises, and the list of its calls."""
    calls: list[int] = []

    def function() -> None:
        calls.append(len(calls) + 1)
        if calls[-1] == at:
            raise error

    return function, calls


def test_the_first_call_is_eager_the_second_captured_the_others_replayed(graphs, streams):
    function, calls = failing(Cancelled(), 0)
    graphed = Graphed(function, pool())
    for _ in range(4):
        graphed()
    assert len(calls) == 2 and [(g.whole, g.replays) for g in graphs] == [(True, 3)]


@pytest.mark.parametrize(
    "error",
    [
        Cancelled(),
        KeyboardInterrupt(),
        torch.OutOfMemoryError("x"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_capture_broken_off_is_made_anew(graphs, streams, error):
    graphed = Graphed(failing(error, 2)[0], pool())
    graphed()
    with pytest.raises(type(error)):
        graphed()
    graphed()
    assert [g.replays for g in graphs if not g.whole] == [0]
    assert [g.replays for g in graphs if g.whole] == [1]
    assert streams == ["the usual stream"]


def test_what_cannot_be_captured_goes_on_eagerly_and_says_so(graphs, streams, caplog):
    function, calls = failing(RuntimeError("operation not permitted when stream is capturing"), 2)
    graphed = Graphed(function, pool())
    for _ in range(4):
        graphed()
    assert len(calls) == 5, "the one that failed was done again"
    assert sum(g.replays for g in graphs) == 0
    assert "no CUDA graph could be captured" in caplog.text and "not permitted" in caplog.text
    assert graphed.pool.counts.eager == 4 and graphed.pool.counts.replayed == 0


def test_a_capture_that_was_invalidated_is_a_fault_of_health(graphs, streams, monkeypatch):
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.tensor([1.0]))
    assert captures_work() and gpu_answers()
    graphed = Graphed(failing(RuntimeError("operation not permitted when stream is capturing"), 2)[0], pool())
    for _ in range(2):
        graphed()
    assert not captures_work() and not gpu_answers()


@pytest.mark.parametrize("error", [Cancelled(), torch.OutOfMemoryError("x")], ids=lambda e: type(e).__name__)
def test_a_capture_that_is_cancelled_or_has_no_memory_is_none(graphs, streams, error):
    graphed = Graphed(failing(error, 2)[0], pool())
    graphed()
    with pytest.raises(type(error)):
        graphed()
    assert captures_work()


@pytest.mark.slow
def test_a_pool_outlives_all_graphs_that_were_captured_into_it(graphs, streams):
    """As after a cancelled request, or one that ran out of memory, that had the only state."""
    shared = pool()
    for _ in range(3):
        graphed = Graphed(lambda: None, shared)
        for _ in range(3):
            graphed()
        assert graphed.graph is not None and captures_work()
        del graphed
        graphs.clear()
        gc.collect()
    assert (shared.counts.eager, shared.counts.captured, shared.counts.replayed) == (3, 3, 3)


def test_a_pool_without_a_graph_of_its_own_would_be_noticed(graphs, streams):
    shared = pool()
    shared.anchor = None
    gc.collect()
    graphed = Graphed(lambda: None, shared)
    for _ in range(3):
        graphed()
    assert graphed.graph is None and not captures_work()
