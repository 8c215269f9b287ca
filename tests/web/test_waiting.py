"""Predictions that wait in line on the page's server while all places of the Cog server are taken."""

import asyncio
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from looper.web import waiting
from looper.web.proxy import CogProxy
from looper.web.server import create_app
from testkit.asgi import events

OWN = "http://127.0.0.1:1"
LATER = {"prefer": "respond-async"}


class Cog:
    """Takes `places` predictions at once and 409s the rest; `end` finishes one and tells the webhook."""

    def __init__(self, places):
        self.places, self.under_way, self.order, self.cancelled = places, {}, [], []
        self.refuse, self.sending, self.hold = None, asyncio.Event(), None
        self.deaf = 0  # cancels that it answers and does not heed, as Cog does for a moment after the start
        put = Route("/predictions/{id}", self.start, methods=["PUT"])
        stop = Route("/predictions/{id}/cancel", self.cancel, methods=["POST"])
        self.app = Starlette(routes=[put, stop])

    async def start(self, request):
        key, body = request.path_params["id"], await request.json()
        if len(self.under_way) >= self.places:
            return JSONResponse({"detail": "all places are taken"}, 409)
        if self.hold:
            self.sending.set()
            await self.hold.wait()
        if self.refuse:
            return JSONResponse(*self.refuse)
        self.under_way[key] = body
        self.order.append(key)
        return JSONResponse({"id": key, "status": "starting"}, 202)

    async def cancel(self, request):
        key = request.path_params["id"]
        self.cancelled.append(key)
        if self.deaf:
            self.deaf -= 1
            return JSONResponse({})
        return JSONResponse({}, 200 if self.under_way.pop(key, None) else 404)

    async def end(self, page, key, **state):
        hook = self.under_way.pop(key)["webhook"]
        await page.post(hook.removeprefix(OWN), json={"id": key, "status": "succeeded", **state})


def story(play, places=1):
    """Run `play(page, cog, proxy)` against a page server before a stand-in for Cog."""

    async def run():
        cog = Cog(places)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(cog.app), base_url="http://cog")
        proxy = CogProxy(client, OWN)
        page = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(proxy)), base_url=OWN)
        try:
            return await asyncio.wait_for(play(page, cog, proxy), 60)
        finally:
            proxy.line.stop()
            await page.aclose()
            await client.aclose()

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(waiting, "RETRY_SECONDS", 0.01)


async def ask(page, key, status=202):
    reply = await page.put(f"/predictions/{key}", json={"input": {"prompt": key}}, headers=LATER)
    assert reply.status_code == status, reply.text
    return reply


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def place(proxy, key):
    return proxy.predictions.states[key].get("place")


def test_who_finds_all_places_taken_waits_and_is_served_in_the_order_of_arrival():
    async def play(page, cog, proxy):
        for key in "abcd":
            await ask(page, key)
        places = [[place(proxy, key) for key in "abcd"]]
        listening = asyncio.create_task(page.get("/predictions/c/events"))
        for key in "abcd":
            await until(lambda key=key: key in cog.under_way)
            places.append([place(proxy, key) for key in "abcd"])
            await cog.end(page, key, output={"variation_01": key})
        return places, cog.order, events((await listening).text)

    places, order, heard = story(play)
    assert order == list("abcd")
    assert places[0] == [None, 1, 2, 3] and places[2] == [None, None, 1, 2]
    assert [state["place"] for state in heard if state.get("place")][-1] == 1
    assert heard[-1]["status"] == "succeeded" and heard[-1]["output"] == {"variation_01": "c"}


def test_each_free_place_takes_the_next_one():
    async def play(page, cog, proxy):
        for key in "abcde":
            await ask(page, key)
        assert set(cog.under_way) == {"a", "b", "c"} and [place(proxy, key) for key in "de"] == [1, 2]
        await cog.end(page, "b")
        await until(lambda: "d" in cog.under_way)
        assert place(proxy, "e") == 1

    story(play, places=3)


