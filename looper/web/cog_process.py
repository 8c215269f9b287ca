"""The Cog server as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from looper.runtime import guardian, paths
from looper.runtime.children import guarded

TINY_MODELS = "medium=tiny,large=tiny"
COG_COMMAND = (sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1")


def cog_environment(port: int, python: str | Path = sys.executable, **more: str) -> dict[str, str]:
    """Environment of a Cog server on loopback port `port`, with `more` variables over this process's.

    Examples
    --------
    >>> cog_environment(5001, LOOPER_MODELS="medium=weights/tiny")["PORT"]
    '5001'
    """
    return {
        "LOG_FORMAT": "console",
        **os.environ,
        # Cog starts its worker as plain `python`: without this it may find another one and hang
        "PATH": os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")]),
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
        **more,
    }


class CogServer:
    """The Cog server as a child process that ends with this one, whatever ends it; an async context manager.

    Parameters
    ----------
    root : Path
        Folder of predict.py, the child's working directory; of an installed package a copy is, as nothing shall be
        written there.
    port : int
        Loopback port for the child.
    tiny : bool
        Map every model name to the demo model in weights/tiny.
    at_once : int
        Predictions that it makes at once.
    """

    def __init__(self, root: Path, port: int, tiny: bool = False, at_once: int = 1) -> None:
        self.root = root
        models = {"LOOPER_MODELS": TINY_MODELS} if tiny else {}
        self.environment = cog_environment(port, COG_MAX_CONCURRENCY=str(at_once), **models)
        self.process: asyncio.subprocess.Process | None = None
        self._copied: Path | None = None

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self.process is not None and self.process.returncode is None

    async def wait(self) -> int:
        """Exit code of the child, once it has ended."""
        assert self.process is not None
        return await self.process.wait()

    async def __aenter__(self) -> CogServer:
        if self.root.is_relative_to(paths.PACKAGE):
            self.root = self._copy()
        schema = self.root / "openapi.json"
        if schema.is_file():  # the runtime looks for it here only, and without it accepts any input
            (self.root / ".cog").mkdir(exist_ok=True)
            shutil.copyfile(schema, self.root / ".cog" / "openapi_schema.json")
        # a session of its own: Ctrl-C reaches us alone, and we end the child in order
        self.process = await asyncio.create_subprocess_exec(
            *guarded(COG_COMMAND),
            cwd=self.root,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), guardian.STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # a worker that outlived its server
        await self.process.wait()
        if self._copied:
            shutil.rmtree(self._copied, ignore_errors=True)

    def _copy(self) -> Path:
        """A folder of the child's own; what the environment names from here is named in full."""
        self._copied = Path(tempfile.mkdtemp(prefix="looper-serve-"))
        for name in ("predict.py", "openapi.json"):
            shutil.copyfile(self.root / name, self._copied / name)
        if root := self.environment.get("LOOPER_WEIGHTS"):
            self.environment["LOOPER_WEIGHTS"] = str(Path(root).expanduser().absolute())
        if mapping := self.environment.get("LOOPER_MODELS"):
            self.environment["LOOPER_MODELS"] = ",".join(map(_in_full, mapping.split(",")))
        return self._copied


def _in_full(pair: str) -> str:
    """What "name=folder" says with the folder's whole path, where there is such a folder."""
    name, equals, folder = pair.partition("=")
    place = Path(folder.strip()).expanduser()
    return f"{name}{equals}{place.absolute()}" if folder.strip() and place.is_dir() else pair
