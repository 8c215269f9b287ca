"""Weights that were tampered with: refused by name before anything is parsed, and never run."""

import json
import os
import pickle
import random
import shutil
import struct
import threading
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from looper.checkpoints import load, manifest, store
from looper.checkpoints.sources import WeightsError
from testkit.hostile import Malicious
from testkit.properties import examples


def rewrite(folder, change):
    """Edit the manifest's dictionary of files."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content["files"])
    path.write_text(json.dumps(content))


def lengthen(file):
    with file.open("ab") as end:
        end.write(b"x")


def swap(folder):
    (folder / "lm.safetensors").rename(folder / "x")
    (folder / "codec.safetensors").rename(folder / "lm.safetensors")
    (folder / "x").rename(folder / "codec.safetensors")


def link_out(folder):
    shutil.move(folder / "lm.safetensors", folder.parent / "elsewhere.safetensors")
    (folder / "lm.safetensors").symlink_to(folder.parent / "elsewhere.safetensors")


TAMPERED = {
    "swapped": (swap, r"(lm|codec)\.safetensors has \d+ bytes"),
    "oversized": (lambda f: lengthen(f / "lm.safetensors"), r"lm\.safetensors has \d+ bytes"),
    "empty": (lambda f: (f / "config.yaml").write_bytes(b""), r"config\.yaml has 0 bytes"),
    "a folder for a file": (
        lambda f: ((f / "config.yaml").unlink(), (f / "config.yaml").mkdir()),
        r"config\.yaml is missing",
    ),
    "a link out of the folder": (link_out, r"lm\.safetensors, which lies outside"),
    "an absolute path": (
        lambda f: rewrite(f, lambda files: files.update({"/etc/passwd": {"sha256": "0" * 64, "size": 1}})),
        "/etc/passwd, which lies outside",
    ),
    "a path through a folder": (
        lambda f: rewrite(f, lambda files: files.update({"t5/../../x": {"sha256": "0" * 64, "size": 1}})),
        r"t5/\.\./\.\./x, which lies outside",
    ),
    "a size that is text": (
        lambda f: rewrite(f, lambda files: files["config.yaml"].update(size="12")),
        r"config\.yaml has \d+ bytes, not '12'",
    ),
    "a hash that is null": (
        lambda f: rewrite(f, lambda files: files["config.yaml"].update(sha256=None)),
        r"config\.yaml is corrupt",
    ),
    "a hash in capitals": (
        lambda f: rewrite(
            f, lambda files: files["config.yaml"].update(sha256=files["config.yaml"]["sha256"].upper())
        ),
        r"config\.yaml is corrupt",
    ),
}


@pytest.fixture
def unparsed(monkeypatch):
    """Fail where anything is parsed."""
    for name in ("read_parts", "build_lm", "_read_tensors"):
        monkeypatch.setattr(load, name, lambda *a, **k: pytest.fail("parsed before it was verified"))


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_folder_is_refused_by_name_and_unparsed(folder, unparsed, how):
    """But for weights of the right size: those are read while they are hashed, and not handed out."""
    tamper, message = TAMPERED[how]
    tamper(folder)
    with pytest.raises(WeightsError, match=message):
        load.load(folder)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_small_files_are_checked_before_the_block_and_weights_before_it_ends(folder):
    reached = []
    flip(folder / "lm.safetensors")
    with pytest.raises(WeightsError, match=r"lm\.safetensors is corrupt"), manifest.verifying(folder):
        reached.append("block")
    assert reached == ["block"]
    flip(folder / "config.yaml")
    with pytest.raises(WeightsError, match=r"config\.yaml is corrupt"), manifest.verifying(folder):
        reached.append("again")
    assert reached == ["block"]


def test_what_fails_because_of_a_corrupt_file_is_told_as_that(folder):
    flip(folder / "codec.safetensors")
    with pytest.raises(WeightsError, match=r"codec\.safetensors is corrupt"), manifest.verifying(folder):
        raise ValueError("nonsense")
    flip(folder / "codec.safetensors")
    with pytest.raises(ValueError, match="nonsense"), manifest.verifying(folder):
        raise ValueError("nonsense")


def exchanged_and_put_back(file):
    """Another file stands there for a moment, and then the old one again, to the last of its times."""
    file.rename(file.parent / "kept")
    file.write_bytes((file.parent / "kept").read_bytes()[::-1])
    (file.parent / "kept").rename(file)


def written_to_and_back(file):
    content, times = file.read_bytes(), file.stat()
    file.write_bytes(content[::-1])
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def folder_exchanged_and_put_back(file):
    folder = file.parent
    folder.rename(folder.with_name("kept"))
    shutil.copytree(folder.with_name("kept"), folder)
    shutil.rmtree(folder)
    folder.with_name("kept").rename(folder)


@pytest.mark.parametrize(
    "how", [exchanged_and_put_back, written_to_and_back, folder_exchanged_and_put_back, Path.unlink]
)
@pytest.mark.parametrize("name", ["manifest.json", "config.yaml", "lm.safetensors", "t5/config.json"])
def test_what_changes_while_it_is_loaded_is_refused_although_its_sum_is_right(folder, monkeypatch, how, name):
    time.sleep(0.02)  # what was made this moment has this moment's times
    monkeypatch.setattr(load, "_build", lambda *_: how(folder / name))
    with pytest.raises(WeightsError, match=r"changed while it was loaded: load|cannot be loaded|is corrupt"):
        load.load(folder)


def test_hashing_ends_with_an_interrupted_block(folder, monkeypatch):
    begun, ended = threading.Event(), threading.Event()

    def endless(path, stop=None):
        if stop is None:
            return sums[path]
        begun.set()
        assert stop.wait(60)
        ended.set()
        return ""

    sums = {path: manifest.sha256(path) for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(manifest, "sha256", endless)
    with pytest.raises(KeyboardInterrupt), manifest.verifying(folder):
        assert begun.wait(60)
        raise KeyboardInterrupt
    assert ended.is_set()


def test_sizes_are_looked_at_before_any_content(folder, monkeypatch):
    lengthen(folder / "lm.safetensors")
    monkeypatch.setattr(manifest, "sha256", lambda *_: pytest.fail("hashed a file of the wrong size"))
    with pytest.raises(WeightsError, match="bytes, not"):
        manifest.verify(folder)


def test_one_changed_byte_in_the_manifests_list_is_noticed(folder):
    path = folder / "manifest.json"
    content = path.read_bytes()
    start = content.index(b'"files"')
    digits = [i for i in range(start, len(content)) if chr(content[i]).isalnum()]
    draw = random.Random(0)
    for place in draw.sample(digits, 60):
        changed = bytearray(content)
        changed[place] = draw.choice([c for c in b"0123456789abcdefxyz" if c != content[place]])
        path.write_bytes(bytes(changed))
        with pytest.raises(WeightsError, match=str(folder)):
            manifest.verify(folder)
    path.write_bytes(content)
    manifest.verify(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{}" + b"\0" * 100,
        struct.pack("<Q", 64)
        + b'{"a":{"dtype":"F32","shape":[9999999],"data_offsets":[0,4]}}    '
        + b"\0" * 4,
        b"",
        pickle.dumps({"a": 1}),
    ],
    ids=["a header of 4 EiB", "bytes nobody owns", "a shape larger than the file", "empty", "a pickle"],
)
def test_tensors_that_lie_about_themselves_are_refused_although_the_manifest_agrees(folder, content):
    (folder / "lm.safetensors").write_bytes(content)
    manifest.write_manifest(folder, "mini")
    with pytest.raises(WeightsError, match=r"lm\.safetensors"):
        load.load(folder)


@pytest.mark.parametrize("beside", [True, False], ids=["beside the safetensors", "instead of them"])
def test_a_pickle_in_the_text_encoders_folder_is_never_run(folder, tmp_path, beside):
    mark = tmp_path / "executed"
    (folder / "t5" / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(mark)))
    if not beside:
        (folder / "t5" / "model.safetensors").unlink()
    manifest.write_manifest(folder, "mini")
    if beside:
        load.load(folder)
    else:
        with pytest.raises(Exception, match=r"(?i)safetensors|weights|pickle"):
            load.load(folder)
    assert not mark.exists()


def unlist(folder, name):
    """Remove a file and its entry."""
    (folder / name).unlink()
    rewrite(folder, lambda files: files.pop(name))


def test_a_pickled_text_encoder_that_the_manifest_does_not_list_is_refused(folder, tmp_path, unparsed):
    mark = tmp_path / "executed"
    unlist(folder, "t5/model.safetensors")
    (folder / "t5" / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(mark)))
    for action in (manifest.verify, load.load):
        with pytest.raises(WeightsError, match=r"does not list t5/model\.safetensors"):
            action(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "adapter_config.json",
        "added_tokens.json",
        "x/y.py",
    ],
)
def test_a_file_beside_the_text_encoder_that_the_manifest_does_not_list_is_refused(folder, unparsed, name):
    (folder / "t5" / name).parent.mkdir(exist_ok=True)
    (folder / "t5" / name).write_text("{}")
    for action in (manifest.verify, load.load):
        with pytest.raises(WeightsError, match=f"does not list 't5/{name}', which lies there: remove"):
            action(folder)


@pytest.mark.parametrize("name", ["t5/model.safetensors", "t5/config.json"])
def test_a_text_encoder_without_what_it_needs_is_refused(folder, unparsed, name):
    unlist(folder, name)
    with pytest.raises(WeightsError, match=f"does not list {name}"):
        load.load(folder)


def test_a_model_that_needs_a_text_encoder_and_has_none_is_refused(folder):
    shutil.rmtree(folder / "t5")
    manifest.write_manifest(folder, "mini")
    with pytest.raises(WeightsError, match="no T5 encoder in"):
        load.load(folder)


@pytest.mark.parametrize("other", ["adapter_model.bin", "other.safetensors"])
def test_a_config_cannot_name_other_weights_for_the_text_encoder(folder, tmp_path, other):
    mark = tmp_path / "executed"
    (folder / "t5" / other).write_bytes(pickle.dumps(Malicious(mark)))
    config = json.loads((folder / "t5" / "config.json").read_text())
    (folder / "t5" / "config.json").write_text(json.dumps({**config, "transformers_weights": other}))
    manifest.write_manifest(folder, "mini")
    with pytest.raises(WeightsError, match=r"must hold its weights as model\.safetensors"):
        load.load(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"model": "lut", "lut": {"n_bins": 8, "dim": 8, "tokenizer": "whitespace"}},
            "only T5 and melodies are known here",
        ),
        ({"model": "chroma_stem", "chroma_stem": {"eval_wavs": "x"}}, "only T5 and melodies are known here"),
        ({"model": "clap", "clap": {"checkpoint": "x"}}, "only T5 and melodies are known here"),
        (
            {"model": "t5", "t5": {"name": "t5-base", "finetune": False, "normalize_text": True}},
            "normalize_text",
        ),
    ],
)
def test_conditioners_that_would_fetch_or_run_something_are_refused(folder, section, words):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    lm = yaml.safe_load(config["lm"])
    lm["conditioners"]["description"] = section
    config["lm"] = yaml.safe_dump(lm)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    manifest.write_manifest(folder, "mini")
    with pytest.raises(WeightsError, match=words):
        load.load(folder)


def test_hidden_files_beside_the_text_encoder_do_no_harm(folder):
    (folder / "t5" / ".DS_Store").write_bytes(b"x")
    manifest.verify(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_text_encoder_that_asks_for_its_own_code_does_not_get_it_run(folder, tmp_path, file):
    mark = tmp_path / "executed"
    (folder / "t5" / "evil.py").write_text(
        f"import pathlib; pathlib.Path({str(mark)!r}).touch()\nclass Evil: pass\n"
    )
    config = json.loads((folder / "t5" / file).read_text()) if (folder / "t5" / file).exists() else {}
    names = ("AutoConfig", "AutoModel", "T5EncoderModel")
    config["auto_map"] = dict.fromkeys(names, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", None]}
    (folder / "t5" / file).write_text(json.dumps(config))
    manifest.write_manifest(folder, "mini")
    load.load(folder)
    assert not mark.exists()


def test_a_config_cannot_make_python_objects(folder, tmp_path):
    mark = tmp_path / "executed"
    (folder / "config.yaml").write_text(f"lm: !!python/object/apply:os.mkdir [{str(mark)!r}]\ncodec: {{}}\n")
    manifest.write_manifest(folder, "mini")
    with pytest.raises(WeightsError, match=r"config\.yaml is not a model config"):
        load.load(folder)
    assert not mark.exists()


def changed(folder, change):
    """Rewrite the model's config, and its manifest to match."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    parts = {part: yaml.safe_load(config[part]) for part in ("lm", "codec")}
    change(parts)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **parts}))
    manifest.write_manifest(folder, "mini")


