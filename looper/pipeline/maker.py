"""The way in: a loaded model that makes loops of requests, or of recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from looper.melody import Melody
from looper.pipeline.session import LoopSession, Progress
from looper.request import LoopRequest
from looper.runtime.validation import FieldError

if TYPE_CHECKING:
    import numpy as np

    from looper.generation.generator import Generator
    from looper.pipeline.result import Loops


def _quiet(*_: object) -> None:
    """Progress that nobody watches."""


def _check(request: object) -> None:
    """Say it to who passes the words alone."""
    if not isinstance(request, LoopRequest):
        raise FieldError(
            "request", f"must be looper.LoopRequest(prompt, bpm=...), got {type(request).__name__}"
        )


class LoopMaker:
    """Makes loops with one loaded model.

    Parameters
    ----------
    generator : Generator
        A loaded model; see `load`.

    Examples
    --------
    >>> from looper import LoopRequest
    >>> maker = LoopMaker.load("tiny", "cpu")
    >>> loops = maker.make(LoopRequest("house drums", bpm=124, variations=1, max_duration=2, seed=1))
    >>> len(loops), loops[0].bpm, len(loops[0].samples)
    (1, 124.0, 61935)
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    @classmethod
    def load(cls, model: str = "medium", device: str | None = None) -> LoopMaker:
        """Load a model by name ("tiny", "medium", "stereo-large", "melody" ... or one of your own) or by folder.

        Raises
        ------
        looper.checkpoints.sources.WeightsError
            If the model's files are missing or damaged; the message names the command that repairs it.
        """
        from looper.checkpoints.store import find
        from looper.generation.generator import Generator

        return cls(Generator.load(find(model), device))

    def make(
        self, request: LoopRequest, progress: Progress | None = None, *, melody: Melody | None = None
    ) -> Loops:
        """Make the loops of `request`: exactly `request.variations` of them, or an error.

        Parameters
        ----------
        request : LoopRequest
            What is asked for; a seed of -1 is drawn here and reported.
        progress : callable, optional
            Called as (stage, done, total).
        melody : Melody, optional
            The tune to follow, for a model that takes melodies.

        Returns
        -------
        Loops
            Variation k is the same whatever the number of variations asked for.

        Raises
        ------
        FieldError
            If there is a melody and the model takes text alone, or it is none.
        """
        _check(request)
        if melody is not None and not isinstance(melody, Melody):
            kind = type(melody).__name__
            raise FieldError("melody", f"must be looper.Melody(samples, sample_rate), got {kind}")
        return LoopSession(self.generator, request.with_seed(), progress or _quiet, melody=melody).run()

    def vary(
        self,
        samples: np.ndarray,
        sample_rate: int,
        request: LoopRequest,
        *,
        include_source: bool = False,
        progress: Progress | None = None,
    ) -> Loops:
        """Make variations of a recording: each goes on from its last bar, and runs into it and into each other.

        Parameters
        ----------
        samples : np.ndarray
            [T] or [T, 2]; see `looper.pipeline.from_recording.find_source` for what of it is varied.
        sample_rate : int
            Hz; that of the loops too, as are the channels.
        request : LoopRequest
            What is asked for; its tempo is that of the source, within 7.5 %, and of the loops exactly.
        include_source : bool
            Whether the source itself, at the asked tempo, is the first of the loops, as variation 0.
        progress : callable, optional
            Called as (stage, done, total).

        Returns
        -------
        Loops
            `request.variations` of them, and the source if asked for; all as long and as loud as the source.

        Raises
        ------
        ValueError
            If the recording is silent, shorter than a beat, or otherwise nothing to go on from.
        """
        from looper.pipeline.from_recording import RecordingSession, find_source

        _check(request)
        request = request.with_seed()
        source = find_source(samples, sample_rate, request)
        session = RecordingSession(self.generator, request, progress or _quiet, source)
        return session.run(include_source=include_source)
