"""What a user asks for, validated: pure data, no audio."""

from __future__ import annotations

import re
import secrets
import unicodedata
from dataclasses import dataclass, replace

from looper.length import check_bars, check_bars_fit, loop_beats
from looper.musical_key import parse_key
from looper.runtime.validation import BEATS_PER_BAR_RANGE as BEATS_PER_BAR_RANGE
from looper.runtime.validation import BPM_RANGE as BPM_RANGE
from looper.runtime.validation import (
    FieldError,
    checked_metre,
    checked_tempo,
    finite,
    positive,
    shown,
    whole,
    within,
)

FORMATS = ("wav", "mp3")
VARIATIONS_RANGE = (1, 20)
DURATION_RANGE = (2, 20)
USUAL_DURATION = 8.0  # seconds
LONGEST_PROMPT = 100_000
LARGEST_SEED = 2**63 - 1
LONGEST_RECORDING = 3600  # seconds

_NUMBER = r"(\d{2,3}(?:[.,]\d+)?)"
_UNIT = r"(?:b\.?p\.?m\.?|beats?[ -]per[ -]minute)(?![a-z])"
_TEMPO = re.compile(
    rf"(?:\b(?:at|@|tempo:?)\s*)?(?<![\d.])(?:{_NUMBER}\s*-?\s*{_UNIT}|{_UNIT}\s*[:=]?\s*{_NUMBER})", re.I
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def tempo_words(prompt: str) -> list[str]:
    """Tempi written out in `prompt`, such as "128 bpm" or "BPM: 93.5", as they stand there.

    Examples
    --------
    >>> tempo_words("deep house, 128 bpm, warm")
    ['128 bpm']
    """
    return [match.group(0).strip() for match in _TEMPO.finditer(prompt)]


def without_tempo(prompt: str) -> str:
    """`prompt` without tempi and without the punctuation that they leave behind.

    Examples
    --------
    >>> without_tempo("deep house, 128 bpm, warm")
    'deep house, warm'
    """
    bare = _TEMPO.sub(" ", prompt)
    bare = re.sub(r"\(\s*\)|\[\s*\]", " ", bare)
    bare = re.sub(r"\s+([,;.])", r"\1", bare)
    bare = re.sub(r"([,;])(?:\s*[,;])+", r"\1", bare)
    return re.sub(r"\s+", " ", bare).strip(" ,;")


@dataclass(frozen=True)
class Sampling:
    """Sampling values, with audiocraft's meaning.

    Attributes
    ----------
    top_k : int
        Keep the k likeliest tokens; 0 keeps all.
    top_p : float
        Where above 0, keep the likeliest tokens up to this probability, and ignore `top_k`.
    temperature : float
        Divides the logits; 0 takes the likeliest token.
    cfg_coef : float
        Classifier-free guidance: null + cfg_coef * (conditional - null). 1 turns it off.

    Raises
    ------
    ValueError
        If a value is out of range or not finite.

    Examples
    --------
    >>> Sampling(top_k=50).guided
    True
    """

    top_k: int = 250
    top_p: float = 0.0
    temperature: float = 1.0
    cfg_coef: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "top_k", whole("top_k", self.top_k))
        for name in ("top_p", "temperature", "cfg_coef"):
            object.__setattr__(self, name, finite(name, getattr(self, name)))
        if self.top_k < 0:
            raise FieldError("top_k", f"must be 0 or more, got {shown(self.top_k)}")
        within("top_p", self.top_p, (0, 1))
        within("temperature", self.temperature, (0, 100))
        within("cfg_coef", self.cfg_coef, (-100, 100))

    @property
    def guided(self) -> bool:
        """Whether the unconditional half must be computed at all."""
        return self.cfg_coef != 1.0


@dataclass(frozen=True)
class CutRequest:
    """How a loop is to be cut from a recording; every number is checked when the object is made.

    Attributes
    ----------
    bpm : float
        Tempo of the loop, 40 to 300 beats per minute.
    beats_per_bar : int
        Beats in a bar, 1 to 16.
    max_duration : float or None
        Upper bound of the loop's length in seconds, at least a beat and at most an hour; None for no bound.
    min_start : float
        Seconds of the recording before which the loop does not begin, at most an hour.
    bars : int or None
        Exactly so many bars: a power of two, 3 or 6; None for as many as there is room for.

    Raises
    ------
    FieldError
        If a number is out of range or not finite.
    """

    bpm: float
    beats_per_bar: int = 4
    max_duration: float | None = None
    min_start: float = 0.0
    bars: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bpm", checked_tempo(self.bpm))
        object.__setattr__(self, "beats_per_bar", checked_metre(self.beats_per_bar))
        object.__setattr__(self, "min_start", finite("min_start", self.min_start))
        within("min_start", self.min_start, (0, LONGEST_RECORDING))
        if self.max_duration is not None:
            object.__setattr__(self, "max_duration", positive("max_duration", self.max_duration))
            within("max_duration", self.max_duration, (0, LONGEST_RECORDING))
            self._check_room()
        if self.bars is not None:
            object.__setattr__(self, "bars", check_bars(self.bars))
            longest = LONGEST_RECORDING if self.max_duration is None else self.max_duration
            check_bars_fit(self.bars, self.bpm, self.beats_per_bar, longest, LONGEST_RECORDING)

    @property
    def beats(self) -> int | None:
        """Beats that the loop must have, or None."""
        return None if self.bars is None else self.bars * self.beats_per_bar

    def _check_room(self) -> None:
        beat = 60 / self.bpm
        assert self.max_duration is not None
        if self.max_duration < beat * (1 - 1e-9):
            raise FieldError(
                "max_duration",
                f"must hold at least one beat, at {self.bpm:g} BPM {beat:.2f} s, got {self.max_duration:g}",
            )


