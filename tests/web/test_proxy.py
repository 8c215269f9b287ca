"""Between the page and Cog: what is handed through, what is refused, and how predictions are followed."""

import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from looper.web.predictions import DONE, PredictionLog
from looper.web.proxy import LARGEST_BODY, CogProxy
from looper.web.server import create_app
from testkit.asgi import ask, events

OWN = "http://127.0.0.1:1"


class Upstream:
    """A stand-in for Cog: records what arrives and answers as told."""

    def __init__(self):
        self.seen = []
        self.reply = (200, {"status": "succeeded"})
        self.cancelled = False
        self.hang = False

    async def answer(self, request):
        body = await request.body()
        self.seen.append((request.method, request.url.path, json.loads(body or b"null"), request.headers))
        if self.hang:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        status, content = self.reply
        cancels = [path for _, path, *_ in self.seen if path.endswith("/cancel")]
        if cancels.count(request.url.path) > 1:  # it is gone
            status, content = 404, {}
        return JSONResponse(content, status) if content is not None else Response(status_code=status)

    def app(self):
        methods = ["GET", "POST", "PUT"]
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=methods)])


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
def proxy(upstream):
    client = httpx.AsyncClient(transport=httpx.ASGITransport(upstream.app()), base_url="http://cog")
    return CogProxy(client, OWN)


@pytest.mark.parametrize("path", ["/openapi.json", "/health-check"])
def test_hands_cogs_pages_through(proxy, upstream, path):
    upstream.reply = (200, {"status": "READY", "openapi": "3.0.2"})
    reply = ask(create_app(proxy), "GET", path)
    assert (reply.status_code, reply.json()) == upstream.reply
    assert upstream.seen[0][:2] == ("GET", path)


@pytest.mark.parametrize("status", [200, 409, 422, 500, 503])
@pytest.mark.parametrize("method, path", [("POST", "/predictions"), ("PUT", "/predictions/a-1")])
def test_passes_cogs_answers_on_unchanged(proxy, upstream, method, path, status):
    upstream.reply = (status, {"detail": [{"loc": ["body", "input", "bpm"], "msg": "too low"}]})
    reply = ask(create_app(proxy), method, path, json={"input": {"prompt": "x", "bpm": 3}})
    assert (reply.status_code, reply.json()) == upstream.reply
    assert upstream.seen[0][2]["input"] == {"prompt": "x", "bpm": 3}


def test_asks_cog_to_report_to_us_and_to_nobody_else(proxy, upstream):
    body = {"input": {"prompt": "x"}, "webhook": "http://192.0.2.1/steal"}
    ask(create_app(proxy), "PUT", "/predictions/a", json=body, headers={"Prefer": "respond-async"})
    _, _, sent, headers = upstream.seen[0]
    assert sent["webhook"].startswith(f"{OWN}/webhook/")
    assert "completed" in sent["webhook_events_filter"] and "logs" in sent["webhook_events_filter"]
    assert headers["prefer"] == "respond-async"


