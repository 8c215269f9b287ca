"""Packages that pip does not bring by itself: which are missing, and what installs them."""

from __future__ import annotations

import importlib.util
import shlex
from importlib import metadata

DISTRIBUTION = "musicgen-looper"
AUDIOCRAFT = "audiocraft==1.3.0"
"""The model's home; its own pins do not install on these Pythons, so it goes in without its dependencies."""
EXTRAS = {"cog": "serve", "starlette": "serve", "uvicorn": "serve", "matplotlib": "plot"}


def need(*modules: str) -> None:
    """Complain of the first of `modules` that is not installed.

    Raises
    ------
    ModuleNotFoundError
        Naming the command that installs it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"{module} is not installed: run `{install_command(module)}`", name=module
            )


def install_command(module: str) -> str:
    """What installs `module`, which is audiocraft or of one of the extras.

    Examples
    --------
    >>> install_command("audiocraft")
    'python -m pip install --no-deps audiocraft==1.3.0'
    """
    if module == "audiocraft":
        return f"python -m pip install --no-deps {AUDIOCRAFT}"
    return f"python -m pip install {shlex.join(_extra(EXTRAS[module]))}"


def _extra(name: str) -> list[str]:
    """Requirements of an extra, with versions; of the whole distribution where it is not installed as one."""
    try:
        asked = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from a checkout by its path
        asked = []
    found = [line.partition(";") for line in asked]
    mine = [
        what.strip()
        for what, _, marker in found
        if marker.strip() in (f'extra == "{name}"', f"extra == '{name}'")
    ]
    return mine or [f"{DISTRIBUTION}[{name}]"]
