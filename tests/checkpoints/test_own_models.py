"""Models of one's own: from a folder or the hub, in either format, under a name that is free."""

import json

import pytest

from looper.checkpoints import fetch
from looper.checkpoints.manifest import read_manifest, verify
from looper.checkpoints.own_models import add_model
from looper.checkpoints.sources import WeightsError
from looper.checkpoints.store import find
from testkit.hub import MUSICGEN, REVISIONS
from testkit.musicgen_hf import random_musicgen, save

OWN = "somebody/my-finetune"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(random_musicgen(), tmp_path_factory.mktemp("hf") / "saved")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPER_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def own_hub(hub, saved, monkeypatch):
    """The hub with a fine-tune in Hugging Face's format."""
    hub.files |= {(OWN, path.name): path.read_bytes() for path in saved.iterdir() if path.is_file()}
    monkeypatch.setitem(REVISIONS, OWN, "c" * 40)
    return hub


def quiet(line):
    pass


def test_a_folder_in_hugging_faces_format_gets_a_name(saved, root):
    made = add_model(saved, "mine", progress=quiet)
    assert made == root / "mine" == find("mine")
    verify(made)


def test_an_audiocraft_export_brings_its_text_encoder_or_names_one(published, root, tmp_path):
    verify(add_model(published, "with-t5", progress=quiet))
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        (bare / name).write_bytes((published / name).read_bytes())
    with pytest.raises(WeightsError, match="--t5"):
        add_model(bare, progress=quiet)
    assert not (root / "bare").exists()
    verify(add_model(bare, t5=published / "t5", progress=quiet))
    verify(add_model(bare, "other", t5=root / "with-t5", progress=quiet))


def test_a_repository_of_the_hub_is_fetched_at_one_revision_and_converted(own_hub):
    made = add_model(OWN, "mine", progress=quiet)
    verify(made)
    source = read_manifest(made)["source"][OWN]
    assert source["revision"] == "c" * 40
    assert set(source["files"]) == {"config.json", "model.safetensors", "spiece.model"}
    assert all(len(entry["sha256"]) == 64 for entry in source["files"].values())
    assert not list(own_hub.root.glob(".fetch-mine"))


def test_the_name_is_the_repositorys_where_none_is_given(own_hub):
    assert add_model(OWN, progress=quiet).name == "my-finetune"


def test_a_fetch_that_broke_off_goes_on(own_hub):
    own_hub.break_after["model.safetensors"] = 0
    with pytest.raises(WeightsError, match="run the command again"):
        add_model(OWN, "mine", progress=quiet)
    assert not (own_hub.root / "mine").exists()
    own_hub.break_after.clear()
    verify(add_model(OWN, "mine", progress=quiet))
    assert sum(name == "spiece.model" and size > 0 for name, _, size in own_hub.requests) == 1


@pytest.mark.parametrize("name", ["medium", "large", "small", "tiny"])
def test_names_of_published_models_are_not_given_away(saved, root, name):
    with pytest.raises(WeightsError, match="a model of its own"):
        add_model(saved, name, progress=quiet)


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "a b", "x" * 65, "ünï"])
def test_names_that_are_no_folder_names_are_refused(saved, root, name):
    with pytest.raises(WeightsError, match="cannot be called"):
        add_model(saved, name or "/", progress=quiet)


def test_a_model_that_is_here_is_never_replaced(saved, root):
    made = add_model(saved, "mine", progress=quiet)
    before = (made / "manifest.json").read_bytes()
    with pytest.raises(WeightsError, match="here already"):
        add_model(saved, "mine", progress=quiet)
    assert (made / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("source", ["nonsense", "a/b/c", "-x/y", "https://huggingface.co/a/b"])
def test_what_is_neither_folder_nor_repository_is_said(root, source):
    with pytest.raises(WeightsError, match="neither one of"):
        add_model(source, "mine", progress=quiet)


def test_a_folder_without_a_model_and_one_of_ours_are_told(root, tmp_path, made):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="holds no model"):
        add_model(tmp_path / "empty", progress=quiet)
    with pytest.raises(WeightsError, match="a model folder already"):
        add_model(made, "again", progress=quiet)


def test_a_repository_with_pickles_alone_is_refused(own_hub):
    for name in [name for repository, name in own_hub.files if repository == OWN]:
        if name == "model.safetensors":
            own_hub.files[OWN, "pytorch_model.bin"] = own_hub.files.pop((OWN, name))
    with pytest.raises(WeightsError, match="pickles of Hugging Face's format are not opened"):
        add_model(OWN, "mine", progress=quiet)
    assert not own_hub.requests, "nothing was downloaded"


def test_an_export_on_the_hub_takes_the_text_encoder_of_a_fetched_model_and_asks_before_it_is_fetched(
    own_hub, published
):
    with pytest.raises(WeightsError, match="looper weights get medium"):
        add_model(MUSICGEN, "again", progress=quiet)
    assert not own_hub.requests, "nothing was downloaded"
    with pytest.raises(WeightsError, match="no text encoder in"):
        add_model(MUSICGEN, "again", t5=own_hub.root, progress=quiet)
    fetch.fetch("medium", progress=quiet)
    verify(add_model(MUSICGEN, "again", progress=quiet))


def test_a_published_repository_by_its_full_name_is_an_audiocraft_export(own_hub, published):
    made = add_model(MUSICGEN, "medium-again", t5=published / "t5", progress=quiet)
    verify(made)
    assert json.dumps(read_manifest(made)["source"]).count("state_dict.bin") == 2
