"""Where one request spends its launches and bytes on a card: counted over fake tensors, timed by arithmetic.

    python -m bench.speed.request_stages [--card H100] [--shape medium] [--variations 4] [--seconds 8] [--bpm 120] [--json]

Every stage of a request is run on tensors that carry shapes, types and a device alone, as `looper.generation` runs it:
its launches, the bytes they read and write and its products are counted, nothing is computed. Then, by a model,

    launched ms    how long the host takes to queue them: EAGER_US each, an LSTM's (cuDNN makes two a layer and frame)
                   LSTM_US each, none in a CUDA graph
    card ms        the larger of bytes / (.73 of the peak bandwidth) and products / (.4 of the peak); in graphs, node costs
    a graph saves  launched less card, where that is more: what capturing the stage could give

No GPU was at hand for the constants, see `bench.speed.roofline`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.speed import roofline
from looper.checkpoints import load
from looper.generation.lane import Lane, LaneKind
from looper.generation.likelihood import _hidden, _sequence
from looper.generation.messages import ModelSpec, Passage
from looper.model.codec import BLOCK
from looper.model.kv_cache import windows
from looper.model.transformer import Transformer
from looper.pipeline.plan import Plan, plan
from looper.pipeline.session import CANDIDATES
from looper.pipeline.takes import SEAM_JUDGED_SECONDS
from looper.request import LoopRequest
from testkit import checkpoints
from testkit.checkpoints import Shape
from testkit.kernel_launches import Nodes, on_a_gpu_of_air, transformer

EAGER_US = 6  # of the host, for a launch by ATen
LSTM_US = 2  # the same by cuDNN, of which there are
LSTM_LAUNCHES = 2  # a layer and frame
SPEC = ModelSpec(frame_rate=50, hop_length=640, window_seconds=30, clocked=False)
HALF_FLOPS = {"H100": 990e12, "H200": 990e12, "A100-80": 312e12, "L40S": 362e12, "T4": 65e12}
SINGLE_FLOPS = {"H100": 67e12, "H200": 67e12, "A100-80": 19.5e12, "L40S": 91e12, "T4": 8e12}
FLOPS_SHARE = 0.4  # of the peak, that products and convolutions of these sizes reach
CUTS = 2  # of a candidate, whose seams are judged
PINNED_BYTES = 20e9  # a second to the host


@dataclass(frozen=True)
class Counted:
    """What a stage launches, the bytes that its operations read and write, and the operations of its products."""

    launches: int
    lstm_launches: int
    bytes: float
    flops: float

    @property
    def launched_ms(self) -> float:
        """How long the host takes to queue them."""
        return (self.launches * EAGER_US + self.lstm_launches * LSTM_US) / 1000


@dataclass(frozen=True)
class Stage:
    """A line of the table."""

    name: str
    launches: int
    gigabytes: float
    teraflops: float
    launched_ms: float
    card_ms: float
    graph_saves_ms: float


class Bytes(Nodes):
    """Counts bytes too: all tensors that an operation which launches takes and gives; and LSTMs as cuDNN makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.lstm_launches = self.lstm_flops = 0

    def lstm(self, module: torch.nn.LSTM, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """In place of an LSTM's forward [time, rows, dim]: each frame reads all weights again."""
        steps, rows = x.shape[:2]
        weights = [weight for weight in module.parameters() if weight.dim() == 2]
        self.lstm_launches += LSTM_LAUNCHES * module.num_layers * steps
        self.bytes += steps * sum(weight.numel() * weight.element_size() for weight in weights)
        self.lstm_flops += 2 * steps * rows * sum(weight.numel() for weight in weights)
        return torch.empty_like(x), None

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = len(self.names)
        out = super().__torch_dispatch__(function, types, args, kwargs)
        if len(self.names) > before:
            tensors = {id(t): t for t in tree_leaves((args, kwargs, out)) if torch.is_tensor(t)}
            self.bytes += sum(t.numel() * t.element_size() for t in tensors.values())
        return out


def counted(work: Callable[[], object]) -> Counted:
    """Run `work` over fake tensors and count."""
    with (
        Bytes() as nodes,
        FlopCounterMode(display=False) as flops,
        patch("looper.model.transformer.one_attention_kernel", lambda device: nullcontext()),
        patch("torch.nn.LSTM.forward", lambda module, x: nodes.lstm(module, x)),
    ):
        work()
    flop_count = flops.get_total_flops() + nodes.lstm_flops
    return Counted(len(nodes.names), nodes.lstm_launches, nodes.bytes, flop_count)


def moved(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Fake weights of a type in place of a module's own."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=dtype, device="cuda")
                part._parameters[name] = torch.nn.Parameter(fake, requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                kind = dtype if buffer.is_floating_point() else buffer.dtype
                part._buffers[name] = torch.empty(buffer.shape, dtype=kind, device="cuda")
    return module.eval()


def t5() -> torch.nn.Module:
    """t5-base's encoder."""
    from transformers import T5Config, T5EncoderModel

    with unset_fake_temporarily(), torch.device("meta"):
        size = {"d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
        model = T5EncoderModel(T5Config(vocab_size=32128, d_model=768, **size))
    return moved(model, torch.float32)


def codec(shape: Shape, dtype: torch.dtype) -> Any:
    """A model's EnCodec."""
    with unset_fake_temporarily():
        made = load.build_codec(OmegaConf.create(checkpoints.codec_config(shape)))
        load._fold_weight_norm(made)
    return moved(made, dtype)


def likelihoods(t: Transformer, passages: int, frames: int) -> None:
    """As `looper.generation.likelihood`, up to the layers' output."""
    passage = Passage(np.zeros((t.n_q, frames), np.int64))
    sequence = torch.cat([_sequence(t, passage, frames)] * passages).to(t.device)
    text = torch.empty(roofline.TEXT, t.dim, dtype=t.dtype, device=t.device)
    hidden = t.out_norm(_hidden(t, [passage] * passages, [text] * passages, sequence[:, :, :-1], None))
    t.logits(hidden).log_softmax(dim=-1)


def prefill(t: Transformer, frames: int) -> None:
    """The layers over an audio prompt, for both halves."""
    lane = Lane(t, LaneKind(frames + 16, 32), 1)
    slots = lane._new_slots()
    x = torch.empty(2, frames, t.dim, device=t.device)
    position = torch.arange(frames, device=t.device)
    cache = windows(t.new_cache(2, frames), frames)
    causal = t.mask(position[None, :] <= position[:, None])
    assert slots.cross is not None
    t(x, cache, slots.cross.of(slice(0, 1)), position, causal)


class Request:
    """One request's stages on a card, in order."""

    def __init__(self, card: roofline.Card, shape: Shape, asked: LoopRequest) -> None:
        self.card, self.shape, self.asked = card, shape, asked
        self.plan: Plan = plan(asked, SPEC)

    def stage(self, name: str, work: Callable[[], object], half: bool = True, repeats: int = 1) -> Stage:
        """Count a stage that is launched operation by operation."""
        found = counted(work)
        peak = (HALF_FLOPS if half else SINGLE_FLOPS)[self.card.name]
        card = max(
            found.bytes / (roofline.BANDWIDTH_SHARE * self.card.peak), found.flops / (FLOPS_SHARE * peak)
        )
        launched = found.launched_ms
        saves = max(0.0, launched - 1000 * card)
        return Stage(
            name,
            repeats * (found.launches + found.lstm_launches),
            repeats * found.bytes / 1e9,
            repeats * found.flops / 1e12,
            repeats * launched,
            repeats * 1000 * card,
            repeats * saves,
        )

    def steps(self, name: str, rows: int, given: int, frames: int) -> Stage:
        """Decode steps, each one graph."""
        way = roofline.best_way(self.card) or roofline.ATEN
        count, columns = frames - given + self.shape.n_q - 1, (given + frames) / 2
        moved_bytes = roofline.step_bytes(self.shape, rows, columns)
        flops = rows * moved_bytes / roofline.HALF * 2  # a product and a sum for each weight and each row
        card = roofline.step_ms(self.card, self.shape, rows, columns, way)
        return Stage(
            name,
            count * roofline.nodes(self.shape, way),
            count * moved_bytes / 1e9,
            count * flops / 1e12,
            0.0,
            count * card,
            0.0,
        )

    def to_host(self, name: str, rows: int, frames: int) -> Stage:
        """Samples to the host, a copy a block of rows."""
        size = rows * frames * SPEC.hop_length * 4
        return Stage(name, -(-rows // BLOCK["cuda"]), size / 1e9, 0.0, 0.0, 1000 * size / PINNED_BYTES, 0.0)

    def waveforms(self, name: str, rows: int, frames: int) -> Stage:
        """EnCodec's decoding of a batch, in blocks of rows."""
        block = BLOCK["cuda"]
        model = codec(self.shape, torch.float16)
        codes = torch.zeros(block, self.shape.n_q, frames, dtype=torch.long, device="cuda")
        return self.stage(name, lambda: model.decode(codes), repeats=-(-rows // block))

    def stages(self) -> list[Stage]:
        """All of them."""
        p, later = self.plan, self.asked.variations - 1
        judged = p.bar_frames + round(SEAM_JUDGED_SECONDS * SPEC.frame_rate)
        with on_a_gpu_of_air():
            t, encoder = transformer(self.shape), codec(self.shape, torch.float32)
            ids = torch.ones(1, roofline.TEXT, dtype=torch.long, device="cuda")
            heard = torch.zeros(1, 1, p.prompt_frames * SPEC.hop_length, device="cuda")
            text = t5()
            found = [
                self.stage("text, by T5", lambda: text(input_ids=ids), half=False),
                self.steps(f"{CANDIDATES} candidates", CANDIDATES, 0, p.first_frames),
                self.waveforms("their waveforms", CANDIDATES, p.first_frames),
                self.to_host("to the host", CANDIDATES, p.first_frames),
                self.stage("their seams", lambda: likelihoods(t, 2 * CUTS * CANDIDATES, judged)),
            ]
            if later:
                found += [
                    self.stage("audio prompt, by EnCodec", lambda: encoder.encode(heard), half=False),
                    self.stage("audio prompt, by the model", lambda: prefill(t, p.prompt_frames)),
                    self.steps(f"{later} variations", later, p.prompt_frames, p.next_frames),
                    self.waveforms("their waveforms", later, p.next_frames),
                    self.to_host("to the host", later, p.next_frames),
                    self.stage("their seams", lambda: likelihoods(t, 2 * later, judged)),
                ]
        return found


def summed(stages: list[Stage]) -> Stage:
    """A last line."""
    total = lambda name: sum(getattr(stage, name) for stage in stages)
    names = ("launches", "gigabytes", "teraflops", "launched_ms", "card_ms", "graph_saves_ms")
    return Stage("in all", *(total(name) for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cards = {card.name: card for card in roofline.CARDS}
    parser.add_argument("--card", choices=cards, default="H100")
    parser.add_argument("--shape", choices=roofline.SHAPES, default="medium")
    parser.add_argument("--variations", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0, help="of the longest loop")
    parser.add_argument("--bpm", type=float, default=120.0)
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    args = parser.parse_args()
    asked = LoopRequest("deep house", bpm=args.bpm, variations=args.variations, max_duration=args.seconds)
    stages = Request(cards[args.card], roofline.SHAPES[args.shape], asked).stages()
    lines = [*stages, summed(stages)]
    if args.json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
        return
    print(
        f"{'stage':<28}{'launches':>10}{'GB':>9}{'TFLOP':>8}{'launched ms':>13}{'card ms':>10}{'a graph saves':>15}"
    )
    for line in lines:
        print(
            f"{line.name:<28}{line.launches:>10,}{line.gigabytes:>9.2f}{line.teraflops:>8.2f}"
            f"{line.launched_ms:>13.1f}{line.card_ms:>10.1f}{line.graph_saves_ms:>15.1f}"
        )


if __name__ == "__main__":
    main()
