r"""Fit the bar-line scorer of `looper.beats.downbeats`.

``make train-beats MUSICGEN=folder`` runs

    python -m training.clips.render --out training/work/beats/fit-11 --count 1500 --seed 11
    python -m training.clips.render --out training/work/beats/fit-12 --count 1500 --seed 12
    python -m training.clips.render --out training/work/beats/held --count 300 --seed 13
    python -m training.downbeats --fit training/work/beats/fit-* --held training/work/beats/held \
        --generated folder

Networks learn from rendered clips, and are then tuned on MusicGen's music, half and half. The folder of
generated music is described in `training.bar_labels`; its audio is not ours to ship. Four further sets of
networks, each tuned without a quarter of its prompts, score that quarter: their loops, and the shipped
networks' on half of the held clips, calibrate the confidence. They stand in ``--work`` as fold-K.npz.

In every set the four networks of ``training/older.npz`` have a say too. An earlier trainer fitted them on other
rendered clips and fewer features (there is no timbre nor density for them: zeros stand there), and what is
unlike errs unlike: together they are right more often than either kind alone.

Writes ``looper/beats/beats.npz`` (float16) and ``beats.json`` (figures of what was not fitted on). With the
same folders, fluidsynth, soundfonts, PyTorch and kind of CPU the files come out the same to the byte.
"""

from __future__ import annotations

import argparse
import copy
import json
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.quality.beats import reliability
from looper.beats import downbeats
from training.bar_labels import GeneratedClip, generated, likely_bars, rendered
from training.bar_scorer import BATCH, Draw, Example, Scorer, fit, probabilities
from training.calibration import PLAIN, Judged, calibrate, generated_loops, rendered_loops

FOLDS = 4
WATCHED = 150  # rendered clips at the end of the list that nothing is fitted on
LEARN_STEPS, LEARN_RATE = 2600, 2e-3
TUNE_STEPS, TUNE_RATE = 250, 7e-4
WEIGHTS, OLDER = Path("looper/beats/beats.npz"), Path(__file__).with_name("older.npz")


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
    """Learn from rendered clips, then tune: the network of all prompts, then one without each fold."""
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


def finish(chains: list[list[Scorer]], generated: Path, held: Path, work: Path) -> None:
    """Calibrate, write the shipped networks and those of the folds, and what they are worth."""
    older = load(OLDER)
    sets = {WEIGHTS: [*older, *(nets[0] for nets in chains)]}
    folds = [work / f"fold-{fold}.npz" for fold in range(FOLDS)]
    sets |= {path: [*older, *(nets[1 + fold] for nets in chains)] for fold, path in enumerate(folds)}
    for path, nets in sets.items():
        save(nets, PLAIN, path)
    unseen = generated_loops(generated, lambda clip: folds[fold_of(clip["prompt"])])
    downbeats.use_weights(WEIGHTS)
    truth = json.loads((held / "truth.json").read_text())
    own = rendered_loops([c for c in truth if len(c["beats"]) > 4 and c["downbeats"]], held)
    calibrating, reported = own[: len(own) // 2], own[len(own) // 2 :]
    share = len(calibrating) / max(1, len(unseen))  # both kinds of music weigh the same
    calibration = calibrate([*calibrating, *(replace(r, weight=share) for r in unseen)])
    for path, nets in sets.items():
        save(nets, calibration, path)
    downbeats.use_weights(WEIGHTS)
    report([_calibrated(r) for r in reported], [_calibrated(r) for r in unseen])


def _calibrated(loop: Judged) -> Judged:
    heard = loop.confidence > 0
    said = downbeats.calibrated(loop.confidence, loop.lead_in) if heard else 0.0
    return replace(loop, confidence=said)


def report(rendered: list[Judged], music: list[Judged]) -> None:
    """Write the figures of rendered clips and of generated music that the networks were not fitted on."""
    ranked = sorted(rendered, key=lambda r: -r.confidence)
    share = lambda rows: float(np.mean([r.right for r in rows])) if rows else float("nan")
    table = lambda rows: reliability([{"confidence": r.confidence, "loop_ok": r.right} for r in rows])
    figures = {
        "clips": len(rendered),
        "loop_ok": share(rendered),
        "loop_ok_bar_start": share([r for r in rendered if r.opens]),
        "loop_ok_top_half": share(ranked[: len(ranked) // 2]),
        "reliability": table(rendered),
        "generated_clips": len(music),
        "generated_start_agreed": share(music),
        "generated_reliability": table(music),
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5, 6], help="one network each")
    parser.add_argument("--jobs", type=int, default=1, help="networks fitted at a time")
    args = parser.parse_args()
    with ProcessPoolExecutor(max(args.jobs, 1)) as pool:
        made = [example for part in pool.map(rendered, args.fit) for example in part]
        clips = generated(args.generated)
        chains = list(pool.map(partial(chain, made=made, clips=clips), args.seeds))
    finish(chains, args.generated, args.held, args.work)


if __name__ == "__main__":
    main()
