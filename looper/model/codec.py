"""Between samples and codes: audiocraft's EnCodec, in blocks whose size is always the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from looper.runtime.device import to_host

logger = logging.getLogger(__name__)

BLOCK = {"cpu": 1, "cuda": 4}  # rows at a time: one size, for the same bits whatever the batch


class Codec:
    """Encode and decode with a loaded EnCodec.

    Parameters
    ----------
    model : audiocraft.models.encodec.EncodecModel
        For one channel.
    device : torch.device
    channels : int
        Of two, each is coded by itself, and their codebooks take turns: left 0, right 0, left 1, right 1 ...

    Attributes
    ----------
    half : bool
        Whether codes are decoded in half precision, as on CUDA: the error of weights/tiny's lies 69 dB
        under the music.
    """

    def __init__(self, model: Any, device: torch.device, channels: int = 1) -> None:
        self.model, self.device, self.channels = model, device, channels
        self.hop_length = round(model.sample_rate / model.frame_rate)
        self.half = device.type == "cuda"

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> Tensor:
        """Encode samples [n * hop_length], or with channels [.., C], to codes [n_q, n]; mono stands for all channels."""
        each = [samples] * self.channels if samples.ndim == 1 else list(samples.T)
        with _repeatable(self.device):
            codes = [self.model.encode(self._tensor(channel)[None, None])[0][0] for channel in each]
        return torch.stack(codes, dim=1).flatten(0, 1)

    def _tensor(self, channel: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(channel, dtype=np.float32)).to(self.device)

    def decode(self, codes: Tensor, each: Callable[..., Iterable[np.ndarray]] = map) -> np.ndarray:
        """Decode codes [rows, n_q, frames] to samples [rows, frames * hop_length]; -1 stands for silence.

        With two channels the samples are [rows, frames * hop_length, 2]. `each` maps a function over blocks of rows,
        in any thread and order of time.
        """
        channels = codes.unflatten(1, (-1, self.channels)).transpose(1, 2).flatten(0, 1)
        samples = self._decode_channels(channels, each)
        if self.channels == 1:
            return samples
        return np.ascontiguousarray(samples.reshape(len(codes), self.channels, -1).swapaxes(1, 2))

    def _decode_channels(self, codes: Tensor, each: Callable[..., Iterable[np.ndarray]]) -> np.ndarray:
        """As `decode`, each row being one channel."""
        ends = (codes[:, 0] >= 0).sum(dim=1).tolist()
        samples = np.zeros((len(codes), codes.shape[-1] * self.hop_length), np.float32)
        blocks = [block for end in sorted(set(ends)) for block in self._blocks(ends, end)]
        decoded = each(self._decode_block, [self._padded(codes[rows, :, : ends[rows[0]]]) for rows in blocks])
        for rows, block in zip(blocks, decoded, strict=True):
            length = ends[rows[0]] * self.hop_length
            samples[rows, :length] = block[: len(rows), :length]
        return samples

    def _blocks(self, ends: list[int], end: int) -> list[list[int]]:
        """Rows of one length, so many at a time."""
        mates = [row for row, other in enumerate(ends) if other == end]
        size = BLOCK[self.device.type]
        return [mates[at : at + size] for at in range(0, len(mates), size)]

    def _padded(self, codes: Tensor) -> Tensor:
        return F.pad(codes, (0, 0, 0, 0, 0, -len(codes) % BLOCK[self.device.type]))

    @torch.inference_mode()
    def _decode_block(self, codes: Tensor) -> np.ndarray:
        codes = codes.to(self.device)
        if self.half:
            samples = self._samples(codes, half=True)
            if np.isfinite(samples).all():
                return samples
            logger.warning("the codec overflows in half precision: decoding in full")
        samples = self._samples(codes, half=False)
        if not np.isfinite(samples).all():
            raise RuntimeError(
                "the codec's sound is not finite: its weights are broken or overflow; check them with "
                "`looper weights verify`"
            )
        return samples

    def _samples(self, codes: Tensor, half: bool) -> np.ndarray:
        """Decode [rows, n_q, frames] to samples [rows, frames * hop_length] on the host: all that leaves the device."""
        with _repeatable(self.device), torch.autocast(codes.device.type, torch.float16, enabled=half):
            samples = self.model.decode(codes)[:, 0]
        return to_host(samples.float()).numpy()


def _repeatable(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions that give the same bits each time: cuDNN's fastest ones add up in any order, or in TF32."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
