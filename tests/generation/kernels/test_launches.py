"""What a step launches, at the published models' sizes: written down over fake tensors."""

from dataclasses import replace

import pytest
import torch

from looper.generation.lane_pool import MOST_ROWS
from looper.generation.slots import HALVES
from testkit import checkpoints

LAYER, AROUND = 11, 4
AROUND_OF_ATEN = ["add_", "clamp_"]  # the positions move on


@pytest.fixture(scope="module")
def launched(triton_here):
    from testkit.kernel_launches import launches

    few = {
        "medium": replace(checkpoints.MEDIUM, num_layers=3),
        "large": replace(checkpoints.LARGE, num_layers=3),
    }
    return {(name, rows): launches(shape, rows) for name, shape in few.items() for rows in (1, 2, 32)}


@pytest.mark.parametrize("rows", [1, 2, 32])
@pytest.mark.parametrize("shape", ["medium", "large"])
def test_a_step_is_eleven_kernels_a_layer_and_six_around(launched, shape, rows):
    kernels, others = launched[shape, rows]
    assert len(kernels) == 3 * LAYER + AROUND
    assert others == AROUND_OF_ATEN


@pytest.mark.parametrize("shape", ["medium", "large"])
def test_nothing_that_is_compiled_depends_on_the_number_of_rows(launched, shape):
    compiled = [
        [(k.kernel.__name__, k.constants, k.warps, k.stages) for k in launched[shape, rows][0]]
        for rows in (1, 2, 32)
    ]
    assert compiled[0] == compiled[1] == compiled[2]
    for kernel in launched[shape, 1][0]:
        if "rows" in kernel.kernel.arg_names:
            (rows,) = (p for p in kernel.kernel.params if p.name == "rows")
            assert rows.do_not_specialize, kernel.name


@pytest.mark.parametrize("shape", ["medium", "large"])
def test_products_are_cut_evenly_and_keep_a_card_busy(launched, shape):
    for kernel in launched[shape, 32][0]:
        if kernel.kernel.__name__ == "product":
            c = kernel.constants
            assert c["N"] % c["BLOCK_N"] == 0 and c["K"] % (c["SPLIT"] * c["BLOCK_K"]) == 0
            assert kernel.grid == (c["N"] // c["BLOCK_N"], c["SPLIT"])
            assert kernel.grid[0] * kernel.grid[1] >= 96, kernel.name


def test_all_rows_of_a_lane_fit_a_products_tile(triton_here):
    from looper.generation.kernels import launches

    assert launches.TILE == HALVES * MOST_ROWS
    with pytest.raises(ValueError, match="up to 64 rows fit, got 65"):
        kernels = launches.Launches(torch.float16, 8, launch=lambda *args, **constants: None)
        kernels._multiply(
            torch.zeros(65, 16), torch.zeros(16, 16), torch.zeros(1), launches.blocks(16, 16), False
        )
