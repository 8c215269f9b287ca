"""A small MusicGen that transformers itself has initialised and saved."""

from __future__ import annotations

import importlib
import shutil
import warnings
from math import log2
from pathlib import Path

import torch

from testkit.checkpoints import write_t5


def random_musicgen(
    text_width: int = 24, codebooks: int = 4, channels: int = 1, melody: bool = False, **decoder_config: int
):
    """A `Musicgen(Melody)ForConditionalGeneration` with random weights, in evaluation mode.

    `codebooks` are of each channel. `decoder_config` goes to its decoder's config; by default it is as small as can be.
    """
    import transformers
    from transformers import EncodecConfig, T5Config

    family = "MusicgenMelody" if melody else "Musicgen"
    module = f"transformers.models.musicgen{'_melody' * melody}.configuration_musicgen{'_melody' * melody}"
    MusicgenDecoderConfig = getattr(importlib.import_module(module), f"{family}DecoderConfig")  # noqa: N806

    shape = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "ffn_dim": 128,
    }
    shape |= decoder_config
    special = shape["vocab_size"]
    text = T5Config(
        d_model=text_width, vocab_size=256, d_kv=8, d_ff=48, num_layers=2, num_heads=2,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    codec = EncodecConfig(
        sampling_rate=32_000, audio_channels=1, normalize=False, num_filters=2, hidden_size=16,
        upsampling_ratios=[8, 5, 4, 4], codebook_size=shape["vocab_size"], codebook_dim=16, use_causal_conv=False,
        target_bandwidths=[log2(special) * 50 / 1000 * codebooks], num_lstm_layers=1, use_conv_shortcut=False,
        pad_mode="constant", num_residual_layers=1,
    )  # fmt: skip
    decoder = MusicgenDecoderConfig(
        **shape, num_codebooks=codebooks * channels, audio_channels=channels,
        pad_token_id=special, bos_token_id=special, initializer_factor=0.2,
    )  # fmt: skip
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, f"{family}Config")(
            text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict()
        )
        model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    for q, layer in enumerate(model.audio_encoder.quantizer.layers):
        layer.codebook.embed.normal_(generator=torch.Generator().manual_seed(q))
    for head in model.decoder.lm_heads:  # decided enough that rounding changes no choice
        torch.nn.init.normal_(head.weight, std=1.0)
    model.generation_config.guidance_scale = 3.0
    model.generation_config.decoder_start_token_id = special
    model.generation_config.pad_token_id = special
    return model.eval()


def save(model, folder: Path, **how) -> Path:
    """Save a model as people publish theirs, tokenizer and all."""
    model.save_pretrained(folder, **how)
    written = write_t5(folder.parent / f"{folder.name}-t5", model.config.text_encoder.d_model)
    shutil.copyfile(written / "spiece.model", folder / "spiece.model")
    return folder
