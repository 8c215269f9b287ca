"""Load a model folder: audiocraft's own modules, filled from safetensors.

Weight initialisation is skipped (for medium it costs minutes), nothing is fetched, nothing is
unpickled. fp32 on a CPU; on CUDA the transformer is fp16 and goes straight to the device.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.checkpoints.config import check_size, check_window, described, read_parts
from looper.checkpoints.manifest import read_manifest, verifying
from looper.checkpoints.melody import MELODY, MELODY_KEYS, melody_encoder, take_melody
from looper.checkpoints.sources import WeightsError, remedy
from looper.model.musicgen import Clock, Model
from looper.runtime.device import find_device
from looper.runtime.packages import need

if TYPE_CHECKING:
    import torch
    from audiocraft.models.encodec import EncodecModel
    from audiocraft.models.lm import LMModel

CLOCK_KEY = "clock.weight"


def load(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> Model:
    """Load a model folder and verify it, the large files meanwhile; what is not as its manifest says is not returned.

    Parameters
    ----------
    folder : path
        As resolved by `find`.
    device : str or torch.device
        "cpu", "cuda" or "cuda:<n>".

    Returns
    -------
    Model

    Raises
    ------
    WeightsError
        If a file is missing, corrupt or does not fit the config; the message names the remedy.
    ValueError
        If there is no such device.
    ModuleNotFoundError
        If audiocraft is not installed, naming the command that installs it.
    """
    need("audiocraft")
    from omegaconf.errors import OmegaConfBaseException
    from safetensors import SafetensorError

    folder, place = Path(folder), find_device(device)
    try:
        with verifying(folder):
            _hush()
            return _build(folder, place)
    except OmegaConfBaseException as error:
        why, *_ = str(error).splitlines()
        raise WeightsError(f"{folder / 'config.yaml'} is not a model config: {why}") from error
    except (SafetensorError, OSError, ValueError) as error:  # T5's files, which transformers reads
        raise WeightsError(f"{folder} cannot be loaded: {error}; {remedy(folder)}") from error


def _hush() -> None:
    """Keep what others say while loading out of our users' terminal: harmless, and not theirs."""
    logging.getLogger("xformers").setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.disable_progress_bar()


def _build(folder: Path, device: torch.device) -> Model:
    config = read_parts(folder / "config.yaml")
    with described(folder / "config.yaml"):
        check_size(config)
        check_window(config["lm"])
        lm = build_lm(config["lm"], folder / "t5", device)
    extra = _fill(lm, folder / "lm.safetensors", device, allowed={CLOCK_KEY, *MELODY_KEYS})
    with described(folder / "config.yaml"):
        codec = build_codec(config["codec"])
    _fill(codec, folder / "codec.safetensors", device)
    _fold_weight_norm(codec)
    codec.requires_grad_(False)
    with described(folder / "config.yaml"):
        clock_weight = extra.pop(CLOCK_KEY, None)
        clock = None if clock_weight is None else Clock(clock_weight, config["looper"].get("clock") or {})
        melody = melody_encoder(config["lm"], extra)
        name = str(read_manifest(folder).get("model", folder.name))
        model = Model(lm.eval(), codec.eval().to(device), config, name, clock, device, melody)
        _check_codebooks(model)
    return model


def _check_codebooks(model: Model) -> None:
    """Raise ValueError where the codec does not read what the language model writes."""
    interleaved = model.config["lm"].get("interleave_stereo_codebooks")
    if model.channels == 2 and interleaved.get("per_timestep"):
        raise ValueError("its stereo channels take turns in time, and only turns of codebooks are known here")
    if model.codec.channels != 1:
        raise ValueError(f"its codec is for {model.codec.channels} channels, and MusicGen's is for one")
    if model.lm.n_q != model.codec.num_codebooks * model.channels:
        raise ValueError(
            f"the language model writes {model.lm.n_q} codebooks and the codec reads {model.codec.num_codebooks} "
            f"for each of {model.channels} channels: they are of different models"
        )