def test_who_comes_later_does_not_pass_those_who_wait():
    async def play(page, cog, proxy):
        await ask(page, "a")
        await ask(page, "b")
        cog.places = 2
        await ask(page, "c")  # finds a free place, but behind b
        await until(lambda: "b" in cog.under_way)
        assert cog.order == ["a", "b"] and place(proxy, "c") == 1

    story(play)


def test_a_cancelled_one_leaves_the_line_and_is_never_sent():
    async def play(page, cog, proxy):
        for key in "abc":
            await ask(page, key)
        listening = asyncio.create_task(page.get("/predictions/b/events"))
        assert (await page.post("/predictions/b/cancel")).status_code == 200
        assert place(proxy, "c") == 1
        await cog.end(page, "a")
        await until(lambda: "c" in cog.under_way)
        return cog, events((await listening).text)

    cog, heard = story(play)
    assert cog.order == ["a", "c"] and cog.cancelled == []
    assert heard[-1]["status"] == "canceled"


def test_one_that_is_cancelled_while_it_is_sent_is_cancelled_there_too():
    async def play(page, cog, proxy):
        await ask(page, "a")
        await ask(page, "b")
        cog.hold = asyncio.Event()
        await cog.end(page, "a")
        await cog.sending.wait()
        await page.post("/predictions/b/cancel")
        cog.deaf = 1
        cog.hold.set()
        await until(lambda: len(cog.cancelled) == 3)  # the last is told that it is gone
        return cog.cancelled, cog.under_way

    assert story(play) == (["b", "b", "b"], {})


def test_a_cancel_that_comes_too_early_to_be_heeded_is_repeated():
    async def play(page, cog, proxy):
        await ask(page, "a")
        cog.deaf = 2
        assert (await page.post("/predictions/a/cancel")).status_code == 200
        await until(lambda: not cog.under_way)
        return cog.cancelled

    assert story(play)[:3] == ["a", "a", "a"]


def test_what_cog_refuses_when_its_turn_has_come_fails_in_words_and_holds_nobody_up():
    async def play(page, cog, proxy):
        for key in "abc":
            await ask(page, key)
        cog.refuse = ({"detail": [{"loc": ["body", "input", "bpm"], "msg": "39 is too low"}]}, 422)
        await cog.end(page, "a")
        await until(lambda: proxy.predictions.states["b"]["status"] == "failed")
        cog.refuse = None
        await ask(page, "d")
        await until(lambda: cog.under_way)
        return proxy.predictions.states["b"]

    assert story(play)["error"] == "bpm: 39 is too low"


def test_a_request_that_is_sent_twice_waits_once():
    async def play(page, cog, proxy):
        await ask(page, "a")
        await ask(page, "b")
        await ask(page, "b")
        assert len(proxy.line) == 1 and place(proxy, "b") == 1

    story(play)


def test_more_than_can_be_held_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(waiting, "MOST", 2)

    async def play(page, cog, proxy):
        for key in "abc":
            await ask(page, key)
        reply = await ask(page, "d", status=429)
        assert "waiting already" in reply.json()["error"]
        assert (await page.get("/predictions/d/events")).status_code == 404

    story(play)


def test_a_client_of_the_plain_api_is_told_409_as_by_cog_itself():
    async def play(page, cog, proxy):
        await ask(page, "a")
        reply = await page.put("/predictions/b", json={"input": {"prompt": "b"}})
        assert reply.status_code == 409 and len(proxy.line) == 0

    story(play)


def test_a_server_that_dies_fails_those_who_wait_too():
    class Child:
        running = False

        async def wait(self):
            return 3

    async def play(page, cog, proxy):
        await ask(page, "a")
        await ask(page, "b")
        proxy.child = Child()
        await proxy.watch()
        return proxy.predictions.states["b"], len(proxy.line)

    state, left = story(play)
    assert state["status"] == "failed" and "exit code 3" in state["error"] and left == 0


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"{}", json.dumps({"detail": "no"}).encode()])
def test_an_answer_that_says_nothing_is_told_by_its_number(body):
    assert waiting.complaint(body, 500) == "The model server answered 500."
