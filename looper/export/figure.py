"""What the pictures share: outlines, text that the font can draw, files written whole."""

from __future__ import annotations

import re
import secrets
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOX = "\N{WHITE SQUARE}"
COLUMNS = 4000  # waveform columns: more than the picture has pixels


def outline(
    x: np.ndarray, sample_rate: int, columns: int = COLUMNS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column times in seconds, lowest and highest samples of a waveform [T] in about `columns` columns."""
    step = max(1, len(x) // columns)
    rows = x[: len(x) // step * step].reshape(-1, step)
    return np.arange(len(rows)) * step / sample_rate, rows.min(axis=1), rows.max(axis=1)


def drawable(text: str) -> str:
    """`text` with a box in place of each run of signs that the font lacks, such as emoji; no formula is meant."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    glyphs = get_font(findfont(FontProperties())).get_charmap()
    boxes = "".join(c if ord(c) in glyphs else BOX for c in text)
    return re.sub(f"{BOX}+", BOX, boxes).replace("$", r"\$")


def save_picture(figure: Figure, path: str | Path, dpi: int = 100) -> Path:
    """Write `figure` as its suffix says, whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower(), dpi=dpi)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_bytes(drawn.getvalue())
        part.replace(path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the picture {path}: {error.strerror}; free space there or choose another place",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path
