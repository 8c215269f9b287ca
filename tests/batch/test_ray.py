"""Batches on Ray, each in namespaces of its own: Ray listens on all interfaces, and there is only loopback."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from looper.batch import read_manifest, run, verify
from testkit.fakes import FakeMaker
from tests.batch.ray_scenes import WISHES, WITH_FAULTS
from tests.batch.test_faults import files

pytestmark = pytest.mark.slow

ALONE = (
    "unshare",
    "-rnpf",
    "--mount-proc",
    "--kill-child",
    "sh",
    "-c",
    'ip link set lo up && exec "$@"',
    "sh",
)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder of each scene, and what was said in it, by its name."""
    folder = tmp_path_factory.mktemp("scenes")
    words = (*ALONE, sys.executable, "-m", "tests.batch.ray_scenes", str(folder))
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: (folder / path.stem, path.read_text()) for path in folder.glob("*.txt")}


def records(said):
    """(status, line, tries) as a driver was given them."""
    return [(m[1], int(m[2]), int(m[3])) for m in re.finditer(r"^(ok|failed|lost) (\d+) (\d+)$", said, re.M)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    list(run(WISHES, out, load=FakeMaker.load))
    return files(out)


def check_whole(out, expected, wishes=WISHES):
    assert verify(out) == []
    lines = [record.line for record in read_manifest(out)]
    assert sorted(lines) == list(range(1, len(wishes) + 1))
    assert files(out) == expected
    assert not [path for path in out.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_a_line_that_kills_its_workers_is_lost_after_three_and_the_others_are_made(played, undisturbed):
    out, said = played["faults"]
    told = records(said)
    assert Counter(status for status, *_ in told) == {"ok": 10, "failed": 1, "lost": 1}
    assert ("lost", 4, 3) in told and ("failed", 6) in [record[:2] for record in told]
    (lost,) = [record for record in read_manifest(out) if record.status == "lost"]
    assert "its worker ended 3 times" in lost.error
    whole = {
        name: data for name, data in undisturbed.items() if "_93bpm" not in name and "_95bpm" not in name
    }
    check_whole(out, whole, WITH_FAULTS)


@pytest.mark.parametrize("name", ["all_killed", "alone"])
def test_nothing_is_lost_or_made_twice_whatever_goes_and_comes(played, undisturbed, name):
    out, said = played[name]
    told = records(said)
    assert len(told) == len(WISHES) and {status for status, *_ in told} == {"ok"}
    assert name == "alone" or max(tries for *_, tries in told) > 1
    check_whole(out, undisturbed)


def test_a_driver_that_is_killed_is_gone_on_from(played, undisturbed):
    out, said = played["driver_killed"]
    before, after = ({line for _, line, _ in records(part)} for part in said.split("killed"))
    assert 1 <= len(before) < len(WISHES) and not before & after
    check_whole(out, undisturbed)


def test_a_folder_that_cannot_be_written_ends_the_batch_and_blames_no_line(played):
    out, said = played["folder_gone"]
    assert f"cannot write to {out}" in said
    assert {status for status, *_ in records(said)} == {"ok"}


def test_without_ray_installed_the_remedy_is_named(tmp_path, monkeypatch):
    from looper.batch.ray_driver import run_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'musicgen-looper\[batch\]'"):
        list(run_on_ray(WISHES, tmp_path))
