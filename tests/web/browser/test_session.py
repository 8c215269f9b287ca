"""A session on the page: what was made stays, stars, layers, drags, and a server that goes and comes back."""

import re
import sys

import numpy as np
import pytest
from playwright.sync_api import expect

from looper.loops.clicks import click_ratio
from looper.runtime import paths
from looper.web import continuations
from looper.web.shelf import PackShelf
from testkit.page_server import Site, StandIn, sound, wav
from tests.web.browser.test_player import ask, cards
from tests.web.test_continuations import SCRIPT

pytestmark = pytest.mark.browser
AXE = paths.PROJECT / "tests/web/js/node_modules/axe-core/axe.min.js"


def opened(visit, site, path="/", **how):
    page = visit(site, path, **how)
    page.wait_for_selector("#ask:not([hidden])")
    return page


@pytest.mark.both
def test_what_was_made_stays_with_its_stars_and_more_like_it_is_the_next_seed(visit, studio, cog):
    page = opened(visit, studio)
    ask(page, "deep house")
    cards(page, 4)
    expect(page.locator("[name=seed]")).to_have_value("77")  # drawn by the server, told in the form
    assert cog.inputs[0]["seed"] == -1 and page.is_checked("#fresh")  # and not asked for again
    page.click("#loops li:nth-child(2) .star")
    page.click("#more")
    expect(page.locator("#sets li")).to_have_count(2)
    page.wait_for_selector("#progress", state="hidden")  # it is kept by then
    asked, again = cog.inputs
    assert again == {**asked, "seed": 78}
    assert page.locator("#loops .star[aria-pressed=true]").count() == 0
    page.reload()
    rows = page.locator("#sets li")
    expect(rows).to_have_count(2)
    assert "seed 77 · 1 starred" in rows.nth(1).inner_text()
    rows.nth(1).locator(".recall").click()
    cards(page, 4)
    assert page.get_attribute("#loops li:nth-child(2) .star", "aria-pressed") == "true"
    page.click("#stars")
    assert cards(page, 1).locator(".name").inner_text() == "deep house, 2"
    rows.nth(0).get_by_role("button", name="Remove").click()
    expect(rows).to_have_count(1)
    page.reload()
    expect(rows).to_have_count(1)


def test_a_seed_that_is_typed_or_linked_is_asked_for(visit, studio, cog):
    page = opened(visit, studio, "/#seed=9&prompt=x")
    assert not page.is_checked("#fresh")
    page.click("#make")
    cards(page, 4)
    page.fill("[name=seed]", "11")
    page.click("#make")
    expect(page.locator("#sets li")).to_have_count(2)
    page.check("#fresh")
    page.click("#make")
    expect(page.locator("#sets li")).to_have_count(3)
    assert [asked["seed"] for asked in cog.inputs] == [9, 11, -1]


def heard(page):
    return page.locator("#loops li.on .number").all_inner_texts()


@pytest.mark.both
def test_layers_have_mute_solo_and_gain_and_end_with_one_loop(visit, site):
    page = visit(site)
    rows = cards(page, 4)
    page.click("#layers")
    assert heard(page) == ["1"]
    rows.nth(2).locator(".pick").click()
    page.keyboard.press("4")
    assert heard(page) == ["1", "3", "4"]
    page.get_by_role("button", name="Solo loop_03.wav").click()
    assert heard(page) == ["3"]
    page.get_by_role("button", name="Solo loop_03.wav").click()
    page.get_by_role("button", name="Mute loop_01.wav").click()
    gain = page.get_by_label("Gain of loop_04.wav")
    gain.focus()
    page.keyboard.press("Home")
    assert heard(page) == ["3"] and rows.nth(3).locator("output").inner_text() == "silent"
    page.keyboard.press("l")
    assert heard(page) == [] and page.get_attribute("#layers", "aria-pressed") == "false"
    assert page.locator("#loops li.current").count() == 1
    page.keyboard.press("n")
    expect(rows.nth(0)).to_have_class("current")  # the fourth was, and the first comes after it


