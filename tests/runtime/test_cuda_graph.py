"""What is left of a capture that was broken off must never be replayed."""

from __future__ import annotations

import contextlib

import pytest
import torch

from looper.runtime.cuda_graph import Graphed


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


@pytest.fixture
def graphs(monkeypatch):
    """All graphs that were begun, on a machine that captures."""
    made: list[Graph] = []

    @contextlib.contextmanager
    def capture(graph, **_):
        yield
        graph.whole = True

    monkeypatch.setattr(Graph, "made", made, raising=False)
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
    graphed = Graphed(function)
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
    graphed = Graphed(failing(error, 2)[0])
    graphed()
    with pytest.raises(type(error)):
        graphed()
    graphed()
    assert [g.replays for g in graphs if not g.whole] == [0]
    assert [g.replays for g in graphs if g.whole] == [1]
    assert streams == ["the usual stream"]


def test_what_cannot_be_captured_goes_on_eagerly_and_says_so(graphs, streams, caplog):
    function, calls = failing(RuntimeError("operation not permitted when stream is capturing"), 2)
    graphed = Graphed(function)
    for _ in range(4):
        graphed()
    assert len(calls) == 5, "the one that failed was done again"
    assert sum(g.replays for g in graphs) == 0
    assert "no CUDA graph could be captured" in caplog.text and "not permitted" in caplog.text
