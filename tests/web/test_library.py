"""A folder or a pack's zip in the player: what is listed, what is read, and what never is."""

import asyncio
import gc
import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import httpx
import pytest

from looper.web.library import LoopLibrary
from looper.web.server import create_app, serve
from looper.web.shelf import PackShelf
from testkit.asgi import ask, wav


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
    session = ask(create_app(library=PackShelf(folder)), "GET", "/session.json").json()
    assert session["model"] is False
    assert session["library"]["name"] == "loops"
    assert [loop["name"] for loop in session["library"]["loops"]] == ["a.WAV", "b_120bpm.wav", "ünï & #%.wav"]
    assert session["library"]["pack"] == {"prompt": "pads"}


def test_every_listed_loop_comes_back_byte_for_byte(folder):
    page = create_app(library=PackShelf(folder))
    for loop in ask(page, "GET", "/session.json").json()["library"]["loops"]:
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
    assert ask(create_app(library=PackShelf(folder)), "GET", raw).status_code == 404


def test_a_folder_alone_has_no_way_to_a_model(folder):
    page = create_app(library=PackShelf(folder))
    assert ask(page, "GET", "/openapi.json").status_code == 404
    assert ask(page, "PUT", "/predictions/a", json={}).status_code in (404, 405)


@pytest.mark.parametrize("inside", ["", "my pack/"])
def test_a_packs_zip_opens_like_a_folder(tmp_path, inside):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(f"{inside}one.wav", wav())
        archive.writestr(f"{inside}two.wav", wav(0.2))
        archive.writestr(f"{inside}pack.json", "not json")
        archive.writestr("../escape.wav" if not inside else f"{inside}../escape.wav", b"x")
    library = LoopLibrary(tmp_path / "p.zip")
    assert [loop["name"] for loop in library.listing()["loops"]] == ["one.wav", "two.wav"]
    assert library.listing()["pack"] is None
    assert library.read("two.wav") == (wav(0.2), "audio/wav")
    assert library.read("../escape.wav") is None


@pytest.mark.parametrize("content", ["good", "broken"])
def test_a_zip_is_closed_with_its_library(tmp_path, content, monkeypatch):
    monkeypatch.delattr(zipfile.ZipFile, "__del__")  # of a circle, the file may be collected before it
    path = tmp_path / "p.zip"
    path.write_bytes(packed(**{"one.wav": wav()}))
    library = LoopLibrary(path)
    if content == "broken":
        path.write_bytes(b"PK and then nothing")
        with pytest.raises(OSError, match="cannot be read"):
            library.listing()
    library.itself = library
    del library
    gc.collect()  # a file that is open here is a warning, and so an error
    open_files = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in Path("/proc/self/fd").iterdir()}
    assert str(path) not in open_files


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
    listing = LoopLibrary(tmp_path / "p.zip").listing()
    assert [loop["name"] for loop in listing["loops"]] == ["good.wav"]


@pytest.mark.slow
def test_a_zip_bomb_is_neither_listed_nor_inflated(tmp_path):
    """One entry says that it is huge; another lies, and gives no more than it says."""
    size = 80 * 2**20
    lying = packed(**{"x.wav": bytes(size)}).replace(struct.pack("<I", size), struct.pack("<I", 1000))
    (tmp_path / "lying.zip").write_bytes(lying)
    (tmp_path / "huge.zip").write_bytes(packed(**{"x.wav": bytes(size), "good.wav": wav()}))
    assert [loop["name"] for loop in LoopLibrary(tmp_path / "huge.zip").listing()["loops"]] == ["good.wav"]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"x\.wav cannot be read from lying\.zip"):
            LoopLibrary(tmp_path / "lying.zip").read("x.wav")
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
    reply = ask(create_app(library=PackShelf(tmp_path / "p.zip")), "GET", "/loops/x.wav")
    assert reply.status_code == 422
    assert "x.wav cannot be read from p.zip" in reply.json()["error"]


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"PK\x05\x06" + bytes(10), packed(a=b"x")[:-5]],
    ids=["empty", "a mark", "an end alone", "cut short"],
)
def test_a_file_that_is_no_zip_is_named(tmp_path, content):
    (tmp_path / "p.zip").write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"no folder or pack at .*p\.zip"):
        LoopLibrary(tmp_path / "p.zip")


BAD_JSON = {
    "NaN": b'{"bpm": NaN}',
    "infinity": b'{"bpm": 1e999}',
    "half a character": b'{"prompt": "\\ud800"}',
    "too deep to read": b"[" * 200_000,
    "too deep to write": b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
    "no UTF-8": b'{"prompt": "\xff"}',
    "no object": b"[1]",
    "large": b'{"prompt": "' + b"x" * 2**20 + b'"}',
}


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bad_description_is_passed_over(tmp_path, content, zipped):
    if zipped:
        (tmp_path / "p.zip").write_bytes(packed(**{"a.wav": wav(), "pack.json": content}))
    else:
        (tmp_path / "p.zip").mkdir()
        (tmp_path / "p.zip" / "a.wav").write_bytes(wav())
        (tmp_path / "p.zip" / "pack.json").write_bytes(content)
    reply = ask(create_app(library=PackShelf(tmp_path / "p.zip")), "GET", "/session.json")
    assert reply.status_code == 200
    assert reply.json()["library"]["pack"] is None
    assert [loop["name"] for loop in reply.json()["library"]["loops"]] == ["a.wav"]