BOMB = "\n".join(["a: &a [x, x, x, x, x, x, x, x]"] + [
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{BOMB}\nlm: *i\ncodec: *i\n", "aliases stand for more than"),
        (yaml.safe_dump({"lm": f"{BOMB}\nx: *i\n", "codec": {}}), "aliases stand for more than"),
        ("lm: &a {x: *a}\ncodec: {}\n", "aliases stand for more than"),
        ("lm: " + "[" * 1500, "nested too deep"),
        ("lm: {}\ncodec: {}\n" + "#" * 2**20, "characters, and none has more"),
        ("lm: ${x}\ncodec: 3\n", "config.yaml is not a model config"),
        ("- 1\n", "config.yaml is not a model config"),
    ],
    ids=["bomb", "bomb in the text of a part", "holds itself", "deep", "long", "no parts", "a list"],
)
def test_a_config_made_to_break_readers_is_refused_at_once(folder, text, words):
    (folder / "config.yaml").write_text(text)
    manifest.write_manifest(folder, "mini")
    with pytest.raises(WeightsError, match=words) as caught:
        load.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds", [0, 0.5, -1, 1e300, float("nan"), "x", None, [30], "${oc.env:LOOPER_TEST}"]
)
def test_a_length_of_music_that_is_none_is_refused_and_nothing_of_the_environment_told(
    folder, monkeypatch, seconds
):
    monkeypatch.setenv("LOOPER_TEST", "hunter2")
    changed(folder, lambda parts: parts["lm"]["dataset"].update(segment_duration=seconds))
    with pytest.raises(WeightsError, match=r"segment_duration must be seconds, 1 to 3600") as caught:
        load.load(folder)
    assert "hunter2" not in str(caught.value)


