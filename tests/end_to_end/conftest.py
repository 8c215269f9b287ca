"""One real Cog server on weights/tiny for the session; whoever ends it leaves the next test a new one."""

from __future__ import annotations

import pytest

from testkit.cog_server import Server


class _Keeper:
    """Starts a server when one is asked for and none lives."""

    def __init__(self, folder) -> None:
        self.folder, self.server = folder, None

    def get(self) -> Server:
        if self.server is None or self.server.process.poll() is not None:
            self.stop()
            self.server = Server(self.folder).__enter__()
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
