"""Every kernel in Triton's interpreter, against ATen and float64: one process runs all, and these look at what it says."""

import json
import os
import subprocess
import sys

import pytest

from looper.generation.kernels.operations import NAMES
from looper.runtime import paths


@pytest.fixture(scope="module")
def interpreted(triton_here):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "testkit.interpreted_kernels"],
        cwd=paths.PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("float16", 1e-3)])
def test_a_kernel_computes_what_aten_does_and_a_row_the_same_alone(interpreted, name, dtype, most):
    (verdict,) = (one for one in interpreted[f"tried {dtype}"] if one["name"] == name)
    assert verdict["refused"] is None
    assert verdict["error"] < most


def test_the_step_of_kernels_draws_the_plain_steps_tokens(interpreted):
    steps = interpreted["whole steps"]
    assert steps["tokens"]
    assert steps["positions"] == [2, 129, 152]
    assert steps["cache"] < 1e-5
    assert steps["drawn"] == 3 * 2 * 2 - 3  # but for the tokens that were given


def test_a_rows_tokens_and_cache_are_bit_for_bit_those_it_has_alone(interpreted):
    assert interpreted["whole steps"]["alone"]


@pytest.mark.parametrize("shape", ["16 x 16", "96 x 64", "64 x 768"])
def test_a_product_is_near_float64_however_it_is_split(interpreted, shape):
    assert interpreted["products"][shape] < 5e-7


def test_the_sampler_draws_what_draw_does_token_for_token(interpreted):
    drawn = interpreted["drawn"]
    assert drawn["of"] == 84
    assert drawn["other"] == 0
    assert drawn["on_border"] <= 1


def test_the_sampler_shares_out_among_tokens_as_likely_and_knows_broken_rows(interpreted):
    ties = interpreted["ties"]
    # ten tokens, 5 to 14, share all of it, and the number is .7; greedy takes the first, a nucleus of .4 the first five
    assert ties["tied"][0] == ties["tied"][3] == 5 + 7
    assert ties["tied"][2] == 5
    assert ties["tied"][1] in (5 + 2, 5 + 3)
    assert ties["whole"] == [0.0] * 4
    assert ties["finite"] == [True, False, True, False]
    assert ties["inside"]
