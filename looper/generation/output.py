"""What a generator gives, and what it is asked to judge, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ModelSpec:
    """What a plan must know of a model.

    Attributes
    ----------
    frame_rate : float
        Codec frames per second.
    hop_length : int
        Samples per frame.
    window_seconds : float
        Longest audio, prompt included.
    clocked : bool
        Whether the model takes a beat clock.
    """

    frame_rate: float
    hop_length: int
    window_seconds: float
    clocked: bool


@dataclass(frozen=True)
class GenerationOutput:
    """What a generator gives for a batch.

    Attributes
    ----------
    samples : np.ndarray
        float32 [rows, T].
    codes : np.ndarray or None
        The codes [rows, n_q, frames] it was decoded from, where there are any.
    steps_per_second : float
        Of the decode loop; 0 where that is not known.
    """

    samples: np.ndarray
    codes: np.ndarray | None = None
    steps_per_second: float = 0.0


@dataclass(frozen=True)
class Heard:
    """Codes [n_q, frames] with their clock, of which the model judges what stands from `start` on."""

    codes: np.ndarray
    start: int
    clock: np.ndarray | None = None
