"""The bar-line scorer: NumPy repeats PyTorch, and trackers' evidence becomes a target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import torch

import training.downbeats as trainer
from looper.beats import downbeats
from looper.beats.hypotheses import PER_BEAT, MetricalHypothesis
from training.bar_labels import GeneratedClip, f_measure, likely_bars
from training.bar_scorer import Example, Scorer, fit, probabilities
from training.calibration import Judged, calibrate
from training.downbeats import fold_of, save


def hypothesis(level: float, period: float, count: int, seed: int) -> MetricalHypothesis:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, PER_BEAT)).astype(np.float32)
    return MetricalHypothesis(level, period, 0.1, 0.7, features, 0.1 + period * np.arange(count))


FOUND = [hypothesis(0.5, 0.25, 37, 1), hypothesis(1.0, 0.5, 19, 2), hypothesis(2.0, 1.0, 9, 3)]


@pytest.fixture
def weights(tmp_path: Path):
    yield tmp_path / "beats.npz"
    downbeats.use_weights()


@pytest.mark.parametrize("metre", [3, 4, 7])
def test_the_scorer_at_run_time_is_the_fitted_network(weights: Path, metre: int) -> None:
    torch.manual_seed(metre)
    nets = [Scorer().eval() for _ in range(2)]
    for net in nets:
        torch.nn.init.normal_(net.meter.weight)
        net.mu.normal_(std=0.3)
        net.sd.uniform_(0.5, 2.0)
        for value in net.parameters():
            value.data = value.data.half().float()  # what is saved
    save(nets, np.array([1.0, 0.0, 0.0]), weights)
    downbeats.use_weights(weights)
    expected = probabilities(nets, Example(FOUND, np.zeros((3, metre))))
    found = downbeats.downbeat_hypotheses(FOUND, metre)
    np.testing.assert_allclose(
        [h.probability for h in found], np.sort(expected.ravel())[::-1], rtol=1e-3, atol=1e-6
    )
    best = np.unravel_index(expected.argmax(), expected.shape)
    assert found[0].level == FOUND[best[0]].level
    assert found[0].line == pytest.approx(FOUND[best[0]].beat_times[best[1]])


@pytest.mark.slow
def test_fitting_finds_the_beat_that_is_marked_in_the_features() -> None:
    rng, target = np.random.default_rng(0), np.zeros((1, 4), np.float32)
    target[0, 2] = 1
    examples = []
    for seed in range(12):
        found = hypothesis(1.0, 0.5, 20, seed)
        found.features[2::4, 5] += 6
        examples.append(Example([found], target))
    torch.manual_seed(1)
    net = fit(Scorer(), lambda r: [examples[i] for i in r.integers(0, 8, 4)], 60, 2e-3, rng)
    assert all(probabilities([net], e).argmax() == 2 for e in examples[8:])


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_the_fields_f_measure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.cumsum(rng.uniform(0.3, 0.8, 15))
    heard = np.sort(truth[rng.random(15) < 0.8] + rng.normal(0, 0.05, (rng.random(15) < 0.8).sum())[:1])
    assert f_measure(truth, heard) == pytest.approx(mir_eval.beat.f_measure(truth, heard))


def clip_of(**lines: np.ndarray) -> GeneratedClip:
    heard = {"madmom": np.array([]), "beatnet": np.array([]), "agreed": np.array([]), **lines}
    return GeneratedClip("a.ogg", "house, 120 BPM", "medium", FOUND, 10.0, heard)


def test_agreed_bar_lines_overrule_the_networks_opinion() -> None:
    lines = FOUND[1].beat_times[3::4]
    opinion = np.full((3, 4), 0.01)
    opinion[1, 0] = 0.89
    agreed = likely_bars(clip_of(madmom=lines, beatnet=lines, agreed=lines), opinion)
    assert np.unravel_index(agreed.target.argmax(), (3, 4)) == (1, 3)
    assert agreed.target.sum() == pytest.approx(1)


def test_one_tracker_alone_does_not_overrule_a_sure_opinion_but_sways_an_open_one() -> None:
    lines, sure = FOUND[1].beat_times[3::4], np.full((3, 4), 1e-4)
    sure[1, 0] = 0.999
    assert likely_bars(clip_of(beatnet=lines), sure).target[1, 0] > 0.5
    unsure = likely_bars(clip_of(beatnet=lines), np.full((3, 4), 1 / 12)).target
    assert np.unravel_index(unsure.argmax(), (3, 4)) == (1, 3)


def said(scale: np.ndarray, confidence: float, lead_in: float) -> float:
    slope, early, bias = scale
    odds = np.log(confidence / (1 - confidence))
    return float(1 / (1 + np.exp(-(slope * odds + early * (1 - lead_in) + bias))))


def test_calibration_brings_overconfidence_down_and_keeps_the_order() -> None:
    rng = np.random.default_rng(0)
    rows = [Judged(c, 1.0, float(rng.random() < 0.5 * c + 0.2)) for c in rng.uniform(0.02, 0.98, 3000)]
    scale = calibrate(rows)
    assert said(scale, 0.2, 1.0) == pytest.approx(0.30, abs=0.07)
    assert said(scale, 0.9, 1.0) == pytest.approx(0.65, abs=0.07)
    assert scale[0] > 0


def test_calibration_learns_what_a_missing_lead_in_costs() -> None:
    rng = np.random.default_rng(1)
    odds, early = rng.uniform(-2, 3, 4000), rng.random(4000) < 0.5
    right = rng.random(4000) < 1 / (1 + np.exp(early - odds))
    chance = 1 / (1 + np.exp(-odds))
    rows = [Judged(*row) for row in zip(chance, 1.0 - early, right * 1.0, strict=True)]
    scale = calibrate(rows)
    assert said(scale, 0.8, 1.0) == pytest.approx(0.80, abs=0.05)
    assert said(scale, 0.8, 0.0) == pytest.approx(0.60, abs=0.08)


def test_rows_count_as_much_as_they_weigh() -> None:
    rows = [Judged(0.5, 1.0, 1.0, weight=3.0)] * 50 + [Judged(0.5, 1.0, 0.0)] * 50
    assert said(calibrate(rows), 0.5, 1.0) == pytest.approx(0.75, abs=0.01)


def examples(count: int, clips: int) -> tuple[list[Example], list[GeneratedClip]]:
    target = np.zeros((3, 4), np.float32)
    target[1, 2] = 1
    lines = FOUND[1].beat_times[2::4]
    music = [clip_of(madmom=lines, agreed=lines) for _ in range(clips)]
    music = [replace(clip, prompt=f"prompt {i}") for i, clip in enumerate(music)]
    return [Example(FOUND, target)] * count, music


@pytest.mark.slow
def test_fitting_again_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LEARN_STEPS", 3)
    monkeypatch.setattr(trainer, "TUNE_STEPS", 2)
    made, music = examples(trainer.WATCHED + 4, 6)
    for name in ("one", "two"):
        save(trainer.chain(3, made, music), trainer.PLAIN, tmp_path / name)
    one, two = ((tmp_path / f"{name}.npz").read_bytes() for name in ("one", "two"))
    assert one == two
    save(trainer.chain(4, made, music), trainer.PLAIN, tmp_path / "other.npz")
    assert one != (tmp_path / "other.npz").read_bytes()


def test_the_older_networks_are_the_first_of_those_shipped() -> None:
    with np.load(trainer.OLDER) as older, np.load(downbeats.WEIGHTS) as shipped:
        for name in older.files:
            count = len(older[name])
            assert len(shipped[name]) > count
            np.testing.assert_array_equal(shipped[name][:count], older[name])


def test_every_clip_of_a_prompt_is_in_one_fold() -> None:
    assert fold_of("house, 124 BPM") == fold_of("house, 124 BPM")
    assert {fold_of(f"prompt {i}") for i in range(40)} == {0, 1, 2, 3}
