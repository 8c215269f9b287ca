r"""Fit the bar-line scorer of `looper.beats.downbeats`.

``make train-beats MUSICGEN=folder`` runs

    python -m training.clips.render --out training/work/beats/fit-11 --count 1500 --seed 11
    python -m training.clips.render --out training/work/beats/fit-12 --count 1500 --seed 12
    python -m training.clips.render --out training/work/beats/held --count 300 --seed 13
    python -m training.downbeats --fit training/work/beats/fit-* --held training/work/beats/held \
        --generated folder

Networks learn from rendered clips, and are then tuned on MusicGen's music, half and half. The folder of
generated music is described in `training.bar_labels`; its audio is not ours to ship. Four further sets of
networks, each tuned without a quarter of its prompts, score that quarter: their opinions, and the shipped
networks' on the held clips, calibrate the confidence. They stand in ``--work`` as fold-K.npz.

The shipped networks are the older ones of rendered clips alone: on music that was not tuned on, what this makes has
not been better on every figure yet. They have no weights for timbre and density (zeros stand there).

Writes ``looper/beats/beats.npz`` (float16) and ``beats.json`` (figures of what was not fitted on). With the
same folders, fluidsynth, soundfonts, PyTorch and kind of CPU the files come out the same to the byte.
"""

from __future__ import annotations

import argparse
import copy
import json
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch.nn import functional as F

from bench.quality.beats import loop_right, ours, reliability
from looper.beats import downbeats
from looper.beats.downbeats import DownbeatHypothesis
from training.bar_labels import GeneratedClip, generated, likely_bars, rendered
from training.bar_scorer import BATCH, Draw, Example, Scorer, fit, probabilities

FOLDS = 4
WATCHED = 150  # rendered clips at the end of the list that nothing is fitted on
LEARN_STEPS, LEARN_RATE = 2600, 2e-3
TUNE_STEPS, TUNE_RATE = 250, 7e-4
WEIGHTS = Path("looper/beats/beats.npz")


def fold_of(prompt: str) -> int:
    """The part of the prompts that a prompt belongs to, 0..FOLDS - 1."""
    return zlib.crc32(prompt.encode()) % FOLDS


def _from(examples: list[Example], count: int) -> Draw:
    return lambda rng: [examples[i] for i in rng.integers(0, len(examples), count)]


