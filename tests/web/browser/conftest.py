"""A real Chromium, and a real Firefox, on the real page server.

Playwright drives the browsers that the machine has. Without a Chromium the files here are not collected; tests marked
`both` go through Firefox too, and without one their Firefox half is skipped and says so. In continuous integration
(CI=true) a browser that is missing is a failure.
"""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import pytest

from looper.web.shelf import PackShelf
from testkit import firefox
from testkit.page_server import BEATS, BPM, Site, StandIn, wav

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

collect_ignore_glob = [] if CHROMIUM or os.environ.get("CI") == "true" else ["test_*.py"]


CI = os.environ.get("CI") == "true"


def pytest_generate_tests(metafunc):
    if "browser" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both") is not None
        metafunc.parametrize("browser", ["chromium", *["firefox"] * both], indirect=True, scope="package")


@pytest.fixture(scope="package")  # while it is there an event loop runs, and other tests' asyncio.run cannot
def playwright():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # the machine may have much else to do
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="package")
def chromium(playwright):
    if CHROMIUM is None:
        pytest.fail("no Chromium is here: apt-get install chromium")
    flags = ["--autoplay-policy=no-user-gesture-required", "--no-sandbox"]
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
    yield browser
    browser.close()


@pytest.fixture(scope="package")
def fox(playwright):
    if firefox.FIREFOX is None:
        absent = "no Firefox is here: apt-get install firefox-esr"
        pytest.fail(absent) if CI else pytest.skip(absent)
    with firefox.wrapper() as program:
        prefs = {"media.autoplay.default": 0, "media.autoplay.blocking_policy": 0}
        browser = playwright.firefox.launch(
            channel="moz-firefox", executable_path=program, firefox_user_prefs=prefs
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def browser(request):
    return request.getfixturevalue({"chromium": "chromium", "firefox": "fox"}[request.param])


def stream_ended(text):
    """Firefox's note on a stream of events that the server ended before the page closed it."""
    return text.startswith("Firefox can") and text.endswith("/events.")


class Visits:
    """Pages of a browser, each in a context of its own, and what stood in their consoles."""

    def __init__(self, browser):
        self.browser = browser
        self.said: list[str] = []
        self.contexts: list = []

    def open(self, site: Site, path: str = "/", quiet: bool = True, **how):
        context = self.browser.new_context(accept_downloads=True, **how)
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        if quiet:
            page.on("console", lambda message: self.note(message.text))
        page.on("pageerror", lambda error: self.note(str(error)))
        page.goto(site.url + path)
        return page

    def note(self, text: str) -> None:
        if not stream_ended(text):
            self.said.append(text)

    def close(self) -> None:
        for context in self.contexts:
            context.close()


@pytest.fixture
def visit(browser):
    """Open a page; at the end nothing may stand in its console."""
    visits = Visits(browser)
    yield visits.open
    visits.close()
    assert visits.said == []


def night_pack(folder):
    """A folder of four loops and its description."""
    folder.mkdir()
    rows = []
    for k in range(1, 5):
        (folder / f"loop_{k:02d}.wav").write_bytes(wav(k))
        rows.append({"file": f"loop_{k:02d}.wav", "bpm": BPM, "beats": BEATS, "key": "Amin"})
    (folder / "pack.json").write_text(json.dumps({"prompt": "night drive", "loops": rows}))
    return folder


@pytest.fixture
def loops(tmp_path):
    return night_pack(tmp_path / "night pack")


@pytest.fixture(scope="module")
def lasting(browser, tmp_path_factory):
    """Open pages of four loops that the tests of a file share, by `open`: opening one is most of what a test costs."""
    visits = Visits(browser)
    with Site(library=PackShelf(night_pack(tmp_path_factory.mktemp("lasting") / "night pack"))) as site:
        yield SimpleNamespace(open=lambda: visits.open(site), said=visits.said)
        visits.close()


@pytest.fixture
def site(loops):
    with Site(library=PackShelf(loops)) as here:
        yield here


@pytest.fixture
def cog():
    return StandIn()


@pytest.fixture
def studio(cog):
    with Site(cog) as here:
        yield here
