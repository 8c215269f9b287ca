"""Fit the bar-line scorer of ``looper/downbeats.py`` on clips made by ``training/clips.py``.

    python -m training.clips.render --out training/work/fit --count 4000 --seed 1
    python -m training.clips.render --out training/work/held --count 360 --seed 2
    python -m training.downbeats --fit training/work/fit --held training/work/held

Writes ``looper/beats.npz`` (float16) and ``looper/beats.json`` (figures of the held-out part). The
first half of the held clips calibrates the confidence, the second half is only measured. (The
committed networks are seeds 1 and 2 after 9 epochs and 3 and 4 after 12, on 3600 clips of seeds 1 and 3.)
"""

from __future__ import annotations

import argparse
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import nn
from torch.nn import functional as F

from bench.quality.beats import loop_right, ours, reliability
from looper.beats import downbeats, features, tempo
from looper.beats.hypotheses import LEVELS, PER_BEAT, Reading, readings

FLAGS = 6  # the last columns of a beat's features: the clip's edges, not its sound
HIDDEN = 48
BATCH = 16


@dataclass(frozen=True)
class Example:
    """One clip's readings and which (reading, beat of the bar) is its true bar line."""

    clip: dict
    found: list[Reading]
    target: np.ndarray  # [readings, beats_per_bar], one 1


def target_of(clip: dict, found: list[Reading]) -> np.ndarray:
    """Mark the reading at the true level whose lines lie nearest to the true ones, within 50 ms."""
    metre, true = clip["beats_per_bar"], np.array(clip["downbeats"])
    target, best = np.zeros((len(found), metre), np.float32), (0.05, -1, -1)
    for i, reading in enumerate(found):
        for m in range(metre):
            lines = reading.beat_times[m::metre]
            if reading.level == clip["level"] and len(lines):
                off = float(np.median(np.abs(true[:, None] - lines).min(axis=1)))
                best = min(best, (off, i, m))
    if best[1] >= 0:
        target[best[1:]] = 1
    return target


def examples(folder: Path) -> list[Example]:
    """Read a folder of clips, from its cache if there is one."""
    cache = folder / "readings.pickle"
    if cache.exists():
        return pickle.loads(cache.read_bytes())  # our own file, written below
    rows = []
    for clip in json.loads((folder / "truth.json").read_text()):
        if len(clip["beats"]) < 5 or not clip["downbeats"]:
            continue
        samples, rate = sf.read(folder / clip["file"], dtype="float32")
        frames = features.frames(features.mono(samples), rate)
        period, _ = tempo.find_period(frames, 60 / clip["requested_bpm"], clip["beats_per_bar"])
        true = np.ptp(clip["beats"]) / (len(clip["beats"]) - 1) / clip["level"]
        found = readings(frames, period) if abs(period / true - 1) < 0.005 else []
        rows.append(Example(clip, found, target_of(clip, found)))
    cache.write_bytes(pickle.dumps(rows))
    return rows


class Scorer(nn.Module):
    """The network whose forward pass ``looper.beats.downbeats`` repeats in NumPy."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mu", torch.zeros(PER_BEAT))
        self.register_buffer("sd", torch.ones(PER_BEAT))
        self.inp = nn.Linear(PER_BEAT, HIDDEN)
        self.c1 = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=2)
        self.c2 = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=4, dilation=2)
        self.h1, self.h2 = nn.Linear(2 * HIDDEN + 1, 32), nn.Linear(32, 1)
        self.lev = nn.Linear(5, 1)
        self.meter = nn.Embedding(17, 32)
        nn.init.zeros_(self.meter.weight)
        self.drop = nn.Dropout(0.15)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, side: torch.Tensor, metre: int) -> torch.Tensor:
        """Logits ``[C, metre]`` from ``x [C, K, F]``, ``mask [C, K]`` and ``side [C, 6]``."""
        h = F.relu(self.inp((x - self.mu) / self.sd)) * mask[..., None]
        h = self.drop(h).transpose(1, 2)
        h = (h + F.relu(self.c1(h))) * mask[:, None]
        h = ((h + F.relu(self.c2(h))) * mask[:, None]).transpose(1, 2)
        pad = -h.shape[1] % metre
        h, mask = F.pad(h, (0, 0, 0, pad)), F.pad(mask, (0, pad))
        count = mask.view(len(h), -1, metre).sum(1).clamp(min=1)
        fold = h.view(len(h), -1, metre, HIDDEN).sum(1) / count[..., None]
        weight = side[:, None, :1].expand(-1, metre, 1)
        both = torch.cat([fold, fold - fold.mean(1, keepdim=True), weight], -1)
        hidden = F.relu(self.h1(self.drop(both)) + self.meter.weight[metre])
        return self.h2(hidden)[..., 0] + self.lev(side[:, 1:])


def inputs(example: Example, rng: np.random.Generator | None) -> tuple:
    """Pad a clip's readings to tensors; with ``rng``, sometimes cut its ends and shake its bands."""
    found, metre = example.found, example.clip["beats_per_bar"]
    longest = max(metre, *(len(r.features) for r in found))
    x, mask = torch.zeros(len(found), longest, PER_BEAT), torch.zeros(len(found), longest)
    for i, r in enumerate(found):
        x[i, : len(r.features)] = torch.from_numpy(r.features.astype(np.float32))
        mask[i, : len(r.features)] = 1
    if rng is not None:
        cut = rng.uniform(0, 2.5) if rng.random() < 0.3 else -1.0
        end = example.clip["duration"] - (rng.uniform(0, 2.5) if rng.random() < 0.3 else -9.0)
        for i, r in enumerate(found):
            gone = np.ones(longest, bool)
            gone[: len(r.beat_times)] = (r.beat_times < cut) | (r.beat_times > end)
            x[i, gone], mask[i, gone] = 0, 0
        if cut > 0:
            x[:, :, -FLAGS : -FLAGS + 3] = 0
        if rng.random() < 0.5:
            x[:, :, :-FLAGS] *= torch.from_numpy(1 + rng.normal(0, 0.15, PER_BEAT - FLAGS).astype(np.float32))
    bend = [float(np.log2(60 / r.period / 115)) for r in found]
    side = [
        [r.weight, *(float(r.level == v) for v in LEVELS), b, b * b] for r, b in zip(found, bend, strict=True)
    ]
    return x, mask, torch.tensor(side), metre


