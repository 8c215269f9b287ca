"""A model's conditioners: audiocraft's own, with T5 read from the model folder instead of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from audiocraft.modules.conditioners import (
    BaseConditioner,
    ConditioningProvider,
    LUTConditioner,
    T5Conditioner,
    TextConditioner,
)
from audiocraft.utils.autocast import TorchAutocast
from audiocraft.utils.utils import dict_from_config

from looper.model.t5 import T5Encoder
from looper.model.t5_tokens import T5Tokenizer

_FOR_TRAINING = ("merge_text_conditions_p", "drop_desc_p")


class LocalT5Conditioner(T5Conditioner):
    """audiocraft's T5 conditioner over a folder; what is no part of the published models raises ValueError.

    Parameters
    ----------
    folder : Path
        With ``config.json``, ``model.safetensors`` and the tokenizer.
    output_dim : int
    device : str
    config : dict
        The conditioner's ``t5`` section.
    """

    def __init__(self, folder: Path, output_dim: int, device: str, config: dict[str, Any]) -> None:
        for option in ("finetune", "normalize_text"):
            if config.get(option):
                raise ValueError(f"its T5 conditioner asks for {option}, which is for training only")
        t5 = T5Encoder.load(folder)
        TextConditioner.__init__(self, t5.config.d_model, output_dim)
        self.device, self.name, self.finetune = device, str(folder), False
        self.word_dropout, self.normalize_text = config.get("word_dropout", 0.0), False
        self.autocast = _autocast(config.get("autocast_dtype", "float32"), device)
        self.t5_tokenizer = T5Tokenizer(folder, t5.config.vocab_size)
        self.__dict__["t5"] = t5.to(device)  # no submodule: its weights are not the checkpoint's


def _autocast(dtype: str | None, device: str) -> TorchAutocast:
    if dtype is None or device == "cpu":
        return TorchAutocast(enabled=False)
    known = getattr(torch, str(dtype), None)
    if not isinstance(known, torch.dtype):
        raise ValueError(f"its T5 conditioner asks for autocast to {dtype!r:.40}")
    return TorchAutocast(enabled=True, device_type=device, dtype=known)


def conditioning_provider(cfg: Any, output_dim: int, t5_folder: Path) -> ConditioningProvider:
    """Build the conditioners of a language model's config, as audiocraft's builder does, without network.

    Raises
    ------
    ValueError
        For a conditioner that MusicGen's text models do not have: some fetch or run what is no part of the folder.
    """
    sections = dict_from_config(cfg.conditioners)
    options = sections.pop("args", {})
    for name in _FOR_TRAINING:
        options.pop(name, None)
    made = {
        str(name): _conditioner(str(name), section, output_dim, cfg.device, t5_folder)
        for name, section in sections.items()
    }
    return ConditioningProvider(made, device=cfg.device, **options)


def _conditioner(
    name: str, section: dict[str, Any], output_dim: int, device: str, t5_folder: Path
) -> BaseConditioner:
    kind = section.get("model")
    if kind == "t5":
        return LocalT5Conditioner(t5_folder, output_dim, device, section["t5"])
    if kind == "lut" and section["lut"].get("tokenizer") == "noop":
        return LUTConditioner(output_dim=output_dim, **section["lut"])
    raise ValueError(f"its conditioner {name!r:.40} is {kind!r:.40}: only T5 is known here")
