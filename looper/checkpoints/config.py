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

WINDOW_SECONDS = (1, 3600)
"""Music that models were trained on at a time: MusicGen 30 s."""

LARGEST_TEXT = 2**20
MOST_VALUES = 100_000
"""Both far more than a config has: MusicGen's has some hundred values in 10 kB."""

_BUILT = {
    "lm": ("transformer_lm", "codebooks_pattern", "fuser"),
    "codec": ("seanet", "rvq", "encodec", "channels", "sample_rate"),
}
_LAYERS = ("num_layers", "n_residual_layers", "lstm", "n_q", "delays")  # and steps, one after the other


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


def read_parts(file: Path) -> dict[str, Any]:
    """What stands in ``config.yaml``: "lm" and "codec" as OmegaConf, and "looper".

    Raises
    ------
    WeightsError
        If it is no such file, or made to break its readers.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        raw = _parsed(file.read_text())
        for part in ("lm", "codec"):
            if isinstance(raw[part], str):
                _parsed(raw[part])
        parts = {part: OmegaConf.create(raw[part]) for part in ("lm", "codec")}
        return {**parts, "looper": raw.get("looper") or {}}
    except RecursionError as error:
        raise WeightsError(f"{file} is not a model config: it is nested too deep") from error
    except (yaml.YAMLError, OmegaConfBaseException, KeyError, TypeError, ValueError, AttributeError) as error:
        why, *_ = str(error).splitlines() or [type(error).__name__]
        raise WeightsError(f"{file} is not a model config: {why:.300}") from error


def _parsed(text: str) -> Any:
    """`text` as YAML, unless its aliases write out to more than any config holds."""
    import yaml

    if len(text) > LARGEST_TEXT:
        raise ValueError(f"it has {len(text)} characters, and none has more than {LARGEST_TEXT}")
    value = yaml.safe_load(text)
    if "*" in text:
        _check_written_out(value)
    return value


def _check_written_out(value: object) -> None:
    sizes: dict[int, int] = {}

    def size(node: object) -> int:
        inside = (
            node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
        )
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES + 1  # so large is what holds itself
            sizes[id(node)] = 1 + sum(map(size, inside))
        return sizes[id(node)]

    if size(value) > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES} values")


def check_window(lm: Any) -> None:
    """Raise ValueError where the length of music that a language model was trained on is none."""
    seconds = lm.dataset.segment_duration
    fits = isinstance(seconds, (int, float)) and WINDOW_SECONDS[0] <= seconds <= WINDOW_SECONDS[1]
    if not fits:  # what it says is not repeated: it may have been taken from the environment
        shortest, longest = WINDOW_SECONDS
        raise ValueError(f"its dataset.segment_duration must be seconds, {shortest} to {longest}")


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
