"""The page as a user drives it: form, progress, cancel, errors, files, keys, what a screen reader is told."""

import base64
import io
import json
import re
import zipfile

import numpy as np
import pyloudnorm
import pytest
import soundfile
from playwright.sync_api import expect

from looper.runtime import paths
from looper.web.shelf import PackShelf
from testkit.page_server import BEATS, FRAMES, Site, sound, wav

pytestmark = pytest.mark.browser


SCHEMA = json.loads((paths.PROJECT / "openapi.json").read_text())["components"]["schemas"]["Input"][
    "properties"
]


def cards(page, count):
    rows = page.locator("#loops li")
    expect(rows).to_have_count(count, timeout=60_000)
    return rows


def told(place, selector):
    found = place.locator(selector)
    expect(found).not_to_have_text("")
    return found.inner_text().replace("\xa0", " ")


def position(page):
    return page.evaluate("document.querySelector('[role=slider]').ariaValueText")


def ask(page, prompt="deep house", **values):
    page.wait_for_selector("#ask:not([hidden])")
    page.fill("[name=prompt]", prompt)
    for name, value in values.items():
        page.fill(f"[name={name}]", str(value))
    page.click("#make")


def test_the_form_makes_loops_that_can_be_played_saved_and_shared(visit, studio, cog):
    page = visit(studio, "/#bpm=127.003")
    ask(page, "deep house, wärm/chords", variations=4)
    cards(page, 4)
    (wish,) = cog.inputs
    assert (wish["prompt"], wish["bpm"], wish["variations"]) == ("deep house, wärm/chords", 127.003, 4)
    assert "by stand-in in 1.5 s from seed 77" in page.inner_text("#health")
    assert "seed=77" in page.url and "bpm=127.003" in page.url
    with page.expect_download() as one:
        page.click("#loops li:nth-child(2) .get")
    assert one.value.suggested_filename == "deep-house-warm-chords_127.003bpm_2bars_s77_02.wav"
    assert one.value.path().read_bytes() == wav(2)
    with page.expect_download() as whole:
        page.click("#all")
    with zipfile.ZipFile(whole.value.path()) as archive:
        assert [archive.read(name) for name in archive.namelist()] == [wav(k) for k in range(1, 5)]
    assert page.is_visible("#share")
    drop(page, **{"mine.wav": wav()})
    cards(page, 1)
    assert page.is_hidden("#share")  # what was dropped is not in the link
    again = visit(studio, page.url.removeprefix(studio.url))
    again.wait_for_selector("#ask:not([hidden])")
    assert again.input_value("[name=prompt]") == "deep house, wärm/chords"
    assert again.input_value("[name=seed]") == "77"


def test_progress_shows_stage_steps_and_time_left_and_cancel_ends_it(visit, studio, cog):
    cog.hold = True
    page = visit(studio)
    ask(page)
    expect(page.locator("#stage")).to_contain_text("first takes", timeout=60_000)
    stage = page.inner_text("#stage").lower()
    for said in ("four first takes", "18 %", "about 10 s left"):  # of the whole way, not of this stage
        assert said in stage
    assert page.get_attribute("#bar", "value") == "18"
    assert page.is_disabled("#make")
    page.click("#cancel")
    page.wait_for_selector("#progress", state="hidden")
    assert (
        page.inner_text("#live")
        == page.inner_text("#note")
        == "Canceled: nothing was made. The form is as you left it."
    )
    assert page.input_value("[name=prompt]") == "deep house"
    assert page.is_enabled("#make") and page.is_hidden("#error")


def test_while_all_places_are_taken_the_page_tells_its_place_and_then_goes_on(visit, studio, cog):
    cog.busy = True
    first, second = visit(studio), visit(studio)
    for page, place in ((first, "Next in line"), (second, "Place 2 in line")):
        ask(page, variations=2)
        expect(page.locator("#stage")).to_have_text(place, timeout=60_000)
        assert page.is_hidden("#error") and page.get_attribute("#bar", "value") is None
    second.reload()
    expect(second.locator("#stage")).to_have_text("Place 2 in line", timeout=60_000)
    first.click("#cancel")
    expect(second.locator("#stage")).to_have_text("Next in line", timeout=60_000)
    cog.busy = False
    cards(second, 2)
    assert len(cog.inputs) == 1


