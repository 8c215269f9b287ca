"""The page server and what it is told: bodies, headers, webhooks in any order, zips of any bytes."""

import asyncio
import io
import json
import zipfile

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from looper.web.guard import HEADERS, is_loopback
from looper.web.library import LARGEST_FILE, LoopLibrary
from looper.web.predictions import DONE, PredictionLog
from looper.web.proxy import CogProxy
from looper.web.server import create_app
from looper.web.shelf import PackShelf
from testkit.asgi import ask, wav
from testkit.properties import examples, fuzzed
from testkit.values import ANYTHING

OWN = "http://127.0.0.1:8393"


class Cog:
    """Answers everything, and keeps the bodies it was sent."""

    def __init__(self):
        self.bodies = []

    async def answer(self, request):
        self.bodies.append(json.loads(await request.body() or b"null"))
        return JSONResponse({"status": "starting"}, 202)

    def proxy(self):
        app = Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST", "PUT"])])
        return CogProxy(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cog"), OWN)


BODIES = (
    st.binary(max_size=200)
    | ANYTHING.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["input", "webhook", "webhook_events_filter", "id", "output", "context"]), ANYTHING
    ).map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [
            b"[" * 5000,
            b'{"input": NaN}',
            b'{"a": 1e999}',
            b'{"input": "\\ud800"}',
            b'{"webhook": 1, "webhook": 2}',
        ]
    )
)
KEYS = st.text("abcXYZ019_-", min_size=1, max_size=70) | st.sampled_from(["a%2e", "%00", "a.b", "é", "..%2f"])


@pytest.mark.slow
@fuzzed(150)
@given(method=st.sampled_from(["POST", "PUT"]), key=KEYS, body=BODIES)
def test_any_body_is_refused_or_reaches_cog_without_a_webhook_of_the_callers(method, key, body):
    cog = Cog()
    proxy = cog.proxy()
    reply = ask(
        create_app(proxy), method, "/predictions" if method == "POST" else f"/predictions/{key}", content=body
    )
    assert reply.status_code in (202, 400, 404, 405, 413)
    for seen in cog.bodies:
        assert isinstance(seen, dict)
        assert seen.get("webhook") == (proxy.hook if method == "PUT" else None)
    assert len(cog.bodies) == (reply.status_code == 202)


NAMES = st.sampled_from(
    [
        "host",
        "origin",
        "sec-fetch-site",
        "content-type",
        "content-length",
        "transfer-encoding",
        "prefer",
        "range",
    ]
)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40) | st.sampled_from(
    ["127.0.0.1", "127.0.0.1:8393", "localhost.", "[::1]", "[::ffff:127.0.0.1]", "evil.example", "127.0.0.1@evil", "null",
     "http://127.0.0.1", "http://evil.example", "cross-site", "same-origin", "-1", "bytes=0-99999999999", "chunked"]
)  # fmt: skip


@pytest.mark.slow
@fuzzed(200)
@given(
    headers=st.dictionaries(NAMES, WORDS, max_size=4),
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
)
def test_any_headers_get_an_answer_that_bears_ours_and_no_other_site_starts_anything(headers, method):
    cog = Cog()
    page = create_app(cog.proxy(), answers_to=is_loopback)
    sent = {"host": "127.0.0.1", **headers}
    reply = ask(
        page, method, "/predictions/a" if method == "PUT" else "/predictions", headers=sent, content=b"{}"
    )
    assert reply.status_code < 500
    for name, value in HEADERS.items():
        assert reply.headers[name] == value
    if cog.bodies:
        assert sent.get("sec-fetch-site", "none") in ("none", "same-origin")
        assert sent.get("origin", f"http://{sent['host']}").endswith(sent["host"].lower())


@pytest.mark.slow
@fuzzed(150)
@given(
    state=ANYTHING
    | st.fixed_dictionaries({}, optional={"id": ANYTHING, "status": ANYTHING, "logs": ANYTHING})
)
def test_a_report_of_any_shape_does_no_harm(state):
    proxy = Cog().proxy()
    reply = ask(create_app(proxy), "POST", f"/webhook/{proxy.token}", content=json.dumps(state).encode())
    assert reply.status_code in (204, 400)
    ask(create_app(proxy), "GET", "/session.json")


