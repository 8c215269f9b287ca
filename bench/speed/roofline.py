"""How long a decode step takes on a card, by arithmetic: a model, no measurement.

    python -m bench.speed.roofline [--seconds 8] [--json]

A step reads all weights and each row's keys and values once, and launches so many nodes of a CUDA graph:

    milliseconds = nodes * NODE_US / 1000 + bytes / (BANDWIDTH_SHARE * peak)

Columns: the card and model, rows, `roof` (bytes over the card's peak alone), then for each way of making the step its
milliseconds and the share of *peak* bandwidth that it reaches.

No GPU was at hand for any of these constants. Node costs were chosen so that the model gives the estimates that other
projects' published figures lead to (1.3 us a node between kernels of a graph, half of the bandwidth at a billion weights
with one kernel an operation, three quarters with one kernel for all), +- 25 %: `python -m bench.gpu` puts what it measures
beside them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

from testkit.checkpoints import LARGE, MEDIUM, Shape

HALF = 2  # bytes of a number
HALVES = 2  # of a row: with its text and without
FRAME_RATE = 50
TEXT = 20  # tokens
BANDWIDTH_SHARE = 0.73  # of the peak, that a kernel reaches while it streams


@dataclass(frozen=True)
class Card:
    """A card: bytes a second that its memory gives at best, and what it can do."""

    name: str
    peak: float
    kernels: bool = True  # capability 8.0
    dependent: bool = False  # launches that begin before the one before has ended


@dataclass(frozen=True)
class Way:
    """A way of making the step.

    Attributes
    ----------
    name : str
    layer_nodes, around_nodes : int
        Nodes of a layer, and of the step beside its layers: tests count them.
    node_us : float
        What a node costs beside its bytes.
    """

    name: str
    layer_nodes: int
    around_nodes: int
    node_us: float


CARDS = (
    Card("H100", 3.35e12, dependent=True),
    Card("H200", 4.8e12, dependent=True),
    Card("A100-80", 2.04e12),
    Card("L40S", 0.864e12),
    Card("T4", 0.32e12, kernels=False),
)
SHAPES = {"medium": MEDIUM, "large": LARGE}
ATEN = Way("ATen", 22, 65, 2.7)
KERNELS = Way("kernels", 11, 6, 1.57)
DEPENDENT = Way("kernels, dependent launch", 11, 6, 0.67)


@dataclass(frozen=True)
class Predicted:
    """A line of the table; a way that a card cannot go is None."""

    card: str
    shape: str
    rows: int
    roof_ms: float
    aten_ms: float
    kernels_ms: float | None
    aten_share: float
    kernels_share: float | None


def weight_bytes(shape: Shape) -> float:
    """All matrices that a step reads: six in a layer (14 dim^2; the text's keys are computed once), and the heads."""
    return HALF * (14 * shape.num_layers * shape.dim**2 + shape.n_q * shape.card * shape.dim)


def step_bytes(shape: Shape, rows: int, columns: float, text: int = TEXT) -> float:
    """What a step reads, with `rows` rows that look at `columns` columns on average."""
    column = 2 * shape.num_layers * shape.dim * HALF  # a key and a value
    return weight_bytes(shape) + rows * column * (HALVES * columns + text)


def nodes(shape: Shape, way: Way) -> int:
    """Nodes of a step."""
    return shape.num_layers * way.layer_nodes + way.around_nodes


def step_ms(card: Card, shape: Shape, rows: int, columns: float, way: Way) -> float:
    """Milliseconds of a step."""
    streaming = step_bytes(shape, rows, columns) / (BANDWIDTH_SHARE * card.peak)
    return 1000 * streaming + nodes(shape, way) * way.node_us / 1000


def best_way(card: Card) -> Way | None:
    """The kernels as a card launches them; None where it can't."""
    if not card.kernels:
        return None
    return DEPENDENT if card.dependent else KERNELS


def predicted(card: Card, name: str, rows: int, columns: float) -> Predicted:
    """One line."""
    shape, way = SHAPES[name], best_way(card)
    roof = 1000 * step_bytes(shape, rows, columns) / card.peak
    aten = step_ms(card, shape, rows, columns, ATEN)
    ours = None if way is None else step_ms(card, shape, rows, columns, way)
    share = None if ours is None else round(roof / ours, 2)
    rounded = None if ours is None else round(ours, 2)
    return Predicted(
        card.name, name, rows, round(roof, 2), round(aten, 2), rounded, round(roof / aten, 2), share
    )


def table(seconds: float) -> list[Predicted]:
    """All cards, models and numbers of rows, on the average of a request of so many seconds."""
    columns = seconds * FRAME_RATE / 2
    return [
        predicted(card, name, rows, columns) for card in CARDS for name in SHAPES for rows in (1, 4, 20, 32)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of audio in each row")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    args = parser.parse_args()
    rows = table(args.seconds)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(f"{'':24} rows   roof   ATen  share   kernels  share")
    for row in rows:
        ours = (
            "      -      -" if row.kernels_ms is None else f"{row.kernels_ms:9.2f} {row.kernels_share:6.0%}"
        )
        name = f"{row.card}, {row.shape}"
        print(f"{name:24} {row.rows:4} {row.roof_ms:6.2f} {row.aten_ms:6.2f} {row.aten_share:6.0%} {ours}")


if __name__ == "__main__":
    main()
