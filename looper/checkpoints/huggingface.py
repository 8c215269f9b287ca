"""From a MusicGen in Hugging Face's format, as people publish their fine-tunes, to a model folder of ours.

A `MusicgenForConditionalGeneration`, or a `MusicgenMelodyForConditionalGeneration`, saved by transformers:
`config.json`, `model.safetensors` or its shards, and the files of T5's tokenizer. Only names change and projections
are put together; the numbers stay as they are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.checkpoints.audiocraft_config import CHROMA_LENGTH, SAMPLE_RATE, codec_config, lm_config
from looper.checkpoints.convert import T5_FILES, new_folder
from looper.checkpoints.sources import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
MELODY = "musicgen_melody"
OTHERS = {"audiogen": "AudioGen makes sounds, not music"}
_PROJECTION = re.compile(r"(.+)\.(self_attn|encoder_attn)\.([qkv])_proj\.(weight|bias)")
_LM_NAMES = (
    ("audio_enc_to_dec_proj.", "condition_provider.conditioners.self_wav.output_proj."),
    ("decoder.lm_heads.", "linears."),
    ("decoder.model.decoder.embed_tokens.", "emb."),
    ("decoder.model.decoder.layer_norm.", "out_norm."),
    ("decoder.model.decoder.", "transformer."),
    ("enc_to_dec_proj.", "condition_provider.conditioners.description.output_proj."),
    (".encoder_attn_layer_norm.", ".norm_cross."),
    (".encoder_attn.", ".cross_attention."),
    (".self_attn_layer_norm.", ".norm1."),
    (".final_layer_norm.", ".norm2."),
    (".fc1.", ".linear1."),
    (".fc2.", ".linear2."),
)


def is_huggingface(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a model that transformers has saved."""
    return (Path(folder) / "config.json").is_file() and not (Path(folder) / "state_dict.bin").is_file()


def convert_huggingface(
    source: str | os.PathLike[str], out: str | os.PathLike[str], about: Mapping[str, Any] | None = None
) -> Path:
    """Convert a MusicGen in Hugging Face's format to a model folder.

    Parameters
    ----------
    source : path
        What transformers has saved, or a copy of a repository of the hub.
    out : path
        The model folder to make; its name becomes the model's name. Replaced as a whole at the end.
    about : mapping, optional
        More entries for the manifest.

    Returns
    -------
    pathlib.Path
        `out`, complete with its manifest.

    Raises
    ------
    WeightsError
        If it is no MusicGen, has pickles alone, or a file is missing or broken.
    """
    source, out = Path(source), Path(out)
    config = _read_config(source)
    with new_folder(out, about or {}) as made:
        (made / "t5").mkdir()
        _write_parts(_Tensors(source), config, made)
        _write_t5(source, config["text_encoder"], made / "t5")
    return out


def _read_config(source: Path) -> dict[str, Any]:
    """The model's config.json, of a kind that can be converted."""
    try:
        config: dict[str, Any] = json.loads((source / "config.json").read_text())
        kind, decoder, codec = config.get("model_type"), config["decoder"], config["audio_encoder"]
        if kind in OTHERS:
            raise WeightsError(f"{source} is {kind}: {OTHERS[kind]}, and is not supported")
        if kind not in ("musicgen", MELODY) or config["text_encoder"].get("model_type") != "t5":
            raise WeightsError(f"{source} is no MusicGen: its config.json says model_type {kind!r:.40}")
        channels = decoder.get("audio_channels", 1)
        if channels not in (1, 2) or codec.get("audio_channels", 1) != 1:
            raise WeightsError(
                f"{source} makes {channels!r:.20} channels with a codec of {codec.get('audio_channels', 1)!r:.20}: MusicGen "
                "makes one or two, coded one by one"
            )
        if codec["sampling_rate"] != SAMPLE_RATE:
            raise WeightsError(f"{source} makes {codec['sampling_rate']} Hz; MusicGen makes {SAMPLE_RATE}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{source / 'config.json'} is not a MusicGen's config: {error!r:.200}") from error
    return config


