"""What may befall a batch; after each, every request has one record and the bytes of an undisturbed run."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from looper.batch import BadLinesError, read_manifest, run, verify
from looper.batch import worker as worker_module
from looper.batch.manifest import Manifest
from looper.batch.record import Record
from testkit.fakes import FakeMaker

WISHES = [
    {
        "prompt": f"line {k}",
        "bpm": 90 + k,
        "variations": 1 + k % 2,
        "max_duration": 2,
        "seed": k,
        "model": "tiny",
    }
    for k in range(6)
]


def go(out, wishes=WISHES, **how):
    return list(run(wishes, out, load=FakeMaker.load, **how))


def files(out):
    """Bytes by name of all that a batch is for; a record's time and host may differ."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if (path.is_file() and path.suffix in (".wav", ".mp3", ".zip")) or path.name == "pack.json"
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    go(out)
    return files(out)


def check_whole(out, expected):
    assert verify(out) == []
    ids = [record.id for record in read_manifest(out)]
    assert len(ids) == len(set(ids)) == len(WISHES)
    assert files(out) == expected
    assert not [path for path in out.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_each_line_becomes_a_pack_that_its_record_describes(tmp_path, undisturbed):
    records = go(tmp_path)
    check_whole(tmp_path, undisturbed)
    assert sorted(record.line for record in records) == [1, 2, 3, 4, 5, 6]
    assert records == read_manifest(tmp_path)
    third = next(record for record in records if record.line == 3)
    assert third.status == "ok" and third.request["seed"] == 2 and third.request["bpm"] == 92
    assert third.bpm_measured == [92] and third.bars == 0.5
    told = json.loads((tmp_path / third.folder / "pack.json").read_text())
    assert [row["file"] for row in told["loops"]] == [name for name in third.files if name.endswith(".wav")]
    assert len(third.model_sha256) == 64 and third.host and third.version


def test_the_same_command_again_makes_nothing_twice(tmp_path, undisturbed):
    go(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    assert go(tmp_path) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")} == before
    check_whole(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_a_torn_last_line_is_cut_off_and_its_pack_keeps_its_record(tmp_path, undisturbed, kept):
    records = go(tmp_path)
    path = tmp_path / "manifest.jsonl"
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:kept])
    assert [record.id for record in read_manifest(tmp_path)] == [record.id for record in records[:-1]]
    assert go(tmp_path) == []  # the pack was whole: it is read, not made
    check_whole(tmp_path, undisturbed)
    assert read_manifest(tmp_path)[-1] == records[-1]


def test_a_line_damaged_before_the_end_is_named_and_nothing_is_written_after_it(tmp_path):
    go(tmp_path)
    path = tmp_path / "manifest.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:2], b'{"id": \n', *lines[3:]])
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="line 3 is damaged"):
        go(tmp_path)
    assert path.read_bytes() == damaged


