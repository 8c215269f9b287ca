"""The manifest as a table, read by pyarrow."""

import json
import sys

import pytest
from pyarrow import parquet

from looper.batch import export_parquet, read_manifest, run
from testkit.fakes import FakeMaker

LINES = [
    {
        "prompt": 'Ünïcode, "quoted"',
        "bpm": 93.7,
        "variations": 2,
        "max_duration": 4,
        "seed": 2**40,
        "model": "tiny",
    },
    {"prompt": "broken", "bpm": 120, "variations": 1, "max_duration": 2, "model": "tiny"},
]


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    out = tmp_path_factory.mktemp("packs")
    list(run(LINES, out, load=FakeMaker.load))
    return out


def test_every_record_is_a_row_with_all_that_it_says(packs, tmp_path):
    assert export_parquet(packs, tmp_path / "packs.parquet") == 2
    rows = {row["id"]: row for row in parquet.read_table(tmp_path / "packs.parquet").to_pylist()}
    for record in read_manifest(packs):
        row = rows[record.id]
        assert {name: row[f"request.{name}"] for name in record.request} == record.request
        assert dict(zip(row["files.name"], row["files.sha256"], strict=True)) == record.files
        assert (row["status"], row["error"], row["bpm_measured"]) == (
            record.status, record.error, record.bpm_measured
        )  # fmt: skip


def test_an_empty_manifest_is_an_empty_table(tmp_path):
    (tmp_path / "manifest.jsonl").touch()
    assert export_parquet(tmp_path, tmp_path / "t.parquet") == 0
    assert parquet.read_table(tmp_path / "t.parquet").num_rows == 0


def test_a_folder_without_a_manifest_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="looper batch"):
        export_parquet(tmp_path, tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_without_pyarrow_the_command_that_brings_it_is_named(packs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pyarrow"):
        export_parquet(packs, tmp_path / "t.parquet")


def test_a_record_of_before_a_field_existed_hides_it_in_no_other(packs, tmp_path):
    lines = (packs / "manifest.jsonl").read_text().splitlines()
    old = json.loads(lines[0])
    del old["request"]["beats_per_bar"]
    (tmp_path / "manifest.jsonl").write_text("\n".join([json.dumps(old), *lines[1:]]) + "\n")
    export_parquet(tmp_path, tmp_path / "t.parquet")
    rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["request.beats_per_bar"] for row in rows] == [None, 4]
