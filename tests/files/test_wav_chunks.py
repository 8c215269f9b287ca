"""What a sampler or a DAW reads in a WAV file, byte for byte as the formats' own texts lay it out."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile as sf

from looper.files import wav_chunks


def words(*numbers: int) -> bytes:
    """32 bits each, the lowest byte first."""
    return np.array(numbers, "<u4").tobytes()


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Name and payload of RIFF chunks that stand one after the other, each padded to an even length."""
    found, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        found.append((content[at : at + 4], content[at + 8 : at + 8 + size]))
        assert content[at + 8 + size : at + 8 + size + size % 2] == b"\0" * (size % 2)
        at += 8 + size + size % 2
    assert at == len(content)
    return found


@pytest.mark.parametrize(
    ("n", "rate", "nanoseconds"), [(64_000, 32_000, 31_250), (1, 44_100, 22_676), (96_000, 48_000, 20_833)]
)
def test_a_sampler_is_told_to_repeat_the_whole_file_for_ever(n, rate, nanoseconds):
    # maker, product, period, middle C, fraction, SMPTE format and offset, one loop, no more data;
    # then its name, forwards, first and last sample, fraction, how often: for ever
    layout = words(0, 0, nanoseconds, 60, 0, 0, 0, 1, 0) + words(0, 0, 0, n - 1, 0, 0)
    assert wav_chunks.smpl(n, rate) == b"smpl" + words(60) + layout


@pytest.mark.parametrize(
    ("root", "flags", "note"), [(None, 4, 60), (60, 6, 60), (69, 6, 69)], ids=["no key", "C", "A"]
)
def test_a_daw_is_told_beats_metre_tempo_and_root(root, flags, note):
    # bit 0 would be a one-shot, bit 1 says that the root counts, bit 2 that it may be stretched
    layout = words(flags) + struct.pack("<HH", note, 0x8000) + struct.pack("<f", 0.0) + words(24)
    layout += struct.pack("<HH", 4, 3) + struct.pack("<f", 93.7)
    assert wav_chunks.acid(24, 93.7, 3, root) == b"acid" + words(24) + layout


def test_bars_are_cue_points_from_1_on_each_with_its_label():
    starts = [0, 62_000, 124_000, *range(200_000, 270_000, 10_000)]
    cue, texts = chunks(wav_chunks.cues(starts))
    points = b"".join(words(k + 1, start) + b"data" + words(0, 0, start) for k, start in enumerate(starts))
    assert cue == (b"cue ", words(10) + points)
    assert texts[0] == b"LIST" and texts[1][:4] == b"adtl"
    labels = [(b"labl", words(k) + f"bar {k}".encode() + b"\0") for k in range(1, 11)]
    assert chunks(texts[1][4:]) == labels  # that of "bar 10" has an odd length


def test_texts_are_utf_8_and_empty_ones_are_left_out():
    ((name, content),) = chunks(wav_chunks.info({"INAM": "Café", "ICMT": "", "ISFT": "me"}))
    assert name == b"LIST" and content[:4] == b"INFO"
    assert chunks(content[4:]) == [(b"INAM", b"Caf\xc3\xa9\0"), (b"ISFT", b"me\0")]


@pytest.mark.parametrize("payload", [b"", b"a", b"ab", b"abc"])
def test_a_chunk_has_its_length_and_ends_on_an_even_byte(payload):
    assert chunks(wav_chunks.chunk(b"note", payload)) == [(b"note", payload)]


@pytest.mark.parametrize("rest", [b"", b"x"], ids=["even", "odd"])
def test_what_is_appended_follows_the_audio_and_counts_in_the_files_size(rest):
    wav = b"RIFF" + words(4 + len(rest)) + b"WAVE" + rest
    more = [wav_chunks.chunk(b"note", b"ab"), wav_chunks.chunk(b"more", b"c")]
    padded = b"WAVE" + rest + b"\0" * len(rest) + b"".join(more)
    assert wav_chunks.append(wav, more) == b"RIFF" + words(len(padded)) + padded


def test_libsndfile_finds_every_chunk_and_the_same_samples():
    before = io.BytesIO()
    samples = np.arange(-500, 500, dtype=np.int16)
    sf.write(before, samples, 8_000, format="WAV", subtype="PCM_16")
    made = [wav_chunks.smpl(1000, 8_000), wav_chunks.acid(8, 61.3, 4, 64), wav_chunks.cues([0, 500])]
    with sf.SoundFile(
        io.BytesIO(wav_chunks.append(before.getvalue(), [*made, wav_chunks.info({"INAM": "x"})]))
    ) as read:
        assert np.array_equal(read.read(dtype="int16"), samples) and read.title == "x"
        for name in ("smpl", "acid", "cue ", "LIST"):
            assert f"{name} :" in read.extra_info
        assert "Unknown" not in read.extra_info and "should be" not in read.extra_info