def learn(seed: int, made: list[Example]) -> Scorer:
    """One network fitted on rendered clips; the last WATCHED of them say how well it goes."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    fitted, watched = made[:-WATCHED], made[-WATCHED:]
    net = Scorer()
    net.scale_to(fitted[:300])
    fit(net, _from(fitted, BATCH), LEARN_STEPS, LEARN_RATE, np.random.default_rng(seed))
    right = [probabilities([net], e).argmax() == e.target.argmax() for e in watched]
    print(f"seed {seed}: right on {np.mean(right):.3f} of the clips watched", flush=True)
    return net


def tune(seed: int, net: Scorer, made: list[Example], clips: list[GeneratedClip]) -> list[Scorer]:
    """The network tuned on all generated clips, and without each fold; half of each batch is rendered."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    tuning = [likely_bars(clip, probabilities([net], clip.example)) for clip in clips]
    tuned = []
    for left_out in (None, *range(FOLDS)):
        kept = [e for e, clip in zip(tuning, clips, strict=True) if fold_of(clip.prompt) != left_out]
        halves = _from(kept, BATCH // 2), _from(made[:-WATCHED], BATCH // 2)
        both = lambda rng, halves=halves: [*halves[0](rng), *halves[1](rng)]
        tuned.append(fit(copy.deepcopy(net), both, TUNE_STEPS, TUNE_RATE, rng))
    return tuned


def chain(seed: int, made: list[Example], clips: list[GeneratedClip]) -> list[Scorer]:
    """Learn from rendered clips, then tune."""
    return tune(seed, learn(seed, made), made, clips)


def save(nets: list[Scorer], calibration: np.ndarray, path: Path) -> None:
    """Write the networks stacked, ``[N, ...]`` per weight."""
    states = [net.state_dict() for net in nets]
    arrays = {k: np.stack([s[k].numpy() for s in states]) for k in states[0]}
    arrays = {k: v.astype("f4" if k in ("mu", "sd") else "f2") for k, v in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, calibration=calibration.astype("f4"), **arrays)


def load(path: Path) -> list[Scorer]:
    """Read back what `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: torch.from_numpy(file[k].astype("f4")) for k in file.files if k != "calibration"}
    nets = [Scorer().eval() for _ in arrays["mu"]]
    for i, net in enumerate(nets):
        net.load_state_dict({k: v[i] for k, v in arrays.items()})
    return nets


@dataclass(frozen=True)
class Judged:
    """A loop's confidence before calibration, the pulse's clarity, and how right the loop's start is."""

    confidence: float
    clarity: float
    right: float
    weight: float = 1.0


def _hypotheses(clip: GeneratedClip, likely: np.ndarray) -> list[DownbeatHypothesis]:
    found = [
        DownbeatHypothesis(float(h.beat_times[0] + m * h.period), 4 * h.period, h.level, float(likely[i, m]))
        for i, h in enumerate(clip.found)
        for m in range(4)
    ]
    return sorted(found, key=lambda d: -d.probability)


def judged(clip: GeneratedClip, nets: list[Scorer]) -> Judged:
    """What networks make of a clip on whose bar lines the trackers agree."""
    _, cut, confidence = downbeats.choose(_hypotheses(clip, probabilities(nets, clip.example)))
    starts = cut.line + cut.bar * np.arange(-40, 200)
    starts = starts[(starts > -0.03) & (starts < max(0.3 * clip.duration, cut.bar))]
    on_line = np.abs(clip.lines["agreed"][:, None] - starts).min(axis=0) <= 0.07
    return Judged(confidence, clip.clarity, float(on_line.mean()))


def measured(clips: list[dict], folder: Path) -> list[dict[str, float]]:
    """Run the whole of `looper.analyse` on clips: confidence and whether the loop is right."""
    rows = []
    for clip in clips:
        samples, rate = sf.read(folder / clip["file"], dtype="float32")
        found = ours(samples, rate, clip)
        right = float(loop_right(clip, *found.span))
        rows.append({
            "confidence": found.confidence, "clarity": found.clarity, "loop_ok": right,
            "bar_start": float(clip["start"] != "random"),
        })  # fmt: skip
    return rows


def calibrate(rows: list[Judged]) -> np.ndarray:
    """Logistic regression of right on the log odds and the clarity, lightly held to them."""
    rows = [r for r in rows if r.confidence > 0]
    odds = [np.log(c / (1 - c)) for c in (float(np.clip(r.confidence, 1e-3, 1 - 1e-3)) for r in rows)]
    x = torch.tensor(
        [[o, np.log(max(r.clarity, 1.0)), 1.0] for o, r in zip(odds, rows, strict=True)]
    ).double()
    right = torch.tensor([r.right for r in rows]).double()
    weight = torch.tensor([r.weight for r in rows]).double()
    slopes = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([slopes], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ slopes, right, weight / weight.mean())
        value = value + 0.01 * ((slopes[0] - 1) ** 2 + slopes[1] ** 2)
        value.backward()
        return value

    optimiser.step(loss)
    return slopes.detach().numpy()


def finish(nets: list[list[Scorer]], clips: list[GeneratedClip], held: Path, work: Path) -> None:
    """Calibrate, write the shipped networks and those of the folds, and what they are worth."""
    plain = np.array([1.0, 0.0, 0.0])
    save(nets[0], plain, WEIGHTS)
    downbeats.use_weights(WEIGHTS)
    truth = [
        c for c in json.loads((held / "truth.json").read_text()) if len(c["beats"]) > 4 and c["downbeats"]
    ]
    half = len(truth) // 2
    own = [Judged(r["confidence"], r["clarity"], r["loop_ok"]) for r in measured(truth[:half], held)]
    agreed = [c for c in clips if len(c.lines["agreed"])]
    unseen = [judged(clip, nets[1 + fold_of(clip.prompt)]) for clip in agreed]
    share = len(own) / max(1, len(unseen))  # both kinds of music weigh the same
    weighed = [Judged(r.confidence, r.clarity, r.right, share) for r in unseen]
    calibration = calibrate([*own, *weighed])
    for fold, of_fold in enumerate(nets[1:]):
        save(of_fold, calibration, work / f"fold-{fold}.npz")
    save(nets[0], calibration, WEIGHTS)
    downbeats.use_weights(WEIGHTS)
    rows = measured(truth[half:], held)
    said = [downbeats.calibrated(r.confidence, r.clarity) for r in unseen]
    music = [{"confidence": c, "loop_ok": r.right} for c, r in zip(said, unseen, strict=True)]
    report(rows, music)


def report(rows: list[dict[str, float]], music: list[dict[str, float]]) -> None:
    """Write the figures of rendered clips and of generated music that were not fitted on."""
    ranked = sorted(rows, key=lambda r: -r["confidence"])
    figures = {
        "clips": len(rows),
        "loop_ok": float(np.mean([r["loop_ok"] for r in rows])),
        "loop_ok_bar_start": float(np.mean([r["loop_ok"] for r in rows if r["bar_start"]])),
        "loop_ok_top_half": float(np.mean([r["loop_ok"] for r in ranked[: len(ranked) // 2]])),
        "reliability": reliability(rows),
        "generated_clips": len(music),
        "generated_start_agreed": float(np.mean([r["loop_ok"] for r in music])),
        "generated_reliability": reliability(music),
    }
    WEIGHTS.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", type=Path, nargs="+", required=True, help="folders of rendered clips")
    parser.add_argument("--held", type=Path, required=True, help="rendered clips that nothing is fitted on")
    parser.add_argument("--generated", type=Path, required=True, help="MusicGen's music with bar lines")
    parser.add_argument("--work", type=Path, default=Path("training/work/beats"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="one network each")
    parser.add_argument("--jobs", type=int, default=1, help="networks fitted at a time")
    args = parser.parse_args()
    with ProcessPoolExecutor(max(args.jobs, 1)) as pool:
        made = [example for part in pool.map(rendered, args.fit) for example in part]
        clips = generated(args.generated)
        chains = list(pool.map(partial(chain, made=made, clips=clips), args.seeds))
    finish([list(nets) for nets in zip(*chains, strict=True)], clips, args.held, args.work)


if __name__ == "__main__":
    main()
