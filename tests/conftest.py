from __future__ import annotations

import signal
import socket

import pytest

import looper  # noqa: F401  (it lets audiocraft be imported without PyAV)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell that starts a job in the background has it ignore Ctrl-C, and all its children
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing in the product or its tests may leave this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not (
            address[0].startswith("127.") or address[0] in ("::1", "localhost")
        ):
            raise OSError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def tiny():
    from looper.pipeline.maker import LoopMaker

    return LoopMaker.load("tiny", "cpu")


@pytest.fixture
def one_thread():
    """Small models are many times slower with more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Generators of stand-in models by the name of their shape (`testkit.decoding.SHAPES`), each made once."""
    import torch

    from looper.generation.generator import Generator
    from testkit import checkpoints
    from testkit.decoding import SHAPES

    made: dict[str, Generator] = {}

    def get(name: str) -> Generator:
        if name not in made:
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            made[name] = Generator.load(
                checkpoints.weights(tmp_path_factory.mktemp("m") / "mini", SHAPES[name]), "cpu"
            )
            torch.set_num_threads(before)
        return made[name]

    return get


@pytest.fixture(scope="session")
def shipped(tiny):
    """The generator of weights/tiny."""
    return tiny.generator
