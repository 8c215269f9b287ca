"""Where the project's own files lie: in a checkout beside the package, in an installed package inside it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
_DATA = PACKAGE / "_data"  # setup.py makes it when a wheel is built
INSTALLED = _DATA.is_dir()
PROJECT = _DATA if INSTALLED else PACKAGE.parent
"""Folder of predict.py, openapi.json and weights/; nothing is written to it where looper is installed."""
WEIGHTS = PROJECT / "weights"
"""The weights that come with the project, and where others are published."""
PAGE = PACKAGE / "web" / "page"


def fetched_weights() -> Path:
    """Where models are fetched to if nobody says otherwise: the checkout's weights/, else the user's data folder."""
    if not INSTALLED:
        return WEIGHTS
    from platformdirs import user_data_path

    return user_data_path("musicgen-looper", appauthor=False) / "weights"