def test_a_failure_is_told_in_its_own_words(visit, studio, cog):
    cog.fail = "Prediction failed: Async prediction failed: ValueError: the disk is full: free space"
    page = visit(studio)
    ask(page)
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "the disk is full: free space"
    assert page.is_enabled("#make")


def test_a_refused_input_is_named(visit, studio):
    page = visit(studio, quiet=False)  # Chromium itself notes the 422
    ask(page, bpm=41)
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "bpm: no such tempo"


def test_a_click_in_the_waveform_goes_there(visit, site):
    page = visit(site)
    cards(page, 4)
    box = page.locator(".current .wave").bounding_box()
    page.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + box["height"] / 2)
    assert position(page) == "bar 2, beat 2"  # .7 of 8 beats: the sixth
    assert page.inner_text("#where").startswith("2.2")
    left = page.evaluate("parseFloat(document.querySelector('.current .playhead').style.left)")
    assert left == pytest.approx(70, abs=0.2)


@pytest.mark.parametrize("playing", [False, True])
def test_the_position_is_a_slider_for_the_keyboard(visit, site, playing):
    page = visit(site)
    cards(page, 4)
    if playing:  # the clock stands still for the keys' sake
        page.evaluate("""async () => {
          const { engine } = await import("./player.js");
          engine.makeContext = (sampleRate) => Object.assign(new OfflineAudioContext(1, 1, sampleRate), { resume() {} });
        }""")
        page.click("#play")
    slider = page.get_by_role("slider", name="Position in loop_01.wav")
    slider.focus()
    ends = {"aria-valuemin": "1", "aria-valuemax": str(BEATS)}
    assert {name: slider.get_attribute(name) for name in ends} == ends
    page.keyboard.press("Home")
    told = [position(page)]
    for key in ("ArrowRight", "ArrowUp", "PageUp", "ArrowLeft", "End", "ArrowDown", "Home"):
        page.keyboard.press(key)
        told.append(position(page))
    assert told == [
        f"bar {bar}, beat {beat}"
        for bar, beat in [(1, 1), (1, 2), (1, 3), (2, 3), (2, 2), (2, 4), (2, 3), (1, 1)]
    ]


def test_there_is_one_slider_and_it_goes_with_the_loop_that_is_heard(visit, site):
    page = visit(site)
    cards(page, 4)
    page.get_by_role("slider", name="Position in loop_01.wav").focus()
    page.keyboard.press("3")
    assert page.get_by_role("slider", name=re.compile("Position")).count() == 1
    assert page.evaluate("document.activeElement.ariaLabel") == "Position in loop_03.wav"
    assert page.locator("#loops [aria-pressed=true] .name").inner_text() == "loop_03.wav"


def test_a_click_on_another_loop_plays_it_from_the_next_bar(visit, site):
    page = visit(site)
    rows = cards(page, 4)
    page.click("#play")
    rows.nth(2).locator(".wave").click()
    expect(rows.nth(2)).to_have_class("current", timeout=60_000)
    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Play"


def test_the_nudge_changes_the_tempo_that_is_told(visit, site):
    page = visit(site)
    cards(page, 4)
    page.locator("#nudge").fill("5")
    assert page.inner_text("#tempo output") == "133.35 BPM (+5 %)"
    page.locator("#play").press("0")
    assert page.inner_text("#tempo output") == "127 BPM"


def test_a_pack_says_what_it_is(visit, site):
    page = visit(site)
    rows = cards(page, 4)
    assert page.inner_text("#player-title") == "night drive"
    assert told(page, "#facts") == "127.003 BPM · 2 bars · 3.78 s · Amin"  # of all, once
    expect(rows.nth(0).locator(".facts")).to_have_text(re.compile(r"^−\d+\.\d.LUFS · clean.seam$"))
    assert page.title().startswith("night pack")