def build_lm(cfg: Any, t5_folder: Path, device: torch.device) -> LMModel:
    """Build audiocraft's LMModel from its config with empty ("meta") weights.

    `audiocraft.models.builders.get_lm_model` by hand, because that one always initialises; only the
    conditioners, which are small, are made the ordinary way.
    """
    import torch
    from audiocraft.models import builders
    from audiocraft.models.lm import LMModel
    from audiocraft.utils.utils import dict_from_config

    from looper.runtime.empty_weights import EmptyWeights

    cfg.device = device.type
    _check_conditioners(cfg)
    _use_local_t5(cfg, t5_folder)
    texts = take_melody(cfg)
    kwargs = dict_from_config(cfg.transformer_lm)
    kwargs.pop("q_modeling", None)
    for init in ("weight_init", "depthwise_init", "zero_bias_init"):
        kwargs.pop(init, None)
    fuser = builders.get_condition_fuser(cfg)
    if fuser.fuse2cond["cross"]:
        kwargs["cross_attention"] = True
    with EmptyWeights():
        conditioners = builders.get_conditioner_provider(kwargs["dim"], texts)
    _unmap(conditioners)
    pattern = builders.get_codebooks_pattern_provider(kwargs["n_q"], cfg.codebooks_pattern)
    with torch.device("meta"), EmptyWeights(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LMModel(
            pattern,
            conditioners,
            fuser,
            cfg_coef=cfg.classifier_free_guidance.inference_coef,
            dtype=torch.float32,
            **kwargs,
        )


def _unmap(conditioners: Any) -> None:
    """Copy T5's weights: transformers leaves them mapped, so that who writes to the file changes the model."""
    for conditioner in conditioners.conditioners.values():
        t5 = vars(conditioner).get("t5")  # audiocraft keeps it out of the module's parameters
        for weight in t5.parameters() if t5 is not None else ():
            weight.data = weight.data.clone()


def build_codec(cfg: Any) -> EncodecModel:
    """Build audiocraft's EncodecModel from its config, on the CPU."""
    from audiocraft.models import builders
    from audiocraft.models.encodec import EncodecModel

    from looper.runtime.empty_weights import EmptyWeights

    cfg.device = "cpu"
    with EmptyWeights(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's weight_norm is deprecated; audiocraft uses it
        codec = builders.get_compression_model(cfg)
    if not isinstance(codec, EncodecModel):
        raise ValueError(f"this codec is {type(codec).__name__}, not EnCodec")
    return codec


def _fold_weight_norm(codec: torch.nn.Module) -> None:
    """Multiply the convolutions' weights out once, instead of at every call."""
    import torch

    for module in codec.modules():
        if hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)


def _check_conditioners(cfg: Any) -> None:
    """Raise ValueError for a conditioner that MusicGen does not have: others fetch or run things."""
    for name, section in cfg.conditioners.items():
        kind = None if name == "args" else section.get("model")
        if kind == "t5":
            for option in ("finetune", "normalize_text"):  # normalizing loads a spaCy model
                if section.t5.get(option):
                    raise ValueError(f"its T5 conditioner asks for {option}, which is for training only")
        elif (name, kind) == (MELODY, "chroma_stem") or name == "args":
            continue
        elif kind != "lut" or section.lut.get("tokenizer") != "noop":
            raise ValueError(
                f"its conditioner {name!r:.40} is {kind!r:.40}: only T5 and melodies are known here"
            )


def _use_local_t5(cfg: Any, folder: Path) -> None:
    """Point every T5 conditioner at `folder`, which T5Conditioner would refuse and look up on the hub."""
    from audiocraft.modules.conditioners import T5Conditioner

    for section in cfg.conditioners.values():
        if section.get("model") != "t5":
            continue
        try:
            config = json.loads((folder / "config.json").read_text())
            width = config["d_model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"no T5 encoder in {folder} ({error}); {remedy(folder.parent)}") from error
        # transformers takes this file where it is there, and else would look for pickles
        if "transformers_weights" in config or not (folder / "model.safetensors").is_file():
            raise WeightsError(
                f"{folder} must hold its weights as model.safetensors; {remedy(folder.parent)}"
            )
        if str(folder) not in T5Conditioner.MODELS:
            T5Conditioner.MODELS.append(str(folder))
        T5Conditioner.MODELS_DIMS[str(folder)] = width
        section.t5.name = str(folder)


def _fill(
    module: torch.nn.Module, path: Path, device: torch.device, allowed: set[str] | None = None
) -> dict[str, torch.Tensor]:
    """Fill `module` from a safetensors file; return the `allowed` tensors that are not its own."""
    own = module.state_dict()
    expected = {name: tensor.shape for name, tensor in own.items()}
    half = (
        {name for name in expected if name.startswith("transformer.layers.")}
        if device.type == "cuda"
        else set()
    )
    state, extra = {}, {}
    for name, tensor in _read_tensors(path, device, half):
        if tensor.dtype.is_floating_point != (name not in own or own[name].dtype.is_floating_point):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(
                f"{path} holds {name} as {kind}, which is none of its numbers: export it again"
            )
        if name in expected:
            state[name] = tensor
        elif name in (allowed or ()):
            extra[name] = tensor
        else:
            raise WeightsError(f"{path} holds {name}, which its config.yaml does not know")
    wrong = [name for name, shape in expected.items() if name not in state or state[name].shape != shape]
    if wrong:
        raise WeightsError(
            f"{path} does not fit its config.yaml: {', '.join(wrong[:3])} missing or misshapen"
        )
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False)
    return extra


def _read_tensors(path: Path, device: torch.device, half: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        for name in names:
            # reopened for each tensor: pages of a file that stays mapped count as memory in use
            with safe_open(path, framework="pt", device=str(device)) as file:
                tensor = file.get_tensor(name)
                if tensor.is_floating_point():
                    tensor = tensor.to(
                        torch.float16 if name in half else torch.float32, copy=device.type == "cpu"
                    )
                else:
                    tensor = tensor.clone()
            yield name, tensor
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
