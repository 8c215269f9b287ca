"""The notebook in examples/ does what it shows, and loops show themselves in any notebook."""

from __future__ import annotations

import ast
import base64
import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

import looper
from looper.loops.loop import Loop
from looper.loops.notebook import loop_html, loops_html
from looper.loops.seam import SeamReport
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest
from looper.runtime import paths
from testkit.fakes import FakeGenerator

NOTEBOOK = paths.PROJECT / "examples" / "loops.ipynb"


class Shown(HTMLParser):
    """What a browser would find: audio files, pictures, text; tags must close as they were opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sounds, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "audio":
            kind, _, data = dict(attributes)["src"].partition("base64,")
            assert kind == "data:audio/wav;" and "loop" in dict(attributes)
            self.sounds.append(base64.b64decode(data, validate=True))
        if tag != "path":  # closes itself
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def loops():
    wish = LoopRequest("<script>alert(1)</script> & pads", bpm=121.7, variations=2, bars=2, seed=5)
    return LoopMaker(FakeGenerator()).make(wish)


@pytest.mark.slow
def test_a_loop_shows_a_player_of_just_its_samples_and_a_picture(loops):
    shown = Shown(loops[0]._repr_html_())
    (sound,) = shown.sounds
    heard, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    assert rate == 32_000 and np.abs(heard - loops[0].samples).max() < 1e-4
    assert "2 bars at 121.7 BPM" in shown.text and "<script>alert(1)</script> & pads" in shown.text
    assert "script" not in shown.tags and shown.tags.count("svg") == 1


def test_a_set_shows_all_of_them(loops):
    shown = Shown(loops._repr_html_())
    assert (
        len(shown.sounds) == 2 and "01 · " in shown.text and "02 · " in shown.text and "seed 5" in shown.text
    )
    assert len(repr(loops)) < 120 and len(repr(loops[0])) < 80


def test_the_picture_is_drawn_to_scale_with_a_line_a_beat(loops):
    text = loops[0]._repr_html_()
    svg = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    *lines, wave = svg.iter("{http://www.w3.org/2000/svg}path")
    assert len(lines) == 7 and sum(line.get("opacity") == "0.6" for line in lines) == 1
    points = np.array([point.split() for point in wave.get("d")[1:-1].split("L")], float)
    drawn = 1 - points[:, 1] / 30
    assert drawn.max() == pytest.approx(loops[0].samples.max(), abs=0.01)
    assert drawn.min() == pytest.approx(loops[0].samples.min(), abs=0.01)


def test_stereo_and_short_and_long_loops_are_shown_too(loops):
    stereo = replace(loops[0], samples=np.stack([loops[0].samples] * 2, 1))
    assert len(Shown(stereo._repr_html_()).sounds) == 1
    beat = looper.cut(np.tile(np.r_[np.ones(80), np.zeros(1520)], 8), 3200 * 10, bpm=300, max_seconds=0.3)
    assert len(Shown(beat._repr_html_()).sounds) == 1
    long = replace(loops[0], samples=np.zeros(70 * 32_000, np.float32), beats=142)
    shown = Shown(long._repr_html_())
    assert shown.sounds == [] and "too much for a notebook" in shown.text


def run_cell(source: str, names: dict) -> object:
    """Run a cell as a notebook does: what its last line is worth, is shown."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return last and eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


def test_the_notebook_is_one_and_holds_no_output():
    book = json.loads(NOTEBOOK.read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in book["cells"]:
        assert cell["cell_type"] in ("code", "markdown") and cell["source"]
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom_and_shows_its_loops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    worth = [run_cell("".join(cell["source"]), names) for cell in cells]
    shown = [Shown(value._repr_html_()) for value in worth if hasattr(value, "_repr_html_")]
    assert [len(page.sounds) for page in shown] == [2, 1, 1]
    assert soundfile.info(tmp_path / "house.wav").frames == round(8 * 60 / 124 * 48_000)
    assert len(worth[-1].samples) == round(4 * 60 / 128 * 48_000)


def small(samples, beats=8, **info):
    """A loop of just these samples."""
    grid, seam = None, SeamReport(0.5)
    return Loop(np.asarray(samples, np.float32), 32_000, 121.7, 4, beats, grid, seam, info)


def drawn(loop):
    """The lines for beats, and the outline, of a loop's picture."""
    text = loop._repr_html_()
    svg = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    assert svg.get("viewBox") == "0 0 600 60" and "max-width:600px" in svg.get("style")
    *lines, wave = svg.iter("{http://www.w3.org/2000/svg}path")
    return [(line.get("d"), line.get("opacity")) for line in lines], wave.get("d")


def test_the_outline_of_a_few_samples_runs_along_their_tops_and_back_along_their_bottoms():
    assert drawn(small([1, -1, 0.5]))[1] == ("M0.0 0.0L200.0 60.0L400.0 15.0L400.0 15.0L200.0 60.0L0.0 0.0Z")
    stereo = np.stack([[1, -1, 0.5], [0, -1, 0.5]], 1)
    assert drawn(small(stereo))[1].startswith("M0.0 15.0L200.0 60.0L400.0 15.0L400.0 15.0")


def test_of_more_samples_than_columns_each_column_shows_the_highest_and_the_lowest():
    _, wave = drawn(small(np.tile([0.5, -1, 1, 0], 300)))
    points = [tuple(map(float, point.split())) for point in wave[1:-1].split("L")]
    assert len(points) == 1200 and points[1199] == (0, 60) and points[600] == (599, 30)
    assert points[:3] == [(0, 15), (1, 0), (2, 15)] and points[599] == (599, 0)


@pytest.mark.parametrize(("beats", "lines"), [(1, 0), (2, 1), (150, 149), (151, 0)])
def test_a_picture_has_a_line_for_each_beat_as_long_as_they_can_be_told_apart(beats, lines):
    found, _ = drawn(small(np.zeros(600), beats))
    assert [line for line, _ in found] == [f"M{600 * beat / beats:.1f} 0V60" for beat in range(1, lines + 1)]
    assert [beat for beat, (_, shade) in enumerate(found, 1) if shade == "0.6"] == [*range(4, lines + 1, 4)]


@pytest.mark.parametrize(("seconds", "sounds"), [(59.9, 1), (60, 1), (60.1, 0)])
def test_a_minute_is_the_longest_that_is_played(seconds, sounds):
    loop = replace(small(np.zeros(round(seconds * 10))), sample_rate=10)
    assert len(Shown(loop._repr_html_()).sounds) == sounds


def test_the_line_above_says_name_prompt_length_and_key():
    t = np.arange(32_000) / 32_000
    chord = sum(0.2 * np.sin(2 * np.pi * hertz * t) for hertz in (220.0, 261.6, 329.6))
    shown = Shown(loop_html(small(chord, 2, prompt="x" * 150), "one"))
    length = "0.5 bars at 121.7 BPM, 1.000 s, 32000 Hz"
    assert shown.text == f"one · {'x' * 99}… · {length} · A minor"
    assert Shown(loop_html(small(np.zeros(3200), 2))).text == length.replace("1.000", "0.100")


@pytest.mark.parametrize(("first", "numbers"), [(0, "00 01"), (1, "01 02"), (None, "01 02")])
def test_loops_are_numbered_from_1_and_a_recording_among_them_is_0(first, numbers):
    info = {} if first is None else {"variation": first}
    text = loops_html([small(np.zeros(600), **info), small(np.zeros(600), variation=9)], "set")
    assert [part[:2] for part in text.split("<figcaption>")[1:]] == numbers.split()
    assert text.startswith("<div><p>set</p><figure") and text.endswith("</figure></div>")
