"""The part of a checkpoint that reads melodies, which audiocraft would build with Demucs and its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from looper.checkpoints.config import LARGEST
from looper.model.melody import MelodyEncoder

if TYPE_CHECKING:
    from torch import Tensor

MELODY = "self_wav"
_STEM = f"condition_provider.conditioners.{MELODY}"
_WEIGHT, _BIAS = f"{_STEM}.output_proj.weight", f"{_STEM}.output_proj.bias"
MELODY_KEYS = (_WEIGHT, _BIAS, f"{_STEM}.chroma.spec.window")  # the window is computed
LONGEST_WINDOW = 18  # as a power of two: 8 s


def take_melody(lm: Any) -> Any:
    """A language model's config with its text conditioners alone."""
    texts = copy.deepcopy(lm)
    texts.conditioners.pop(MELODY, None)
    return texts


def melody_encoder(lm: Any, tensors: Mapping[str, Tensor]) -> MelodyEncoder | None:
    """Build the encoder that a language model's config asks for, from its `tensors`; None where it asks for none.

    Raises
    ------
    ValueError
        If the config and the tensors don't fit together.
    """
    section = lm.conditioners.get(MELODY)
    if section is None:
        if tensors:
            raise ValueError(f"the weights hold {', '.join(tensors)}, and it names no {MELODY} for them")
        return None
    chroma = section.chroma_stem
    if list(lm.fuser.prepend)[:1] != [MELODY] or MELODY in (*lm.fuser.cross, *lm.fuser.prepend[1:]):
        raise ValueError("its melody does not stand in front of the music, and no other place is known here")
    if chroma.sample_rate != lm.sample_rate or not 0 < chroma.radix2_exp <= LONGEST_WINDOW:
        raise ValueError(
            f"its melodies are {chroma.sample_rate} Hz in windows of 2^{chroma.radix2_exp} samples, and its music "
            f"{lm.sample_rate} Hz"
        )
    shapes = {_WEIGHT: (lm.transformer_lm.dim, chroma.n_chroma), _BIAS: (lm.transformer_lm.dim,)}
    wrong = [
        name for name, shape in shapes.items() if tuple(getattr(tensors.get(name), "shape", ())) != shape
    ]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} missing or misshapen")
    encoder = MelodyEncoder(chroma, float(lm.dataset.segment_duration), tensors[_WEIGHT], tensors[_BIAS])
    if not 0 < encoder.length <= LARGEST:
        raise ValueError(f"its melodies are {encoder.length:.12g} vectors long, and none is over {LARGEST}")
    return encoder