def test_the_loudness_of_a_loop_is_that_of_bs_1770(visit, tmp_path):
    rng = np.random.default_rng(5)
    beat = np.arange(FRAMES) % (FRAMES // 8)
    hit = rng.standard_normal((FRAMES, 2)) * np.exp(-beat / 3000)[:, None] * 0.2
    shapes = {"mono": hit[:, 0], "stereo": hit, "quiet": sound(1) * 0.01, "high": hit[:, 0]}
    rates = {"high": 44_100}
    for name, samples in shapes.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, rates.get(name, 32_000))
    (tmp_path / "silent.wav").write_bytes(wav(samples=np.zeros(FRAMES)))
    with Site(library=PackShelf(tmp_path)) as site:
        page = visit(site)
        cards(page, 5)
        told = page.evaluate("""async () => {
          const { decode } = await import("./audio/loop.js");
          const { library } = await (await fetch("session.json")).json();
          return Object.fromEntries(await Promise.all(library.loops.map(async ({ name, url }) =>
            [name, (await decode({ name, bytes: await (await fetch(url)).arrayBuffer() })).lufs])));
        }""")
        assert "silent" in page.locator("#loops li").nth(3).inner_text()
    for name in shapes:
        samples, rate = soundfile.read(tmp_path / f"{name}.wav")
        truth = pyloudnorm.Meter(rate).integrated_loudness(np.concatenate([samples] * 8))
        assert told[f"{name}.wav"] == pytest.approx(truth, abs=0.15), name


def files(*paths):
    return [{"name": path.name, "mimeType": "", "buffer": path.read_bytes()} for path in paths]


@pytest.fixture(scope="module")
def dropped_on(lasting):
    page = lasting.open()
    cards(page, 4)  # what the server lists takes the place of what is dropped before it is there
    return page


@pytest.fixture
def desk(lasting, dropped_on):
    """A page that others have used, with one loop on it; nothing may come to stand in its console."""
    names = dropped_on.locator("#loops .name")
    if names.all_inner_texts() != ["good.wav"]:  # dropped again it would come in between at any time
        drop(dropped_on, **{"good.wav": wav()})
        expect(names).to_have_text(["good.wav"])
    yield dropped_on
    assert lasting.said == []


def test_files_are_opened_from_the_picker(desk, loops):
    page = desk
    page.set_input_files("#pick-files", files(loops / "loop_02.wav", loops / "loop_03.wav"))
    assert "loop_02.wav" in cards(page, 2).nth(0).inner_text()


def test_a_folder_is_opened_with_its_description(desk, loops):
    (loops / "deeper").mkdir()
    (loops / "deeper" / "inner.wav").write_bytes(wav())
    page = desk
    page.set_input_files("#pick-files", files(loops / "loop_02.wav", loops / "loop_03.wav"))
    cards(page, 2)
    page.set_input_files("#pick-folder", str(loops))
    cards(page, 4)
    assert "Amin" in page.inner_text("#facts")
    assert page.inner_text("#player-title") == "night drive"


DROP = """
async (files) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) {
    transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
  }
  for (const type of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}
"""


def drop(page, **contents):
    page.evaluate(DROP, [[name, base64.b64encode(content).decode()] for name, content in contents.items()])


def packed(method, prefix="", **more):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for k in (1, 2, 3):
            archive.writestr(f"{prefix}take{k}.wav", wav(k))
        archive.writestr(f"{prefix}pack.json", json.dumps({"prompt": "from a zip"}))
        archive.writestr(f"{prefix}notes.txt", "x")
        for name, content in more.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["", "my pack/"])
def test_a_packs_zip_is_dropped_on_the_page(desk, method, prefix):
    page = desk
    drop(page, **{"p.zip": packed(method, prefix)})
    cards(page, 3)
    assert page.inner_text("#player-title") == "from a zip"
    assert page.is_hidden("#drop")
    with page.expect_download() as saved:
        page.click("#loops li:nth-child(3) .get")
    assert saved.value.path().read_bytes() == wav(3)


LAID_OUT = {
    "re-zipped on a Mac": ({"__MACOSX/my pack/._take1.wav": b"notes", ".DS_Store": b"x"}, "my pack/"),
    "wrapped three times": ({"a/b/c/._take1.wav": b"notes"}, "a/b/c/"),
    "with deeper ones": ({"deeper/inner.wav": wav()}, ""),
}


@pytest.mark.parametrize(("more", "prefix"), LAID_OUT.values(), ids=LAID_OUT)
@pytest.mark.parametrize("served", [False, True])
def test_loops_of_a_zip_are_found_where_they_lie(visit, desk, tmp_path, more, prefix, served):
    content = packed(zipfile.ZIP_STORED, prefix, **more)
    if served:
        (tmp_path / "p.zip").write_bytes(content)
        with Site(library=PackShelf(tmp_path / "p.zip")) as other:
            page = visit(other)
            cards(page, 3)
    else:
        page = desk
        drop(page, **{"p.zip": content})
        cards(page, 3)
    assert page.locator("#loops .name").all_inner_texts() == [f"take{k}.wav" for k in (1, 2, 3)]
    assert page.inner_text("#player-title") == "from a zip"
    assert page.is_hidden("#error")