@pytest.mark.parametrize(
    "body",
    [
        b'{"input": {"prompt": "x"}, "webhook": "http://192.0.2.1/steal", "webhook_events_filter": ["logs"]}',
        b'{"webhook": null, "input": {"prompt": "x"}, "webhook": "http://192.0.2.1/steal"}',
        b'{"\\u0077ebhook": "http://192.0.2.1/steal", "input": {"prompt": "x"}}',
    ],
    ids=["plain", "twice", "escaped"],
)
def test_a_caller_cannot_choose_whom_cog_calls(proxy, upstream, body):
    headers = {"content-type": "application/json"}
    assert ask(create_app(proxy), "POST", "/predictions", content=body, headers=headers).status_code == 200
    assert upstream.seen[0][2] == {"input": {"prompt": "x"}}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1.evil.example"}, 403),
        ({"origin": "http://evil.example@127.0.0.1"}, 403),
        ({"origin": "http://127.0.0.1:81"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
@pytest.mark.parametrize(
    "method, path",
    [("POST", "/predictions"), ("PUT", "/predictions/a"), ("POST", "/predictions/a/cancel")],
)
def test_other_sites_pages_cannot_start_or_cancel_anything(proxy, upstream, method, path, headers, status):
    reply = ask(create_app(proxy), method, path, json={"input": {"prompt": "x"}}, headers=headers)
    assert reply.status_code == status
    assert {seen[:2] for seen in upstream.seen} == ({(method, path)} if status == 200 else set())


@pytest.mark.parametrize(
    "method, path", [("POST", "/predictions"), ("PUT", "/predictions/a"), ("POST", "/predictions/a/cancel")]
)
def test_a_body_without_an_end_is_not_read_to_it(proxy, upstream, method, path):
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 64 * LARGEST_BODY:
            sent += 2**20
            yield b" " * 2**20

    assert ask(create_app(proxy), method, path, content=endless()).status_code == 413
    assert sent < 3 * LARGEST_BODY and upstream.seen == []


def test_cancels_by_the_same_path(proxy, upstream):
    assert ask(create_app(proxy), "POST", "/predictions/a_1/cancel").status_code == 200
    assert upstream.seen[0][:2] == ("POST", "/predictions/a_1/cancel")


@pytest.mark.parametrize("key", ["..", "a.b", "a%20b", "%2e%2e%2fshutdown", "x" * 65, "ä"])
@pytest.mark.parametrize("method, tail", [("PUT", ""), ("POST", "/cancel")])
def test_refuses_ids_that_could_name_another_path(proxy, upstream, key, method, tail):
    reply = ask(create_app(proxy), method, f"/predictions/{key}{tail}", json={"input": {}})
    assert reply.status_code in (404, 405)
    assert upstream.seen == []


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe"])
def test_a_body_that_is_no_object_is_refused_in_words(proxy, upstream, body):
    reply = ask(create_app(proxy), "PUT", "/predictions/a", content=body)
    assert reply.status_code == 400
    assert "JSON object" in reply.json()["error"]
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[" * 100_000, "nested deeper than 50 levels"),
        (b'{"input": ' + b"[" * 900 + b"]" * 900 + b"}", "nested deeper than 50 levels"),
        (b'{"input": {"bpm": NaN}}', "number that is not finite"),
        (b'{"input": {"bpm": 1e999}}', "number that is not finite"),
        (b'{"input": {"prompt": "\\ud800"}}', "half a character"),
    ],
)
def test_json_that_cannot_be_passed_on_is_refused_in_words(proxy, upstream, body, why):
    reply = ask(create_app(proxy), "PUT", "/predictions/a", content=body)
    assert reply.status_code == 400
    assert why in reply.json()["error"]
    assert upstream.seen == []
    assert ask(create_app(proxy), "GET", "/session.json?mine=a").json()["running"] is None


@pytest.mark.parametrize(
    "method, path",
    [("GET", "/openapi.json"), ("GET", "/health-check"), ("POST", "/predictions"), ("PUT", "/predictions/a")],
)
def test_a_cog_server_that_is_down_gives_a_502_that_says_so(method, path):
    client = httpx.AsyncClient(base_url="http://127.0.0.1:9")  # the discard port: nobody listens
    reply = ask(create_app(CogProxy(client, OWN)), method, path, json={"input": {}})
    assert reply.status_code == 502
    assert "model server does not answer" in reply.json()["error"]


def test_a_refused_prediction_leaves_nothing_to_follow(proxy, upstream):
    upstream.reply = (422, {"detail": []})
    page = create_app(proxy)
    ask(page, "PUT", "/predictions/a", json={"input": {}})
    assert ask(page, "GET", "/predictions/a/events").status_code == 404
    assert ask(page, "GET", "/session.json?mine=a").json()["running"] is None


def test_a_caller_that_hangs_up_ends_the_call_to_cog(proxy, upstream):
    upstream.hang = True
    page = create_app(proxy)

    async def call():
        first = iter([{"type": "http.request", "body": b"{}"}])

        async def receive():
            message = next(first, None)
            if message is None:
                while not upstream.seen:
                    await asyncio.sleep(0.01)
                return {"type": "http.disconnect"}
            return message

        async def send(message):
            pass

        headers = [(b"host", b"x"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/predictions", "headers": headers}
        await page({**scope, "query_string": b"", "scheme": "http", "server": ("x", 1)}, receive, send)
        for _ in range(100):
            if upstream.cancelled:
                return True
            await asyncio.sleep(0.01)
        return False

    assert asyncio.run(call())


def test_the_page_hears_what_cog_reports_until_the_end(proxy, upstream):
    page = create_app(proxy)

    async def story():
        transport = httpx.ASGITransport(page)
        async with httpx.AsyncClient(transport=transport, base_url=OWN) as client:
            upstream.reply = (202, {"id": "a", "status": "starting"})
            await client.put("/predictions/a", json={"input": {"prompt": "x"}})
            running = (await client.get("/session.json?mine=a")).json()["running"]
            others = (await client.get("/session.json?mine=b")).json()["running"]
            listening = asyncio.create_task(client.get("/predictions/a/events"))
            for state in (
                {"id": "a", "status": "processing", "logs": "generating: 42 %"},
                {"id": "a", "status": "succeeded", "logs": "done", "output": {"variation_01": "data:,"}},
            ):
                await asyncio.sleep(0.05)
                assert (await client.post(proxy.hook, json=state)).status_code == 204
            after = (await client.get("/session.json?mine=a")).json()["running"]
            return running, others, await listening, after

    running, others, reply, after = asyncio.run(story())
    assert running == {"id": "a", "input": {"prompt": "x"}}
    assert others is None and after is None
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert [state["status"] for state in events(reply.text)] == ["starting", "processing", "succeeded"]
    assert events(reply.text)[-1]["output"] == {"variation_01": "data:,"}


def test_a_report_with_a_wrong_token_is_not_believed(proxy):
    page = create_app(proxy)
    reply = ask(page, "POST", "/webhook/guess", json={"id": "a", "status": "succeeded"})
    assert reply.status_code == 404
    assert proxy.predictions.states == {}


def test_a_server_that_dies_fails_what_it_was_doing(proxy):
    proxy.predictions.post("a", {"id": "a", "status": "processing", "logs": "half way"})
    proxy.predictions.fail_running("The model server stopped")
    reply = ask(create_app(proxy), "GET", "/predictions/a/events")
    assert events(reply.text) == [
        {"id": "a", "status": "failed", "logs": "half way", "error": "The model server stopped"}
    ]


@given(st.permutations(["starting", "processing", "processing", "succeeded"]))
def test_what_is_done_stays_done_in_whatever_order_webhooks_arrive(order):
    log = PredictionLog()
    for status in order:
        log.post("a", {"status": status})
        done = log.states["a"]["status"] in DONE
        assert done == (
            "succeeded" in order[: order.index(status) + 1] or log.states["a"]["status"] == "succeeded"
        )
    assert log.states["a"]["status"] == "succeeded" and log.running("a") is None


def test_a_finished_predictions_id_may_be_used_again(proxy, upstream):
    page = create_app(proxy)
    for prompt in ("first", "second"):
        upstream.reply = (202, {"id": "a", "status": "starting"})
        ask(page, "PUT", "/predictions/a", json={"input": {"prompt": prompt}})
        ask(
            page, "POST", f"/webhook/{proxy.token}", json={"id": "a", "status": "succeeded", "output": prompt}
        )
        (state,) = events(ask(page, "GET", "/predictions/a/events").text)
        assert state["input"] == {"prompt": prompt} and state["output"] == prompt


@pytest.mark.parametrize("status", ["processing", "succeeded"])
def test_a_refused_repetition_hides_nothing_that_is_known(proxy, upstream, status):
    page = create_app(proxy)
    proxy.predictions.post("a", {"id": "a", "status": status, "logs": "known"})
    upstream.reply = (409, {"detail": "busy"})
    assert ask(page, "PUT", "/predictions/a", json={"input": {"prompt": "other"}}).status_code == 409
    assert proxy.predictions.states["a"] == {"id": "a", "status": status, "logs": "known"}


def test_what_has_gone_on_since_it_was_asked_for_is_not_undone_by_a_late_refusal(proxy):
    before = proxy.predictions.begin("a", {"prompt": "x"})
    proxy.predictions.report("a", {"status": "processing"})
    proxy.predictions.take_back("a", before)
    assert proxy.predictions.running("a")["status"] == "processing"
    before = proxy.predictions.begin("b", {"prompt": "x"})
    proxy.predictions.take_back("b", before)
    assert proxy.predictions.running("b") is None


def test_finished_predictions_are_forgotten_but_never_a_running_one(proxy):
    proxy.predictions.post("running", {"status": "processing"})
    for k in range(20):
        proxy.predictions.post(str(k), {"status": "succeeded"})
    assert len(proxy.predictions.states) == proxy.predictions.keep + 1
    assert proxy.predictions.running("running")
    assert "19" in proxy.predictions.states


def test_what_has_just_ended_is_remembered_however_many_are_under_way():
    log = PredictionLog(keep=4)
    for k in range(20):
        log.post(f"under way {k}", {"status": "processing"})
    log.post("done", {"status": "succeeded"})
    log.post("under way 3", {"logs": "42 %"})
    assert log.states["done"]["status"] == "succeeded"


def test_a_report_that_comes_after_its_prediction_was_forgotten_makes_no_running_one(proxy):
    proxy.predictions.post("late", {"id": "late", "status": "succeeded"})
    for k in range(proxy.predictions.keep):
        proxy.predictions.post(str(k), {"status": "succeeded"})
    reply = ask(
        create_app(proxy), "POST", f"/webhook/{proxy.token}", json={"id": "late", "status": "processing"}
    )
    assert reply.status_code == 204
    assert proxy.predictions.running("late") is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"id": null}', b"\xff"])
def test_a_report_of_another_shape_does_no_harm(proxy, body):
    reply = ask(create_app(proxy), "POST", f"/webhook/{proxy.token}", content=body)
    assert reply.status_code in (204, 400) and proxy.predictions.states == {}
