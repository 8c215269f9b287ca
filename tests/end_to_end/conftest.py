"""Real Cog servers on weights/tiny for the session; whoever ends one leaves the next test a new one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from looper.runtime import paths
from testkit.cog_server import Server, free_port
from testkit.planted import plant


class _Keeper:
    """Starts a server when one is asked for and none lives."""

    def __init__(self, folder: Path, root: Path = paths.PROJECT, **environment: str) -> None:
        self.folder, self.root, self.environment = folder, root, environment
        self.server: Server | None = None

    def get(self) -> Server:
        if self.server is None or self.server.process.poll() is not None:
            self.stop()
            self.server = Server(self.folder, self.root, **self.environment).__enter__()
        return self.server

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()


@pytest.fixture(scope="session")
def keeper(tmp_path_factory):
    here = _Keeper(tmp_path_factory.mktemp("server"))
    yield here
    here.stop()


@pytest.fixture
def server(keeper) -> Server:
    return keeper.get()


@pytest.fixture(scope="session")
def crowd_keeper(tmp_path_factory):
    """Eight at once, of two models, with plants; see `testkit.planted`."""
    folder = tmp_path_factory.mktemp("crowd")
    shutil.copytree(paths.PROJECT / "weights" / "tiny", folder / "other")
    (temp := folder / "temp").mkdir()
    here = _Keeper(
        temp,
        plant(folder / "root"),
        COG_MAX_CONCURRENCY="8",
        LOOPER_METRICS_PORT=str(free_port()),
        LOOPER_MODELS=f"medium=tiny,large={folder / 'other'}",
    )
    yield here
    here.stop()


@pytest.fixture
def crowd(crowd_keeper) -> Server:
    return crowd_keeper.get()
