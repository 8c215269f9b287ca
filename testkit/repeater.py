"""What stands before a server and repeats its answers: the first who asks is answered by the server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

# they are of one connection, or are written anew
OWN = {"connection", "content-length", "date", "server", "transfer-encoding"}


@contextmanager
def repeating(ask: Callable[[str, bytes], httpx.Response]) -> Iterator[str]:
    """Serve on loopback and yield the address.

    A POST whose JSON was answered with 200 before gets that answer again, its headers and its bytes; the path and the
    body of any other go to `ask`.
    """
    kept: dict[tuple[str, str], httpx.Response] = {}
    alone = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            key = (self.path, json.dumps(json.loads(body), sort_keys=True))
            with alone:
                if (reply := kept.get(key)) is None:
                    reply = ask(self.path, body)
                    if reply.status_code == 200:
                        kept[key] = reply
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                if name not in OWN:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        def log_message(self, *args: object) -> None:
            pass

    here = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=here.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{here.server_port}"
    finally:
        here.shutdown()
        here.server_close()
