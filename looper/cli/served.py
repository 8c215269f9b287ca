"""What `looper serve` lets the page say of its models before anybody asks for loops."""

from __future__ import annotations

import os

from looper.checkpoints.manifest import read_manifest
from looper.checkpoints.sources import WeightsError, fetchable
from looper.checkpoints.store import find
from looper.web.served import ServedModel

API_NAMES = ("medium", "large")
MUSICGEN_LICENCE = "CC-BY-NC-4.0"  # of the published weights, all sizes


def served_models(tiny: bool = False) -> dict[str, ServedModel]:
    """What plays under each name of the API: the demonstration, what LOOPER_MODELS names, or MusicGen's own.

    Examples
    --------
    >>> served_models(tiny=True)["medium"].model
    'tiny'
    """
    pairs = [pair.partition("=") for pair in os.environ.get("LOOPER_MODELS", "").split(",")]
    mapping = {name.strip(): folder.strip() for name, _, folder in pairs if folder.strip()}
    return {name: _served("tiny" if tiny else mapping.get(name, name)) for name in API_NAMES}


def _served(name_or_folder: str) -> ServedModel:
    try:
        folder = find(name_or_folder)
        manifest = read_manifest(folder)
    except WeightsError as error:
        return ServedModel(here=False, remedy=str(error))
    usual = MUSICGEN_LICENCE if folder.name in fetchable() else ""
    licence = str(manifest.get("licence") or usual)
    demo = folder.name == "tiny"
    return ServedModel(here=True, model=folder.name, licence=licence, demo=demo, folder=str(folder))
