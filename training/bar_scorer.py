"""The network whose forward pass `looper.beats.downbeats` repeats in NumPy, and how it is fitted.

Hypotheses of all clips of a batch are laid on one tape, with gaps wider than a convolution reaches, as
at run time: nothing is padded, and clips of any metre and length share a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from looper.beats.downbeats import GAP_BEATS
from looper.beats.hypotheses import LEVELS, PER_BEAT, MetricalHypothesis

FLAGS = 6  # the last columns of a beat's features: the clip's edges, not its sound
HIDDEN = 64
BATCH = 16
SMOOTHING = 0.03  # share of the target that is spread over all bar lines


@dataclass(frozen=True)
class Example:
    """One clip's metrical hypotheses, and how likely each beat of each is the first of true bars.

    Attributes
    ----------
    found : list of MetricalHypothesis
        As the clip may be heard.
    target : np.ndarray
        [len(found), beats_per_bar], sums to 1.
    weight : float
        Of the clip in the loss.
    """

    found: list[MetricalHypothesis]
    target: np.ndarray
    weight: float = 1.0

    @property
    def beats_per_bar(self) -> int:
        return self.target.shape[1]


@dataclass(frozen=True)
class Tape:
    """A batch: beats [T] one after another, (hypothesis, beat of the bar) places [P], hypotheses [R]."""

    beats: torch.Tensor  # [T, PER_BEAT]
    heard: torch.Tensor  # [T], 0 in gaps
    place: torch.Tensor  # [T] -> P
    hypothesis: torch.Tensor  # [P] -> R
    clip: torch.Tensor  # [P] -> clips
    metre: torch.Tensor  # [P]
    sides: torch.Tensor  # [R, 6]
    target: torch.Tensor  # [P]
    weight: torch.Tensor  # [clips]


def _shaken(example: Example, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """A clip's beats and which of them are heard; with `rng`, ends are cut off and features shaken."""
    x = np.concatenate([h.features for h in example.found]).astype(np.float32)
    times = np.concatenate([h.beat_times for h in example.found])
    heard = np.ones(len(x), np.float32)
    if rng is not None:
        cut = rng.uniform(0, 2.5) if rng.random() < 0.35 else -1.0
        end = times.max() - (rng.uniform(0, 2.5) if rng.random() < 0.35 else -9.0)
        heard = ((times >= cut) & (times <= end)).astype(np.float32)
        if cut > 0:
            x[:, -FLAGS : -FLAGS + 3] = 0
        if rng.random() < 0.6:
            x[:, :-FLAGS] *= 1 + rng.normal(0, 0.15, PER_BEAT - FLAGS).astype(np.float32)
    return x * heard[:, None], heard


def _sides(found: list[MetricalHypothesis]) -> np.ndarray:
    """What is known of each hypothesis as a whole: its weight, level and tempo, [R, 6]."""
    bend = np.log2(60 / np.array([h.period for h in found]) / 115)
    level = np.array([[float(h.level == v) for v in LEVELS] for h in found])
    return np.column_stack([[h.weight for h in found], level, bend, bend**2]).astype(np.float32)


def tape_of(examples: list[Example], rng: np.random.Generator | None = None) -> Tape:
    """Lay clips one after another; with `rng`, each a little changed."""
    beats, heard, place, hypothesis, clip, metre = [], [], [], [], [], []
    hypotheses = places = 0
    for number, example in enumerate(examples):
        bar, lengths = example.beats_per_bar, [len(h.features) for h in example.found]
        x, mask = _shaken(example, rng)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            beats += [x[start : start + length], np.zeros((GAP_BEATS, PER_BEAT), np.float32)]
            heard += [mask[start : start + length], np.zeros(GAP_BEATS, np.float32)]
            place += [places + i * bar + np.arange(length) % bar, np.full(GAP_BEATS, places)]
        count = len(lengths) * bar
        hypothesis.append(hypotheses + np.repeat(np.arange(len(lengths)), bar))
        clip.append(np.full(count, number))
        metre.append(np.full(count, bar))
        hypotheses, places = hypotheses + len(lengths), places + count
    joined = (np.concatenate(part) for part in (beats, heard, place, hypothesis, clip, metre))
    sides = np.concatenate([_sides(example.found) for example in examples])
    target = np.concatenate([example.target.ravel() for example in examples]).astype(np.float32)
    weight = np.array([example.weight for example in examples], np.float32)
    return Tape(*(torch.from_numpy(part) for part in (*joined, sides, target, weight)))


