"""A stand-in for Replicate's HTTP API in front of a Cog server: predictions that take a while, links instead of data."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TOKEN = "r8_test"


@contextmanager
def replicate_api(predict: Callable[[dict[str, Any]], dict[str, Any]], wait: bool = False) -> Iterator[str]:
    """Serve on loopback; `predict` takes an input and returns Cog's reply. Yields the base address, without /v1.

    A prediction is `starting` when it is asked for and over when it is asked after; with `wait`, it is over at once.
    Files are served to anybody.
    """
    replies: dict[str, dict[str, Any]] = {}
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            key = f"p{len(replies)}"
            replies[key] = {**predict(asked["input"]), "id": key, "version": asked["version"]}
            begun = {**self.about(key), "status": "starting", "output": None}
            self.answer(self.over(key) if wait else begun, 201)

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            if name in files:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(files[name])
            else:
                self.answer(self.over(name))

        def over(self, key: str) -> dict[str, Any]:
            return {**self.about(key), **replies[key], "output": self.links(key)}

        def about(self, key: str) -> dict[str, Any]:
            own = f"http://{self.headers['host']}/v1/predictions/{key}"
            urls = {"get": own, "cancel": f"{own}/cancel"}
            return {"id": key, "model": "o/m", "version": "v", "input": {}, "created_at": "now", "urls": urls}

        def links(self, key: str) -> dict[str, str | None] | None:
            links = {}
            for name, uri in (replies[key].get("output") or {}).items():
                if uri:
                    files[f"{key}-{name}.wav"] = base64.b64decode(uri.partition(",")[2])
                links[name] = uri and f"http://{self.headers['host']}/files/{key}-{name}.wav"
            return links or None

        def answer(self, body: dict[str, Any], status: int = 200) -> None:
            if self.headers["authorization"] != f"Bearer {TOKEN}":
                status, body = 401, {"title": "Unauthenticated"}
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
