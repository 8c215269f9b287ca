"""Faults done to a living server from outside; each must end in a clear error or the right answer.

Every function takes the server and a request whose right answer is known, does its harm, undoes it, and
raises where the server misbehaves. `survived` then asks for the known answer again.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from testkit.cog_server import Server

LONG = {"prompt": "techno", "bpm": 120, "variations": 8, "max_duration": 20, "seed": 9}
HUGE = {**LONG, "variations": 20}
REQUEST = {"prompt": "house", "bpm": 124, "variations": 1, "max_duration": 2, "seed": 5}


class Misbehaviour(AssertionError):  # noqa: N818
    """The server did what it must not."""


def expect(right: bool, message: object) -> None:
    """Raise where it is not `right`."""
    if not right:
        raise Misbehaviour(str(message)[:600])


def cancelled(server: Server, delay: float) -> float:
    """Cancel a long prediction after `delay` seconds; return the seconds until READY and another one is accepted."""
    for attempt in range(8):
        before = set(server.files())
        name = f"c{time.monotonic_ns()}"
        expect(server.begin(name, LONG).status_code == 202, "not accepted")
        time.sleep(delay * 0.98**attempt)  # it may be done already: this machine is not as fast every time
        started = time.monotonic()
        taken = server.client.post(f"/predictions/{name}/cancel").status_code == 200
        server.wait("READY")
        left = set(server.files()) - before
        # else its loops were made, and are kept for their reply: a little earlier, then
        if taken and not left:
            break
    else:
        raise Misbehaviour(f"not cancelled, or files left each time: {left}")
    expect(server.begin(f"{name}-next", REQUEST).status_code == 202, "the next was not accepted")
    seconds = time.monotonic() - started
    print(f"    READY for another after {seconds:.3f} s")
    server.settle()
    return seconds


def disconnect(server: Server) -> None:
    """The client goes away in the middle."""
    before = set(server.files())
    try:
        server.when_free(lambda: server.client.post("/predictions", json={"input": LONG}, timeout=2))
    except httpx.ReadTimeout:
        server.settle()
        expect(set(server.files()) <= before, f"files left: {set(server.files()) - before}")
    else:
        raise Misbehaviour("the long prediction was answered at once")


def one_too_many(server: Server) -> None:
    """While all places are taken every other gets 409, and those are right."""
    right = server.output(REQUEST)
    others = [f"full{time.monotonic_ns()}-{k}" for k in range(server.at_once - 1)]
    for name in others:
        expect(server.begin(name, LONG).status_code == 202, "not accepted")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, REQUEST)
        server.wait("BUSY", "DONE", seconds=20)
        wish = {"input": {**REQUEST, "seed": 6}}
        more = httpx.post(f"{server.client.base_url}/predictions", json=wish, timeout=120)
    expect(more.status_code == 409, f"the one too many got {more.status_code}")
    expect(answer.result().json()["output"] == right, "another one's answer changed")
    for name in others:
        server.cancel(name)


def limited(what: int, room: Callable[[int], int], request: dict[str, Any]) -> Callable[[Server], None]:
    """Take a resource from the living worker for one prediction."""

    def fault(server: Server) -> None:
        worker = server.worker
        old, before = resource.prlimit(worker, what), set(server.files())
        resource.prlimit(worker, what, (room(worker), old[1]))
        try:
            reply = server.post(request)
        finally:
            resource.prlimit(worker, what, old)
        expect(reply.status_code == 200, reply.text)
        answer = reply.json()
        expect(answer["status"] == "failed", "it succeeded without the resource")
        expect(len(answer["error"]) > 30 and not answer.get("output"), answer)
        print(f"    {answer['error']}")
        expect(set(server.files()) <= before, f"files left: {set(server.files()) - before}")

    return fault


def address_space(worker: int) -> int:
    """What the worker has mapped and 96 MiB more: room for threads, not for a model's work."""
    with open(f"/proc/{worker}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + 96 * 2**20


def stopped_for_a_while(server: Server) -> None:
    """The worker stands still for three seconds in the middle, as under a stopped machine or a jumping clock."""
    right = server.output(REQUEST)
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(server.post(REQUEST)))
    thread.start()
    time.sleep(0.3)
    worker = server.worker
    os.kill(worker, signal.SIGSTOP)
    time.sleep(3)
    os.kill(worker, signal.SIGCONT)
    thread.join()
    expect(answers[0].json()["output"] == right, "the answer changed")


def temp_folder_swept(server: Server) -> None:
    """Somebody empties the temp folder between predictions and during one."""
    thread = threading.Thread(target=lambda: answers.append(server.post(REQUEST)))
    answers: list[httpx.Response] = []
    thread.start()
    time.sleep(0.3)
    for folder in server.folder.glob("musicgen-looper-*"):
        shutil.rmtree(folder, ignore_errors=True)
    thread.join()
    expect(answers[0].json()["status"] in ("succeeded", "failed"), answers[0].text)


def worker_killed(server: Server) -> None:
    """Without its worker the server must say so and refuse at once, not hang; the platform replaces it."""
    server.begin("doomed", LONG)
    time.sleep(1)
    os.kill(server.worker, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while server.health()["status"] in ("READY", "BUSY", "STARTING") and time.monotonic() < deadline:
        time.sleep(0.1)
    status = server.health()["status"]
    expect(status not in ("READY", "BUSY", "STARTING"), f"the health check still says {status}")
    print(f"    health check: {status}")
    reply = server.client.post("/predictions", json={"input": REQUEST}, timeout=20)
    # places that were free take it, and fail it
    failed = reply.status_code == 200 and reply.json()["status"] == "failed"
    expect(failed or reply.status_code in (409, 503), f"a prediction got {reply.status_code}: {reply.text}")


def terminated(server: Server) -> None:
    """SIGTERM while waited-for predictions run, as many as can: they are still answered, then the server goes."""
    right = server.output(REQUEST)
    server.wait("READY", seconds=20)  # BUSY shall be the predictions to come, not the last one's end
    with ThreadPoolExecutor(server.at_once) as pool:
        answers = [pool.submit(server.post, REQUEST) for _ in range(server.at_once)]
        server.wait("BUSY", seconds=20)
        os.kill(server.process.pid, signal.SIGTERM)
    expect(all(answer.result().json().get("output") == right for answer in answers), "an answer was lost")
    server.process.wait(60)


IN_PLACE: dict[str, Callable[[Server], Any]] = {
    "client disconnects": disconnect,
    "one request too many": one_too_many,
    "disk full": limited(resource.RLIMIT_FSIZE, lambda worker: 1000, REQUEST),
    "no file handles left": limited(resource.RLIMIT_NOFILE, lambda worker: 3, REQUEST),
    "out of memory": limited(resource.RLIMIT_AS, address_space, HUGE),
    "machine stands still for 3 s": stopped_for_a_while,
    "temp folder emptied": temp_folder_swept,
}
