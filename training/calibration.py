"""What confidence is worth: loops on music that the networks had not seen, and a scale fitted on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch.nn import functional as F

import looper
from bench.quality.beats import loop_right, ours
from looper.beats import downbeats
from looper.beats.spans import lead_in
from training.bar_labels import WINDOW_SECONDS

PLAIN = np.array([1.0, 0.0, 0.0])  # with which confidence is the scorer's own probability
HOLD = 0.01  # how strongly the slopes are held to PLAIN


@dataclass(frozen=True)
class Judged:
    """A loop: the confidence that was said, how much music leads to it, and whether it starts on a bar line.

    Attributes
    ----------
    confidence : float
        With the networks' calibration, 0 where nothing was heard.
    lead_in : float
        See `looper.beats.spans.lead_in`.
    right : float
        1 or 0.
    opens : bool
        The clip begins on a bar line.
    weight : float
        In the fit.
    """

    confidence: float
    lead_in: float
    right: float
    opens: bool = False
    weight: float = 1.0


def rendered_loops(clips: list[dict], folder: Path) -> list[Judged]:
    """Run the whole of `looper.analyse` on rendered clips."""
    rows = []
    for clip in clips:
        samples, rate = sf.read(folder / clip["file"], dtype="float32")
        found = ours(samples, rate, clip)
        right = float(loop_right(clip, *found.span))
        rows.append(Judged(found.confidence, lead_in(found.span[0]), right, clip["start"] != "random"))
    return rows


def generated_loops(folder: Path, weights: Callable[[dict], Path]) -> list[Judged]:
    """Run it on generated clips whose bar lines two trackers agree on, each with networks of its own."""
    rows = []
    for clip in json.loads((folder / "truth.json").read_text()):
        lines = np.array(clip.get("agreed_downbeats") or [])
        if len(lines):
            downbeats.use_weights(weights(clip))
            samples, rate = sf.read(folder / clip["file"], dtype="float32")
            grid = looper.analyse(samples, rate, clip["requested_bpm"])
            right = float(np.abs(lines - grid.loop_start).min() <= WINDOW_SECONDS)
            rows.append(Judged(grid.confidence, lead_in(grid.loop_start), right))
    return rows


def calibrate(rows: list[Judged]) -> np.ndarray:
    """Logistic regression of right on the log odds and the missing lead-in, lightly held to `PLAIN`."""
    rows = [r for r in rows if r.confidence > 0]
    chance = np.clip([r.confidence for r in rows], 1e-3, 1 - 1e-3)
    early = np.array([1 - r.lead_in for r in rows])
    x = torch.from_numpy(np.column_stack([np.log(chance / (1 - chance)), early, np.ones(len(rows))]))
    right, weight = (torch.tensor([getattr(r, k) for r in rows]).double() for k in ("right", "weight"))
    scale = torch.tensor(PLAIN, requires_grad=True)
    optimiser = torch.optim.LBFGS([scale], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ scale, right, weight / weight.mean())
        value = value + HOLD * ((scale[0] - 1) ** 2 + scale[1] ** 2)
        value.backward()
        return value

    optimiser.step(loss)
    return scale.detach().numpy()
