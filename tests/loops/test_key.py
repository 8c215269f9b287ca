"""Keys of cadences that a musician would name at once, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from looper.loops.key import find_key, hear_key, key_of_chroma
from looper.musical_key import NOTES, Key, parse_key

RATE = 32_000
CADENCES = {
    "major": [(0, 4, 7, 12), (5, 9, 12), (7, 11, 14), (0, 4, 7, 12)],
    "minor": [(0, 3, 7, 12), (5, 8, 12), (7, 11, 14), (0, 3, 7, 12)],
    "pop": [(0, 4, 7), (7, 11, 14), (9, 12, 16), (5, 9, 12)],
}


def played(root, chords):
    t = np.arange(RATE // 2) / RATE

    def note(midi):
        f = 440 * 2 ** ((midi - 69) / 12)
        return sum(np.sin(2 * np.pi * f * h * t) / h for h in range(1, 5)) * np.exp(-2 * t)

    return (
        np.concatenate([sum(note(root + step) for step in chord) for chord in chords]).astype(np.float32)
        * 0.1
    )


@pytest.mark.slow
@pytest.mark.parametrize("cadence", CADENCES)
@pytest.mark.parametrize("root", range(57, 69))
def test_a_cadence_has_the_key_it_ends_in(cadence, root):
    assert find_key(played(root, CADENCES[cadence]), RATE) == Key(root % 12, cadence == "minor")


def test_stereo_is_heard_as_one():
    mono = played(60, CADENCES["major"])
    assert find_key(np.stack([mono, mono], 1), RATE) == Key(0, False)


@pytest.mark.parametrize("gain", [1e-2, 1e10, 1e30])
def test_a_key_is_the_same_however_loud(gain):
    assert find_key(played(60, CADENCES["major"]) * np.float32(gain), RATE) == Key(0, False)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(4 * RATE),
        np.zeros(100),
        np.random.default_rng(0).standard_normal(4 * RATE),
        sum(np.sin(2 * np.pi * 440 * 2 ** (k / 12) * np.arange(4 * RATE) / RATE) for k in range(12)),
    ],
    ids=["silence", "a moment", "noise", "all twelve notes"],
)
def test_no_key_is_claimed_where_none_is_heard(samples):
    assert find_key(samples, RATE) is None


def test_a_chroma_of_nothing_has_no_key():
    assert key_of_chroma(np.zeros(12)) is None
    assert key_of_chroma(np.full(12, np.nan)) is None


def test_keys_are_spelt_for_file_names_and_for_id3():
    assert [Key(9, True).name, Key(9, True).id3, Key(3, False).name, Key(3, False).id3] == [
        "Amin",
        "Am",
        "Ebmaj",
        "Eb",
    ]
    assert len(set(NOTES)) == 12


@pytest.mark.parametrize("minor", [False, True])
@pytest.mark.parametrize("root", range(12))
def test_every_spelling_of_a_key_is_read(root, minor):
    key = Key(root, minor)
    for text in (key.name, key.id3, key.words, key.words.lower(), f" {key.words.upper()} "):
        assert parse_key(text) == key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("F# major", "Gb major"),
        ("C sharp minor", "C# minor"),
        ("B flat", "Bb major"),
        ("bb minor", "Bb minor"),
        ("B minor", "B minor"),
        ("bm", "B minor"),
        ("E♭m", "Eb minor"),
        ("Cb", "B major"),
        ("a-min", "A minor"),
    ],
)
def test_keys_are_read_as_musicians_write_them(text, words):
    assert parse_key(text).words == words


@pytest.mark.parametrize(
    "text", ["", "H", "A minorish", "A dorian", "minor", "A##", "Am7", 3, "A\nminor!", "x" * 10_000]
)
def test_what_names_no_key_is_a_sentence(text):
    with pytest.raises(ValueError, match="key must be a note and major or minor, such as 'A minor'"):
        parse_key(text)


def test_the_key_that_is_heard_is_surer_the_less_others_fit():
    t = np.arange(4 * 32_000) / 32_000
    chord = lambda *hz: sum(np.sin(2 * np.pi * f * t) for f in hz)
    scale = np.concatenate(
        [
            chord(220, 261.6, 329.6),
            chord(293.7, 349.2, 440),
            chord(329.6, 415.3, 493.9),
            chord(220, 261.6, 329.6),
        ]
    )
    clear, vague = hear_key(scale, 32_000), hear_key(chord(220, 330), 32_000)
    assert clear.key == Key(9, True) and clear.clear and clear.confidence > vague.confidence
    assert clear.distance(Key(9, True)) == 0 < clear.distance(Key(4, True)) < clear.distance(Key(3, False))
    assert hear_key(np.zeros(64_000), 32_000) is None
