from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; what they start inherits it
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import socket

import pytest
from hypothesis import settings

import looper  # noqa: F401  (it lets audiocraft be imported without PyAV)

# pytest --hypothesis-profile=search looks for new counterexamples, ten times as long
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
# make fuzz looks a little longer, and at other examples each time
settings.register_profile("fuzz", deadline=None, max_examples=300, print_blob=True)
settings.load_profile("same")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell that starts a job in the background has it ignore Ctrl-C, and all its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup a terminal's end


FIRST = ("server", "browser", "slow")
# the files whose tests share `keeper`
ON_ONE_SERVER = {
    *(f"tests/end_to_end/test_{name}.py" for name in ("clients", "cog_server", "server_faults")),
    "tests/repository/test_readme.py",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The longest begin first, and of those whoever ends the server that others share comes last."""

    def place(item):
        first = any(item.get_closest_marker(name) for name in FIRST)
        return 1 if item.get_closest_marker("ends_the_server") else 0 if first else 2

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file stay in one process, and those of the files on one server too."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneServer(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "one server" if file in ON_ONE_SERVER else file

    return OneServer(config, log)


def pytest_terminal_summary(terminalreporter):
    from testkit.firefox import FIREFOX
    from tests.web.browser.conftest import collect_ignore_glob

    if collect_ignore_glob:
        terminalreporter.write_line("tests/web/browser: not run, no Chromium is here")
    elif FIREFOX is None:
        terminalreporter.write_line("tests/web/browser: not run in Firefox, which is not here")


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
def keeper(tmp_path_factory):
    """A real Cog server for whoever asks, on weights/tiny as medium, and large is not there.

    Whoever ends it leaves the next one a new one.
    """
    from testkit.cog_server import ROOT, Keeper

    models = {
        "LOOPER_WEIGHTS": str(tmp_path_factory.mktemp("none")),
        "LOOPER_MODELS": f"medium={ROOT}/weights/tiny",
    }
    here = Keeper(tmp_path_factory.mktemp("server"), **models)
    yield here
    here.stop()


@pytest.fixture
def server(keeper):
    return keeper.get()


@pytest.fixture(scope="session")
def repeater(keeper):
    """The address of what hands on to the server what it was not asked before, and else repeats the answer."""
    from testkit.repeater import repeating

    def ask(path, body):
        server = keeper.get()
        head = {"content-type": "application/json"}
        return server.when_free(lambda: server.client.post(path, content=body, headers=head))

    with repeating(ask) as here:
        yield here


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


@pytest.fixture
def one_candidate(monkeypatch):
    """Where it is not about which draw is taken: one is drawn, and its beats are found, instead of four."""
    monkeypatch.setattr("looper.pipeline.session.CANDIDATES", 1)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Generators of stand-in models by the name of their shape (`testkit.decoding.SHAPES`), each made once."""
    import torch

    from looper.generation.generator import Generator
    from testkit import stand_ins
    from testkit.decoding import SHAPES

    made: dict[str, Generator] = {}

    def get(name: str) -> Generator:
        if name not in made:
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            made[name] = Generator.load(
                stand_ins.weights(tmp_path_factory.mktemp("m") / "mini", SHAPES[name]), "cpu"
            )
            torch.set_num_threads(before)
        return made[name]

    return get


@pytest.fixture(scope="session")
def shipped(tiny):
    """The generator of weights/tiny."""
    return tiny.generator
