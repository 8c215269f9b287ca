"""Pictures of loops and grids: whole files of the kind that was asked for, of any shape of loop."""

import numpy as np
import pytest
from PIL import Image

from looper.beats.grid import analyse
from looper.export.figure import drawable, outline
from looper.export.plot_grid import plot_grid
from looper.export.plot_loops import plot_loops
from looper.files.text import plain
from looper.loops.cut import cut
from testkit.fakes import SAMPLE_RATE, drum_track


def size(picture):
    with Image.open(picture) as opened:
        return opened.size


@pytest.fixture(scope="module")
def loop():
    return cut(drum_track(120, 9), SAMPLE_RATE, 120, max_seconds=4)


def test_an_outline_holds_every_peak():
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 100_000)
    x[77_777], x[3] = 1, -1
    times, low, high = outline(x, 1000, 500)
    assert len(times) == len(low) == len(high) and 500 <= len(times) <= 501
    assert low.min() == -1 and high.max() == 1
    assert times[np.argmax(high)] == pytest.approx(77.777, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("jpg", b"\xff\xd8")]
)
def test_the_suffix_says_the_kind(loop, tmp_path, suffix, start):
    path = plot_loops([loop], tmp_path / f"x.{suffix}")
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_row_for_each_loop(loop, tmp_path):
    one, two, twenty = (size(plot_loops([loop] * n, tmp_path / "x.png"))[1] for n in (1, 2, 20))
    assert (two - one, twenty - one) == (110, 19 * 110)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["$x_{$ \\alpha", "日本語 🎹", "a\nb" * 5000, ""])
def test_any_prompt_can_be_drawn(loop, tmp_path, prompt):
    from dataclasses import replace

    assert plot_loops([replace(loop, info={"prompt": prompt})], tmp_path / "x.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("🎹🎸 house 🥁", "□ house □"),
        ("日本語", "□"),
        ("café $x_2$", r"café \$x_2\$"),
        ("a\u0301 ok", "á ok"),
    ],
)
def test_signs_that_the_font_lacks_are_drawn_as_a_box_and_not_complained_of(loop, tmp_path, prompt, title):
    import warnings
    from dataclasses import replace

    assert drawable(plain(prompt)) == title
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_loops([replace(loop, info={"prompt": prompt})], tmp_path / "x.png")


def test_a_picture_that_cannot_be_written_leaves_nothing(loop, tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(OSError, match="cannot write the picture"):
        plot_loops([loop], tmp_path / "x.png")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.slow
def test_a_grid_is_drawn_over_its_recording(tmp_path):
    samples = drum_track(120, 9)
    plot_grid(samples, SAMPLE_RATE, analyse(samples, SAMPLE_RATE, 120), tmp_path / "g.png")
    assert size(tmp_path / "g.png")[0] >= 1000
