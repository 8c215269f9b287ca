"""Seeded bodies for /predictions, made from our own schema, and what each must be answered with.

jsonschema says what is valid, the runtime must agree: 422 for what breaks the schema, and for the rest
200 with either files or an error in the user's words. Most cases break something, so that they are quick.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema

SMALL = {"prompt": "techno", "variations": 1, "max_duration": 2, "bpm": 140, "seed": 1}
TEXTS = [
    "",
    "   ",
    "\x00",
    "a\x1b[31mb\r\n\tc",
    "\ud800 lone",
    "тяжёлый бит 🥁 重低音",
    "../../../../etc/passwd",
    "$(touch /tmp/x) `id` ; rm -rf / | cat",
    "{0} %s %n {prompt}",
    "<script>alert(1)</script>",
    "x" * 100_000,
    "x" * 100_001,
    "bpm " * 5000,
    "\u202e\u2028\ufeff",
    "null",
]
NUMBERS = [
    0,
    -1,
    -0.0,
    0.5,
    2,
    20,
    39.999,
    40,
    300,
    300.001,
    1e3,
    2**31,
    2**40,
    2**63,
    2**70,
    -(2**63),
    1e308,
]
ODDITIES = [None, True, False, [], {}, [1], {"a": 1}, "1", "NaN"]
RAW = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b'{"input": null}',
    b'{"input": []}',
    b'{"input": "x"}',
    b"{}",
    b'{"input": {"prompt": "x", "bpm": NaN}}',
    b'{"input": {"prompt": "x", "bpm": 1e999}}',
    b'{"input": {"prompt": "\xff\xfe"}}',
    b'{"input": {"prompt": "\\ud800", "variations": 0}}',
    b"[" * 5000,
    b'{"input": {"prompt": "x", "bpm": 1, "bpm": 2}}',
    b"[null, null]",
    b'{"input": {"prompt": "x"}, "webhook_events_filter": [{}]}',
]


def input_schema(document: dict[str, Any]) -> dict[str, Any]:
    """The Input schema of an OpenAPI document, complete with its components."""
    return {**document["components"]["schemas"]["Input"], "components": document["components"]}


def requests(document: dict[str, Any], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` inputs with one to three fields drawn from edges, oddities and other types."""
    draw = random.Random(seed)
    properties = document["components"]["schemas"]["Input"]["properties"]
    for _ in range(count):
        request: dict[str, Any] = dict(SMALL)
        for name in draw.sample(sorted(properties), draw.randint(1, 3)):
            request[name] = draw.choice(_values(properties[name], draw))
        if draw.random() < 0.1:
            request.pop(draw.choice(sorted(request)))
        if draw.random() < 0.1:
            request[draw.choice(TEXTS)] = draw.choice(NUMBERS)  # an unknown input
        yield _bounded(request)


def _values(entry: dict[str, Any], draw: random.Random) -> list[Any]:
    kind = draw.randrange(4)
    if kind == 0:
        return ODDITIES
    if kind == 1:
        return TEXTS
    edges = [entry[key] + step for key in ("minimum", "maximum") if key in entry for step in (-1, 0, 1)]
    return edges or NUMBERS


def _bounded(request: dict[str, Any]) -> dict[str, Any]:
    """Keep what is valid small: the fuzz looks for breakage, the soak for load."""
    for name, most in (("variations", 2), ("max_duration", 4)):
        if isinstance(value := request.get(name), int) and most < value <= 20:
            request[name] = most
    return {"variations": 1, "max_duration": 2, **request}


def well_formed(request: dict[str, Any]) -> bool:
    """Whether all text is Unicode: JSON can spell a lone surrogate, but no text holds one."""
    try:
        json.dumps(request, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def problem(reply: httpx.Response, valid: bool) -> str | None:
    """What is wrong with an answer; None where nothing is."""
    try:
        answer = reply.json()
    except json.JSONDecodeError:
        answer = None
    if reply.status_code >= 500:
        return f"{reply.status_code}: {reply.text[:200]}"
    if not valid:
        return (
            None if 400 <= reply.status_code < 500 else f"accepted, {reply.status_code}: {reply.text[:200]}"
        )
    if reply.status_code != 200 or answer is None:
        return f"{reply.status_code}: {reply.text[:200]}"
    if answer["status"] == "succeeded":
        return None if answer["output"]["variation_01"].startswith("data:audio/") else "no audio"
    if answer.get("output") or "ValueError: " not in answer["error"]:
        return f"not in the user's words: {answer['error'][:200]}"
    return None


def run(client: httpx.Client, ask: Any, count: int, seed: int = 0) -> tuple[int, list[str]]:
    """Send RAW and `count` requests; return how many were sent and what was wrong.

    Parameters
    ----------
    client : httpx.Client
        Of the server.
    ask : callable
        Calls a function that sends a request, again while the server is busy.
    """
    document = client.get("/openapi.json").json()
    validator = jsonschema.Draft202012Validator(input_schema(document))
    failures, sent = [], 0
    head = {"Content-Type": "application/json"}
    cases = [(body, False) for body in RAW]
    for request in requests(document, count, seed):
        body = json.dumps({"input": request}).encode()
        cases.append((body, well_formed(request) and validator.is_valid(request)))
    for body, valid in cases:
        sent += 1
        try:
            reply = ask(
                lambda body=body: client.post("/predictions", content=body, headers=head, timeout=120)
            )
            wrong = problem(reply, valid)
        except httpx.TransportError as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            failures.append(f"{body[:300]!r}: {wrong}")
    return sent, failures
