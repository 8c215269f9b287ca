"""A melody as MusicGen melody hears it: the strongest pitch class of each moment, as vectors in front of the music."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from audiocraft.modules.chroma import ChromaExtractor

_CHROMA = ("sample_rate", "n_chroma", "radix2_exp", "nfft", "winlen", "winhop", "argmax", "norm")


class MelodyEncoder:
    """Audiocraft's ChromaStemConditioner without Demucs, which picks voice and lead out of a mix before.

    Parameters
    ----------
    config : Mapping
        Its section of the model's config.
    seconds : float
        Of the melody that the model was trained with: shorter ones are repeated, longer ones cut.
    weight, bias : torch.Tensor
        Of its projection, [dim, n_chroma] and [dim].

    Attributes
    ----------
    length : int
        Vectors of a melody.
    shortest : int
        Samples below which there is no pitch to be heard.
    """

    def __init__(self, config: Mapping[str, Any], seconds: float, weight: Tensor, bias: Tensor) -> None:
        self._config = {name: config[name] for name in _CHROMA if config.get(name) is not None}
        self.weight, self.bias = weight, bias
        self.shortest = int(config.get("winlen") or 2 ** int(config["radix2_exp"]))
        hop = int(config.get("winhop") or self.shortest // 4)
        self.length = 1 + int(config["sample_rate"] * seconds) // hop

    @torch.inference_mode()
    def encode(self, samples: np.ndarray | None) -> Tensor:
        """Encode mono samples [T] at the model's rate, or no melody, [length, dim]."""
        chroma = self._silence if samples is None else self._chroma(samples)
        return F.linear(chroma.to(self.weight), self.weight, self.bias)

    @property
    def _silence(self) -> Tensor:
        """What the extractor makes of silence, [length, n_chroma]."""
        chroma = torch.zeros(self.length, self.weight.shape[1])
        if self._config.get("argmax"):
            chroma[:, 0] = 1
        return chroma

    def _chroma(self, samples: np.ndarray) -> Tensor:
        found = self._extractor(torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None, None])[0]
        return found.repeat(math.ceil(self.length / len(found)), 1)[: self.length]

    @cached_property
    def _extractor(self) -> ChromaExtractor:
        from audiocraft.modules.chroma import ChromaExtractor

        return ChromaExtractor(**self._config)
