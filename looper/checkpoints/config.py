"""What a model's ``config.yaml`` may ask for: anybody may have written it, and audiocraft builds whatever it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looper.checkpoints.sources import WeightsError
from looper.runtime.memory import out_of_memory

LARGEST = 2**17
"""No width, rate or number of codes of a MusicGen is above this: 48,000 Hz is the most that there is."""

MOST_LAYERS = 1000

_BUILT = {
    "lm": ("transformer_lm", "codebooks_pattern", "fuser"),
    "codec": ("seanet", "rvq", "encodec", "channels", "sample_rate"),
}
_LAYERS = ("num_layers", "n_residual_layers", "lstm", "n_q")


def check_size(parts: Mapping[str, Any]) -> None:
    """Raise ValueError where what is to be built would take hours or more memory than there is.

    Parameters
    ----------
    parts : Mapping
        "lm" and "codec", each a nested mapping.

    Examples
    --------
    >>> check_size({"lm": {"transformer_lm": {"num_layers": 48, "dim": 1536}}, "codec": {}})
    >>> check_size({"lm": {"transformer_lm": {"num_layers": 10**6}}, "codec": {}})
    Traceback (most recent call last):
    ...
    ValueError: it asks for num_layers of 1000000, and no model has more than 1000
    """
    for part, sections in _BUILT.items():
        for section in sections:
            for name, value in _numbers(section, parts[part].get(section)):
                most = MOST_LAYERS if name in _LAYERS else LARGEST
                if not -most <= value <= most:
                    raise ValueError(f"it asks for {name} of {value:.12g}, and no model has more than {most}")


def _numbers(name: str, value: object) -> Iterator[tuple[str, float]]:
    """Every number in `value`, with the name of the field that holds it."""
    if isinstance(value, Mapping):
        for inner in value:
            yield from _numbers(str(inner), value[inner])
    elif isinstance(value, (list, tuple)) or type(value).__name__ == "ListConfig":
        for one in value:  # type: ignore[attr-defined]
            yield from _numbers(name, one)
    elif isinstance(value, (int, float)):
        yield name, value


@contextmanager
def described(file: Path) -> Iterator[None]:
    """Say of whatever goes wrong while a network is built after `file` that it comes from there."""
    try:
        yield
    except (WeightsError, ModuleNotFoundError):
        raise
    except Exception as error:  # audiocraft checks little of what it is told: any type may come
        if out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        raise WeightsError(f"{file} is not a model config: {' '.join(why.split()):.300}") from error
