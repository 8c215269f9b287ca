"""From MusicGen's published files to a model folder of ours.

Published (audiocraft 1.x): ``state_dict.bin`` and ``compression_state_dict.bin``, each a
``torch.save`` of ``{"best_state": tensors, "xp.cfg": YAML, ...}``, and a T5 folder from the hub. In place of a codec
the second file may name the one that all of MusicGen's models share, as those in stereo do.
The pickles are opened with ``weights_only=True``, once, here; the rest of the program reads
safetensors.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looper.checkpoints.manifest import write_manifest
from looper.checkpoints.sources import WeightsError

T5_FILES = (
    "config.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
PUBLISHED = {"lm": "state_dict.bin", "codec": "compression_state_dict.bin"}
SHARED_CODEC = "facebook/encodec_32khz"


class NoCodecError(WeightsError):
    """An export names the shared codec, and none was passed with it."""


def convert(
    published_folder: str | os.PathLike[str],
    t5_folder: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    about: dict[str, Any] | None = None,
    codec: str | os.PathLike[str] | None = None,
) -> Path:
    """Convert published MusicGen files to a model folder.

    Parameters
    ----------
    published_folder : path
        Holds ``state_dict.bin`` and ``compression_state_dict.bin``.
    t5_folder : path or None
        The text encoder as on the hub; only its encoder half is kept. None where the model's text
        conditioner is a lookup table.
    out : path
        The model folder to make; its name becomes the model's name. Replaced as a whole at the end.
    about : dict, optional
        More entries for the manifest, such as the source revisions.
    codec : path, optional
        Where MusicGen's shared codec is taken from if the files only name it: a model folder, or one with a
        ``compression_state_dict.bin``.

    Returns
    -------
    pathlib.Path
        `out`, complete with its manifest.

    Raises
    ------
    WeightsError
        If a file is missing, unsafe to load, or not in the published format; `NoCodecError` if it is the codec.
    """
    out = Path(out)
    with new_folder(out, about or {}) as made:
        published = {part: Path(published_folder) / file for part, file in PUBLISHED.items()}
        configs = {
            "lm": _convert_state(published["lm"], made / "lm.safetensors"),
            "codec": _convert_codec(published["codec"], codec, made / "codec.safetensors"),
        }
        _write_config(made / "config.yaml", configs)
        if t5_folder is not None:
            _convert_t5(Path(t5_folder), made / "t5")
    return out


@contextmanager
def new_folder(out: Path, about: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to fill, which gets its manifest and takes the place of `out` at the end, and whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        made = Path(scratch) / out.name
        made.mkdir()
        yield made
        write_manifest(made, out.name, **about)
        replace_folder(made, out)


def replace_folder(made: Path, out: Path) -> None:
    """Put `made` in the place of `out`, so that `out` is never half old and half new."""
    if out.exists():
        shutil.move(out, made.parent / "replaced")
    made.rename(out)


def _convert_codec(source: Path, shared: str | os.PathLike[str] | None, target: Path) -> str:
    """Write the codec, or the shared one where `source` names that, as safetensors and return its YAML config."""
    import yaml

    package = _load_package(source)
    if "best_state" in package:
        return _write_state(package, source, target)
    if package["pretrained"] != SHARED_CODEC:
        raise WeightsError(
            f"{source} names {package['pretrained']!r:.100} for its codec: only {SHARED_CODEC} is known"
        )
    if shared is None:
        raise NoCodecError(f"{source} names {SHARED_CODEC} for its codec and holds none")
    if not (Path(shared) / "codec.safetensors").is_file():
        return _convert_state(Path(shared) / PUBLISHED["codec"], target)
    shutil.copyfile(Path(shared) / "codec.safetensors", target)
    return str(yaml.safe_load((Path(shared) / "config.yaml").read_text())["codec"])


def _convert_state(source: Path, target: Path) -> str:
    """Write a published state as safetensors and return its YAML config."""
    package = _load_package(source)
    if "best_state" not in package:
        raise WeightsError(f"{source} has no best_state and xp.cfg: not a published MusicGen file")
    return _write_state(package, source, target)


def _write_state(package: dict[str, Any], source: Path, target: Path) -> str:
    import torch
    from safetensors.torch import save_file

    state = package["best_state"]
    if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise WeightsError(f"{source}: best_state holds something that is not a tensor")
    # safetensors wants every tensor to own its memory
    save_file(
        {
            name: tensor.contiguous().clone() if tensor.numel() < 2 else tensor.contiguous()
            for name, tensor in state.items()
        },
        target,
    )
    return str(package["xp.cfg"])


def _load_package(source: Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        package = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{source} is missing") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(f"{source} is not a published MusicGen file: {error}") from error
    if not isinstance(package, dict) or not (
        {"best_state", "xp.cfg"} <= set(package) or "pretrained" in package
    ):
        raise WeightsError(f"{source} has no best_state and xp.cfg: not a published MusicGen file")
    return package


def _write_config(path: Path, configs: dict[str, str]) -> None:
    import yaml

    # the YAML strings are kept as they are: audiocraft's builders read them unchanged
    path.write_text(yaml.safe_dump({**configs, "looper": {}}, sort_keys=False))


def _convert_t5(source: Path, target: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    target.mkdir()
    for name in T5_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    try:
        with safe_open(source / "model.safetensors", framework="pt") as file:
            kept = [k for k in file.keys() if k.startswith(("encoder.", "shared."))]  # noqa: SIM118
            save_file({k: file.get_tensor(k) for k in kept}, target / "model.safetensors", {"format": "pt"})
    except OSError as error:
        raise WeightsError(f"{source / 'model.safetensors'}: {error}") from error