def test_a_loop_of_another_length_is_no_layer_and_says_so(visit, tmp_path):
    for k in (1, 2):
        (tmp_path / f"{k}.wav").write_bytes(wav(k))
    (tmp_path / "3.wav").write_bytes(wav(samples=sound(3)[:40_000]))
    with Site(library=PackShelf(tmp_path)) as site:
        page = visit(site)
        rows = cards(page, 3)
        page.click("#layers")
        rows.nth(2).locator(".pick").click()
        assert "cannot be a layer" in page.inner_text("#live") and heard(page) == ["1"]


DRAG = """
() => {
  const grip = [...document.querySelectorAll(".drag")][1];
  const enters = (dataTransfer) => {
    dataTransfer.items.add(new File(["x"], "x.wav")); // browsers say "Files" of what can be dropped as one
    document.body.dispatchEvent(new DragEvent("dragenter", { dataTransfer, bubbles: true }));
    return !document.getElementById("drop").hidden;
  };
  const mine = new DataTransfer();
  grip.dispatchEvent(new DragEvent("dragstart", { dataTransfer: mine, bubbles: true }));
  // other cards come while it is dragged: nobody is told of its end
  return [mine.getData("DownloadURL"), mine.getData("text/plain"), enters(mine), enters(new DataTransfer())];
}
"""


@pytest.mark.both
def test_a_loop_is_dragged_out_as_its_file(visit, site):
    page = visit(site)
    cards(page, 4)
    offered, name, own, others = page.evaluate(DRAG)
    assert re.fullmatch(rf"audio/wav:loop_02\.wav:blob:{re.escape(site.url)}/[\w-]+", offered)
    assert name == "loop_02.wav"
    assert (own, others) == (
        False,
        True,
    )  # the page does not offer to open its own, and then takes others again


BOTH_AT_ONCE = """
() => {
  document.querySelector("#make").click();
  document.querySelector("#sets [aria-label='More like deep house']").click();
}
"""


def test_there_is_one_request_at_a_time_whatever_is_clicked(visit, studio, cog):
    page = opened(visit, studio)
    ask(page, "deep house")
    page.wait_for_selector("#sets li")
    page.wait_for_selector("#progress", state="hidden")
    cog.hold = True
    page.evaluate(BOTH_AT_ONCE)
    page.wait_for_selector("#progress:not([hidden])")
    expect(page.locator("#note")).to_contain_text("still being made")
    page.click("#cancel")
    expect(page.locator("#note")).to_contain_text("Canceled")
    assert len(cog.inputs) == 2


def test_what_plays_and_its_licence_are_said_before_the_first_click(visit, studio):
    page = opened(visit, studio)
    said = page.locator("#in-model_version-help")
    assert "Plays “tiny”, a small demonstration" in said.inner_text() and "Apache-2.0" in said.inner_text()
    assert page.locator("[name=model_version] option").all_inner_texts() == [
        "medium: plays tiny",
        "large: not here",
    ]
    page.select_option("[name=model_version]", "large")
    assert "run `looper weights get large`" in said.inner_text()
    assert "lower-varience" not in page.inner_text("#form") and "None" not in page.inner_text("#form")


@pytest.mark.both
def test_an_empty_page_has_words_to_try_and_a_set_to_hear(visit, studio, cog):
    page = opened(visit, studio)
    page.get_by_role("button", name=re.compile("boom bap")).click()
    assert page.input_value("[name=bpm]") == "93.7" and "boom bap" in page.input_value("[name=prompt]")
    page.click("#hear")
    cards(page, 3)
    assert page.inner_text("#facts").replace("\xa0", " ") == "128 BPM · 2 bars · 3.75 s"
    frames = page.evaluate(
        "import('./player.js').then(({ engine }) => engine.loops.map(({ buffer }) => buffer.length))"
    )
    assert frames == [120_000] * 3
    page.click("#make")
    cards(page, 4)
    assert cog.inputs[0]["bpm"] == 93.7


