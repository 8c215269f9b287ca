"""What the page server refuses before anything else looks at a request, and the headers that every answer bears."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src data:; connect-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(?::\d{1,5})?", re.I)


def is_loopback(name: str) -> bool:
    """Whether `name`, as it stands in a URL or on the command line, can mean this machine only.

    Names that a DNS server answers for are not: whoever owns them may point them anywhere.

    Examples
    --------
    >>> [is_loopback(name) for name in ("LOCALHOST", "127.0.0.2", "[::1]", "127.0.0.1.nip.io")]
    [True, True, True, False]
    """
    bare = name.lower().removeprefix("[").removesuffix("]")
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def any_name(name: str) -> bool:
    """Every name is good: for a server that others are meant to reach."""
    return True


class Guard:
    """Refuses foreign host names (DNS rebinding) and what other sites' pages send (CSRF).

    Parameters
    ----------
    app : ASGIApp
        Whom the rest is passed on to.
    answers_to : callable
        Tells whether a host name, without port, is ours.
    """

    def __init__(self, app: ASGIApp, answers_to: Callable[[str], bool]) -> None:
        self.app = app
        self.answers_to = answers_to

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400 or 403, or pass on and add the headers to what comes back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refusal(scope["method"], Headers(scope=scope))
        await (refused or self.app)(scope, receive, with_headers)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        named = _HOST.fullmatch(host)
        if not named or not self.answers_to(named[1]):
            return _problem(400, "This server does not answer to that host name.")
        if method not in ("GET", "HEAD") and not _from_here(host, headers):
            return _problem(403, "This server takes no requests from other sites' pages.")
        return None


def _from_here(host: str, headers: Headers) -> bool:
    """Whether a page of ours sent it, or no page at all: browsers tell where a request comes from, in `Origin`."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # no URL: "http://[::1"
        return False


def _problem(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message, "status": "failed"}, status)
