"""Batches on Ray, each in namespaces of its own: Ray listens on all interfaces, and there is only loopback."""

import re
import signal
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


def scene(name, out):
    words = (*ALONE, sys.executable, "-m", "tests.batch.ray_scenes", name, str(out))
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def play(name, out):
    """Run a scene to its end; returns (status, line, tries) as its driver was given them."""
    with scene(name, out) as process:
        said, wrong = process.communicate(timeout=250)
    assert process.returncode == 0, wrong
    return parsed(said)


def parsed(said):
    """What scenes print; Ray writes of dead workers there too."""
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


@pytest.mark.parametrize("name", ["faults", "two_at_a_time"])
def test_a_line_that_kills_its_workers_is_lost_after_three_and_the_others_are_made(
    tmp_path, undisturbed, name
):
    records = play(name, tmp_path)
    assert Counter(status for status, *_ in records) == {"ok": 10, "failed": 1, "lost": 1}
    assert ("lost", 4, 3) in records and ("failed", 6) in [record[:2] for record in records]
    (lost,) = [record for record in read_manifest(tmp_path) if record.status == "lost"]
    assert "its worker ended 3 times" in lost.error
    whole = {
        name: data for name, data in undisturbed.items() if "_93bpm" not in name and "_95bpm" not in name
    }
    check_whole(tmp_path, whole, WITH_FAULTS)


def test_workers_that_are_killed_are_replaced_and_nothing_is_lost_or_made_twice(tmp_path, undisturbed):
    records = play("worker_killed", tmp_path)
    assert len(records) == len(WISHES) and {status for status, *_ in records} == {"ok"}
    assert max(tries for *_, tries in records) > 1
    check_whole(tmp_path, undisturbed)


def test_a_node_may_go_and_another_join(tmp_path, undisturbed):
    records = play("node_killed", tmp_path)
    assert len(records) == len(WISHES) and {status for status, *_ in records} == {"ok"}
    check_whole(tmp_path, undisturbed)


def test_a_driver_that_is_killed_is_gone_on_from(tmp_path, undisturbed):
    with scene("driver", tmp_path) as process:
        said = "".join(process.stdout.readline() for _ in range(3))
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
    before = {line for _, line, _ in parsed(said)}
    assert 1 <= len(before) < len(WISHES)
    assert not before & {line for _, line, _ in play("driver", tmp_path)}
    check_whole(tmp_path, undisturbed)


def test_a_folder_that_cannot_be_written_ends_the_batch_and_blames_no_line(tmp_path):
    out = tmp_path / "out"
    with scene("full", out) as process:
        said, wrong = process.communicate(timeout=250)
    assert process.returncode == 1 and f"cannot write to {out}" in wrong
    assert {status for status, *_ in parsed(said)} == {"ok"}


def test_without_ray_installed_the_remedy_is_named(tmp_path, monkeypatch):
    from looper.batch.ray_driver import run_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'musicgen-looper\[batch\]'"):
        list(run_on_ray(WISHES, tmp_path))
