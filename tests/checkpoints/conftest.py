"""Model folders to load, break and fetch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from looper.checkpoints import download
from testkit import stand_ins
from testkit.hub import MINI, MUSICGEN, REVISIONS, T5, Hub


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """MusicGen's files as they are published."""
    return stand_ins.publish(tmp_path_factory.mktemp("published") / "mini", MINI)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The model folder made of them; nobody writes here."""
    return stand_ins.weights(tmp_path_factory.mktemp("w") / "mini", MINI)


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """The same for the test alone."""
    return Path(shutil.copytree(made, tmp_path / "mini"))


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    """A hub, and a weights root (`hub.root`) whose sources.json knows nothing of it yet but the names."""
    root = tmp_path / "weights"
    root.mkdir()
    hub = Hub(published, root)
    pins = {
        repository: {
            "revision": None,
            "files": {n: {"size": None, "sha256": None} for r, n in hub.files if r == repository},
        }
        for repository in REVISIONS
    }
    models = {"medium": {"published": MUSICGEN, "t5": T5}}
    (root / "sources.json").write_text(json.dumps({"models": models, "repositories": pins}))
    monkeypatch.setenv("LOOPER_WEIGHTS", str(root))
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(download, "PAUSE", 0)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def drawn_once():
    """Random weights always drift: what they draw is taken as it comes, where it is not about which draw is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("looper.pipeline.session.CANDIDATES", 1)
        patch.setattr("looper.pipeline.session.ROUNDS", 0)
        yield
