"""A Firefox for Playwright, which speaks WebDriver BiDi to it: `python -m testkit.firefox ARGUMENTS OF FIREFOX`.

Playwright sends commands that a Firefox of Debian's does not know yet, with every new context. Between the two
stands this relay of WebSocket messages, which answers those alone: nothing that the tests look at depends on them.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
UNKNOWN = ("emulation.setMediaFeaturesOverride", "emulation.setScreenSettingsOverride")
TEXT = 1
_LISTENING = re.compile(r"(WebDriver BiDi listening on ws://127\.0\.0\.1):(\d+)")


class Frame(NamedTuple):
    """A WebSocket frame: all its bytes, its kind and what it says."""

    raw: bytes
    opcode: int
    payload: bytes


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame, after RFC 6455."""
    raw = await reader.readexactly(2)
    opcode, masked, size = raw[0] & 15, raw[1] >> 7, raw[1] & 127
    if size >= 126:
        longer = await reader.readexactly(2 if size == 126 else 8)
        raw, size = raw + longer, int.from_bytes(longer, "big")
    mask = await reader.readexactly(4 if masked else 0)
    body = await reader.readexactly(size)
    if not masked:
        return Frame(raw + body, opcode, body)
    pad = (mask * (size // 4 + 1))[:size]
    plain = int.from_bytes(body, "big") ^ int.from_bytes(pad, "big")
    return Frame(raw + mask + body, opcode, plain.to_bytes(size, "big"))


def text_frame(text: str) -> bytes:
    """A server's frame of a short text."""
    payload = text.encode()
    assert len(payload) < 126
    return bytes([0x80 | TEXT, len(payload)]) + payload


def own_answer(frame: Frame) -> str | None:
    """What to say instead of Firefox; None where the message is for it.

    Examples
    --------
    >>> own_answer(Frame(b"", TEXT, b'{"id": 3, "method": "emulation.setMediaFeaturesOverride"}'))
    '{"type": "success", "id": 3, "result": {}}'
    """
    if frame.opcode != TEXT or not any(name.encode() in frame.payload[:200] for name in UNKNOWN):
        return None
    message = json.loads(frame.payload)
    if message.get("method") not in UNKNOWN:
        return None
    return json.dumps({"type": "success", "id": message["id"], "result": {}})


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Hand messages to the Firefox on `port` and back, until either side hangs up."""
    from_firefox, to_firefox = await asyncio.open_connection("127.0.0.1", port)

    async def back() -> None:
        writer.write(await from_firefox.readuntil(b"\r\n\r\n"))
        while True:
            writer.write((await read_frame(from_firefox)).raw)
            await writer.drain()

    async def forth() -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        head = re.sub(rb"(?im)^sec-websocket-extensions:.*\r\n", b"", head)  # nothing is to be compressed
        to_firefox.write(re.sub(rb"(?im)^host:.*\r\n", b"Host: 127.0.0.1:%d\r\n" % port, head))
        while True:
            frame = await read_frame(reader)
            if answer := own_answer(frame):
                writer.write(text_frame(answer))
            else:
                to_firefox.write(frame.raw)
                await to_firefox.drain()

    ways = [asyncio.create_task(back()), asyncio.create_task(forth())]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in ways:
        way.cancel()
    for end in (to_firefox, writer):
        end.close()
    await asyncio.gather(*ways, return_exceptions=True)


async def run(arguments: list[str]) -> int:
    """Start Firefox, tell our own address in place of its, and end with it."""
    assert FIREFOX is not None
    firefox = await asyncio.create_subprocess_exec(FIREFOX, *arguments, stderr=asyncio.subprocess.PIPE)
    assert firefox.stderr is not None
    while line := (await firefox.stderr.readline()).decode(errors="replace"):
        if found := _LISTENING.match(line):
            port = int(found[2])
            server = await asyncio.start_server(partial(relay, port=port), "127.0.0.1", 0, limit=2**24)
            line = f"{found[1]}:{server.sockets[0].getsockname()[1]}{line[found.end() :]}"
        sys.stderr.write(line)
        sys.stderr.flush()
    return await firefox.wait()


@contextmanager
def wrapper() -> Iterator[str]:
    """The path of a program that Playwright can start as Firefox, while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="looper-firefox-") as folder:
        program = Path(folder) / "firefox"
        root = Path(__file__).parents[1]
        program.write_text(
            f"#!/bin/sh\nPYTHONPATH='{root}' exec '{sys.executable}' -m testkit.firefox \"$@\"\n"
        )
        program.chmod(0o755)
        yield str(program)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(run(sys.argv[1:])))