@dataclass(frozen=True)
class LoopRequest:
    """A request for loops; every field is checked when the object is made.

    Parameters
    ----------
    prompt : str
        Description of the music. Control characters become spaces.
    bpm : float
        Tempo of the loops, 40 to 300 beats per minute. It overrides a tempo written in the prompt.
    variations : int
        How many loops, 1 to 20.
    max_duration : float, optional
        Upper bound of a loop's length in seconds, 2 to 20; 8 if not given, 20 where `bars` is.
    beats_per_bar : int
        Beats in a bar.
    top_k, top_p, temperature, cfg_coef
        Sampling: see `Sampling`.
    seed : int
        Any whole number from 0 names a seed, 0 included; -1 stands for a random one.
    bars : int, optional
        Exactly so many bars: a power of two, 3 or 6. Without it, the largest power of two that fits.
    key : str, optional
        A key such as "A minor": the model reads it, and of the candidates it prefers those that are heard in it. It
        is no promise: `Report.keys` says what came out.

    Raises
    ------
    ValueError
        In the user's words, naming the field and what it may be.

    Examples
    --------
    >>> LoopRequest("deep house", bpm=124, variations=2, seed=1).bpm
    124.0
    >>> LoopRequest("deep house", bpm=124, bars=3).beats
    12
    >>> LoopRequest("deep house", bpm=12)
    Traceback (most recent call last):
    ...
    looper.runtime.validation.FieldError: bpm must be between 40 and 300, got 12
    """

    prompt: str
    bpm: float = 140
    variations: int = 4
    max_duration: float = None  # type: ignore[assignment]  # what it is depends on `bars`
    beats_per_bar: int = 4
    top_k: int = 250
    top_p: float = 0.0
    temperature: float = 1.0
    cfg_coef: float = 3.0
    seed: int = -1
    bars: int | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise FieldError("prompt", f"must be text, got {type(self.prompt).__name__}")
        if len(self.prompt) > LONGEST_PROMPT:
            raise FieldError(
                "prompt", f"must have at most {LONGEST_PROMPT} characters, got {len(self.prompt)}"
            )
        text = re.sub(r"\s+", " ", _CONTROL.sub(" ", self.prompt)).strip()
        if all(unicodedata.category(c)[0] in "CZ" for c in text):  # nothing that shows
            raise FieldError(
                "prompt",
                "must not be empty: describe the music you want, for example 'deep house, warm chords'",
            )
        fix = lambda name, value: object.__setattr__(self, name, value)
        fix("prompt", text.encode("utf-8", "replace").decode())  # a lone surrogate would break logs and tags
        if self.max_duration is None:
            fix("max_duration", USUAL_DURATION if self.bars is None else DURATION_RANGE[1])
        fix("bpm", checked_tempo(self.bpm))
        fix("beats_per_bar", checked_metre(self.beats_per_bar))
        fix("max_duration", finite("max_duration", self.max_duration))
        for name in ("variations", "seed"):
            fix(name, whole(name, getattr(self, name)))
        within("variations", self.variations, VARIATIONS_RANGE)
        within("max_duration", self.max_duration, DURATION_RANGE)
        if not -1 <= self.seed <= LARGEST_SEED:
            raise FieldError(
                "seed",
                f"must be -1 (random) or a whole number from 0 to {LARGEST_SEED}, got {shown(self.seed)}",
            )
        for name in ("top_k", "top_p", "temperature", "cfg_coef"):
            fix(name, getattr(self.sampling, name))
        if self.bars is not None:
            fix("bars", check_bars(self.bars))
            check_bars_fit(self.bars, self.bpm, self.beats_per_bar, self.max_duration, DURATION_RANGE[1])
        if self.key is not None:
            fix("key", parse_key(self.key).words)

    @property
    def beats(self) -> int:
        """Beats of each loop: those of `bars`, or of the longest loop that fits `max_duration`."""
        if self.bars is not None:
            return self.bars * self.beats_per_bar
        return loop_beats(self.bpm, self.max_duration, self.beats_per_bar)

    @property
    def sampling(self) -> Sampling:
        """The sampling values by themselves."""
        return Sampling(self.top_k, self.top_p, self.temperature, self.cfg_coef)

    @property
    def model_text(self) -> str:
        """What the model reads: the prompt, the asked key, and the asked tempo in place of any other."""
        parts = (without_tempo(self.prompt), self.key, f"{round(self.bpm, 3):g} bpm")
        return ", ".join(part for part in parts if part)

    @property
    def replaced_tempi(self) -> list[str]:
        """Tempo words of the prompt that say something other than `bpm`."""
        number = lambda words: float(re.search(_NUMBER, words)[1].replace(",", "."))  # type: ignore[index]
        return [words for words in tempo_words(self.prompt) if abs(number(words) - self.bpm) > 0.05]

    def with_seed(self) -> LoopRequest:
        """The same request with a seed drawn where -1 asks for one."""
        return replace(self, seed=secrets.randbelow(2**31)) if self.seed == -1 else self
