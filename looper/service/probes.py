"""Probes of a container, for orchestrators: HTTP on a port of their own, off unless one is named.

    LOOPER_METRICS_PORT=9400    listens on all interfaces
    GET /live       200 while the process can go on; 503 once its GPU is lost
    GET /ready      200 once the models are loaded and the GPU answers, busy or not; else 503
    GET /idle       200 while no prediction is under way; else 503
    GET /metrics    Prometheus' text

Cog's own /health-check always answers 200, also for SETUP_FAILED and UNHEALTHY, so no plain probe can use it.
Where setup fails this process ends, and the port with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from looper.service.metrics import Metrics

PORT_VARIABLE = "LOOPER_METRICS_PORT"
PATHS = ("/live", "/ready", "/idle", "/metrics")


class Probes:
    """The HTTP server of the probes: a thread of its own, for as long as the process.

    Parameters
    ----------
    metrics : Metrics
    port : int
        0 takes a free one; see `port`.

    Raises
    ------
    OSError
        If the port is taken.
    """

    def __init__(self, metrics: Metrics, port: int) -> None:
        self.metrics = metrics
        self._healthy: Callable[[], bool] | None = None
        handler = type("Handler", (_Handler,), {"probes": self})
        try:
            self._server = ThreadingHTTPServer(("", port), handler)
        except OSError as error:
            raise OSError(f"{PORT_VARIABLE}: cannot listen on port {port} ({error.strerror})") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="probes", daemon=True).start()

    def ready(self, healthy: Callable[[], bool]) -> None:
        """From now on be ready while `healthy()` says so; asked from other threads."""
        self._healthy = healthy

    def close(self) -> None:
        """Give the port back."""
        self._server.shutdown()
        self._server.server_close()

    def answers(self) -> dict[str, Callable[[], bool]]:
        """What each path asks."""
        started = lambda: self._healthy is not None
        healthy = lambda: self._healthy is None or self._healthy()
        return {
            "/live": healthy,
            "/ready": lambda: started() and healthy(),
            "/idle": lambda: self.metrics.idle,
        }


class _Handler(BaseHTTPRequestHandler):
    """Answers for its `probes`."""

    probes: Probes
    timeout = 10  # seconds that a client may keep its thread waiting

    def do_GET(self) -> None:
        """Answer one probe."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send(200, self.probes.metrics.text(), self.probes.metrics.media_type)
        elif asked := self.probes.answers().get(path):
            good = asked()
            self._send(200 if good else 503, b"yes\n" if good else b"no\n")
        else:
            self._send(404, b"no such path\n")

    def _send(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay out of the predictions' logs."""


def port() -> int | None:
    """The port that the environment names; None where it names none.

    Raises
    ------
    ValueError
        If it is no port.
    """
    text = os.environ.get(PORT_VARIABLE, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError(f"{PORT_VARIABLE} must be a port from 1 to 65535, got {text!r:.40}")
    return int(text)


def start_probes(metrics: Metrics) -> Probes | None:
    """Serve probes where the environment names a port."""
    number = port()
    return None if number is None else Probes(metrics, number)
