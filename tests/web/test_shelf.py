"""A folder of packs in the player: each can be opened, and nothing else."""

import json

import httpx
import pytest

from looper.web.server import create_app
from looper.web.shelf import PackShelf
from testkit.asgi import ask, wav


def pack(folder, prompt, loops=2):
    folder.mkdir(parents=True)
    for k in range(loops):
        (folder / f"{prompt}_{k}.wav").write_bytes(wav(0.1 + k / 10))
    (folder / "pack.json").write_text(json.dumps({"prompt": prompt}))


@pytest.fixture
def packs(tmp_path):
    for prompt in ("house", "techno", "zouk"):
        pack(tmp_path / "packs" / f"{prompt} & co_0123", prompt)
    (tmp_path / "packs" / "manifest.jsonl").touch()
    (tmp_path / "packs" / "empty").mkdir()
    pack(tmp_path / "packs" / ".hidden-1", "hidden")
    pack(tmp_path / "secret", "secret")
    (tmp_path / "packs" / "link").symlink_to(tmp_path / "secret")
    return tmp_path / "packs"


def session(shelf, query=""):
    return ask(create_app(library=PackShelf(shelf)), "GET", f"/session.json{query}").json()["library"]


def test_all_packs_are_offered_and_the_first_is_open(packs):
    library = session(packs)
    assert library["packs"] == ["house & co_0123", "techno & co_0123", "zouk & co_0123"]
    assert library["open"] == "house & co_0123" and library["pack"] == {"prompt": "house"}


def test_the_pack_that_is_asked_for_is_open_and_its_loops_come_byte_for_byte(packs):
    page = create_app(library=PackShelf(packs))
    library = session(packs, "?pack=techno%20%26%20co_0123")
    assert library["open"] == "techno & co_0123" and len(library["loops"]) == 2
    for loop in library["loops"]:
        there = (packs / "techno & co_0123" / loop["name"]).read_bytes()
        assert ask(page, "GET", loop["url"]).content == there


@pytest.mark.parametrize("name", ["../secret", "link", ".hidden-1", "empty", "", "/etc", "nonsense"])
def test_what_is_no_pack_of_the_folder_is_not_opened(packs, name):
    page = create_app(library=PackShelf(packs))
    query = str(httpx.QueryParams({"pack": name}))
    assert session(packs, f"?{query}")["open"] == "house & co_0123"
    for loop in ("secret_0.wav", "hidden_0.wav"):
        assert ask(page, "GET", f"/loops/{loop}?{query}").status_code == 404


def test_a_pack_that_is_made_meanwhile_is_offered(packs):
    shelf = PackShelf(packs)
    before = shelf.packs()
    pack(packs / "ambient_9", "ambient")
    assert shelf.packs() == ["ambient_9", *before]


def test_a_single_pack_and_loops_beside_packs_open_as_ever(packs, tmp_path):
    pack(tmp_path / "one" / "pack", "solo")
    alone = session(tmp_path / "one")
    assert alone["packs"] == [] and alone["open"] is None and len(alone["loops"]) == 2
    (packs / "own.wav").write_bytes(wav())
    assert [loop["name"] for loop in session(packs)["loops"]] == ["own.wav"]
