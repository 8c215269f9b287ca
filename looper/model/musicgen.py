"""A loaded MusicGen: its language model, its codec, and what its config says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from audiocraft.models.encodec import EncodecModel
    from audiocraft.models.lm import LMModel

    from looper.model.melody import MelodyEncoder


@dataclass(frozen=True)
class Clock:
    """Linear layer of the optional beat clock: features [T, C] @ weight.T are added to the input.

    Attributes
    ----------
    weight : torch.Tensor
        [dim, C], on the model's device.
    config : dict
        The ``looper.model.beat_clock`` section of ``config.yaml``, for whoever makes the features.
    """

    weight: torch.Tensor
    config: dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A loaded model, in evaluation mode.

    Attributes
    ----------
    lm : audiocraft.models.lm.LMModel
    codec : audiocraft.models.encodec.EncodecModel
    config : dict
        ``lm`` and ``codec`` (omegaconf), and ``looper`` (ours).
    name : str
    clock : Clock or None
        None for MusicGen medium and large.
    device : torch.device
    melody : MelodyEncoder or None
        None for models that take text alone.
    """

    lm: LMModel
    codec: EncodecModel
    config: dict[str, Any]
    name: str
    clock: Clock | None
    device: torch.device
    melody: MelodyEncoder | None = None

    @property
    def window_seconds(self) -> float:
        """Longest audio the model was trained on, prompt included, in seconds."""
        return float(self.config["lm"].dataset.segment_duration)

    @property
    def channels(self) -> int:
        """Channels of its audio: 2 where each codebook of the left channel is followed by the right one's, else 1."""
        interleaved = self.config["lm"].get("interleave_stereo_codebooks")
        return 2 if interleaved and interleaved.get("use") else 1
