"""The Cog server as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

from looper.web import guardian

TINY_MODELS = "medium=weights/tiny,large=weights/tiny"
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
        Folder of predict.py, the child's working directory.
    port : int
        Loopback port for the child.
    tiny : bool
        Map every model name to the demo model in weights/tiny.
    """

    def __init__(self, root: Path, port: int, tiny: bool = False) -> None:
        self.root = root
        self.environment = cog_environment(port, **({"LOOPER_MODELS": TINY_MODELS} if tiny else {}))
        self.process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self.process is not None and self.process.returncode is None

    async def wait(self) -> int:
        """Exit code of the child, once it has ended."""
        assert self.process is not None
        return await self.process.wait()

    async def __aenter__(self) -> CogServer:
        schema = self.root / "openapi.json"
        if schema.is_file():  # the runtime looks for it here only, and without it accepts any input
            (self.root / ".cog").mkdir(exist_ok=True)
            shutil.copyfile(schema, self.root / ".cog" / "openapi_schema.json")
        # a session of its own: Ctrl-C reaches us alone, and we end the child in order
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", guardian.__file__, *COG_COMMAND),
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
