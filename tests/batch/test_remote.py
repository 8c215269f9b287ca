"""Packs that go to a store: whole or not at all, once each, and the same as those of a folder."""

import hashlib
import itertools
import shutil

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from looper.batch import read_manifest, run, verify
from looper.batch.remote import RemoteError, RemotePacks
from testkit.fakes import FakeMaker

LINES = [
    {"prompt": f"line {k}", "bpm": 90 + k, "variations": 1, "max_duration": 2, "seed": k, "model": "tiny"}
    for k in range(4)
]
places = itertools.count()


def go(out, url=None, lines=LINES):
    return list(run(lines, out, load=FakeMaker.load, copy_to=url))


@pytest.fixture
def url():
    return f"memory://packs-{next(places)}"


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    """Sha256 by pack and file of a batch in a folder of its own."""
    out = tmp_path_factory.mktemp("at-home")
    go(out)
    return {record.folder: record.files for record in read_manifest(out)}


def stored(url):
    """Sha256 by pack and file of what a store has."""
    fs, root = fsspec.url_to_fs(url)
    found = {}
    for path in fs.find(root):
        pack, _, name = path.removeprefix(f"{root}/").rpartition("/")
        if pack and name != "record.json":
            found.setdefault(pack, {})[name] = hashlib.sha256(fs.cat_file(path)).hexdigest()
    return found


def test_packs_in_a_store_are_those_of_a_folder_and_only_the_manifest_stays_here(tmp_path, url, at_home):
    records = go(tmp_path, url)
    assert stored(url) == at_home
    assert verify(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "batch.json", "manifest.jsonl"}
    fs, root = fsspec.url_to_fs(url)
    assert fs.cat_file(f"{root}/manifest.jsonl") == (tmp_path / "manifest.jsonl").read_bytes()
    assert {record.id for record in records} == {record.id for record in read_manifest(tmp_path)}


def test_a_folder_by_its_url_is_a_store_too(tmp_path, at_home):
    url = f"file://{tmp_path / 'store'}"
    go(tmp_path / "here", url)
    assert stored(url) == at_home and verify(tmp_path / "here") == []


def test_the_same_call_again_makes_nothing_twice(tmp_path, url):
    go(tmp_path, url)
    assert go(tmp_path, url) == []


@pytest.mark.parametrize("lost", [1, 4])
def test_what_had_reached_the_store_when_the_driver_was_killed_is_not_made_again(
    tmp_path, url, lost, at_home
):
    go(tmp_path, url)
    manifest = tmp_path / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-lost]))
    assert go(tmp_path, url) == []
    assert sorted(record.line for record in read_manifest(tmp_path)) == [1, 2, 3, 4]
    assert stored(url) == at_home


def test_a_pack_that_was_half_copied_is_made_again(tmp_path, url, at_home):
    fs, root = fsspec.url_to_fs(url)
    record = go(tmp_path, url)[-1]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:-1]))
    fs.rm_file(f"{root}/{record.folder}/record.json")  # it is copied last
    fs.pipe_file(f"{root}/{record.folder}/{next(iter(record.files))}", b"half")
    assert [again.id for again in go(tmp_path, url)] == [record.id]
    assert stored(url) == at_home and verify(tmp_path) == []


def test_a_store_that_fails_ends_the_batch_with_its_reason_and_the_same_call_goes_on(
    tmp_path, url, at_home, monkeypatch
):
    put, copied = MemoryFileSystem.put_file, []

    def full(self, source, target, **how):
        copied.append(target)
        if len(copied) == 9:
            raise RuntimeError("bucket is over its quota")
        return put(self, source, target, **how)

    monkeypatch.setattr(MemoryFileSystem, "put_file", full)
    with pytest.raises(RemoteError, match=f"{url}: bucket is over its quota"):
        go(tmp_path, url)
    go(tmp_path, url)
    assert stored(url) == at_home and verify(tmp_path) == []
    assert len(read_manifest(tmp_path)) == 4


def test_a_damaged_and_a_foreign_file_in_the_store_are_found(tmp_path, url):
    record = go(tmp_path, url)[0]
    fs, root = fsspec.url_to_fs(url)
    name = next(name for name in record.files if name.endswith(".wav"))
    fs.pipe_file(f"{root}/{record.folder}/{name}", b"noise")
    fs.pipe_file(f"{root}/{record.folder}/extra.wav", b"noise")
    wrong = "\n".join(verify(tmp_path))
    assert f"{name} is not as it was made" in wrong and "extra.wav is no part of this pack" in wrong
    fs.rm_file(f"{root}/{record.folder}/{name}")
    assert any(f"{name} is missing" in words for words in verify(tmp_path))


def test_a_batch_does_not_go_on_in_another_place(tmp_path, url):
    go(tmp_path / "a", url)
    with pytest.raises(ValueError, match="was begun with its packs going to"):
        go(tmp_path / "a", f"{url}-elsewhere")
    with pytest.raises(ValueError, match="was begun with its packs going to"):
        go(tmp_path / "a")


def test_two_batches_do_not_share_a_place(tmp_path, url):
    go(tmp_path / "a", url)
    with pytest.raises(ValueError, match="the packs of another batch"):
        go(tmp_path / "b", url)


@pytest.mark.parametrize("url", ["nonsense://x", "s4://bucket/packs"])
def test_a_url_that_nothing_speaks_is_refused_before_any_work(tmp_path, url):
    with pytest.raises(ValueError, match=f"cannot copy packs to {url}"):
        go(tmp_path, url)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    class Unloaded:
        @classmethod
        def load(cls, model, device=None):
            pytest.fail("a model was loaded")

    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RemoteError, match="cannot use file://"):
        list(run(LINES, tmp_path / "out", load=Unloaded.load, copy_to=f"file://{tmp_path}/file/packs"))


def test_a_worker_elsewhere_connects_by_itself(url):
    import pickle

    assert pickle.loads(pickle.dumps(RemotePacks(url))).url == url


def test_packs_left_here_by_a_killed_driver_go_to_the_store(tmp_path, url, at_home):
    go(tmp_path / "home")
    go(tmp_path / "here", url, LINES[:1])
    pack = next(
        path for path in (tmp_path / "home").iterdir() if path.name in set(at_home) - set(stored(url))
    )
    shutil.copytree(pack, tmp_path / "here" / pack.name)
    assert len(go(tmp_path / "here", url)) == 2
    assert stored(url) == at_home and not (tmp_path / "here" / pack.name).exists()


def test_a_place_that_could_not_be_used_is_not_remembered(tmp_path, url):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RemoteError):
        go(tmp_path / "out", f"file://{tmp_path}/file/typo")
    assert len(go(tmp_path / "out", url)) == 4


def test_a_pack_that_is_put_again_holds_just_its_own_files(tmp_path, url):
    pack = tmp_path / "pack"
    pack.mkdir()
    for name in ("a.wav", "old.zip", "record.json"):
        (pack / name).write_text(name)
    RemotePacks(url).put(pack)
    (pack / "old.zip").unlink()
    RemotePacks(url).put(pack)
    assert RemotePacks(url).files("pack") == {"a.wav", "record.json"}
