"""The service behind predict.py with a stand-in for its models, and one request for it."""

from __future__ import annotations

from looper.pipeline.maker import LoopMaker
from looper.runtime.memory import freeze_gc
from looper.service.models import Models
from testkit.fakes import FakeGenerator

WISH = {
    "prompt": "drums",
    "bpm": 240,
    "variations": 2,
    "max_duration": 2,
    "top_k": 250,
    "top_p": 0,
    "temperature": 1,
    "cfg_coef": 3,
    "seed": 4,
}


class FakeModels(Models):
    """One stand-in under every name."""

    def __init__(self, generator=None):
        super().__init__({})
        self.maker = LoopMaker(generator or FakeGenerator())
        freeze_gc()  # as a server that starts: else each prediction collects over all the tests have made

    def get(self, name):
        return self.maker


class CancelledError(BaseException):
    """What Cog raises in a prediction that is cancelled."""


def predict(service, model="medium", output_format="wav", metrics=None, **changes):
    record = (metrics if metrics is not None else {}).__setitem__
    return service.predict(model=model, output_format=output_format, record=record, **{**WISH, **changes})
