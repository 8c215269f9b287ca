"""The tempo of a recording of which nothing is known: candidates, and how likely each is."""

import numpy as np
import pytest

from looper.beats import unknown_tempo
from looper.beats.unknown_tempo import find_tempi
from testkit.clicks import blank
from testkit.fakes import drum_track


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [61.3, 93.7, 118, 127.003, 140, 174])
def test_the_tempo_is_among_the_candidates_and_their_probabilities_add_up(bpm):
    found = find_tempi(drum_track(bpm, 12), 32_000)
    assert any(candidate.bpm == pytest.approx(bpm, rel=2e-3) for candidate in found[:3])
    octaves = [bpm * 2.0**k for k in (-1, 0, 1)]
    assert any(found[0].bpm == pytest.approx(octave, rel=2e-3) for octave in octaves)
    assert sum(candidate.confidence for candidate in found) == pytest.approx(1)
    assert [c.confidence for c in found] == sorted((c.confidence for c in found), reverse=True)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(320_000),
        0.1 * np.random.default_rng(4).standard_normal(320_000),
        np.sin(np.arange(320_000) / 20),
    ],
    ids=["silence", "noise", "a tone"],
)
def test_what_has_no_beat_has_no_tempo(samples):
    assert find_tempi(samples, 32_000) == []


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(0), "empty"),
        (np.full(64_000, np.nan), "NaN"),
        (drum_track(120, 1), "too short to find its tempo"),
    ],
)
def test_what_no_tempo_can_be_found_in_is_a_sentence(samples, words):
    with pytest.raises(ValueError, match=words):
        find_tempi(samples, 32_000)


def test_a_recording_of_a_second_and_a_half_is_long_enough_to_find_its_tempo_in():
    found = find_tempi(drum_track(160, 1.5), 32_000)
    assert sum(tempo.confidence for tempo in found) == pytest.approx(1) or found == []
    with pytest.raises(ValueError, match=r"the recording lasts 1\.50 s, too short"):
        find_tempi(drum_track(160, 1.5)[:-1], 32_000)


def told(monkeypatch, heights, onset=2.0):
    """Candidates of a recording whose pulse scores are peaks of known height at known tempi."""

    def scores(features, periods, beats_per_bar, per_likeness):
        assert beats_per_bar == 4
        found = np.zeros(len(periods))
        for bpm, height in heights.items():
            found = np.maximum(found, height * np.exp(-((np.log(periods * bpm / 60) / 0.02) ** 2)))
        return found

    monkeypatch.setattr(unknown_tempo, "pulse_scores", scores)
    return unknown_tempo._candidates(blank(8.0, onset=np.full(1601, onset)))


def preference(bpm):
    """What is taken off a tempo's score for being tapped seldom."""
    return 0.5 * (np.log2(bpm / 110) / 0.3) ** 2


@pytest.mark.parametrize(("one", "other"), [(120.0, 90.0), (110.0, 70.0), (150.0, 75.0), (100.0, 200.0)])
def test_confidence_follows_from_the_scores_and_from_how_often_a_tempo_is_tapped(monkeypatch, one, other):
    found = {round(c.bpm): c.confidence for c in told(monkeypatch, {one: 30.0, other: 28.0})}
    log_odds = (30 - preference(one) - 28 + preference(other)) / 4
    assert np.log(found[one] / found[other]) == pytest.approx(log_odds, abs=0.02)
    assert sum(found.values()) == pytest.approx(1)


def test_five_tempi_are_told_at_most_and_those_are_the_likeliest(monkeypatch):
    bpms = [80.0, 95.0, 110.0, 125.0, 140.0, 160.0, 180.0]
    found = told(monkeypatch, dict.fromkeys(bpms, 30.0))
    likeliest = sorted(bpms, key=preference)[:5]
    assert [c.bpm for c in found] == pytest.approx(likeliest, rel=2e-3)


@pytest.mark.parametrize(("bpm", "looked_for"), [(49.5, False), (50.5, True), (219.0, True), (223.0, False)])
def test_tempi_from_50_to_220_are_looked_for(monkeypatch, bpm, looked_for):
    found = told(monkeypatch, {bpm: 90.0})
    assert any(c.bpm == pytest.approx(bpm, rel=2e-3) for c in found) == looked_for
    assert all(49 < c.bpm < 222 for c in found)


@pytest.mark.parametrize(
    ("bpm", "height", "heard"), [(110.0, 5.4, True), (110.0, 5.2, False), (200.0, 5.4, True)]
)
def test_a_pulse_less_clear_than_noise_may_be_is_no_tempo(monkeypatch, bpm, height, heard):
    """However seldom the tempo is tapped."""
    assert bool(told(monkeypatch, {bpm: height})) == heard
    assert told(monkeypatch, {bpm: 20.0}, onset=0.3) == [], "nor is one of which next to nothing is heard"


@pytest.mark.parametrize(("score", "heard"), [(5.3, True), (5.299, False)])
def test_a_pulse_just_as_clear_as_is_asked_for_is_one(monkeypatch, score, heard):
    monkeypatch.setattr(unknown_tempo, "pulse_scores", lambda _, periods, *how: np.full(len(periods), score))
    assert bool(unknown_tempo._candidates(blank(8.0, onset=np.full(1601, 2.0)))) == heard


def test_likeness_counts_more_among_all_tempi_and_as_for_a_known_one_in_how_clear_it_is(monkeypatch):
    asked = []
    scores = unknown_tempo.pulse_scores
    monkeypatch.setattr(unknown_tempo, "pulse_scores", lambda *a: asked.append(a[2:]) or scores(*a))
    find_tempi(drum_track(118, 6), 32_000)
    assert asked == [(4, 5.0), (4, 3.0)]