DRIVER = """
import sys
from looper.batch import run
from testkit.fakes import FakeMaker
from tests.batch.test_faults import WISHES

for record in run([{**wish, "prompt": "slow"} for wish in WISHES], sys.argv[1], load=FakeMaker.load):
    print(record.id, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_driver_that_is_killed_is_gone_on_from(tmp_path, how):
    slow = [{**wish, "prompt": "slow"} for wish in WISHES]
    go(tmp_path / "undisturbed", slow)
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(out)], stdout=subprocess.PIPE, text=True
    ) as driver:
        first = driver.stdout.readline().strip()
        time.sleep(0.1)  # in the midst of another
        driver.send_signal(how)
        said = [first, *driver.stdout.read().split()]
    assert driver.returncode != 0
    before = read_manifest(out)
    assert {record.id for record in before} >= set(said) and len(before) < len(WISHES)
    again = go(out, slow)
    assert not {record.id for record in again} & {record.id for record in before}
    check_whole(out, files(tmp_path / "undisturbed"))


def test_ctrl_c_stops_the_lines_under_way_and_leaves_no_half_pack(tmp_path):
    slow = [{**wish, "prompt": "slow"} for wish in WISHES]
    records = run(slow, tmp_path, load=FakeMaker.load, in_flight=3)
    next(records)
    started = time.monotonic()
    records.close()  # as an exception in the loop does
    assert time.monotonic() - started < 60
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    go(tmp_path, slow)
    assert verify(tmp_path) == []


def test_a_bad_line_is_refused_before_a_model_is_loaded(tmp_path, undisturbed):
    def load(model, device):
        raise AssertionError("loaded")

    with pytest.raises(BadLinesError, match="line 3: bpm must be between 40 and 300, got 999"):
        run([*WISHES[:2], {**WISHES[2], "bpm": 999}, *WISHES[3:]], tmp_path, load=load)
    assert list(tmp_path.iterdir()) == []
    go(tmp_path)
    check_whole(tmp_path, undisturbed)


def test_a_model_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RuntimeError, match="unknown model 'nothing'"):
        run([{"prompt": "x", "model": "nothing"}], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_fails_is_recorded_and_the_others_are_made(tmp_path):
    wishes = [*WISHES[:3], {**WISHES[3], "prompt": "broken"}, *WISHES[4:]]
    records = go(tmp_path, wishes, in_flight=2)
    assert sorted(record.status for record in records) == ["failed", *["ok"] * 5]
    (failed,) = [record for record in records if record.status == "failed"]
    assert failed.line == 4 and "stopped being finite" in failed.error and failed.folder is None
    assert verify(tmp_path) == [] and go(tmp_path, wishes) == []


@pytest.mark.slow
@pytest.mark.parametrize("full_at", range(1, 12, 2))
def test_a_full_disk_stops_the_batch_and_with_room_it_goes_on(tmp_path, monkeypatch, undisturbed, full_at):
    """The disk is full from one fsync on, of which every file, folder and record has one."""
    sync, count = os.fsync, []

    def fsync(handle):
        count.append(handle)
        if len(count) > 10 + full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left on device; free space there") as caught:
            go(tmp_path)
    assert str(tmp_path) in str(caught.value) and "/." not in str(caught.value).removeprefix(str(tmp_path))
    assert all(record.status == "ok" for record in read_manifest(tmp_path))
    go(tmp_path)
    check_whole(tmp_path, undisturbed)


def test_a_record_that_the_disk_has_no_room_for_leaves_no_half_line(tmp_path, monkeypatch):
    line = Record("0123456789abcdef", 1, "ok", {}, "tiny", "wav")
    with Manifest(tmp_path) as manifest:
        manifest.append(line)
        before = (tmp_path / "manifest.jsonl").read_bytes()
        write = os.write

        def half(handle, data):
            if len(data) < 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(handle, data[:-10])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            with pytest.raises(OSError, match="No space left"):
                manifest.append(Record("0123456789abcdee", 2, "ok", {}, "tiny", "wav"))
        assert (tmp_path / "manifest.jsonl").read_bytes() == before
        manifest.append(Record("0123456789abcdee", 2, "ok", {}, "tiny", "wav"))
    assert [record.line for record in read_manifest(tmp_path)] == [1, 2]


@pytest.mark.slow
def test_a_second_driver_on_the_same_folder_is_refused(tmp_path, undisturbed):
    records = run(WISHES, tmp_path, load=FakeMaker.load)
    next(records)
    with pytest.raises(RuntimeError, match="another `looper batch` is writing to"):
        go(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], stderr=subprocess.PIPE, text=True
    ) as other:
        assert "another `looper batch` is writing to" in other.stderr.read()
    assert len(list(records)) == len(WISHES) - 1
    check_whole(tmp_path, undisturbed)


def test_changed_requests_are_said_and_only_the_new_ones_are_made(tmp_path):
    from looper.batch.batch import Batch
    from looper.batch.requests import read_requests

    first = {record.id for record in go(tmp_path, WISHES[:4])}
    lines = read_requests(WISHES[2:])
    with Batch(lines, tmp_path) as batch:
        (note,) = batch.notes
    assert "2 to make, and 2 that are made are not asked for any more" in note
    new = go(tmp_path, WISHES[2:])
    assert len(new) == 2 and not first & {record.id for record in new}
    assert verify(tmp_path) == [] and len(read_manifest(tmp_path)) == 6


def test_a_request_that_stands_there_twice_is_made_once(tmp_path, undisturbed):
    from looper.batch.batch import Batch
    from looper.batch.requests import read_requests

    with Batch(read_requests([*WISHES, WISHES[1]]), tmp_path) as batch:
        assert batch.notes == ["line 7 asks for the same as line 2: it is made once"]
    go(tmp_path, [*WISHES, WISHES[1]])
    check_whole(tmp_path, undisturbed)


def test_random_seeds_stay_what_they_were_over_a_resume(tmp_path):
    wishes = [{**wish, "seed": -1, "prompt": "same", "bpm": 120} for wish in WISHES]
    records = run(wishes, tmp_path, load=FakeMaker.load)
    before = [next(records), next(records)]
    records.close()
    go(tmp_path, wishes)  # packs that were finished meanwhile are recorded, not made again
    seeds = {record.id: record.request["seed"] for record in read_manifest(tmp_path)}
    assert len(set(seeds.values())) == len(WISHES) and min(seeds.values()) >= 0
    assert all(seeds[record.id] == record.request["seed"] for record in before)
    assert len(read_manifest(tmp_path)) == len(WISHES) and verify(tmp_path) == []
    assert go(tmp_path, wishes) == []


@pytest.mark.parametrize("jump", [-(10**9), 10**9])
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, undisturbed, jump):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    records = go(tmp_path)
    check_whole(tmp_path, undisturbed)
    assert all(0 <= record.seconds < 100 for record in records)


def test_several_in_flight_make_the_bytes_of_one(tmp_path, undisturbed):
    go(tmp_path, in_flight=4)
    check_whole(tmp_path, undisturbed)


def test_one_model_is_loaded_once_and_two_one_after_the_other(tmp_path):
    loaded = []

    def load(model, device):
        loaded.append(model)
        return FakeMaker()

    tiny, wishes = str(worker_module.find("tiny")), []
    for k, wish in enumerate(WISHES):
        wishes.append({**wish, "model": (tiny, "tiny")[k % 2]})
    records = list(run(wishes, tmp_path, load=load, in_flight=2))
    assert loaded == [tiny, "tiny"]
    assert len(records) == 6 and verify(tmp_path) == []


def test_zips_hold_the_pack_and_are_part_of_its_record(tmp_path):
    import zipfile

    (record,) = go(tmp_path, WISHES[:1], zips=True)
    (name,) = [name for name in record.files if name.endswith(".zip")]
    inside = zipfile.ZipFile(tmp_path / record.folder / name).namelist()
    assert {path.rpartition("/")[2] for path in inside} == set(record.files) - {name}


def test_verify_names_what_is_missing_changed_or_unknown(tmp_path):
    first, second, third, *_ = go(tmp_path)
    wav = lambda record: next(name for name in record.files if name.endswith(".wav"))
    (tmp_path / first.folder / wav(first)).unlink()
    changed = tmp_path / second.folder / wav(second)
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x55")
    (tmp_path / third.folder / "virus.exe").write_bytes(b"")
    copy = tmp_path / "copy_0000000000000000"
    copy.mkdir()
    (copy / "record.json").write_text("{}")
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write(third.to_json() + "\n")
    wrong = verify(tmp_path)
    for words in ("is missing", "its sha256 differs", "virus.exe is no part", "copy_0", f"{third.id} twice"):
        assert any(words in line for line in wrong), (words, wrong)


def test_a_damaged_pack_without_a_record_is_named_rather_than_written_over(tmp_path):
    (record,) = go(tmp_path, WISHES[:1])
    (tmp_path / "manifest.jsonl").write_bytes(b"")
    (tmp_path / record.folder / "pack.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged: remove it"):
        go(tmp_path, WISHES[:1])


def test_a_lost_gpu_stops_the_batch_and_blames_no_line(tmp_path, monkeypatch, undisturbed):
    from looper.batch.worker import DeviceLostError
    from looper.runtime import device

    make, count = FakeMaker.make, []

    def lose(self, *args):
        count.append(args)
        if len(count) > 2:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return make(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FakeMaker, "make", lose)
        patch.setattr(device, "has_gpu", lambda: True)
        patch.setattr(device, "gpu_answers", lambda: False)
        patch.setitem(sys.modules, "torch", sys)
        with pytest.raises(DeviceLostError, match=r"the GPU no longer answers .*run the same command again"):
            go(tmp_path, in_flight=1)
    assert [record.status for record in read_manifest(tmp_path)] == ["ok", "ok"]
    go(tmp_path)
    check_whole(tmp_path, undisturbed)
