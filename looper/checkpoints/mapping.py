"""Which model plays under each name of the API: its own, or what `LOOPER_MODELS` puts there."""

from __future__ import annotations

import os

NAMES = ("medium", "large")
MAPPING_VARIABLE = "LOOPER_MODELS"


def model_mapping(text: str | None = None) -> dict[str, str]:
    """Folders that stand in for model names, from "medium=folder,large=folder".

    Parameters
    ----------
    text : str, optional
        The value of `LOOPER_MODELS`; the environment's when not given.

    Raises
    ------
    ValueError
        If the text does not read like that.

    Examples
    --------
    >>> model_mapping("medium=tiny")
    {'medium': 'tiny'}
    """
    text = os.environ.get(MAPPING_VARIABLE, "") if text is None else text
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    wrong = [
        name
        for name, equals, folder in pairs
        if name.strip() not in NAMES or not equals or not folder.strip()
    ]
    if wrong:
        raise ValueError(f"{MAPPING_VARIABLE} must look like 'medium=tiny,large=tiny', got {text!r:.120}")
    return {name.strip(): folder.strip() for name, _, folder in pairs}
