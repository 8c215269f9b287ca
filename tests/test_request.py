import math

import pytest

from looper.request import LONGEST_PROMPT, CutRequest, LoopRequest, Sampling, tempo_words, without_tempo
from looper.runtime.validation import FieldError


@pytest.mark.parametrize(
    ("prompt", "found", "left"),
    [
        ("deep house 128 bpm", ["128 bpm"], "deep house"),
        ("128bpm techno", ["128bpm"], "techno"),
        ("techno, BPM: 93.5, dark", ["BPM: 93.5"], "techno, dark"),
        ("drum and bass at 174 BPM", ["at 174 BPM"], "drum and bass"),
        ("slow jam (70 beats per minute)", ["70 beats per minute"], "slow jam"),
        ("808 drums and a 909 hat", [], "808 drums and a 909 hat"),
        ("a 1980s groove, 16 bars", [], "a 1980s groove, 16 bars"),
        ("tempo: 90 bpm or 95 bpm", ["tempo: 90 bpm", "95 bpm"], "or"),
        ("120 bpm", ["120 bpm"], ""),
    ],
)
def test_a_tempo_in_words_is_found_and_taken_out(prompt, found, left):
    assert tempo_words(prompt) == found
    assert without_tempo(prompt) == left


def test_the_model_reads_the_asked_tempo_and_no_other():
    request = LoopRequest("house, 128 bpm, warm", bpm=120)
    assert request.model_text == "house, warm, 120 bpm"
    assert request.replaced_tempi == ["128 bpm"]


def test_a_tempo_that_agrees_is_not_called_replaced():
    assert LoopRequest("house 128 bpm", bpm=128).replaced_tempi == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prompt", "", "must not be empty"),
        ("prompt", " \n\t\x00 ", "must not be empty"),
        ("prompt", 7, "must be text"),
        ("prompt", "x" * (LONGEST_PROMPT + 1), "at most 100000"),
        ("bpm", 39.999, "between 40 and 300"),
        ("bpm", 300.1, "between 40 and 300"),
        ("bpm", math.nan, "finite"),
        ("bpm", math.inf, "finite"),
        ("bpm", "120", "finite number"),
        ("bpm", True, "finite number"),
        ("variations", 0, "between 1 and 20"),
        ("variations", 21, "between 1 and 20"),
        ("variations", 2.5, "whole number"),
        ("variations", math.nan, "whole number"),
        ("max_duration", 1.9, "between 2 and 20"),
        ("max_duration", 21, "between 2 and 20"),
        ("beats_per_bar", 0, "between 1 and 16"),
        ("top_k", -1, "0 or more"),
        ("top_p", 1.5, "between 0 and 1"),
        ("temperature", -0.1, "between 0 and 100"),
        ("temperature", 1e39, "between 0 and 100"),
        ("cfg_coef", 1e9, "between -100 and 100"),
        ("prompt", "\u200b\u202e", "must not be empty"),
        ("cfg_coef", math.nan, "finite"),
        ("seed", -2, "-1"),
        ("seed", 2**63, "whole number from 0"),
        ("seed", 0.5, "whole number"),
    ],
)
def test_a_bad_field_is_named_with_what_it_may_be(field, value, words):
    with pytest.raises(ValueError, match=words) as error:
        LoopRequest(**{"prompt": "house", field: value})
    assert str(error.value).startswith(field)


@pytest.mark.parametrize(
    "fields",
    [
        {"bpm": 40},
        {"bpm": 300.0},
        {"bpm": 127.003},
        {"variations": 20.0},
        {"seed": 0},
        {"seed": 1e3},
        {"seed": 2**40},
        {"seed": 2**63 - 1},
        {"max_duration": 20},
        {"temperature": 0},
        {"top_p": 1},
        {"prompt": "x" * LONGEST_PROMPT},
        {"prompt": "Ünïcode 🎹 \u202eabc"},
    ],
)
def test_edges_are_accepted(fields):
    request = LoopRequest(**{"prompt": "house", **fields})
    assert isinstance(request.variations, int) and isinstance(request.seed, int)


def test_control_characters_become_spaces():
    assert LoopRequest("deep\x00house\r\n\x1b[31mred\u2028").prompt == "deep house [31mred"


def test_a_lone_surrogate_cannot_break_a_log_or_a_tag():
    assert LoopRequest("house \ud800").model_text.encode("utf-8")


def test_seed_minus_one_is_drawn_and_any_other_is_kept():
    assert LoopRequest("house", seed=0).with_seed().seed == 0
    drawn = {LoopRequest("house").with_seed().seed for _ in range(8)}
    assert len(drawn) == 8 and min(drawn) >= 0


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["400", "-400", "5000"])
@pytest.mark.parametrize("name", ["bpm", "seed", "variations", "temperature"])
def test_numbers_of_hundreds_of_digits_are_refused_in_words(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a (whole|finite) number"):
        LoopRequest("house", **{name: value})


@pytest.mark.parametrize(
    ("cfg_coef", "guided"), [(1, False), (1.0, False), (1.5, True), (0, True), (3, True)]
)
def test_only_a_guidance_of_one_is_none(cfg_coef, guided):
    assert Sampling(cfg_coef=cfg_coef).guided is guided


def test_a_cut_may_be_as_short_as_a_beat_and_no_shorter():
    assert CutRequest(300, max_duration=0.2).max_duration == 0.2
    with pytest.raises(FieldError, match=r"at least one beat, at 300 BPM 0\.20 s"):
        CutRequest(300, max_duration=0.19)


@pytest.mark.parametrize(("said", "replaced"), [("120.04", False), ("120.06", True), ("119.94", True)])
def test_a_tempo_in_words_agrees_within_a_twentieth(said, replaced):
    assert bool(LoopRequest(f"house, {said} bpm", bpm=120).replaced_tempi) is replaced


def test_a_value_just_past_its_bound_is_not_rounded_onto_it():
    with pytest.raises(ValueError, match=r"between 40 and 300, got 300.00001"):
        LoopRequest("house", bpm=300.00001)
