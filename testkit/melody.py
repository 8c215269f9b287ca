"""Audiocraft's own MusicGen for a published melody stand-in, without Demucs: the melody is its own stem."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import torch
import yaml


def tune(seconds: float, rate: int = 32_000) -> np.ndarray:
    """A scale of notes with overtones, another every quarter of a second, [T]."""
    t = np.arange(round(seconds * rate)) / rate
    notes = np.array([0, 4, 7, 12, 9, 5, 2, 11])[(t * 4).astype(int) % 8]
    phase = 2 * np.pi * np.cumsum(261.63 * 2 ** (notes / 12)) / rate
    return (0.3 * np.sin(phase) + 0.1 * np.sin(2 * phase)).astype(np.float32)


@contextmanager
def no_demucs():
    """Let audiocraft's ChromaStemConditioner be built, and take a melody for all of its stem."""
    from audiocraft.modules.conditioners import ChromaStemConditioner

    stand_in = SimpleNamespace(sources=["drums", "bass", "other", "vocals"])
    stand_in.to = lambda device: stand_in
    modules = {"demucs": ModuleType("demucs"), "demucs.pretrained": ModuleType("demucs.pretrained")}
    modules["demucs"].pretrained = modules["demucs.pretrained"]
    modules["demucs.pretrained"].get_model = lambda name: stand_in
    sys.modules.update(modules)  # not patched as a whole: what is imported meanwhile stays
    try:
        with (
            mock.patch.object(ChromaStemConditioner, "_get_stemmed_wav", lambda self, wav, rate: wav),
            mock.patch("audiocraft.models.musicgen.convert_audio", _at_one_rate),
        ):
            yield
    finally:
        for name in modules:
            del sys.modules[name]


def _at_one_rate(wav, from_rate, to_rate, channels):
    """`convert_audio` without julius, which is not needed where there is nothing to resample."""
    assert from_rate == to_rate
    return wav.expand(channels, -1)


def audiocrafts_musicgen(published: Path, scratch: Path):
    """`MusicGen` as `get_pretrained` makes it of the published files, with their T5 from their folder."""
    from audiocraft.models import loaders
    from audiocraft.models.musicgen import MusicGen
    from audiocraft.modules.conditioners import T5Conditioner

    package = torch.load(published / "state_dict.bin", weights_only=True)
    config = yaml.safe_load(package["xp.cfg"])
    text = config["conditioners"]["description"]
    if text["model"] == "t5":
        text["t5"]["name"] = str(published / "t5")
        T5Conditioner.MODELS.append(str(published / "t5"))
        width = yaml.safe_load((published / "t5" / "config.json").read_text())["d_model"]
        T5Conditioner.MODELS_DIMS[str(published / "t5")] = width
    torch.save({**package, "xp.cfg": yaml.safe_dump(config)}, scratch / "state_dict.bin")
    with no_demucs():
        lm = loaders.load_lm_model(str(scratch), device="cpu")
    melody = lm.condition_provider.conditioners["self_wav"]
    melody.match_len_on_eval, melody._use_masking = True, False
    codec = loaders.load_compression_model(str(published), device="cpu")
    return MusicGen("melody", codec, lm)


def their_codes(musicgen, text: str, frames: int, melody: np.ndarray | None, prompt=None) -> torch.Tensor:
    """Greedy codes [1, n_q, frames] of audiocraft's `generate_with_chroma`, of `generate` without a melody."""
    musicgen.set_generation_params(use_sampling=False, duration=frames / 50, cfg_coef=3.0)
    wav = None if melody is None else [torch.from_numpy(melody)[None]]
    with no_demucs():
        if prompt is not None:  # which no public method takes beside a melody
            return musicgen._generate_tokens(
                musicgen._prepare_tokens_and_attributes([text], None, wav)[0], prompt
            )
        if wav is None:
            return musicgen.generate([text], return_tokens=True)[1]
        return musicgen.generate_with_chroma([text], wav, 32_000, return_tokens=True)[1]
