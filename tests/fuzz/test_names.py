"""Names and tags of any text: safe on every file system, whatever is asked for."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looper.export.names import length, stem
from looper.files.mp3 import id3
from looper.files.text import displayable, numbered, plain, slug, tempo
from testkit.properties import fuzzed

TEXTS = (
    st.text()
    | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Co", "Z", "M"]))
    | st.sampled_from(
        ["", ".", "..", "~", "-rf", "CON", "nul.wav", "a/../b", "x" * 5000, "\u202etxt.exe", "e\u0301" * 600]
    )
)
SAFE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@fuzzed(300)
@given(TEXTS)
def test_a_slug_is_a_file_name_everywhere(text):
    name = slug(text)
    assert SAFE.fullmatch(name) and len(name) <= 40
    assert name not in ("con", "prn", "aux", "nul", "com1", "lpt1")
    assert slug(name) == name


@pytest.mark.slow
@fuzzed(300)
@given(
    TEXTS,
    st.floats(40, 300),
    st.integers(1, 100),
    st.integers(1, 16),
    st.none() | st.just("Amin"),
    st.none() | st.integers(0, 2**63 - 1),
    st.integers(1, 999),
)
def test_a_sets_name_has_no_character_that_leads_elsewhere_and_fits(
    prompt, bpm, beats, metre, key, seed, number
):
    name = numbered(stem(prompt, bpm, beats, metre, key=key, seed=seed), number)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name) and len(name) < 200
    assert Path(name).name == name and not name.startswith((".", "-"))
    assert f"_{tempo(bpm)}bpm_{length(beats, metre)}" in name


@fuzzed(200)
@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6))
def test_tempi_that_differ_have_names_that_differ(one, other):
    assert (tempo(one) == tempo(other)) == (one == other)


@fuzzed(300)
@given(TEXTS, st.integers(1, 600))
def test_a_tag_is_one_line_of_the_length_that_fits(text, limit):
    line = plain(text, limit)
    assert len(line) <= limit and "\n" not in line and "\0" not in line and "\u202e" not in line
    line.encode()
    tag = id3({"TIT2": line, "COMM": line})
    size = sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
    assert max(tag[6:10]) < 128 and size == len(tag) - 10


@fuzzed(200)
@given(st.binary(max_size=40))
def test_a_name_of_any_bytes_can_be_shown(name):
    displayable(name.decode("utf-8", "surrogateescape")).encode()
