"""What is told of a set of loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from looper.loops.loop import Loop
from looper.loops.seam import SeamReport
from looper.pipeline import result
from looper.pipeline.result import Loops, Report, key_note
from looper.request import LoopRequest

REQUEST = LoopRequest("house", bpm=120, seed=1)


def loop(beats=8):
    n = beats * 16_000
    wave = 0.3 * np.sin(2 * np.pi * 200 * np.arange(n) / 32_000)
    return Loop(wave.astype(np.float32), 32_000, 120, 4, beats, None, SeamReport(0.5))


def test_the_time_of_a_stage_adds_up_even_where_it_fails(monkeypatch):
    clock = iter([100.0, 102.5, 200.0, 201.0, 300.0, 300.25])
    monkeypatch.setattr(result, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    report = Report(seed=1, model="tiny")
    with report.timed("candidates"):
        pass
    with report.timed("loops"):
        pass
    with pytest.raises(KeyError), report.timed("candidates"):
        raise KeyError
    assert report.seconds == {"candidates": 2.75, "loops": 1.0}


def test_a_report_begins_empty():
    assert Report(1, "tiny") == Report(1, "tiny", 0.0, [], [], [], [], [], [], {}, {}, [])


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ([None], "no clear key in 1"),
        (["C major", None, "C major"], "C major in 2, no clear key in 1"),
        (["A minor"], "A minor in 1"),
    ],
)
def test_the_keys_that_came_out_are_counted(heard, told):
    assert key_note("A minor", heard) == f"A minor was asked for; heard: {told}"


def test_a_set_is_a_sequence_of_its_loops():
    one, two = loop(8), loop(4)
    loops = Loops([one, two], REQUEST, Report(7, "tiny"))
    assert (len(loops), loops[0], loops[-1], loops[1:]) == (2, one, two, (two,))
    assert repr(loops) == f"<Loops: 2 of {one!r}, seed 7, model 'tiny'>"
    assert repr(Loops([], REQUEST, Report(7, "tiny"))) == "<Loops: 0, seed 7, model 'tiny'>"


def test_a_notebook_shows_what_a_set_is_above_its_loops():
    shown = Loops([loop(2)], REQUEST, Report(7, "tiny"))._repr_html_()
    title = "Loops: 1 of &lt;Loop: 0.5 bars at 120 BPM, 1.000 s, 32000 Hz&gt;, seed 7, model &#x27;tiny&#x27;"
    assert shown.startswith(f"<div><p>{title}</p><figure")


def test_a_set_at_another_rate_keeps_order_request_and_report():
    loops = Loops([loop(8), loop(4)], REQUEST, Report(7, "tiny"))
    found = loops.at_rate(48_000)
    assert [(len(one.samples), one.sample_rate) for one in found] == [(192_000, 48_000), (96_000, 48_000)]
    assert found.request is REQUEST and found.report is loops.report
    with pytest.raises(ValueError, match="rate must be"):
        loops.at_rate(22_050)
