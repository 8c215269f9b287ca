"""Model folders: find, verify, load, convert, fetch."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from looper.checkpoints import load, manifest, store
from looper.checkpoints.convert import convert
from looper.checkpoints.sources import WeightsError
from looper.generation.generator import Generator
from testkit import stand_ins
from testkit.checkpoints import Shape
from testkit.hostile import Malicious
from testkit.hub import MINI

# --- loading -------------------------------------------------------------------------------------


def test_a_loaded_language_model_holds_the_published_weights(published, made):
    state = torch.load(published / "state_dict.bin", weights_only=True)["best_state"]
    loaded = load.load(made).lm.state_dict()
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.float()), name


def test_loading_agrees_with_audiocrafts_own_loader(tmp_path):
    from audiocraft.models import loaders

    published = stand_ins.publish(tmp_path / "published", Shape(text="lut", num_layers=2, bias=True))
    theirs = loaders.load_lm_model(str(published), device="cpu")
    ours = load.load(convert(published, None, tmp_path / "lut"))
    assert {k: v.shape for k, v in ours.lm.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.lm.state_dict().items())
    codec = loaders.load_compression_model(str(published), device="cpu")
    codes = torch.randint(0, 64, (2, 4, 30))
    torch.testing.assert_close(ours.codec.decode(codes), codec.decode(codes))
    audio = torch.randn(1, 1, 6400)
    assert torch.equal(ours.codec.encode(audio)[0], codec.encode(audio)[0])


def test_a_loaded_model_is_ready_to_run(made):
    model = load.load(made)
    tensors = [*model.lm.parameters(), *model.codec.parameters(), *model.lm.buffers()]
    assert all(t.device.type == "cpu" and not t.requires_grad for t in tensors)
    assert not model.lm.training
    assert not model.codec.training
    assert (model.name, model.window_seconds, model.clock) == ("mini", 30.0, None)
    assert model.lm.condition_provider.conditioners["description"].t5.config.d_model == MINI.t5_dim


def test_weight_initialisation_is_skipped(made, monkeypatch):
    def initialised(*_, **__):
        raise AssertionError("a weight was initialised")

    monkeypatch.setattr("audiocraft.models.lm.init_layer", initialised)
    load.load(made)


def test_a_loaded_model_is_a_copy_whatever_becomes_of_its_files(folder):
    """T5's too, which transformers maps: a file cut short under it would end the process."""
    generator = Generator.load(folder, "cpu")
    before = generator.encode_text("warm bass")
    for file in folder.rglob("*.safetensors"):
        size = file.stat().st_size
        file.write_bytes(b"")
        file.write_bytes(bytes(size))
    after = generator.encode_text("warm bass")
    assert torch.equal(before, after)
    assert all(bool(weight.any()) for weight in generator.model.lm.parameters())


def test_a_clock_is_loaded_with_its_config(folder):
    state = load_file(folder / "lm.safetensors")
    save_file({**state, "clock.weight": torch.ones(16, 5, dtype=torch.float16)}, folder / "lm.safetensors")
    text = (folder / "config.yaml").read_text().replace("looper: {}", "looper: {clock: {kind: bar}}")
    (folder / "config.yaml").write_text(text)
    manifest.write_manifest(folder, "mini")
    clock = load.load(folder).clock
    assert clock.weight.shape == (16, 5)
    assert clock.config == {"kind": "bar"}


def test_the_text_encoder_keeps_only_its_encoder(published, tmp_path):
    t5 = Path(shutil.copytree(published / "t5", tmp_path / "t5"))
    state = load_file(t5 / "model.safetensors")
    save_file(
        {**state, "decoder.block.0.weight": torch.ones(9, 9)}, t5 / "model.safetensors", {"format": "pt"}
    )
    out = convert(published, t5, tmp_path / "out")
    assert set(load_file(out / "t5" / "model.safetensors")) == set(state)


@pytest.mark.parametrize("device", ["nonsense", "cuda:x", "", "CPU", "cuda:", "meta", "mps"])
def test_what_is_no_device_is_said_in_words(made, device):
    with pytest.raises(ValueError, match="device must be cpu, cuda or cuda:N, got"):
        load.load(made, device)


@pytest.mark.parametrize(
    ("device", "count", "said"),
    [
        ("cuda", 0, "device cuda is not here: this machine has no GPU"),
        ("cuda:1", 1, "only cuda:0;"),
        ("cuda:7", 2, "only cuda:0 to cuda:1;"),
    ],
)
def test_a_gpu_that_is_not_here_is_said_in_words(made, monkeypatch, device, count, said):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ValueError, match=said):
        load.load(made, device)