class Webhooks(RuleBasedStateMachine):
    """Requests, refusals and reports of a few predictions, in any order."""

    keys = Bundle("keys")

    def __init__(self):
        super().__init__()
        self.log, self.done = PredictionLog(), {}

    @rule(target=keys, key=st.sampled_from("abcdefgh"))
    def begin(self, key):
        before = self.log.begin(key, {"prompt": key})
        if before is None or before.get("status") in DONE:
            self.done.pop(key, None)
            assert self.log.states[key]["status"] == "starting" and "output" not in self.log.states[key]
        return key

    @rule(key=st.sampled_from("abcdefgh"))
    def refused(self, key):
        known = dict(self.log.states)
        self.log.take_back(key, self.log.begin(key, None))
        assert (
            self.log.states == known
            or known.get(key, {}).get("status") == "starting"
            or len(known) > len(self.log.states)
        )
        self.done = {k: state for k, state in self.done.items() if k in self.log.states}

    @rule(key=keys, status=st.sampled_from(["starting", "processing", "succeeded", "failed", "canceled"]))
    def report(self, key, status):
        self.log.report(key, {"id": key, "status": status, "logs": status})
        if status in DONE and key in self.log.states:
            self.done.setdefault(key, self.log.states[key])

    @rule()
    def dies(self):
        self.log.fail_running("gone")
        assert not any(self.log.running(key) for key in self.log.states)
        self.done = {k: s for k, s in self.log.states.items() if s["status"] in DONE}

    @invariant()
    def what_is_done_stays_done(self):
        for key, state in self.done.items():
            assert self.log.states.get(key, state) == state

    @invariant()
    def a_running_one_is_never_forgotten_and_the_rest_is_bounded(self):
        states = self.log.states.values()
        running = [s for s in states if s["status"] not in DONE]
        assert [s for key in self.log.states if (s := self.log.running(key))] == running
        assert len(states) - len(running) <= self.log.keep + 1

    @invariant()
    def followers_of_what_is_done_are_let_go(self):
        for key, state in list(self.log.states.items())[:2]:
            if state["status"] in DONE:
                assert len(asyncio.run(self._all(key))) == 1

    async def _all(self, key):
        return [event async for event in self.log.follow(key)]


@pytest.mark.slow
def test_webhooks_in_any_order_leave_a_log_that_holds_true():
    run_state_machine_as_test(Webhooks, settings=settings(examples(40), stateful_step_count=25))


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pack/a_120bpm.wav", wav(0.01))
        archive.writestr("pack/pack.json", json.dumps({"bpm": 120, "loops": [{"file": "a_120bpm.wav"}]}))
    return buffer.getvalue()


ZIPPED = zipped()
TAIL = ZIPPED.index(b"PK\x01\x02")
FLIPS = st.lists(
    st.tuples(
        st.integers(0, 60) | st.integers(TAIL, len(ZIPPED) - 1),
        st.sampled_from([0, 1, 0x7F, 0xFF]) | st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@fuzzed(200)
@given(flips=FLIPS, end=st.none() | st.integers(0, len(ZIPPED)))
@example(flips=[(TAIL + 46, 0)], end=None)  # an entry without a name
def test_a_zip_of_any_bytes_is_listed_and_read_or_refused_in_words(tmp_path_factory, flips, end):
    content = bytearray(ZIPPED)
    for place, value in flips:
        content[place] = value
    file = tmp_path_factory.getbasetemp() / "x.zip"
    file.write_bytes(content[:end])
    try:
        library = LoopLibrary(file)
        names = [loop["name"] for loop in library.listing()["loops"]]
    except OSError as error:
        assert "x.zip" in str(error)
        return
    for name in names:
        try:
            found = library.read(name)
        except ValueError as error:
            assert "x.zip" in str(error)
        else:
            assert found is not None and len(found[0]) <= LARGEST_FILE


@pytest.mark.slow
@fuzzed(150)
@given(content=ANYTHING.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100))
def test_a_pack_json_of_any_content_leaves_the_loops_playable(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "pack"
    folder.mkdir(exist_ok=True)
    (folder / "a.wav").write_bytes(wav(0.01))
    (folder / "pack.json").write_bytes(content)
    reply = ask(create_app(library=PackShelf(folder)), "GET", "/session.json")
    assert reply.status_code == 200 and "a.wav" in json.dumps(reply.json())


@pytest.mark.parametrize(
    "path", ["/loops/..%2f..%2fetc%2fpasswd", "/loops/%00", "/loops/" + "a" * 5000, "//etc/passwd"]
)
def test_paths_lead_nowhere(tmp_path, path):
    (tmp_path / "a.wav").write_bytes(wav(0.01))
    assert ask(create_app(library=PackShelf(tmp_path)), "GET", path).status_code in (400, 404)