@pytest.mark.parametrize("deep", ["", "wrapped/twice"])
def test_a_picked_folder_is_looked_through_without_its_hidden_files(desk, tmp_path, deep):
    inside = tmp_path / "picked" / deep
    (inside / ".hidden").mkdir(parents=True)
    for name in ("a.wav", "b.wav", "._a.wav", ".hidden/c.wav"):
        (inside / name).write_bytes(wav() if name in ("a.wav", "b.wav") else b"notes")
    (inside / "pack.json").write_text('{"title": "picked pack"}')
    page = desk
    page.set_input_files("#pick-folder", str(tmp_path / "picked"))
    cards(page, 2)
    assert page.inner_text("#player-title") == "picked pack"
    assert page.locator("#loops .name").all_inner_texts() == ["a.wav", "b.wav"]


FOLDERS = """
async (paths) => {
  const { dropped, gather } = await import("./files/open.js");
  const entry = (name, inside) => (inside === null
    ? { name, isFile: true, isDirectory: false, file: (done) => done(new File(["x"], name)) }
    : { name, isFile: false, isDirectory: true, createReader: () => {
        const batches = [Object.entries(inside).map(([child, below]) => entry(child, below)), []];
        return { readEntries: (done) => done(batches.shift()) };
      } });
  const item = ([name, inside]) => ({ kind: "file", webkitGetAsEntry: () => entry(name, inside) });
  const items = Object.entries(paths).map(item);
  const { name, loops } = await gather(await dropped({ items }));
  return [name, loops.map(({ name: loop }) => loop)];
}
"""


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        ({"p": {"x": {"y": {"a.wav": None}}, "__MACOSX": {"z.wav": None}}}, ["p", ["a.wav"]]),
        ({"p": {"a.wav": None, "._a.wav": None, "x": {"b.wav": None}}}, ["p", ["a.wav"]]),
        ({".p": {"a.wav": None}}, [".p", ["a.wav"]]),  # asked for by name
        ({"p": {"a.wav": None}, "q": {"a.wav": None}}, ["p", ["p/a.wav", "q/a.wav"]]),
    ],
)
def test_dropped_folders_are_looked_through(desk, tree, found):
    assert desk.evaluate(FOLDERS, tree) == found


def test_a_served_folder_without_loops_says_so(visit, tmp_path):
    (tmp_path / "nothing").mkdir()
    with Site(library=PackShelf(tmp_path / "nothing")) as site:
        page = visit(site)
        expect(page.locator("#empty")).to_have_text(
            "No loops in nothing: looking for .wav, .mp3, .flac and .ogg files."
        )
        assert page.is_hidden("#error")


def test_loops_left_out_are_counted_on_the_page(visit, tmp_path):
    for k in range(101):
        (tmp_path / f"{k:03d}.wav").write_bytes(wav(samples=np.zeros(64)))
    with Site(library=PackShelf(tmp_path)) as site:
        page = visit(site)
        cards(page, 100)
        expect(page.locator("#error")).to_contain_text("101 loops in")
        expect(page.locator("#error")).to_contain_text("the first 100 by name are shown")


def test_a_folder_that_is_gone_is_told_in_words(visit, site, loops):
    page = visit(site, quiet=False)  # Chromium itself notes the 503
    cards(page, 4)
    loops.rename(loops.with_name("elsewhere"))
    page.reload()
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == (
        "night pack cannot be read: it was moved or deleted, or is being written."
    )


@pytest.mark.parametrize(
    "rows", [[None, 1, "x"], {}, [{"file": "loop_01.wav", "bpm": "fast", "beats": {}, "key": [1]}]]
)
def test_a_description_that_makes_no_sense_hides_no_loop(visit, site, loops, rows):
    (loops / "pack.json").write_text(json.dumps({"title": "odd", "loops": rows}))
    page = visit(site)
    cards(page, 4)
    assert told(page, "#facts").startswith("127.003 BPM · 2 bars")
    assert page.inner_text("#player-title") == "odd"


