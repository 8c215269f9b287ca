"""`looper serve`: the player page in front of a Cog server, or over a folder of loops, on one origin."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from looper.runtime import paths
from looper.web.cog_process import CogServer
from looper.web.continuations import Continuations
from looper.web.guard import Guard, any_name, is_loopback
from looper.web.proxy import CogProxy, problem
from looper.web.served import ServedModel
from looper.web.shelf import PackShelf


class _Static(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"  # modules of two releases must not mix
        return response


class _Listing:
    """What the page asks first, and the loops of a library."""

    def __init__(
        self, proxy: CogProxy | None, library: PackShelf | None, told: dict[str, Any], continues: bool
    ) -> None:
        self.proxy, self.library = proxy, library
        self.plays = {"model": proxy is not None, "models": told, "continues": continues}

    async def session(self, request: Request) -> Response:
        key = request.query_params.get("mine", "")  # nobody is told of others' predictions
        state = self.proxy.predictions.running(key) if self.proxy else None
        running = {"id": key, "input": state.get("input")} if state else None
        try:  # in a thread, as it takes its time with a large zip or a slow disk
            pack = request.query_params.get("pack")
            listing = await run_in_threadpool(self.library.listing, pack) if self.library else None
        except OSError as error:
            return problem(503, str(error))
        return JSONResponse({**self.plays, "running": running, "library": listing})

    async def loop(self, request: Request) -> Response:
        try:
            name, pack = request.path_params["name"], request.query_params.get("pack")
            found = await run_in_threadpool(self.library.read, name, pack) if self.library else None
        except ValueError as error:
            return problem(422, str(error))
        except OSError as error:
            return problem(503, str(error))
        return Response(found[0], media_type=found[1]) if found else problem(404, "No such loop.")


def create_app(
    proxy: CogProxy | None = None,
    library: PackShelf | None = None,
    answers_to: Callable[[str], bool] = any_name,
    models: Mapping[str, ServedModel] | None = None,
) -> Starlette:
    """Build the page server as an ASGI application.

    Parameters
    ----------
    proxy : CogProxy, optional
        The way to a Cog server; without it the page only plays `library`.
    library : PackShelf, optional
        A folder or pack of loops, or a folder of packs, to list.
    answers_to : callable
        Tells of a host name whether it is ours; against DNS rebinding, a loopback server answers to loopback
        names only.
    models : mapping, optional
        What plays under each model's name, for the page to say before the first click.
    """
    told = {name: model.told() for name, model in (models or {}).items()}
    folders = {name: model.folder for name, model in (models or {}).items() if model.folder}
    continuations = Continuations(proxy.predictions, folders) if proxy and folders else None
    listing = _Listing(proxy, library, told, continuations is not None)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if proxy:
                stack.push_async_callback(proxy.client.aclose)
                stack.callback(proxy.line.stop)
            if continuations:
                stack.push_async_callback(continuations.stop)
            if proxy and proxy.child:
                await stack.enter_async_context(proxy.child)
                watcher = asyncio.create_task(proxy.watch())
                stack.callback(watcher.cancel)
            yield

    routes = [
        Route("/session.json", listing.session),
        Route("/loops/{name:path}", listing.loop),
        *(proxy.routes() if proxy else []),
        *(continuations.routes() if continuations else []),
        Mount("/", _Static(directory=paths.PAGE, html=True)),
    ]
    guard = Middleware(Guard, answers_to=answers_to)
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan)


class _Server(uvicorn.Server):
    """Ends in order, which takes some seconds at most; a second Ctrl-C does not cut that short half way."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port} ({error.strerror}): choose another port") from error


def _url(sock: socket.socket, own: bool = False) -> str:
    host, port = sock.getsockname()[:2]
    if own:  # a wildcard address is no destination
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    host: str = "127.0.0.1",
    port: int = 8393,
    folder: str | Path | None = None,
    cog_port: int | None = None,
    tiny: bool = False,
    root: str | Path = paths.PROJECT,
    at_once: int = 1,
    models: Mapping[str, ServedModel] | None = None,
) -> None:
    """Serve the player until Ctrl-C or SIGTERM, with a Cog server behind it or a folder of loops.

    Parameters
    ----------
    host, port
        Address of the page; port 0 takes a free one. The default is reached from this machine only.
    folder : path, optional
        A folder, a pack's zip or a folder of packs to play; no model is loaded.
    cog_port : int, optional
        Loopback port of the Cog server; a free one by default.
    tiny : bool
        Serve the demo model of weights/tiny under every model name.
    root : path
        Folder of predict.py.
    at_once : int
        Predictions that the Cog server makes at once; further ones of the page wait in line.
    models : mapping, optional
        What plays under each model's name.

    Raises
    ------
    FileNotFoundError
        If `folder` is missing, or `root` has no predict.py.
    OSError
        If the port is taken.
    """
    library = PackShelf(folder) if folder is not None else None
    if library is None and not (Path(root) / "predict.py").is_file():
        raise FileNotFoundError(
            f"no predict.py in {root}: name the folder of a checkout, or a folder of loops to play"
        )
    sock = _listen(host, port)
    proxy = None
    if library is None:
        if cog_port is None:
            with _listen("127.0.0.1", 0) as spare:
                cog_port = spare.getsockname()[1]
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{cog_port}", timeout=httpx.Timeout(None, connect=5), trust_env=False
        )
        child = CogServer(Path(root), cog_port, tiny, at_once)
        proxy = CogProxy(client, _url(sock, own=True), child, lambda: server.should_exit, at_once)
    # by the address that it came to, however that was spelled
    answers_to = is_loopback if is_loopback(sock.getsockname()[0]) else any_name
    config = uvicorn.Config(
        create_app(proxy, library, answers_to, models), log_level="warning", timeout_graceful_shutdown=3
    )
    server = _Server(config)
    if library and (note := library.listing()["note"]):
        print(note, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        print(f"Player: {_url(sock)}  (Ctrl-C stops it)", flush=True)
        server.run(sockets=[sock])