class Scorer(nn.Module):
    """Evidence that each beat of the bar of each hypothesis is the first."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mu", torch.zeros(PER_BEAT))
        self.register_buffer("sd", torch.ones(PER_BEAT))
        self.inp = nn.Linear(PER_BEAT, HIDDEN)
        self.c1 = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=2)
        self.c2 = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=4, dilation=2)
        self.c3 = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=8, dilation=4)
        self.h1, self.h2 = nn.Linear(2 * HIDDEN + 1, 32), nn.Linear(32, 1)
        self.lev = nn.Linear(5, 1)
        self.meter = nn.Embedding(17, 32)
        nn.init.zeros_(self.meter.weight)
        self.drop = nn.Dropout(0.15)

    def scale_to(self, examples: list[Example]) -> None:
        """Centre and scale features by what is typical of them; the flags stay as they are."""
        seen = np.concatenate([h.features for e in examples for h in e.found]).astype(np.float32)
        self.mu[:-FLAGS] = torch.from_numpy(seen.mean(0)[:-FLAGS])
        self.sd[:-FLAGS] = torch.from_numpy(seen.std(0)[:-FLAGS] + 1e-2)

    def forward(self, tape: Tape) -> torch.Tensor:
        """Logits [P]."""
        h = F.relu(self.inp((tape.beats - self.mu) / self.sd)) * tape.heard[:, None]
        h, heard = self.drop(h).T[None], tape.heard[None, None]
        for layer in (self.c1, self.c2, self.c3):
            h = (h + F.relu(layer(h))) * heard
        fold = _means(h[0].T, tape.place, tape.heard, len(tape.clip))
        own = _means(fold, tape.hypothesis, torch.ones(len(fold)), len(tape.sides))[tape.hypothesis]
        both = torch.cat([fold, fold - own, tape.sides[tape.hypothesis, :1]], 1)
        hidden = F.relu(self.h1(self.drop(both)) + self.meter(tape.metre))
        return self.h2(hidden)[:, 0] + self.lev(tape.sides[:, 1:])[tape.hypothesis, 0]


def _means(x: torch.Tensor, group: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
    """Means of the rows of each group, [groups, H]; rows of weight 0 hold zeros."""
    count = torch.zeros(groups).index_add(0, group, weight).clamp(min=1)
    return torch.zeros(groups, x.shape[1]).index_add(0, group, x) / count[:, None]


def log_probabilities(logits: torch.Tensor, clip: torch.Tensor, clips: int) -> torch.Tensor:
    """Log-softmax over the places of each clip, [P]."""
    top = torch.full((clips,), -1e9).scatter_reduce(0, clip, logits.detach(), "amax")
    total = torch.zeros(clips).index_add(0, clip, torch.exp(logits - top[clip]))
    return logits - top[clip] - torch.log(total)[clip]


def loss_of(net: Scorer, tape: Tape) -> torch.Tensor:
    """Cross entropy against the smoothed targets, weighted by clip."""
    clips = len(tape.weight)
    size = torch.bincount(tape.clip, minlength=clips)[tape.clip]
    target = (1 - SMOOTHING) * tape.target + SMOOTHING / size
    likely = log_probabilities(net(tape), tape.clip, clips)
    return -(likely * target * tape.weight[tape.clip]).sum() / clips


Draw = Callable[[np.random.Generator], list[Example]]


def fit(net: Scorer, draw: Draw, steps: int, rate: float, rng: np.random.Generator) -> Scorer:
    """Minimise the loss over batches that `draw` draws, the learning rate rising and falling once."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1)
    net.train()
    total = 0.0
    for step in range(steps):
        loss = loss_of(net, tape_of(draw(rng), rng))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
        if step % 200 == 199:
            print(f"step {step + 1}: loss {total / 200:.3f}", flush=True)
            total = 0.0
    return net.eval()


@torch.no_grad()
def probabilities(nets: list[Scorer], example: Example) -> np.ndarray:
    """What networks think together of each beat of each hypothesis, [len(found), beats_per_bar]."""
    tape = tape_of([example])
    evidence = torch.stack([net(tape) for net in nets]).mean(0)
    return torch.softmax(evidence, 0).numpy().reshape(example.target.shape)