def bomb():
    """A zip whose entry says 1000 bytes and inflates to 50 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.wav", b"\0" * 50_000_000)
    return buffer.getvalue().replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.zip", b"PK not a zip", "p.zip is not a zip that this page can read"),
        ("p.zip", packed(zipfile.ZIP_STORED)[:-3], "p.zip is not a zip that this page can read"),
        ("p.zip", bomb(), "x.wav cannot be unpacked: larger than it says"),
        ("x.wav", b"RIFF but no sound", "x.wav is not a sound file that this browser can play"),
        ("x.wav", b"", "x.wav is not a sound file that this browser can play"),
        ("notes.txt", b"words", "No loops in notes.txt"),
    ],
)
def test_what_cannot_be_opened_is_named_and_what_was_there_stays(desk, name, content, said):
    page = desk
    drop(page, **{name: content})
    page.wait_for_selector("#error:not([hidden])")
    assert said in page.inner_text("#error")
    assert page.locator("#loops .name").all_inner_texts() == ["good.wav"]
    drop(page, **{"one.wav": wav(1), "two.wav": wav(2)})
    cards(page, 2)
    assert page.is_hidden("#error")


def test_loops_of_several_sample_rates_play_together_at_one(visit, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(1))
    seconds = FRAMES / 32_000
    other = np.zeros(round(seconds * 44_100))
    (tmp_path / "b.wav").write_bytes(wav(samples=other, rate=44_100))
    with Site(library=PackShelf(tmp_path)) as site:
        page = visit(site)
        cards(page, 2)
        lengths = page.evaluate("""async () => {
          const { engine } = await import("./player.js");
          return engine.loops.map(({ buffer }) => [buffer.length, buffer.sampleRate]);
        }""")
    assert lengths[0] == [FRAMES, 32_000]
    assert lengths[1][1] == 32_000 and abs(lengths[1][0] - FRAMES) <= 1


@pytest.fixture(scope="module")
def resized(lasting):
    return lasting.open()


@pytest.mark.parametrize("width", [320, 360, 600, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(resized, width, scheme):
    page = resized
    page.set_viewport_size({"width": width, "height": 700})
    page.emulate_media(color_scheme=scheme)
    cards(page, 4)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        "(w) => [...document.querySelectorAll('button, label, .facts, h1, h2')].filter((e) => !e.closest('[hidden]'))"
        ".filter((e) => e.getBoundingClientRect().right > w).map((e) => e.textContent)",
        width,
    )
    assert outside == []


def test_one_of_many_packs_is_chosen_and_has_an_address_of_its_own(visit, tmp_path):
    for name, loops in (("house", 2), ("techno", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pack.json").write_text(json.dumps({"prompt": f"{name} drums"}))
        for k in range(loops):
            (tmp_path / name / f"{k}.wav").write_bytes(wav())
    with Site(library=PackShelf(tmp_path)) as site:
        page = visit(site)
        cards(page, 2)
        page.get_by_label("Pack").select_option("techno")
        cards(page, 3)
        assert page.inner_text("#player-title") == "techno drums" and page.url.endswith("?pack=techno")
        page.go_back()
        cards(page, 2)
        assert page.get_by_label("Pack").input_value() == "house"


def test_bars_and_seconds_are_shown_live_and_a_beat_is_warned_of_before(visit, studio, cog):
    page = visit(studio)
    page.wait_for_selector("#ask:not([hidden])")
    length = page.locator("#length")
    expect(length).to_have_text("4 bars · 6.86 s")  # 140 BPM, 8 s
    assert page.get_attribute("#form details", "open") is None  # only what is wrong in it opens it
    page.fill("[name=bpm]", "124")
    expect(length).to_have_text("4 bars · 7.74 s")
    page.get_by_role("button", name="2 bars").click()
    expect(length).to_have_text("2 bars · 3.87 s")
    page.fill("[name=bpm]", "90")  # the bars stay what they are
    expect(length).to_have_text("2 bars · 5.33 s")
    assert page.input_value("[name=max_duration]") == "6"
    assert page.get_by_role("button", name="8 bars").is_disabled()  # 21.3 s
    page.fill("[name=bpm]", "40")
    page.fill("[name=max_duration]", "2")
    expect(length).to_contain_text("Only 1 beat · 1.50 s: a bar takes 6.00 s here")
    page.fill("[name=bpm]", "")
    expect(length).to_have_text("")
    ask(page, bpm=120, max_duration=4)
    cards(page, 4)
    assert cog.inputs[0]["max_duration"] == 4 and set(cog.inputs[0]) <= set(SCHEMA)
