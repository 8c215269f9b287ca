"""The model of a step's time against figures worked out apart from it."""

import pytest

from bench.speed import roofline
from bench.speed.roofline import CARDS, predicted, step_bytes, weight_bytes
from testkit.checkpoints import LARGE, MEDIUM

BY_NAME = {card.name: card for card in CARDS}


def test_bytes_are_those_of_the_published_models():
    assert weight_bytes(MEDIUM) == pytest.approx(3.20e9, rel=0.01)
    assert weight_bytes(LARGE) == pytest.approx(5.67e9, rel=0.01)
    one_column = step_bytes(MEDIUM, 1, 1, 0) - step_bytes(MEDIUM, 1, 0, 0)
    assert one_column == 2 * 48 * 2 * 1536 * 2  # halves, layers, a key and a value of 1536 halves


@pytest.mark.parametrize(
    ("card", "shape", "rows", "roof", "aten", "kernels"),
    [
        ("H100", "medium", 1, 0.99, 4.4, 1.72),
        ("H100", "medium", 20, 1.71, 5.4, 2.58),
        ("H100", "large", 1, 1.74, 5.5, 2.54),
        ("A100-80", "medium", 1, 1.63, 5.6, 3.0),
        ("A100-80", "medium", 20, 2.82, 7.3, 4.5),
        ("L40S", "medium", 20, 6.65, 12.8, 8.8),
    ],
)
def test_the_model_is_within_a_quarter_of_the_estimates_it_was_made_from(
    card, shape, rows, roof, aten, kernels
):
    row = predicted(BY_NAME[card], shape, rows, 200)
    assert row.roof_ms == pytest.approx(roof, rel=0.05)
    assert row.aten_ms == pytest.approx(aten, rel=0.25)
    assert row.kernels_ms == pytest.approx(kernels, rel=0.25)
    assert row.roof_ms < row.kernels_ms < row.aten_ms


def test_an_old_card_has_no_kernels():
    row = predicted(BY_NAME["T4"], "medium", 1, 200)
    assert row.kernels_ms is None and row.kernels_share is None


@pytest.mark.slow
def test_the_nodes_are_those_that_a_step_launches():
    pytest.importorskip("triton")
    from testkit.kernel_launches import aten_nodes, launches, two_layers

    shape = two_layers(MEDIUM)
    kernels, others = launches(shape, 32)
    assert len(kernels) + len(others) == roofline.nodes(shape, roofline.KERNELS)
    assert len(aten_nodes(shape, 20)) == roofline.nodes(shape, roofline.ATEN)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_table_is_printed(form, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["roofline", *form])
    roofline.main()
    assert "H100" in capsys.readouterr().out