@pytest.mark.both
def test_a_loop_of_mine_or_of_the_page_is_continued(visit, studio, monkeypatch):
    monkeypatch.setattr(continuations, "_COMMAND", (sys.executable, "-c", SCRIPT))
    page = opened(visit, studio)
    page.set_input_files("#pick-files", [{"name": "mine_127.003bpm.wav", "mimeType": "", "buffer": wav(1)}])
    cards(page, 1)
    page.get_by_role("button", name="Continue mine").click()
    expect(page.locator("#note")).to_contain_text("Say in the form what it should sound like")
    page.fill("[name=prompt]", "dusty drums")
    page.get_by_role("button", name="Continue mine").click()
    assert cards(page, 3).locator(".name").all_inner_texts() == [
        "The loop itself",
        "Variation 1",
        "Variation 2",
    ]
    expect(page.locator("#sets li")).to_have_count(1)
    assert page.is_hidden("#more") and page.is_hidden("#share")
    assert "beat 90 % sure" in page.locator("#loops li").nth(1).inner_text().replace("\xa0", " ")
    page.wait_for_selector("#progress", state="hidden")
    page.get_by_role("button", name="Continue Variation 2").click()
    expect(page.locator("#sets li")).to_have_count(2)
    assert page.locator("#sets .name").all_inner_texts() == ["dusty drums"] * 2


def test_a_seams_measure_is_the_servers_own(visit, site):
    page = visit(site)
    cards(page, 4)
    found = page.evaluate("""async () => {
      const [{ engine }, { clickRatio }] = await Promise.all([import("./player.js"), import("./audio/seam.js")]);
      return engine.loops.map(({ buffer }) => clickRatio(buffer));
    }""")
    assert found == pytest.approx([click_ratio(sound(k)) for k in range(1, 5)], rel=0.02)
    assert np.ptp(found) > 0.01


@pytest.mark.both
def test_a_request_goes_on_when_its_server_was_started_anew(visit):
    first, second = StandIn(), StandIn()
    first.hold = True
    with Site(first) as site:
        page = opened(visit, site, quiet=False)  # browsers note each refused connection
        ask(page, "dub techno")
        expect(page.locator("#stage")).to_contain_text("first takes")
        port = site.socket.getsockname()[1]
    expect(page.locator("#stage")).to_contain_text("Your request is kept")
    assert page.input_value("[name=prompt]") == "dub techno"
    with Site(second, port=port):
        cards(page, 4)
        assert second.inputs == first.inputs and page.is_hidden("#error")


def test_a_request_whose_server_is_gone_can_be_given_up(visit):
    cog = StandIn()
    cog.hold = True
    with Site(cog) as site:
        page = opened(visit, site, quiet=False)
        ask(page, "dub techno")
        expect(page.locator("#stage")).to_contain_text("first takes")
    expect(page.locator("#stage")).to_contain_text("Your request is kept")
    page.click("#cancel")
    expect(page.locator("#note")).to_contain_text("Canceled")
    page.click("#make")
    expect(page.locator("#error")).to_contain_text("is looper serve still running?")
    assert page.is_enabled("#make") and page.input_value("[name=prompt]") == "dub techno"


def test_a_page_whose_server_is_away_at_first_begins_when_it_comes(visit):
    with Site(StandIn()) as site:
        page = visit(site, quiet=False)
        page.wait_for_selector("#ask:not([hidden])")
        port = site.socket.getsockname()[1]
        page.route("**/session.json*", lambda route: route.abort())
        page.reload()
        expect(page.locator("#error")).to_contain_text("is looper serve still running?")
        assert page.is_hidden("#ask")  # no empty box
        page.unroute("**/session.json*")
        page.wait_for_selector("#ask:not([hidden])")
        assert page.is_hidden("#error") and page.inner_text("#health") == "Ready" and port


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_and_a_thumb_finds_everything(visit, studio, width, scheme):
    if not AXE.is_file():
        pytest.skip("no axe-core is here: make test-js installs it")
    page = opened(visit, studio, viewport={"width": width, "height": 844}, color_scheme=scheme)
    found = [violations(page)]
    ask(page, "deep house")
    cards(page, 4)
    page.click("#loops li:nth-child(1) .star")
    page.click("#layers")
    found.append(violations(page))
    assert found == [[], []]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        assert page.evaluate(SMALL) == []
        page.evaluate("document.querySelector('#loops').scrollIntoView({ behavior: 'instant' })")
        box = page.locator("#play").bounding_box()
        assert 0.75 * 844 < box["y"] < 844  # within reach of a thumb


SMALL = """
() => [...document.querySelectorAll("button, select, summary, input:not([type=range], [type=checkbox])")]
  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 43.9).map((e) => e.outerHTML)
"""


def violations(page):
    page.evaluate(AXE.read_text())
    return page.evaluate(
        "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))"
    )
