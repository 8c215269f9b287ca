"""What loops show in a notebook, in a real browser."""

import pytest

from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest
from testkit.fakes import FakeGenerator

pytestmark = pytest.mark.browser


def test_each_loop_has_a_player_that_lasts_as_long_as_it_and_a_picture_that_is_seen(chromium, tmp_path):
    loops = LoopMaker(FakeGenerator()).make(
        LoopRequest("pads & <b>", bpm=121.7, variations=2, bars=2, seed=5)
    )
    said = []
    page = chromium.new_page(viewport={"width": 700, "height": 420})
    page.on("console", lambda message: said.append(message.text))
    page.set_content(f"<body style='font:14px sans-serif'>{loops._repr_html_()}</body>")
    page.wait_for_function("[...document.querySelectorAll('audio')].every((a) => a.readyState > 0)")
    lasting = page.evaluate("[...document.querySelectorAll('audio')].map((a) => a.duration)")
    assert lasting == pytest.approx([8 * 60 / 121.7] * 2, abs=1e-4)
    assert all(picture.bounding_box()["width"] > 500 for picture in page.query_selector_all("svg"))
    assert "pads & <b>" in page.inner_text("body") and said == []
    page.screenshot(path=tmp_path / "seen.png")
    page.close()