def fit(train: list[Example], epochs: int, seed: int) -> Scorer:
    """Maximise the likelihood of the true bar line among all (reading, beat) pairs."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    train = [e for e in train if e.target.any()]
    net = Scorer()
    seen = torch.from_numpy(
        np.concatenate([r.features for e in train[:300] for r in e.found]).astype(np.float32)
    )
    net.mu[:-FLAGS], net.sd[:-FLAGS] = seen.mean(0)[:-FLAGS], seen.std(0)[:-FLAGS] + 1e-2
    steps = len(train) // BATCH
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=epochs * steps + 1)
    for epoch in range(epochs):
        order, total = rng.permutation(len(train)), 0.0
        for first in range(0, steps * BATCH, BATCH):
            loss = torch.zeros(())
            for i in order[first : first + BATCH]:
                likely = torch.log_softmax(net(*inputs(train[i], rng)).flatten(), 0)
                truth = torch.from_numpy(train[i].target).flatten()
                loss = loss - (likely * (0.97 * truth + 0.03 / len(truth))).sum() / BATCH
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch}: loss {total / steps:.3f}", flush=True)
    return net.eval()


def save(nets: list[Scorer], calibration: np.ndarray, path: Path) -> None:
    """Write the networks stacked, ``[N, ...]`` per weight."""
    states = [net.state_dict() for net in nets]
    arrays = {k: np.stack([s[k].numpy() for s in states]) for k in states[0]}
    arrays = {k: v.astype("f4" if k in ("mu", "sd") else "f2") for k, v in arrays.items()}
    np.savez_compressed(path, calibration=calibration.astype("f4"), **arrays)


def load(path: Path) -> list[Scorer]:
    """Read back what ``save`` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: torch.from_numpy(file[k].astype("f4")) for k in file.files if k != "calibration"}
    nets = [Scorer() for _ in arrays["mu"]]
    for i, net in enumerate(nets):
        net.load_state_dict({k: v[i] for k, v in arrays.items()})
    return nets


def measured(clips: list[dict], folder: Path) -> list[dict[str, float]]:
    """Run the whole of ``looper.analyse`` on clips: confidence and whether the loop is right."""
    rows = []
    for clip in clips:
        samples, rate = sf.read(folder / clip["file"], dtype="float32")
        found = ours(samples, rate, clip)
        rows.append({
            "confidence": found.confidence,
                "clarity": found.clarity,
            "loop_ok": float(loop_right(clip, *found.span)),
            "bar_start": float(clip["start"] != "random"),
        })  # fmt: skip
    return rows


def calibrate(rows: list[dict[str, float]]) -> np.ndarray:
    """Logistic regression of right on the uncalibrated log odds and the clarity, lightly held to them."""
    rows = [r for r in rows if 0 < r["confidence"] < 1]
    odds = [np.log(r["confidence"] / (1 - r["confidence"])) for r in rows]
    x = torch.tensor([[o, np.log(max(r["clarity"], 1.0)), 1.0] for o, r in zip(odds, rows, strict=True)])
    right = torch.tensor([r["loop_ok"] for r in rows]).double()
    weights = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(x.double() @ weights, right)
        value = value + 0.01 * ((weights[0] - 1) ** 2 + weights[1] ** 2)
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", type=Path, nargs="*", help="none: only calibrate and measure --out again")
    parser.add_argument("--held", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("looper/beats.npz"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nets", type=int, default=4, help="networks whose votes are averaged")
    args = parser.parse_args()
    train = [e for folder in args.fit or () for e in examples(folder)]
    torch.set_num_threads(1)
    nets = [fit(train, args.epochs, args.seed + i) for i in range(args.nets)] if train else load(args.out)
    finish(nets, args.held, args.out)


def finish(nets: list[Scorer], held: Path, out: Path) -> None:
    """Calibrate on half of the held clips, measure the other, write weights and figures."""
    clips = [
        c for c in json.loads((held / "truth.json").read_text()) if len(c["beats"]) > 4 and c["downbeats"]
    ]
    half = len(clips) // 2
    downbeats.WEIGHTS = out
    save(nets, np.array([1.0, 0.0, 0.0]), out)
    downbeats._weights.cache_clear()
    save(nets, calibrate(measured(clips[:half], held)), out)
    downbeats._weights.cache_clear()
    rows = measured(clips[half:], held)
    ranked = sorted(rows, key=lambda r: -r["confidence"])
    figures = {
        "clips": len(rows),
        "loop_ok": float(np.mean([r["loop_ok"] for r in rows])),
        "loop_ok_bar_start": float(np.mean([r["loop_ok"] for r in rows if r["bar_start"]])),
        "loop_ok_top_half": float(np.mean([r["loop_ok"] for r in ranked[: len(ranked) // 2]])),
        "reliability": reliability(rows),
    }
    out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
