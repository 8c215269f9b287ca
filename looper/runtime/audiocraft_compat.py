"""Let audiocraft be imported without PyAV.

``audiocraft.data.audio`` imports PyAV for reading files, which is never done here; and PyAV's wheels link
x264 and x265, which are under the GPL. So while that one module is imported, and only where PyAV is not
installed, a stand-in takes its place. ``import looper`` sees to it, whoever imports audiocraft afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

READER = "audiocraft.data.audio"


class NoAv(ModuleType):
    """Stands where PyAV would; whoever uses it is told what to do."""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"av.{name}: audiocraft's reading of files needs PyAV, which musicgen-looper does without because its "
            "wheels hold GPL code: read the file with soundfile, or `pip install av`"
        )


class _WithoutAv(Loader):
    """Loads a module as `loader` does, with the stand-in in PyAV's place meanwhile."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self.loader  # type: ignore[union-attr]
        with _av_or_stand_in():
            self.loader.exec_module(module)


@contextmanager
def _av_or_stand_in() -> Iterator[None]:
    try:
        import av  # noqa: F401
    except ImportError:
        sys.modules["av"] = NoAv("av")
        try:
            yield
        finally:
            del sys.modules["av"]
    else:
        yield


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != READER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            spec.loader = _WithoutAv(spec.loader)
        return spec


def install() -> None:
    """Put the finder in place, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
