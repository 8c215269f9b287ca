"""A folder or a pack's zip in the player: what is listed, what is read, and what never is."""

import io
import struct
import tracemalloc
import zipfile

import httpx
import pytest

from looper.serve import create_app, serve
from looper.shelf import Shelf
from tests.asgi import ask, wav


@pytest.fixture
def folder(tmp_path):
    loops = tmp_path / "loops"
    (loops / "deeper").mkdir(parents=True)
    for name in ("b_120bpm.wav", "a.WAV", "ünï & #%.wav", "deeper/inner.wav"):
        (loops / name).write_bytes(wav())
    (loops / "notes.txt").write_text("private")
    (loops / "pack.json").write_text('{"prompt": "pads"}')
    (tmp_path / "secret.wav").write_bytes(wav())
    (loops / "link.wav").symlink_to(tmp_path / "secret.wav")
    return loops


def test_lists_the_loops_of_a_folder_by_name(folder):
    session = ask(create_app(shelf=Shelf(folder)), "GET", "/session.json").json()
    assert session["model"] is False
    assert session["shelf"]["name"] == "loops"
    assert [loop["name"] for loop in session["shelf"]["loops"]] == ["a.WAV", "b_120bpm.wav", "ünï & #%.wav"]
    assert session["shelf"]["pack"] == {"prompt": "pads"}


def test_every_listed_loop_comes_back_byte_for_byte(folder):
    page = create_app(shelf=Shelf(folder))
    for loop in ask(page, "GET", "/session.json").json()["shelf"]["loops"]:
        reply = ask(page, "GET", loop["url"])
        assert reply.headers["content-type"] == "audio/wav"
        assert reply.content == (folder / loop["name"]).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/loops/../secret.wav",
        "/loops/..%2fsecret.wav",
        "/loops/%2e%2e/secret.wav",
        "/loops//etc/passwd",
        "/loops/link.wav",
        "/loops/deeper/inner.wav",
        "/loops/notes.txt",
        "/loops/pack.json",
        "/loops/",
        "/..%2fserve.py",
        "/%2e%2e/serve.py",
        "/vendor/..%2f..%2fserve.py",
    ],
)
def test_nothing_but_listed_loops_is_served(folder, path):
    raw = httpx.URL("http://127.0.0.1").copy_with(raw_path=path.encode())
    assert ask(create_app(shelf=Shelf(folder)), "GET", raw).status_code == 404


def test_a_folder_alone_has_no_way_to_a_model(folder):
    page = create_app(shelf=Shelf(folder))
    assert ask(page, "GET", "/openapi.json").status_code == 404
    assert ask(page, "PUT", "/predictions/a", json={}).status_code in (404, 405)


@pytest.mark.parametrize("inside", ["", "my pack/"])
def test_a_packs_zip_opens_like_a_folder(tmp_path, inside):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(f"{inside}one.wav", wav())
        archive.writestr(f"{inside}two.wav", wav(0.2))
        archive.writestr(f"{inside}pack.json", "not json")
        archive.writestr("../escape.wav" if not inside else f"{inside}../escape.wav", b"x")
    shelf = Shelf(tmp_path / "p.zip")
    assert [loop["name"] for loop in shelf.listing()["loops"]] == ["one.wav", "two.wav"]
    assert shelf.listing()["pack"] is None
    assert shelf.read("two.wav") == (wav(0.2), "audio/wav")
    assert shelf.read("../escape.wav") is None


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_a_folder_that_is_none_is_named(tmp_path, name):
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match=name):
        serve(folder=tmp_path / name)


def packed(**contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["/etc/x.wav", "//x.wav", "../x.wav", "a/../x.wav", "a//x.wav", "./x.wav", "/", "//", "a/b/x.wav"]
)
def test_entries_with_odd_paths_are_not_listed(tmp_path, name):
    (tmp_path / "p.zip").write_bytes(packed(**{"good.wav": wav(), name: b"x"}))
    listing = Shelf(tmp_path / "p.zip").listing()
    assert [loop["name"] for loop in listing["loops"]] == ["good.wav"]


def test_a_zip_bomb_is_neither_listed_nor_inflated(tmp_path):
    """One entry says that it is huge; another lies, and gives no more than it says."""
    size = 80 * 2**20
    lying = packed(**{"x.wav": bytes(size)}).replace(struct.pack("<I", size), struct.pack("<I", 1000))
    (tmp_path / "lying.zip").write_bytes(lying)
    (tmp_path / "huge.zip").write_bytes(packed(**{"x.wav": bytes(size), "good.wav": wav()}))
    assert [loop["name"] for loop in Shelf(tmp_path / "huge.zip").listing()["loops"]] == ["good.wav"]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"x\.wav cannot be read from lying\.zip"):
            Shelf(tmp_path / "lying.zip").read("x.wav")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("how", ["damaged", "encrypted"])
def test_an_entry_that_cannot_be_read_is_an_answer_in_words(tmp_path, how):
    content = bytearray(packed(**{"x.wav": wav()}))
    if how == "damaged":
        content[60:80] = bytes(20)
    else:
        for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
            content[content.index(mark) + at] |= 1
    (tmp_path / "p.zip").write_bytes(content)
    reply = ask(create_app(shelf=Shelf(tmp_path / "p.zip")), "GET", "/loops/x.wav")
    assert reply.status_code == 422
    assert "x.wav cannot be read from p.zip" in reply.json()["error"]


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x05\x06" + bytes(10), packed(a=b"x")[:-5]])
def test_a_file_that_is_no_zip_is_named(tmp_path, content):
    (tmp_path / "p.zip").write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"no folder or pack at .*p\.zip"):
        Shelf(tmp_path / "p.zip")