def test_names_that_are_no_text_are_written_out_and_can_be_played(tmp_path):
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/\xfffolder"))
    folder.mkdir()
    (folder / "good.wav").write_bytes(wav())
    (folder / os.fsdecode(b"\xff\xfe.wav")).write_bytes(wav(0.2))
    page = create_app(library=PackShelf(folder))
    library = ask(page, "GET", "/session.json").json()["library"]
    assert library["name"] == r"\xfffolder"
    assert [loop["name"] for loop in library["loops"]] == [r"\xff\xfe.wav", "good.wav"]
    assert ask(page, "GET", library["loops"][0]["url"]).content == wav(0.2)


@pytest.mark.parametrize("path", ["/session.json", "/loops/a.wav"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("how", ["deleted", "half written"])
def test_a_source_that_goes_away_is_told_and_may_come_back(tmp_path, kind, path, how):
    source, aside, whole = tmp_path / "p.zip", tmp_path / "aside", packed(**{"a.wav": wav()})
    if kind == "zip":
        source.write_bytes(whole)
    else:
        source.mkdir()
        (source / "a.wav").write_bytes(wav())
    page = create_app(library=PackShelf(source))
    assert ask(page, "GET", path).status_code == 200
    source.rename(aside)
    if how == "half written":
        source.write_bytes(whole[:-30])
    reply = ask(page, "GET", path)
    assert reply.status_code == 503
    assert reply.json()["error"].startswith("p.zip cannot be read: it was moved or deleted")
    source.unlink(missing_ok=True)
    aside.rename(source)
    assert ask(page, "GET", path).status_code == 200


def test_a_zip_that_is_replaced_is_read_anew(tmp_path):
    (tmp_path / "p.zip").write_bytes(packed(**{"a.wav": wav()}))
    library = LoopLibrary(tmp_path / "p.zip")
    (tmp_path / "p.zip").write_bytes(packed(**{"b.wav": wav(), "c.wav": wav(0.2)}))
    assert [loop["name"] for loop in library.listing()["loops"]] == ["b.wav", "c.wav"]
    assert library.read("a.wav") is None
    assert library.read("c.wav") == (wav(0.2), "audio/wav")


LAID_OUT = {
    "re-zipped on a Mac": (["pack/a.wav", "pack/pack.json", "__MACOSX/pack/._a.wav"], ["a.wav"]),
    "a Mac's folder notes": ([".DS_Store", "pack/a.wav", "pack/._a.wav", "pack/pack.json"], ["a.wav"]),
    "folders in folders": (["x/y/z/a.wav", "x/y/z/b.wav", "x/y/z/pack.json"], ["a.wav", "b.wav"]),
    "described above": (["x/loops/a.wav", "x/loops/b.wav", "x/pack.json", "x/readme"], ["a.wav", "b.wav"]),
    "two packs": (["x/p/a.wav", "x/q/a.wav", "x/pack.json"], ["p/a.wav", "q/a.wav"]),
    "the upper ones": (["x/a.wav", "x/y/b.wav", "x/pack.json"], ["a.wav"]),
}


@pytest.mark.parametrize(("files", "names"), LAID_OUT.values(), ids=LAID_OUT)
@pytest.mark.parametrize("zipped", [False, True])
def test_loops_are_found_where_they_lie(tmp_path, files, names, zipped):
    contents = {name: b'{"prompt": "x"}' if name.endswith(".json") else name.encode() for name in files}
    source = tmp_path / "p.zip"
    if zipped:
        source.write_bytes(packed(**contents))
    for name, content in contents.items() if not zipped else ():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    page = create_app(library=PackShelf(source))
    library = ask(page, "GET", "/session.json").json()["library"]
    assert [loop["name"] for loop in library["loops"]] == names
    assert library["pack"] == {"prompt": "x"}
    assert library["note"] is None
    for loop in library["loops"]:
        assert ask(page, "GET", loop["url"]).content.decode().endswith(loop["name"])


def test_no_link_leads_to_a_folder_elsewhere(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.wav").write_bytes(wav())
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "link").symlink_to(tmp_path / "secret")
    library = LoopLibrary(tmp_path / "served")
    assert library.listing()["loops"] == []
    assert library.read("a.wav") is None and library.read("link/a.wav") is None


@pytest.mark.parametrize("names", [[], ["notes.txt"], ["/".join("abcdefghij") + "/deep.wav"]])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_source_without_loops_says_so(tmp_path, names, zipped):
    source = tmp_path / "p.zip"
    if zipped:
        source.write_bytes(packed(**dict.fromkeys(names, b"x")))
    else:
        source.mkdir()
    for name in names if not zipped else ():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x")
    listing = LoopLibrary(source).listing()
    assert listing["loops"] == []
    assert listing["note"] == "No loops in p.zip: looking for .wav, .mp3, .flac and .ogg files."


def test_more_loops_than_can_be_played_are_counted_and_the_first_are_shown(tmp_path):
    (tmp_path / "p.zip").write_bytes(packed(**{f"{k:03d}.wav": b"x" for k in range(103)}))
    library = LoopLibrary(tmp_path / "p.zip")
    listing = library.listing()
    assert [loop["name"] for loop in listing["loops"]] == [f"{k:03d}.wav" for k in range(100)]
    assert listing["note"] == "103 loops in p.zip: the first 100 by name are shown."
    assert library.read("100.wav") is None


def test_a_zips_directory_is_read_once_and_not_with_every_request(tmp_path, monkeypatch):
    (tmp_path / "p.zip").write_bytes(packed(**{"a.wav": wav()}))
    opened, whole = [], zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda *a, **k: opened.append(a) or whole(*a, **k))
    page = create_app(library=PackShelf(tmp_path / "p.zip"))
    for path in ("/session.json", "/loops/a.wav", "/loops/a.wav", "/session.json"):
        assert ask(page, "GET", path).status_code == 200
    assert len(opened) == 1


def test_slow_reading_does_not_hold_up_the_server(folder, monkeypatch):
    """While the listing waits for its disk, the event loop still answers others."""
    library = PackShelf(folder)
    page = create_app(library=library)

    async def story():
        loop, answered = asyncio.get_running_loop(), asyncio.Event()

        def slow(pack):  # returns only when another request has been answered meanwhile
            asyncio.run_coroutine_threadsafe(answered.wait(), loop).result(30)
            return {"name": "slow", "loops": [], "pack": None, "note": None}

        monkeypatch.setattr(library, "listing", slow)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(page), base_url="http://127.0.0.1"
        ) as client:
            session = asyncio.create_task(client.get("/session.json"))
            await asyncio.sleep(0)
            assert (await client.get("/style.css")).status_code == 200
            answered.set()
            return (await session).json()["library"]["name"]

    assert asyncio.run(story()) == "slow"


