"""What a user asks for, validated: pure data, no audio."""

from __future__ import annotations

import math
import numbers
import re
import secrets
import unicodedata
from dataclasses import dataclass, replace

FORMATS = ("wav", "mp3")
BPM_RANGE = (40, 300)
VARIATIONS_RANGE = (1, 20)
DURATION_RANGE = (2, 20)
BEATS_PER_BAR_RANGE = (1, 16)
LONGEST_PROMPT = 100_000
LARGEST_SEED = 2**63 - 1

_NUMBER = r"(\d{2,3}(?:[.,]\d+)?)"
_UNIT = r"(?:b\.?p\.?m\.?|beats?[ -]per[ -]minute)(?![a-z])"
_TEMPO = re.compile(
    rf"(?:\b(?:at|@|tempo:?)\s*)?(?<![\d.])(?:{_NUMBER}\s*-?\s*{_UNIT}|{_UNIT}\s*[:=]?\s*{_NUMBER})", re.I
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def _within(name: str, value: float, bounds: tuple[float, float]) -> None:
    if not bounds[0] <= value <= bounds[1]:
        raise ValueError(f"{name} must be between {bounds[0]} and {bounds[1]}, got {value:.12g}")


def whole(name: str, value: object) -> int:
    """`value` as an int; 4.0 and 1e3 count as whole, 2.5, NaN and "4" do not.

    Raises
    ------
    ValueError
        If `value` is not a whole number.
    """
    try:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer()
    except OverflowError:  # an int of hundreds of digits
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a whole number, got {_shown(value)}")
    return int(float(value)) if isinstance(value, float) else int(value)  # type: ignore[call-overload]


def _shown(value: object) -> str:
    """`value` as it may stand in a message."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python does not print ints of thousands of digits
        return "a number of thousands of digits"


def finite(name: str, value: object) -> float:
    """`value` as a finite float.

    Raises
    ------
    ValueError
        If `value` is not a finite number.
    """
    try:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a finite number, got {_shown(value)}")
    return float(value)  # type: ignore[arg-type]


def tempo_words(prompt: str) -> list[str]:
    """Tempi written out in `prompt`, such as "128 bpm" or "BPM: 93.5", as they stand there."""
    return [match.group(0).strip() for match in _TEMPO.finditer(prompt)]


def without_tempo(prompt: str) -> str:
    """`prompt` without tempi and without the punctuation that they leave behind."""
    bare = _TEMPO.sub(" ", prompt)
    bare = re.sub(r"\(\s*\)|\[\s*\]", " ", bare)
    bare = re.sub(r"\s+([,;.])", r"\1", bare)
    bare = re.sub(r"([,;])(?:\s*[,;])+", r"\1", bare)
    return re.sub(r"\s+", " ", bare).strip(" ,;")


@dataclass(frozen=True)
class LoopRequest:
    """A wish for loops; every field is checked when the object is made.

    Parameters
    ----------
    prompt : str
        Description of the music. Control characters become spaces.
    bpm : float
        Tempo of the loops, 40 to 300 beats per minute. It rules over a tempo written in the prompt.
    variations : int
        How many loops, 1 to 20.
    max_duration : float
        Upper bound of a loop's length in seconds, 2 to 20.
    beats_per_bar : int
        Beats in a bar.
    top_k, top_p, temperature, cfg_coef
        Sampling: see `looper.generation.sampling.Sampling`, which checks them against the model.
    seed : int
        Any whole number from 0 names a seed, 0 included; -1 stands for a random one.

    Raises
    ------
    ValueError
        In the user's words, naming the field and what it may be.
    """

    prompt: str
    bpm: float = 140
    variations: int = 4
    max_duration: float = 8
    beats_per_bar: int = 4
    top_k: int = 250
    top_p: float = 0.0
    temperature: float = 1.0
    cfg_coef: float = 3.0
    seed: int = -1

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise ValueError(f"prompt must be text, got {type(self.prompt).__name__}")
        if len(self.prompt) > LONGEST_PROMPT:
            raise ValueError(f"prompt must have at most {LONGEST_PROMPT} characters, got {len(self.prompt)}")
        text = re.sub(r"\s+", " ", _CONTROL.sub(" ", self.prompt)).strip()
        if all(unicodedata.category(c)[0] in "CZ" for c in text):  # nothing that shows
            raise ValueError(
                "prompt must not be empty: describe the music you want, for example 'deep house, warm chords'"
            )
        fix = lambda name, value: object.__setattr__(self, name, value)
        fix("prompt", text.encode("utf-8", "replace").decode())  # a lone surrogate would break logs and tags
        for name in ("bpm", "max_duration", "top_p", "temperature", "cfg_coef"):
            fix(name, finite(name, getattr(self, name)))
        for name in ("variations", "beats_per_bar", "top_k", "seed"):
            fix(name, whole(name, getattr(self, name)))
        _within("bpm", self.bpm, BPM_RANGE)
        _within("variations", self.variations, VARIATIONS_RANGE)
        _within("max_duration", self.max_duration, DURATION_RANGE)
        _within("beats_per_bar", self.beats_per_bar, BEATS_PER_BAR_RANGE)
        if not -1 <= self.seed <= LARGEST_SEED:
            raise ValueError(
                f"seed must be -1 (random) or a whole number from 0 to {LARGEST_SEED}, got {self.seed}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 or more, got {self.top_k}")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p must be between 0 and 1, got {self.top_p:g}")
        _within("temperature", self.temperature, (0, 100))
        _within("cfg_coef", self.cfg_coef, (-100, 100))

    @property
    def model_text(self) -> str:
        """What the model reads: the prompt with the asked tempo in place of any other."""
        words = without_tempo(self.prompt)
        tempo = f"{round(self.bpm, 3):g} bpm"
        return f"{words}, {tempo}" if words else tempo

    @property
    def replaced_tempi(self) -> list[str]:
        """Tempo words of the prompt that say something other than `bpm`."""
        number = lambda words: float(re.search(_NUMBER, words)[1].replace(",", "."))  # type: ignore[index]
        return [words for words in tempo_words(self.prompt) if abs(number(words) - self.bpm) > 0.05]

    def with_seed(self) -> LoopRequest:
        """The same request with a seed drawn where -1 asks for one."""
        return replace(self, seed=secrets.randbelow(2**31)) if self.seed == -1 else self
