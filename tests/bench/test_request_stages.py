"""What a request launches and moves, against figures worked out apart from it."""

import json
from dataclasses import replace

import pytest
import torch

from bench.speed import request_stages, roofline
from testkit.checkpoints import MEDIUM
from testkit.kernel_launches import on_a_gpu_of_air

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")]


def test_a_product_counts_once_with_what_it_reads_and_writes():
    with on_a_gpu_of_air():
        x, weight = (torch.empty(size, dtype=torch.float16, device="cuda") for size in ((8, 64), (32, 64)))
        found = request_stages.counted(lambda: torch.mm(x, weight.T.view(64, 32)))
    assert (found.launches, found.lstm_launches) == (1, 0)
    assert found.bytes == 2 * (8 * 64 + 32 * 64 + 8 * 32)
    assert found.flops == 2 * 8 * 64 * 32


def test_an_lstm_counts_two_launches_a_layer_and_frame():
    with on_a_gpu_of_air():
        lstm = torch.nn.LSTM(16, 16, 2)
        found = request_stages.counted(lambda: lstm(torch.empty(50, 4, 16)))
    assert (found.launches, found.lstm_launches) == (0, 200)
    assert (
        found.bytes == 50 * 2 * 2 * 4 * 16 * 16 * 4
    )  # frames, layers, of input and state, gates, numbers of 4 bytes


def test_the_stages_are_a_requests_in_order_and_add_up(monkeypatch, capsys):
    shape = replace(MEDIUM, num_layers=2, codec_filters=4)
    monkeypatch.setitem(roofline.SHAPES, "medium", shape)
    monkeypatch.setattr("sys.argv", ["stages", "--json"])
    request_stages.main()
    *stages, total = json.loads(capsys.readouterr().out)
    names = [stage["name"] for stage in stages]
    assert names[:2] == ["text, by T5", "4 candidates"]
    assert "3 variations" in names
    assert names.count("text, by T5") == 1
    # 8 s and a tenth of room, a bar of 2 s more, and the delays; 11 kernels a layer and 6 around
    frames = round(8 * 1.06 * 50) + 100
    assert stages[1]["launches"] == (frames + 3) * (2 * 11 + 6)
    assert stages[3]["gigabytes"] == pytest.approx(4 * frames * 640 * 4 / 1e9)
    for figure in ("launches", "gigabytes", "card_ms"):
        assert total[figure] == pytest.approx(sum(stage[figure] for stage in stages))