def test_delays_that_would_take_hours_are_refused(folder):
    delay = {"delays": [0, 1, 2, 130_000], "flatten_first": 0, "empty_initial": 0}
    changed(folder, lambda parts: parts["lm"].update(codebooks_pattern={"modeling": "delay", "delay": delay}))
    with pytest.raises(WeightsError, match="delays of 130000"):
        load.load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int32", "bool", "complex64"])
@pytest.mark.parametrize("file", ["lm.safetensors", "codec.safetensors"])
def test_weights_of_another_kind_of_number_are_refused_by_name(folder, file, kind):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / file)
    name = next(name for name in tensors if "weight" in name)
    tensors[name] = tensors[name].to(getattr(torch, kind))
    save_file(tensors, folder / file)
    manifest.write_manifest(folder, "mini")
    with pytest.raises(WeightsError, match=rf"{file} holds {name} as {kind}"):
        load.load(folder)


def test_a_pipe_in_the_place_of_the_config_keeps_nobody_waiting(folder):
    (folder / "config.yaml").unlink()
    os.mkfifo(folder / "config.yaml")
    assert store.takes_melody(folder)  # what is wrong is said by what loads it
    with pytest.raises(WeightsError, match=r"config\.yaml is missing"):
        load.load(folder)


def test_weights_at_hand_need_no_network(folder, monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("reached for the network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("asked for an address"))
    assert load.load(folder).name == "mini"


# --- manifests nobody would write ------------------------------------------------------------------

ENTRY = {"sha256": "0" * 64, "size": 1}
NO_NAMES = ["a\0b", "\0", "\ud800", "x" * 5000, "é" * 200, "a\nb", "\x1b[2J", "t5/" + "y/" * 3000]
NO_ENTRIES = [None, [], ["sha256", "size"], "sha256 size", 1, {"size": 1}, {"sha256": "0"}]


@pytest.mark.parametrize("name", NO_NAMES, ids=range(len(NO_NAMES)))
def test_a_name_that_no_file_can_have_is_refused(folder, unparsed, name):
    rewrite(folder, lambda files: files.update({name: ENTRY}))
    with pytest.raises(
        WeightsError, match=r"manifest\.json is not a manifest \(.* is no file's name\)"
    ) as caught:
        load.load(folder)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("entry", NO_ENTRIES, ids=range(len(NO_ENTRIES)))
def test_an_entry_that_says_nothing_of_a_file_is_refused(folder, unparsed, entry):
    rewrite(folder, lambda files: files.update({"config.yaml": entry}))
    with pytest.raises(WeightsError, match=r"manifest\.json is not a manifest"):
        load.load(folder)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"files":' * 50_000, b"\xff\xfe", b"1" * 5000, b"null"]
)
def test_a_manifest_made_to_break_readers_is_refused(folder, unparsed, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"manifest\.json is not a manifest"):
        load.load(folder)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text() | st.sampled_from(
    [*manifest.REQUIRED, "", ".", "..", "/", "a/../b", "t5", "t5/", "con", "~"]
)
ENTRIES = st.fixed_dictionaries({"sha256": VALUES, "size": VALUES}) | VALUES


@pytest.fixture(scope="module")
def bare(made, tmp_path_factory):
    """A folder without a text encoder, whose manifest is written anew for every example."""
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("any") / "bare", ignore=lambda *a: ["t5"]))


@pytest.mark.slow
@examples(300)
@given(changes=st.dictionaries(NAMES, ENTRIES, min_size=1, max_size=3))
def test_no_manifest_gets_anything_but_a_weights_error(made, bare, changes):
    content = json.loads((made / "manifest.json").read_text())
    content["files"] = {name: e for name, e in content["files"].items() if "/" not in name}
    (bare / "manifest.json").write_text(json.dumps(content))
    manifest.verify(bare)
    content["files"] |= changes
    (bare / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="bare"):
        manifest.verify(bare)


@pytest.mark.slow
@examples(200)
@given(content=VALUES | st.fixed_dictionaries({"files": VALUES}))
def test_no_json_gets_anything_but_a_weights_error(bare, content):
    (bare / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        manifest.verify(bare)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"models": 1, "repositories": {}}'])
def test_damaged_sources_are_named(tmp_path, monkeypatch, content):
    (tmp_path / "sources.json").write_text(content)
    monkeypatch.setenv("LOOPER_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"sources\.json is damaged"):
        store.find("medium")
