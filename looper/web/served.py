"""What the page may tell of a model before anything is asked of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ServedModel:
    """What plays under a model's name.

    Attributes
    ----------
    here : bool
        Whether its weights are.
    model : str
        The model's own name, such as "tiny" where the demonstration stands in.
    licence : str
        Of its weights; empty where its maker did not say.
    demo : bool
        Whether it is the small demonstration, and no MusicGen.
    remedy : str
        Where it is not here, what brings it.
    folder : str
        Of its weights; the page is not told.

    Examples
    --------
    >>> ServedModel(here=True, model="tiny", licence="Apache-2.0", demo=True).demo
    True
    """

    here: bool
    model: str = ""
    licence: str = ""
    demo: bool = False
    remedy: str = ""
    folder: str = ""

    def told(self) -> dict[str, object]:
        """What the page may know of it."""
        return {name: value for name, value in asdict(self).items() if name != "folder"}
