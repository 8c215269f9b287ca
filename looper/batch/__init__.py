"""Packs by the thousand: checked requests in, a folder of packs and its manifest out, resumable.

import looper.batch

for record in looper.batch.run("requests.csv", "packs"):
    print(record.id, record.status, record.folder)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from looper.batch.driver import run
    from looper.batch.manifest import read_manifest
    from looper.batch.parquet import export_parquet
    from looper.batch.ray_driver import run_on_ray
    from looper.batch.record import Record
    from looper.batch.requests import BadLinesError, BatchLine, read_requests
    from looper.batch.verification import verify

_HOMES = {
    "BadLinesError": "requests",
    "BatchLine": "requests",
    "Record": "record",
    "export_parquet": "parquet",
    "read_manifest": "manifest",
    "read_requests": "requests",
    "run": "driver",
    "run_on_ray": "ray_driver",
    "verify": "verification",
}

__all__ = [
    "BadLinesError",
    "BatchLine",
    "Record",
    "export_parquet",
    "read_manifest",
    "read_requests",
    "run",
    "run_on_ray",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'looper.batch' has no attribute {name!r}")
    return getattr(import_module(f"looper.batch.{_HOMES[name]}"), name)
