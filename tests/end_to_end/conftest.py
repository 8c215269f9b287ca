"""A real Cog server that makes eight at once, on stand-ins: of what becomes of many the music is no part.

The one that makes one at a time, on weights/tiny, is in tests/conftest.py.
"""

from __future__ import annotations

import pytest

from testkit import stand_ins
from testkit.checkpoints import Shape
from testkit.cog_server import Keeper, Server, free_port
from testkit.planted import plant

MODELS = (("one", 32), ("other", 256))


@pytest.fixture(scope="session")
def crowd_keeper(tmp_path_factory):
    """Eight at once, of two models, with plants; see `testkit.planted`."""
    folder = tmp_path_factory.mktemp("crowd")
    models = [
        stand_ins.weights(folder / name, Shape(num_layers=1, card=256, dim=dim)) for name, dim in MODELS
    ]
    (temp := folder / "temp").mkdir()
    here = Keeper(
        temp,
        plant(folder / "root"),
        COG_MAX_CONCURRENCY="8",
        LOOPER_METRICS_PORT=str(free_port()),
        LOOPER_MODELS="medium={},large={}".format(*models),
    )
    yield here
    here.stop()


@pytest.fixture
def crowd(crowd_keeper) -> Server:
    return crowd_keeper.get()
