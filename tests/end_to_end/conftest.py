"""A real Cog server on weights/tiny that makes eight at once; the one that makes one at a time is the whole suite's."""

from __future__ import annotations

import shutil

import pytest

from looper.runtime import paths
from testkit.cog_server import Keeper, Server, free_port
from testkit.planted import plant


@pytest.fixture(scope="session")
def crowd_keeper(tmp_path_factory):
    """Eight at once, of two models, with plants; see `testkit.planted`."""
    folder = tmp_path_factory.mktemp("crowd")
    shutil.copytree(paths.PROJECT / "weights" / "tiny", folder / "other")
    (temp := folder / "temp").mkdir()
    here = Keeper(
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