class _Tensors:
    """The tensors of a saved model, one file or several."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.files = self._files()

    def _files(self) -> list[Path]:
        if (self.source / INDEX).is_file():
            try:
                names = {*json.loads((self.source / INDEX).read_text())["weight_map"].values()}
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise WeightsError(f"{self.source / INDEX} is damaged: {error!r:.200}") from error
            return [self.source / Path(str(name)).name for name in sorted(names)]
        if (self.source / WHOLE).is_file():
            return [self.source / WHOLE]
        if list(self.source.glob("*.bin")) or list(self.source.glob("*.pt")):
            raise WeightsError(
                f"{self.source} has its weights as pickles alone, which run whatever code is in them: "
                "save it with transformers' save_pretrained, which writes safetensors"
            )
        raise WeightsError(f"{self.source} has neither {WHOLE} nor {INDEX}: copy the folder again")

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        from safetensors import SafetensorError, safe_open

        for path in self.files:
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118
                        yield name, file.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise WeightsError(f"{path}: {error}; copy the folder again") from error


def _write_parts(tensors: _Tensors, config: dict[str, Any], made: Path) -> None:
    """Write lm.safetensors, codec.safetensors, t5/model.safetensors and config.yaml."""
    import yaml
    from safetensors.torch import save_file

    parts: dict[str, dict[str, Tensor]] = {"lm": {}, "codec": {}, "t5": {}}
    for name, tensor in tensors:
        if name.startswith("text_encoder."):
            if not name.endswith("embed_tokens.weight"):  # the same as shared.weight
                parts["t5"][name.removeprefix("text_encoder.")] = tensor
        elif name.startswith("audio_encoder."):
            parts["codec"][name.removeprefix("audio_encoder.")] = tensor
        elif not name.endswith("embed_positions.weights"):  # a sine, computed
            parts["lm"][name] = tensor
    try:
        quantizers = _codebooks_of_a_channel(config["decoder"])
        parts["lm"] = _lm_state(parts["lm"], config["decoder"]["hidden_size"])
        parts["codec"] = _codec_state(parts["codec"], quantizers)
        configs = {
            "lm": yaml.safe_dump(lm_config(config["decoder"], parts["lm"], _chroma(config))),
            "codec": yaml.safe_dump(codec_config(config["audio_encoder"], quantizers)),
        }
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{tensors.source / 'config.json'} does not say what the model is: {error!r}"
        ) from error
    save_file(parts["lm"], made / "lm.safetensors")
    save_file(parts["codec"], made / "codec.safetensors")
    save_file(parts["t5"], made / "t5" / WHOLE, {"format": "pt"})
    (made / "config.yaml").write_text(yaml.safe_dump({**configs, "looper": {}}, sort_keys=False))


def _chroma(config: dict[str, Any]) -> int:
    """Bins of the melodies that it takes; 0 for text alone."""
    if config["model_type"] != MELODY:
        return 0
    bins, length = int(config.get("num_chroma", 12)), config.get("chroma_length", CHROMA_LENGTH)
    if length != CHROMA_LENGTH or not bins:
        raise ValueError(
            f"melodies of {length} vectors of {bins}, and MusicGen's are {CHROMA_LENGTH} vectors long"
        )
    return bins


def _codebooks_of_a_channel(decoder: dict[str, Any]) -> int:
    codebooks, channels = int(decoder["num_codebooks"]), int(decoder.get("audio_channels", 1))
    if codebooks % channels:
        raise ValueError(f"{codebooks} codebooks are not as many for each of {channels} channels")
    return codebooks // channels


def _lm_state(state: dict[str, Tensor], dim: int) -> dict[str, Tensor]:
    """Under audiocraft's names, queries, keys and values in one projection."""
    import torch

    found: dict[str, Tensor] = {}
    projections: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if match := _PROJECTION.fullmatch(name):
            stem, which, part, kind = match.groups()
            projections.setdefault(_lm_name(f"{stem}.{which}.in_proj_{kind}"), {})[part] = tensor
        else:
            found[_lm_name(name)] = tensor.contiguous()
    for name, parts in projections.items():
        if parts.keys() != {"q", "k", "v"}:
            raise WeightsError(
                f"{name}: of queries, keys and values only {', '.join(sorted(parts))} are there"
            )
        found[name] = torch.cat([parts[part] for part in "qkv"])
    out = "condition_provider.conditioners.description.output_proj"
    if f"{out}.weight" not in found:  # texts as wide as the model go in as they are
        found |= {f"{out}.weight": torch.eye(dim), f"{out}.bias": torch.zeros(dim)}
    return found


def _lm_name(name: str) -> str:
    for theirs, ours in _LM_NAMES:
        name = name.replace(theirs, ours)
    return name


def _codec_state(state: dict[str, Tensor], quantizers: int) -> dict[str, Tensor]:
    """Under audiocraft's names; the layers of transformers' EnCodec have the same numbers."""
    convolutions = [int(m[1]) for name in state if (m := re.match(r"decoder\.layers\.(\d+)\.conv\.", name))]
    ends = {min(convolutions, default=0), max(convolutions, default=0)}
    unused = [f"quantizer.layers.{q}." for q in range(quantizers, 64)]
    return {
        _codec_name(name, ends): tensor.contiguous()
        for name, tensor in state.items()
        if not name.startswith(tuple(unused))
    }


def _codec_name(name: str, ends: set[int]) -> str:
    """Audiocraft's name of a tensor; `ends` are the decoder's first and last layer, which do not upsample."""
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    name = name.replace(".parametrizations.weight.original1", ".weight_v")
    if name.startswith("quantizer."):
        return name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(".codebook.", "._codebook.")
    half, _, rest = name.partition(".layers.")
    if match := re.fullmatch(r"(\d+)\.conv\.(.+)", rest):
        upsamples = half == "decoder" and int(match[1]) not in ends
        kind = "convtr.convtr" if upsamples else "conv.conv"
        return f"{half}.model.{match[1]}.{kind}.{match[2]}"
    rest = re.sub(r"\.(block\.\d+|shortcut)\.conv\.", r".\1.conv.conv.", f".{rest}").removeprefix(".")
    return f"{half}.model.{rest}"


def _write_t5(source: Path, config: dict[str, Any], target: Path) -> None:
    """The text encoder's config and tokenizer, beside its weights."""
    (target / "config.json").write_text(json.dumps(config, indent=2))
    for name in T5_FILES[1:]:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if not any((target / name).is_file() for name in ("spiece.model", "tokenizer.json")):
        raise WeightsError(
            f"{source} has no tokenizer: save its processor there too (processor.save_pretrained(folder))"
        )
