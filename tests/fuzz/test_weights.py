"""Weights folders in which every field of config and manifest may say anything: refused as weights, never run.

The network is shut by the suite's own guard; a folder that loads all the same must be one that can be played.
"""

import contextlib
import json
import shutil
import socket
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from looper.checkpoints import load, manifest, sources, store
from looper.checkpoints.sources import WeightsError
from testkit import stand_ins
from testkit.hub import MINI
from testkit.properties import fuzzed
from testkit.values import ANYTHING, PLAIN


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return stand_ins.weights(tmp_path_factory.mktemp("w") / "mini", MINI)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """Written anew for every example."""
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("any") / "mini"))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("asked for an address"))


def places(tree, path=()):
    """Every key of nested dictionaries, as a path."""
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


def changed(tree, path, value):
    """`tree` with `value` at `path`; without the key where it is `...`."""
    key, *rest = path
    if rest:
        return {**tree, key: changed(tree[key], rest, value)}
    return {k: v for k, v in tree.items() if k != key} | ({} if value is ... else {key: value})


def configuration(made):
    raw = yaml.safe_load((made / "config.yaml").read_text())
    return {name: yaml.safe_load(part) if isinstance(part, str) else part for name, part in raw.items()}


SMALL = st.sampled_from(
    [0, 1, 2, 3, 7, -1, 0.5, 64, 10**6, 2**31, 2**63, "x", "cuda", "t5-base", "whitespace", None, True, []]
)
VALUES = st.just(...) | SMALL | PLAIN | ANYTHING


@pytest.mark.slow
@fuzzed(60)
@given(data=st.data())
def test_no_field_of_a_config_gets_anything_but_a_weights_error(made, folder, data):
    config = configuration(made)
    path = data.draw(st.sampled_from(sorted(places(config), key=str)), label="field")
    new = changed(config, path, data.draw(VALUES, label="value"))
    text = {
        name: yaml.safe_dump(part) if name in ("lm", "codec") and isinstance(part, dict) else part
        for name, part in new.items()
    }
    try:
        (folder / "config.yaml").write_text(yaml.safe_dump(text))
    except (yaml.YAMLError, UnicodeEncodeError):
        return
    manifest.write_manifest(folder, "mini")
    with contextlib.suppress(WeightsError):
        load.load(folder)


@pytest.mark.slow
@fuzzed(60)
@given(data=st.data())
def test_no_field_of_the_text_encoders_config_gets_anything_but_a_weights_error(made, folder, data):
    (folder / "config.yaml").write_bytes((made / "config.yaml").read_bytes())
    file = data.draw(st.sampled_from(["config.json", "tokenizer_config.json"]), label="file")
    config = json.loads((made / "t5" / file).read_text()) if (made / "t5" / file).exists() else {"x": 1}
    path = data.draw(st.sampled_from(sorted(places(config), key=str)), label="field")
    try:
        (folder / "t5" / file).write_text(json.dumps(changed(config, path, data.draw(VALUES, label="value"))))
        manifest.write_manifest(folder, "mini")
        with contextlib.suppress(WeightsError):
            load.load(folder)
    finally:
        for name in ("config.json", "tokenizer_config.json"):
            if (made / "t5" / name).exists():
                shutil.copyfile(made / "t5" / name, folder / "t5" / name)
            else:
                (folder / "t5" / name).unlink(missing_ok=True)


@pytest.mark.slow
@fuzzed(200)
@given(data=st.data())
def test_no_field_of_a_manifest_gets_anything_but_a_weights_error(made, tmp_path_factory, data):
    content = json.loads((made / "manifest.json").read_text())
    path = data.draw(st.sampled_from(sorted(places(content), key=str)), label="field")
    broken = tmp_path_factory.getbasetemp() / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "manifest.json").write_text(
        json.dumps(changed(content, path, data.draw(VALUES, label="value")))
    )
    with pytest.raises(WeightsError, match=r"broken"):  # it holds no file at all
        manifest.verify(broken)


@pytest.mark.slow
@fuzzed(200)
@given(data=st.data())
def test_sources_that_say_anything_are_used_or_named_as_damaged(tmp_path_factory, data):
    content = json.loads((sources.paths.PROJECT / "weights" / "sources.json").read_text())
    path = data.draw(st.sampled_from(sorted(places(content), key=str)), label="field")
    root = tmp_path_factory.getbasetemp() / "root"
    root.mkdir(exist_ok=True)
    (root / "sources.json").write_text(json.dumps(changed(content, path, data.draw(VALUES, label="value"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPER_WEIGHTS", str(root))
        with pytest.raises(WeightsError):
            store.find("medium")
        with contextlib.suppress(WeightsError):
            sources.fetchable()