# --- broken folders ------------------------------------------------------------------------------


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BREAKAGES = {
    "missing lm": (lambda f: (f / "lm.safetensors").unlink(), "lm.safetensors is missing"),
    "missing t5": (lambda f: (f / "t5" / "spiece.model").unlink(), "spiece.model is missing"),
    "truncated": (lambda f: (f / "codec.safetensors").write_bytes(b"12"), "codec.safetensors has 2 bytes"),
    "flipped": (lambda f: flip_a_byte(f / "lm.safetensors"), "lm.safetensors is corrupt"),
    "flipped config": (lambda f: flip_a_byte(f / "config.yaml"), "config.yaml is corrupt"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json"),
    "manifest not json": (lambda f: (f / "manifest.json").write_text("{"), "not a manifest"),
    "manifest a list": (lambda f: (f / "manifest.json").write_text("[]"), "not a manifest"),
    "manifest empty": (
        lambda f: (f / "manifest.json").write_text('{"files": {}}'),
        "does not list lm.safetensors",
    ),
    "manifest bare": (lambda f: (f / "manifest.json").write_text('{"files": {"a": {}}}'), "not a manifest"),
}


@pytest.mark.slow
@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("action", [manifest.verify, load.load])
def test_a_broken_folder_is_refused_before_anything_is_parsed(folder, breakage, action):
    break_it, message = BREAKAGES[breakage]
    break_it(folder)
    with pytest.raises(WeightsError, match=message):
        action(folder)


def test_a_sound_folder_passes(folder):
    manifest.verify(folder)


def test_a_manifest_may_not_point_outside_its_folder(folder):
    content = json.loads((folder / "manifest.json").read_text())
    content["files"]["../secret"] = {"sha256": "0" * 64, "size": 1}
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder.parent / "secret").write_text("x")
    with pytest.raises(WeightsError, match="outside the folder"):
        manifest.verify(folder)


def change_lm(folder: Path, change) -> None:
    state = load_file(folder / "lm.safetensors")
    change(state)
    save_file(state, folder / "lm.safetensors")


UNFIT = {
    "lacks a tensor": (
        lambda f: change_lm(f, lambda s: s.pop("emb.0.weight")),
        "emb.0.weight missing or misshapen",
    ),
    "misshapen": (
        lambda f: change_lm(f, lambda s: s.update({"emb.0.weight": torch.ones(2, 2)})),
        "emb.0.weight",
    ),
    "unknown tensor": (lambda f: change_lm(f, lambda s: s.update({"x": torch.ones(1)})), "does not know"),
    "not safetensors": (
        lambda f: (f / "lm.safetensors").write_bytes(b"garbage" * 9),
        "not a safetensors file",
    ),
    "not a config": (lambda f: (f / "config.yaml").write_text("lm: 3"), "not a model config"),
    "not yaml": (lambda f: (f / "config.yaml").write_text("{"), "not a model config"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", UNFIT)
def test_files_that_do_not_fit_together_are_named(folder, what):
    spoil, message = UNFIT[what]
    spoil(folder)
    manifest.write_manifest(folder, "mini")
    with pytest.raises(WeightsError, match=message):
        load.load(folder)


def test_the_message_names_the_remedy(folder, tmp_path, monkeypatch):
    medium = folder.rename(tmp_path / "medium")
    flip_a_byte(medium / "lm.safetensors")
    with pytest.raises(WeightsError, match="looper weights get medium"):
        manifest.verify(medium)


# --- finding -------------------------------------------------------------------------------------


def test_a_model_is_found_by_folder_and_by_name_under_the_root(folder, monkeypatch):
    assert store.find(folder) == folder
    monkeypatch.setenv("LOOPER_WEIGHTS", str(folder.parent))
    assert store.find("mini") == folder
    assert store.list_models() == ["mini"]


def test_tiny_comes_with_the_repository(monkeypatch):
    monkeypatch.delenv("LOOPER_WEIGHTS", raising=False)
    manifest.verify(store.find("tiny"))


@pytest.mark.parametrize("name", ["medium", "large"])
def test_a_model_not_fetched_yet_says_how_to_fetch_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPER_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=f"looper weights get {name}"):
        store.find(name)


@pytest.mark.parametrize("name", ["huge", "", "/no/such/folder", "x" * 5000, "a\0b"])
def test_an_unknown_model_lists_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPER_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"large, medium.*LOOPER_WEIGHTS") as caught:
        store.find(name)
    assert len(str(caught.value)) < 600


# --- converting ----------------------------------------------------------------------------------


BAD_PACKAGES = {
    "code": lambda path, mark: torch.save({"best_state": Malicious(mark), "xp.cfg": ""}, path),
    "garbage": lambda path, mark: path.write_bytes(b"garbage"),
    "pickle": lambda path, mark: path.write_bytes(pickle.dumps(Malicious(mark))),
    "no config": lambda path, mark: torch.save({"best_state": {}}, path),
    "a list": lambda path, mark: torch.save([1, 2], path),
    "not tensors": lambda path, mark: torch.save({"best_state": {"a": 1}, "xp.cfg": ""}, path),
    "missing": lambda path, mark: path.unlink(),
}


@pytest.mark.parametrize("kind", BAD_PACKAGES)
def test_a_bad_published_file_is_refused_unexecuted_and_the_old_folder_stays(
    published, folder, tmp_path, kind
):
    bad = Path(shutil.copytree(published, tmp_path / "bad"))
    BAD_PACKAGES[kind](bad / "compression_state_dict.bin", tmp_path / "executed")
    with pytest.raises(WeightsError, match=r"compression_state_dict.bin"):
        convert(bad, bad / "t5", folder)
    assert not (tmp_path / "executed").exists()
    manifest.verify(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "mini"]


def test_converting_again_replaces_the_folder(published, folder):
    flip_a_byte(folder / "lm.safetensors")
    convert(published, published / "t5", folder)
    manifest.verify(folder)
