"""The one command for a GPU, on a CPU: all of its code runs, and what is wrong makes it fail."""

import json

import pytest
import torch

from bench.gpu import __main__ as command
from bench.gpu import exactness, faults
from bench.gpu.setting import Finding, engine, rehearsal
from testkit import checkpoints

SECTIONS = {"machine", "kernels", "bits", "precision", "steps", "profile", "requests", "serving", "faults"}


@pytest.mark.slow
def test_a_rehearsal_goes_through_every_section_and_finds_all_right(
    tmp_path, capsys, one_thread, monkeypatch
):
    monkeypatch.setattr("looper.pipeline.session.ROUNDS", 0)  # random weights always drift
    assert command.main(["--rehearse", "--shape", "medium", "--json", str(tmp_path / "gpu.json")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {finding["section"] for finding in found} == SECTIONS
    assert all(finding["ok"] is not False for finding in found)
    steps = [finding for finding in found if finding["section"] == "steps"]
    assert len(steps) == 2 * 2 * 2 + 1  # rows, seconds, ways; and audiocraft
    assert [one["figures"]["requests"] for one in found if one["section"] == "serving"] == [2]
    told = capsys.readouterr().out
    assert f"{sum(finding['ok'] is True for finding in found)} right, 0 wrong" in told


@pytest.fixture(scope="module")
def setting():
    return rehearsal(["medium"])


@pytest.fixture(scope="module")
def model(setting):
    return checkpoints.random_model(setting.shapes["medium"])


@pytest.mark.parametrize(("findings", "code"), [([True, None], 0), ([True, False], 1), ([None], 0)])
def test_the_exit_code_says_whether_anything_is_wrong(findings, code, setting, monkeypatch, capsys):
    found = [Finding("bits", str(ok), ok) for ok in findings]
    monkeypatch.setattr(command, "measure", lambda setting, note: [note(one) for one in found])
    assert command.run(setting, None) == code


@pytest.mark.slow
def test_a_row_that_depends_on_its_neighbours_is_found(setting, model, monkeypatch):
    codes = exactness.codes
    crowded = lambda model, made, count, *rest: codes(model, made, count, *rest) + (count > 2)
    monkeypatch.setattr(exactness, "codes", crowded)
    found = exactness.a_rows_bits("medium", model, engine(model, True, setting), "kernels", setting)
    assert [finding.ok for finding in found] == [True, True, False]


def test_an_imprecise_step_is_found(setting, model, monkeypatch):
    ours = exactness.our_logits
    monkeypatch.setattr(exactness, "our_logits", lambda *args: ours(*args) + torch.randn(8, 4, 256))
    found = exactness.half_precision("medium", model, engine(model, True, setting), setting)
    assert [finding.ok for finding in found if "near" in finding.name] == [False, False]


@pytest.mark.slow
def test_a_section_that_fails_is_a_finding_and_the_others_go_on(setting, monkeypatch):
    def fails(*args):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(exactness, "all_findings", fails)
    for name in ("steps", "against_audiocraft", "served"):
        monkeypatch.setattr(command.speed, name, lambda *args: [])
    monkeypatch.setattr(command.speed, "profiled", fails)
    monkeypatch.setattr(faults, "all_findings", lambda *args: [Finding("faults", "went on", True)])
    found = []
    command.measure(setting, found.append)
    assert [f.section for f in found if f.ok is False] == ["exactness", "profile"]
    assert found[-1].name == "went on"


def test_without_a_gpu_it_says_how_to_rehearse(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main([])
    assert "--rehearse runs this on a CPU" in capsys.readouterr().err
