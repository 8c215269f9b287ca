"""The real Cog server on weights/tiny, on loopback, with a temp folder of its own, watched from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from looper.runtime import cache_dirs
from looper.web.cog_process import COG_COMMAND, TINY_MODELS, cog_environment
from scripts import openapi_schema as schema

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 300


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process and a client for it; use it as a context manager, which waits for READY.

    Parameters
    ----------
    folder : path, optional
        The server's temp folder and log; a fresh one by default. Two servers may share it one after the other.
    root : path
        Folder of predict.py.
    python : path
        Interpreter; the folder it is in comes first on the server's PATH.
    **environment
        Further environment variables.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        root: str | Path = ROOT,
        python: str | Path = sys.executable,
        **environment: str,
    ) -> None:
        self.folder = Path(folder or tempfile.mkdtemp(prefix="looper-soak-"))
        self.port = free_port()
        schema.install(Path(root))
        self.environment = cog_environment(
            self.port,
            python,
            **{"LOOPER_MODELS": TINY_MODELS, "TMPDIR": str(self.folder), "LOG_FORMAT": "console"}
            | environment,
        )
        self.log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [str(python), *COG_COMMAND[1:]],
            cwd=root,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=self.environment,
        )
        self.client = self._new_client()

    def _new_client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE)

    def hang_up(self) -> None:
        """Close the connections that are kept open; nobody may be asking."""
        self.client.close()
        self.client = self._new_client()

    def __enter__(self) -> Server:
        try:
            self.wait("READY")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and its worker."""
        self.client.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(15)
        self.log.close()

    def health(self) -> dict[str, Any]:
        """What /health-check says."""
        try:
            return self.client.get("/health-check", timeout=20).json()
        except httpx.TransportError as error:
            return {"status": f"no answer ({type(error).__name__})"}

    def wait(self, *states: str, seconds: float = DEADLINE) -> float:
        """Poll until the server is in one of `states`; return the seconds it took."""
        started = time.monotonic()
        while (status := self.health()["status"]) not in states:
            if time.monotonic() - started > seconds:
                raise TimeoutError(f"the server is {status} after {seconds} s, not {' or '.join(states)}")
            time.sleep(0.01)
        return time.monotonic() - started

    def post(self, wish: dict[str, Any]) -> httpx.Response:
        """Post a prediction; just after another one the runtime may still say 409 for a moment."""
        return self.when_free(lambda: self.client.post("/predictions", json={"input": wish}))

    def begin(self, name: str, wish: dict[str, Any]) -> httpx.Response:
        """Start a prediction that is not waited for."""
        head = {"Prefer": "respond-async"}
        return self.when_free(
            lambda: self.client.put(f"/predictions/{name}", json={"input": wish}, headers=head)
        )

    def cancel(self, name: str) -> bool:
        """Cancel a prediction that `begin` has started, until it is gone; false where it was before.

        Cog answers a cancel within milliseconds of the start with 200 and does not heed it.
        """
        deadline, found = time.monotonic() + DEADLINE, False
        while self.client.post(f"/predictions/{name}/cancel").status_code == 200:
            found = True
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not cancelled")
            time.sleep(0.05)
        return found

    def when_free(self, ask: Any) -> httpx.Response:
        """`ask` again while the answer is 409."""
        deadline = time.monotonic() + DEADLINE
        while (reply := ask()).status_code == 409 and time.monotonic() < deadline:
            time.sleep(0.05)
        return reply

    def output(self, wish: dict[str, Any]) -> dict[str, str]:
        """The files of a prediction that must succeed."""
        answer = self.post(wish).json()
        if answer.get("status") != "succeeded":
            raise RuntimeError(f"prediction {wish} gave {str(answer)[:500]}")
        return answer["output"]

    @property
    def at_once(self) -> int:
        """Predictions that it makes at once."""
        return int(self.environment.get("COG_MAX_CONCURRENCY", 1))

    def probe(self, path: str) -> httpx.Response:
        """Ask the probes, where LOOPER_METRICS_PORT was given."""
        return httpx.get(f"http://127.0.0.1:{self.environment['LOOPER_METRICS_PORT']}{path}", timeout=60)

    def settle(self) -> None:
        """Wait until nothing is under way: with places to spare READY says nothing of that."""
        if self.at_once > 1:
            self.drain()
        self.wait("READY")

    def drain(self) -> None:
        """Wait until nothing is under way, as its probes say."""
        deadline = time.monotonic() + DEADLINE
        while self.probe("/idle").status_code != 200:
            if time.monotonic() > deadline:
                raise TimeoutError("predictions are under way still")
            time.sleep(0.02)

    def pids(self) -> list[int]:
        """The server process and its children."""
        group = self.process.pid
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _group(pid) == group]  # noqa: PTH208

    @property
    def worker(self) -> int:
        """The process that holds the model: the largest."""
        return max(self.pids(), key=_rss)

    def memory_mb(self) -> float:
        """Resident memory of all processes, MiB."""
        return sum(map(_rss, self.pids())) / 2**20

    def handles(self) -> tuple[int, int]:
        """Open file descriptors and threads of all processes."""
        count = lambda kind: sum(len(os.listdir(f"/proc/{pid}/{kind}")) for pid in self.pids())  # noqa: PTH208
        return count("fd"), count("task")

    def files(self) -> list[Path]:
        """Files under the temp folder but the log and libraries' caches."""
        found = (p for p in self.folder.rglob("*") if p.is_file() and p.name != "server.log")
        return [p for p in found if not p.relative_to(self.folder).parts[0].startswith(cache_dirs.PREFIX)]


class Keeper:
    """Starts a server when one is asked for and none lives; takes what `Server` takes."""

    def __init__(self, folder: Path, root: Path = ROOT, **environment: str) -> None:
        self.folder, self.root, self.environment = folder, root, environment
        self.server: Server | None = None

    def get(self) -> Server:
        """The server; whoever ends it leaves the next one who asks a new one."""
        if self.server is None or self.server.process.poll() is not None:
            self.stop()
            self.server = Server(self.folder, self.root, **self.environment).__enter__()
        return self.server

    def stop(self) -> None:
        """End the server, where there is one."""
        if self.server is not None:
            self.server.stop()


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0
