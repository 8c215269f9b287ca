"""Requests of any values: they are within their bounds, or refused in words that name the field."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looper.export.reply import read_reply
from looper.request import (
    BEATS_PER_BAR_RANGE,
    BPM_RANGE,
    DURATION_RANGE,
    LARGEST_SEED,
    LONGEST_RECORDING,
    VARIATIONS_RANGE,
    CutRequest,
    LoopRequest,
    Sampling,
)
from looper.runtime.validation import FieldError
from testkit.properties import fuzzed
from testkit.values import ANYTHING, NUMBERS

BOUNDS = {
    "bpm": BPM_RANGE,
    "variations": VARIATIONS_RANGE,
    "max_duration": DURATION_RANGE,
    "beats_per_bar": BEATS_PER_BAR_RANGE,
    "top_k": (0, math.inf),
    "top_p": (0, 1),
    "temperature": (0, 100),
    "cfg_coef": (-100, 100),
    "seed": (-1, LARGEST_SEED),
}
FIELDS = {name: NUMBERS | st.floats(*BPM_RANGE) | ANYTHING for name in BOUNDS}
PROMPTS = st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Z", "M"])) | ANYTHING


def made(kind, *fields, **values):
    """An object of `kind`, None where it was refused in one line that names the field."""
    try:
        return kind(*fields, **values)
    except FieldError as error:
        assert error.field in {*values, "prompt"}
        assert str(error).startswith(error.field) and str(error).isprintable() and len(str(error)) < 300
        return None


@pytest.mark.slow
@fuzzed(300)
@given(PROMPTS, st.fixed_dictionaries({}, optional=FIELDS))
def test_a_request_is_within_its_bounds_or_refused_by_field(prompt, values):
    request = made(LoopRequest, prompt, **values)
    if request is None:
        return
    for name, (low, high) in BOUNDS.items():
        assert low <= getattr(request, name) <= high
    for text in (request.prompt, request.model_text):
        assert text.isprintable() or all(c.isprintable() or ord(c) > 127 for c in text)
        text.encode()
    assert request.with_seed().seed >= 0
    assert [words for words in request.replaced_tempi if words not in request.prompt] == []


@pytest.mark.slow
@fuzzed(200)
@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("top_k", "top_p", "temperature", "cfg_coef"), NUMBERS | ANYTHING)
    )
)
def test_sampling_is_within_its_bounds_or_refused_by_field(values):
    sampling = made(Sampling, **values)
    for name in values if sampling else ():
        assert BOUNDS[name][0] <= getattr(sampling, name) <= BOUNDS[name][1]


@pytest.mark.slow
@fuzzed(300)
@given(
    NUMBERS | st.floats(*BPM_RANGE),
    st.fixed_dictionaries(
        {},
        optional={
            n: NUMBERS | st.floats(0, 20) | ANYTHING for n in ("beats_per_bar", "max_duration", "min_start")
        },
    ),
)
def test_a_cut_is_within_its_bounds_or_refused_by_field(bpm, values):
    request = made(CutRequest, **{"bpm": bpm, **values})
    if request is None:
        return
    assert BPM_RANGE[0] <= request.bpm <= BPM_RANGE[1]
    assert 1 <= request.beats_per_bar <= 16 and 0 <= request.min_start <= LONGEST_RECORDING
    assert (
        request.max_duration is None or 0.999 * 60 / request.bpm < request.max_duration <= LONGEST_RECORDING
    )


NAMES = st.sampled_from(["variation_01", "../x", "", "a/b", "x" * 65, "C:", "con", "\0", "é"]) | st.text()
URIS = (
    st.sampled_from(["data:audio/wav;base64,", "http://x", "file:///etc/passwd", "javascript:1"]) | ANYTHING
)
REPLIES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["succeeded", "failed", "processing"]) | ANYTHING,
        "output": st.dictionaries(NAMES, URIS, max_size=3) | ANYTHING,
        "error": ANYTHING,
        "detail": ANYTHING,
    },
)


@pytest.mark.slow
@fuzzed(300)
@given(REPLIES | ANYTHING)
def test_a_reply_is_loops_with_safe_names_or_refused_in_words(reply):
    try:
        loops = read_reply(json.dumps(reply))
    except ValueError as error:
        assert len(str(error)) < 1000
        return
    for loop in loops:
        assert loop.name.replace("_", "").replace("-", "").isalnum() and loop.name.isascii()
        assert loop.uri.startswith(("data:", "http://", "https://"))


@fuzzed(100)
@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_reply_or_refused_in_words(content):
    with pytest.raises(ValueError, match=r"repl|JSON"):
        read_reply(content)
