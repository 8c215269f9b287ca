"""A stand-in for the Hugging Face hub on the loopback: redirects, ranges, and lines that break when told to."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from testkit.checkpoints import Shape

MINI = Shape(num_layers=1, dim=16, num_heads=2, codec_dim=8)
MUSICGEN, T5 = "facebook/musicgen-medium", "google-t5/t5-base"
REVISIONS = {MUSICGEN: "a" * 40, T5: "b" * 40}
NAMES = (
    "state_dict.bin",
    "compression_state_dict.bin",
    "config.json",
    "spiece.model",
    "model.safetensors",
)
LARGE = ("state_dict.bin", "compression_state_dict.bin", "model.safetensors")  # LFS on the real hub


class Hub:
    """Serves MusicGen's stand-in files.

    Attributes
    ----------
    files : dict
        Contents by (repository, name); change them to serve something else.
    break_after : dict
        By name, the bytes after which each connection breaks off.
    stall : set
        Names whose connections stop there without ending.
    ignore_ranges : bool
        Answer 200 with the whole file.
    elsewhere : str or None
        Where files are redirected to; a storage of our own where None.
    headers : dict
        More headers of the files' answers.
    claimed : int or None
        The length that they claim.
    drip : float or None
        Seconds between their single bytes.
    info : dict or None
        What the repositories' description says instead.
    requests : list
        (name, Range header or None, bytes sent) of each GET of a file.
    tokens : list
        Authorization headers that came to the files' own server.
    """

    def __init__(self, published: Path, root: Path) -> None:
        folders = {MUSICGEN: published, T5: published / "t5"}
        self.files = {
            (repository, name): (folder / name).read_bytes()
            for repository, folder in folders.items()
            for name in NAMES
            if (folder / name).is_file()
        }
        self.root = root
        self.break_after: dict[str, int] = {}
        self.stall: set[str] = set()
        self.ignore_ranges = False
        self.elsewhere: str | None = None
        self.headers: dict[str, str] = {}
        self.claimed: int | None = None
        self.drip: float | None = None
        self.info: dict | None = None
        self.requests: list[tuple[str, str | None, int]] = []
        self.tokens: list[str | None] = []
        self.asked = 0
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.stall.clear()
        self.server.shutdown()
        self.server.server_close()

    def sent(self, name: str) -> int:
        """Bytes of a file sent so far."""
        return sum(size for n, _, size in self.requests if n == name)

    def process(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`looper weights get medium` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "looper", "weights", "get", "medium", *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/").split("/")
        if path[:2] == ["api", "models"]:
            self.hub.asked += 1
            self._send(json.dumps(self._info("/".join(path[2:4]))).encode())
        elif len(path) == 5 and path[2] == "resolve":  # <owner>/<name>/resolve/<revision>/<file>
            self.send_response(302)
            # another host, as the real hub's storage is
            host = self.hub.address.replace("127.0.0.1", "localhost")
            self.send_header(
                "Location", self.hub.elsewhere or f"{host}/storage/{path[0]}/{path[1]}/{path[4]}"
            )
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif len(path) == 4 and path[0] == "storage":
            self.hub.tokens.append(self.headers.get("Authorization"))
            self._file(self.hub.files["/".join(path[1:3]), path[3]], path[3])
        else:
            self.send_error(404)

    def _info(self, repository: str) -> dict:
        if self.hub.info is not None:
            return self.hub.info
        siblings = []
        for (r, name), data in self.hub.files.items():
            if r == repository:
                lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}
                siblings.append(
                    {"rfilename": name, "size": len(data), **({"lfs": lfs} if name in LARGE else {})}
                )
        return {"id": repository, "sha": REVISIONS[repository], "siblings": siblings}

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, content: bytes, name: str) -> None:
        asked = None if self.hub.ignore_ranges else self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for header, value in self.hub.headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(self.hub.claimed or len(content) - start))
        self.end_headers()
        rest = content[start:][: self.hub.break_after.get(name, len(content))]
        self.hub.requests.append((name, asked, len(rest)))
        with suppress(ConnectionError):  # the client may leave before the end
            for piece in [rest] if self.hub.drip is None else (rest[k : k + 1] for k in range(len(rest))):
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(self.hub.drip or 0)
        if self.hub.claimed:
            self.close_connection = True
        while name in self.hub.stall:
            time.sleep(0.02)
        if start + len(rest) < len(content):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