def test_an_entry_in_an_unusual_packing_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.wav", bytes(1000))
    reply = ask(create_app(library=PackShelf(tmp_path / "p.zip")), "GET", "/loops/x.wav")
    assert reply.status_code == 422
    assert reply.json()["error"] == "x.wav cannot be read from p.zip: packed in an unusual way"


@pytest.mark.parametrize("what", ["the file", "a folder on the way", "a pipe in its place"])
def test_a_link_or_pipe_swapped_in_after_the_look_leads_nowhere(tmp_path, monkeypatch, what):
    inside, secret = tmp_path / "loops" / "a" / "b.wav", tmp_path / "secret" / "b.wav"
    for path, content in ((inside, wav()), (secret, b"secret"), (tmp_path / "loops" / "c" / "d.wav", wav())):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    library = LoopLibrary(tmp_path / "loops")
    found = library._find()

    def swapped():
        gone = inside.parent if what == "a folder on the way" else inside
        gone.rename(tmp_path / "gone")
        if what == "a pipe in its place":
            os.mkfifo(inside)
        else:
            gone.symlink_to(secret.parent if gone.suffix == "" else secret)
        return found

    monkeypatch.setattr(library, "_find", swapped)
    with pytest.raises(ValueError, match=r"a/b\.wav cannot be read from loops"):
        library.read("a/b.wav")


def test_a_file_that_grew_since_it_was_listed_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("looper.web.library.LARGEST_FILE", 1000)
    (tmp_path / "a.wav").write_bytes(b"x" * 900)
    library = LoopLibrary(tmp_path)
    found = library._find()
    (tmp_path / "a.wav").write_bytes(b"x" * 1001)
    monkeypatch.setattr(library, "_find", lambda: found)
    with pytest.raises(ValueError, match="larger than"):
        library.read("a.wav")


def test_a_pipe_is_no_folder_or_pack_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "x.zip")
    with pytest.raises(FileNotFoundError, match="no folder or pack"):
        LoopLibrary(tmp_path / "x.zip")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("depth", [8, 9])
def test_loops_are_looked_for_eight_folders_deep_and_no_deeper(tmp_path, zipped, depth):
    name = "/".join(["x"] * (depth - 1) + ["a.wav"])
    source = tmp_path / "p.zip"
    if zipped:
        source.write_bytes(packed(**{name: b"x"}))
    else:
        (source / name).parent.mkdir(parents=True)
        (source / name).write_bytes(b"x")
    assert len(LoopLibrary(source).listing()["loops"]) == (depth == 8)


def test_a_folder_that_has_loops_is_not_searched_to_its_depths(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(wav())
    for k in range(20):
        (tmp_path / f"home-{k}" / "deep").mkdir(parents=True)
        (tmp_path / f"home-{k}" / "x.txt").write_text("x")
    looked, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda where: looked.append(where) or scandir(where))
    assert [loop["name"] for loop in LoopLibrary(tmp_path).listing()["loops"]] == ["a.wav"]
    assert len(looked) <= 4  # twice: when it is opened and when it is listed
