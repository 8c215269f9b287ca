"""What `looper serve` lets the page say of its models before anybody asks for loops."""

from __future__ import annotations

from looper.checkpoints.manifest import read_manifest
from looper.checkpoints.mapping import NAMES, model_mapping
from looper.checkpoints.sources import WeightsError, fetchable
from looper.checkpoints.store import find
from looper.web.served import ServedModel

MUSICGEN_LICENCE = "CC-BY-NC-4.0"  # of the published weights, all sizes


def served_models(tiny: bool = False) -> dict[str, ServedModel]:
    """What plays under each name of the API: the demonstration, what LOOPER_MODELS names, or MusicGen's own.

    Examples
    --------
    >>> served_models(tiny=True)["medium"].model
    'tiny'
    """
    mapping = dict.fromkeys(NAMES, "tiny") if tiny else model_mapping()
    return {name: _served(mapping.get(name, name)) for name in NAMES}


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
