import pytest
from hypothesis import given
from hypothesis import strategies as st

from looper.length import check_bars, check_bars_fit, loop_beats
from looper.request import CutRequest, LoopRequest


@given(st.floats(40, 300), st.floats(2, 20), st.integers(1, 16))
def test_a_loop_fits_and_one_twice_as_long_would_not(bpm, seconds, metre):
    beats = loop_beats(bpm, seconds, metre)
    assert beats * 60 / bpm <= seconds + 1e-6
    assert 2 * beats * 60 / bpm > seconds - 1e-6 or beats == 2 < metre


@pytest.mark.parametrize("bars", [1, 2, 3, 4, 6, 8, 16, 4.0])
def test_bars_are_powers_of_two_or_three_or_six(bars):
    assert check_bars(bars) == bars


@pytest.mark.parametrize("bars", [0, -4, 5, 7, 12, 2048, 2.5, "4", None, True, float("nan"), 10**400])
def test_other_numbers_of_bars_are_refused_by_name(bars):
    with pytest.raises(ValueError, match="bars must be"):
        check_bars(bars)


@given(st.sampled_from([1, 2, 3, 4, 6, 8]), st.floats(40, 300), st.integers(1, 16), st.floats(0.5, 20))
def test_what_does_not_fit_names_a_limit_that_would_do(bars, bpm, metre, longest):
    seconds = bars * metre * 60 / bpm
    if seconds <= longest:
        check_bars_fit(bars, bpm, metre, longest, most=10_000)
        return
    with pytest.raises(ValueError, match=f"bars cannot be {bars} in at most") as refused:
        check_bars_fit(bars, bpm, metre, longest, most=10_000)
    named = float(str(refused.value).rpartition("allow ")[2].removesuffix(" s"))
    check_bars_fit(bars, bpm, metre, named, most=10_000)


def test_bars_decide_the_length_of_what_is_made_and_of_what_is_cut():
    assert LoopRequest("x", bpm=120, bars=6).beats == 24
    assert LoopRequest("x", bpm=120, bars=2, max_duration=20, beats_per_bar=3).beats == 6
    assert LoopRequest("x", bpm=120).beats == LoopRequest("x", bpm=120, max_duration=8).beats == 16
    assert CutRequest(120, bars=3).beats == 12 and CutRequest(120).beats is None


@pytest.mark.parametrize("wish", [LoopRequest, lambda prompt, **fields: CutRequest(**fields)])
def test_three_bars_in_two_seconds_are_a_sentence_with_the_remedy(wish):
    with pytest.raises(ValueError, match=r"3 in at most 2 s: they last 5\.143 s at 140 BPM; .*allow 5\.15 s"):
        wish("x", bpm=140, bars=3, max_duration=2)
    with pytest.raises(ValueError, match=r"must be 1, 2, 4, 8 or another power of two, or 3 or 6, got 5"):
        wish("x", bpm=140, bars=5)


def test_bars_too_long_for_the_model_ask_for_a_faster_tempo():
    with pytest.raises(ValueError, match=r"8 in at most 20 s.*ask for fewer, or choose a faster tempo"):
        LoopRequest("x", bpm=60, bars=8)
