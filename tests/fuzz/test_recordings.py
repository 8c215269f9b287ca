"""Recordings whose headers lie: read as far as they go, or refused in words, in memory that they may take."""

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from looper.files import read as reader
from testkit.properties import fuzzed

RATE, FRAMES = 8000, 400
FORMATS = {
    "WAV": ("wav", "PCM_16"),
    "WAVEX": ("wav", "FLOAT"),
    "RF64": ("wav", "PCM_24"),
    "W64": ("w64", "PCM_16"),
    "AIFF": ("aiff", "PCM_16"),
    "AU": ("au", "PCM_16"),
    "CAF": ("caf", "PCM_16"),
    "FLAC": ("flac", "PCM_16"),
    "OGG": ("ogg", "VORBIS"),
    "MP3": ("mp3", "MPEG_LAYER_III"),
}
HEADER = 120  # bytes that hold the claims of all of them
WORDS = st.sampled_from(
    [0, 1, 2, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
)
CLAIMS = st.tuples(
    st.integers(0, HEADER),
    st.sampled_from(["<H", ">H", "<I", ">I", "<Q", ">Q"]),
    WORDS | st.integers(0, 2**64 - 1),
)


def recorded(form):
    buffer = io.BytesIO()
    tone = 0.3 * np.sin(np.arange(FRAMES) / 5)
    soundfile.write(buffer, np.stack([tone, -tone], 1), RATE, FORMATS[form][1], format=form)
    return buffer.getvalue()


RECORDED = {form: recorded(form) for form in FORMATS}


@pytest.fixture(autouse=True)
def without_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture(autouse=True)
def allocations(monkeypatch):
    """Refuse what no file of a few kilobytes may ask for, as a small machine would."""
    empty = np.empty

    def bounded(shape, *more, **how):
        assert np.prod(shape, dtype=float) <= reader.MOST_SAMPLES
        return empty(shape, *more, **how)

    monkeypatch.setattr(reader.np, "empty", bounded)


def sound_or_words(file):
    """What `read` makes of a file: samples as it promises them, or a sentence that names it."""
    try:
        samples, rate = reader.read(file)
    except ValueError as error:
        assert file.name in str(error) and len(str(error)) < 500
        return
    assert samples.dtype == np.float32 and 0 < rate <= reader.HIGHEST_RATE
    assert samples.ndim == 1 or samples.shape[1] == reader.MOST_CHANNELS
    assert len(samples) <= reader.LONGEST_SECONDS * rate


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@fuzzed(60)
@given(changes=st.lists(CLAIMS, min_size=1, max_size=4), end=st.none() | st.integers(0, HEADER * 2))
def test_a_header_that_claims_anything_does_no_harm(tmp_path_factory, form, changes, end):
    content = bytearray(RECORDED[form][:end])
    for place, kind, value in changes:
        size = struct.calcsize(kind)
        if place + size <= len(content):
            struct.pack_into(kind, content, place, value % 256**size)
    file = tmp_path_factory.getbasetemp() / f"claims.{FORMATS[form][0]}"
    file.write_bytes(content)
    sound_or_words(file)


CHUNKS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"fmt ", b"data", b"LIST", b"fact", b"acid", b"smpl", b"cue ", b"ds64", b"JUNK", b"\0\0\0\0"]
        ),
        st.none() | WORDS,
        st.binary(max_size=64)
        | st.tuples(WORDS, WORDS, WORDS, WORDS).map(
            lambda w: struct.pack("<HHIIHH", w[0] & 3, w[1] & 0xFFFF, w[2], w[3] & 0xFFFFFFFF, 4, 16)
        ),
    ),
    max_size=6,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [b"RIFF", b"RF64", b"RIFX"])
@fuzzed(100)
@given(chunks=CHUNKS)
def test_chunks_of_any_length_in_any_order_do_no_harm(tmp_path_factory, kind, chunks):
    body = b"".join(
        name + struct.pack("<I", len(held) if claimed is None else claimed) + held
        for name, claimed, held in chunks
    )
    file = tmp_path_factory.getbasetemp() / "chunks.wav"
    file.write_bytes(kind + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    sound_or_words(file)
