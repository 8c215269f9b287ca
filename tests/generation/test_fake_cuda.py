"""The whole way of a request over tensors that say they are on a GPU.

No GPU is here, so nothing is computed: `FakeTensorMode` carries shapes, types and devices alone, and
`CudaRules` adds what a GPU would refuse and fake tensors let pass (types that differ within a product or
an indexed copy), and, within a step, what a CUDA graph would refuse: tensors of the CPU, copies between
devices, a look at a value.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections import Counter
from collections.abc import Iterator
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors
import torch
import torch.nn.functional as F
import transformers
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from looper.checkpoints import load, store
from looper.generation.generator import Generator
from looper.generation.kernels import choice
from looper.generation.lane import ROUND, Lane
from looper.generation.lane_pool import LanePool
from looper.generation.messages import GenerationRequest, Passage
from looper.model.beat_clock import clock_features
from looper.request import Sampling
from looper.runtime import cuda_graph
from testkit import stand_ins
from testkit.checkpoints import Shape
from testkit.melody import tune

aten = torch.ops.aten
# in inference mode composed operators come as they are called
CONVOLUTIONS = {aten.convolution, aten.conv1d, aten.conv_transpose1d, aten.cudnn_convolution}
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.linear, aten.matmul} | CONVOLUTIONS
STORED = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}
RUN_BEFORE_REPLAYS = 2
FINITE = {torch.bool: True, torch.float32: 0.0, torch.float16: 0.0, torch.int32: 1, torch.int64: 5}


class CudaRules(TorchDispatchMode):
    """Refuses what CUDA refuses; `in_step` what its graphs do."""

    def __init__(self) -> None:
        super().__init__()
        self.in_step, self.steps, self.looks = False, 0, 0
        self.eager = False  # all steps are run, not each shape's first few alone
        self.convolved: list[torch.dtype] = []
        self.summed: set[int] = set()  # how many rows running sums had

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = function.overloadpacket
        tensors = [t for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)]
        for t in tensors:
            if isinstance(t, FakeTensor):
                t.constant = None  # else a small tensor moves to the GPU for real
        if packet in (aten._local_scalar_dense, aten.item, aten.is_nonzero):
            assert not self.in_step, "the step looks at a value on the device"
            self.looks += 1
            return FINITE[args[0].dtype]
        if packet in PRODUCTS:
            kinds = {t.dtype for t in tensors}
            assert len(kinds) == 1, f"{function}: {kinds}"
        if packet in CONVOLUTIONS:
            self.convolved += [tensors[0].dtype]
        if packet in (
            aten.index_copy,
            aten.index_copy_,
            aten.index_put,
            aten.index_put_,
            aten._index_put_impl_,
        ):
            values = args[3] if packet in (aten.index_copy, aten.index_copy_) else args[2]
            assert args[0].dtype == values.dtype, f"{function}: {args[0].dtype} and {values.dtype}"
            assert args[0].device == values.device or not values.dim(), f"{function}: {values.device}"
        if packet is aten.cumsum:
            self.summed.add(args[0].numel() // args[0].shape[-1])
        if packet is aten.index:
            for at in args[1]:
                assert at is None or at.device.type == "cpu" or at.device == args[0].device, (
                    f"{function}: {at.device}"
                )
        out = function(*args, **kwargs)
        if self.in_step:
            made = [t for t in tree_leaves(out) if torch.is_tensor(t)]
            here = {t.device.type for t in (*tensors, *made) if t.dim()}
            assert here <= {"cuda"}, f"{function} in the step: {here}"
        return out


class OneTypeInAttention(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention and len(args) == 4:  # ours; T5 names its mask
            q, k, v, mask = args
            assert q.dtype == k.dtype == v.dtype == mask.dtype == torch.float16
            assert q.stride(-1) == k.stride(-1) == v.stride(-1) == mask.stride(-1) == 1
            for t in (k, v):  # 16 bytes at once
                assert t.storage_offset() * 2 % 16 == 0 and all(s * 2 % 16 == 0 for s in t.stride()[:-1])
        return function(*args, **(kwargs or {}))


@pytest.fixture
def rules(monkeypatch) -> Iterator[CudaRules]:
    """A machine whose GPU only says what it would make."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: Mock())
    monkeypatch.setattr("looper.runtime.device._reachable", lambda t: torch.empty(t.shape, dtype=t.dtype))
    reduced = torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    monkeypatch.setattr(LanePool, "_kept_bytes", lambda self: 1 << 30)
    opened, loaded = safetensors.safe_open, transformers.T5EncoderModel.from_pretrained

    class OnFakeGpu:
        def __init__(self, path, framework, device="cpu") -> None:
            self.file, self.device = opened(path, framework=framework), device

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def keys(self):
            return self.file.keys()

        def get_tensor(self, name):
            piece = self.file.get_slice(name)
            return torch.empty(piece.get_shape(), dtype=STORED[piece.get_dtype()], device=self.device)

    def t5(name):
        with unset_fake_temporarily():
            model = loaded(name)
        return moved(model, "cpu")

    def moved(module, device):
        """As `Module.to`, which cannot swap fake parameters."""
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    fake = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                    setattr(part, name, torch.nn.Parameter(fake, requires_grad=False))
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
        return module

    class InThisThread:
        """A pool whose work keeps the modes, which belong to a thread."""

        def __init__(self, workers, **_) -> None: ...

        def __enter__(self):
            return self

        def __exit__(self, *error) -> None: ...

        def submit(self, function, *args) -> None:
            function(*args)

    tensor = torch.tensor

    def tensor_of(data, device=None, **options):
        """As `torch.tensor`, which would look for a driver."""
        made = tensor(data, **options)
        return made if device is None else torch.empty(made.shape, dtype=made.dtype, device=device)

    rules, runs = CudaRules(), Counter[cuda_graph.Graphed]()
    step = cuda_graph.Graphed.__call__

    def watched(self) -> None:
        """As a GPU's: what was run, then captured, is replayed without its Python. Shapes were all there was to see."""
        rules.steps += 1
        runs[self] += 1
        if not rules.eager and runs[self] > RUN_BEFORE_REPLAYS:
            return
        rules.in_step = True
        step(self)
        rules.in_step = False

    monkeypatch.setattr(safetensors, "safe_open", OnFakeGpu)
    monkeypatch.setattr(transformers.T5EncoderModel, "from_pretrained", t5)
    monkeypatch.setattr("audiocraft.modules.conditioners.T5EncoderModel.from_pretrained", t5)
    monkeypatch.setattr(torch, "tensor", tensor_of)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    monkeypatch.setattr("looper.generation.engine.ThreadPoolExecutor", InThisThread)
    monkeypatch.setattr(cuda_graph.Graphed, "__call__", watched)
    monkeypatch.setattr("looper.generation.lane_pool.free_bytes", lambda device: 1 << 34)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(FakeTensor, "numpy", lambda self: np.zeros(self.shape, np.float32), raising=False)
    # which kernel there is only a driver knows
    monkeypatch.setattr(
        "looper.model.transformer.one_attention_kernel", lambda device: contextlib.nullcontext()
    )
    monkeypatch.setenv(cuda_graph.KILL_SWITCH, "1")
    monkeypatch.setenv(choice.VARIABLE, "off")
    with FakeTensorMode(allow_non_fake_inputs=True), rules, OneTypeInAttention(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield rules
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = reduced


SHAPES = {
    "t5": Shape(codec_lstm=2),
    "biases": Shape(bias=True, layer_scale=0.6, memory_efficient=False, num_layers=2),
    "custom": Shape(
        custom=True, memory_efficient=False, qk_layer_norm=True, bias=True, num_heads=2, num_layers=2
    ),
    "melody": Shape(melody=True, stereo=True, num_layers=1),
}


@pytest.fixture
def folder(request, tmp_path_factory):
    if request.param == "tiny":
        return store.find("tiny")
    return stand_ins.weights(tmp_path_factory.mktemp("m") / "mini", SHAPES[request.param])


@pytest.mark.parametrize(
    ("folder", "sampling"),
    [
        *((name, Sampling(top_k=20)) for name in ("biases", "custom", "tiny", "melody")),
        ("t5", Sampling(top_p=0.9, cfg_coef=1)),
    ],
    indirect=["folder"],
    ids=str,
)
def test_a_whole_request_keeps_to_one_device_and_its_types(folder, sampling, rules):
    generator = Generator(load.load(folder, "cuda"))
    t = generator.engine.transformer
    assert t.dtype == torch.float16 and t.device.type == "cuda"
    clock = clock_features(78, 25) if generator.clocked else None
    lengths = [70, 70, 9, 33, 20, 33, 12, 12, 12]
    texts = ["deep house", "x" * 40, "deep house"] * 3
    heard = np.zeros((1, 5 * generator.hop_length), np.float32)
    channels, melody = (2,) * (generator.spec.channels - 1), None
    if generator.spec.melody_samples is not None:
        melody = tune(2)
    for prompt in (None, heard):
        keys = [(1, k, 0) for k in range(9)]
        drawn = generator.generate(GenerationRequest(texts, lengths, keys, sampling, prompt, clock, melody))
        assert drawn.samples.shape == (9, 70 * generator.hop_length, *channels)
    assert rules.steps > 70
    assert set(rules.convolved) == {torch.float16, torch.float32}  # decoding, and encoding
    passages = [Passage(np.zeros((t.n_q, n), np.int64), 3, clock) for n in (10, 77, 200)]
    assert generator.log_likelihoods("deep house", passages, melody).shape == (3,)


@pytest.mark.parametrize("folder", ["t5"], indirect=True)
def test_running_sums_have_one_shape_whatever_the_batch(folder, rules):
    """How many threads of CUDA's scan share a row, and so its order of summation, depends on how many rows there are."""
    generator = Generator(load.load(folder, "cuda"))
    for sampling in (Sampling(top_k=20), Sampling(top_p=0.9)):
        rules.summed.clear()
        for rows in (1, 7, 20):
            generator.generate_codes(
                GenerationRequest(["a"] * rows, 20, [(0, k, 0) for k in range(rows)], sampling)
            )
        assert len(rules.summed) == 1


@pytest.mark.parametrize("folder", ["t5"], indirect=True)
def test_all_requests_share_a_step_for_each_number_of_rows_and_window(folder, rules, monkeypatch):
    monkeypatch.setattr("looper.generation.lane_pool.SHORT_COLUMNS", 96)
    generator, rounds = Generator(load.load(folder, "cuda")), []
    assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    advance = Lane.advance

    def without_a_look(lane):
        before = rules.looks
        advance(lane)
        rounds.append(rules.looks - before)

    monkeypatch.setattr(Lane, "advance", without_a_look)
    samplings = (
        Sampling(top_k=20),
        Sampling(top_p=0.9),
        Sampling(temperature=0),
        Sampling(top_k=0, cfg_coef=1),
    )
    rules.eager = True
    generator.generate_codes(GenerationRequest(["a"], ROUND + 4, [(0, 0, 0)], samplings[0]))
    rules.eager = False
    for rows, sampling in zip((1, 3, 5, 20), samplings, strict=True):
        lengths = [93 if k == 0 else 40 for k in range(rows)]
        generator.generate_codes(
            GenerationRequest(["a"] * rows, lengths, [(0, k, 0) for k in range(rows)], sampling)
        )
    assert len(rounds) >= 4 * 96 / ROUND and not any(rounds), "nothing looks at the device within a round"
    ((lane,),) = generator.engine.lanes.by_kind.values()
    assert {key.rows for key in lane._steps} == {1, 4, 8, 32}
    assert {key.columns for key in lane._steps} == {64, 96}
    assert len({key.rule for key in lane._steps}) == len({key.text for key in lane._steps}) == 1


@pytest.mark.parametrize("folder", ["t5"], indirect=True)
@pytest.mark.parametrize("planted", ["mask", "copy", "look", "late look", "cpu"])
def test_what_a_gpu_refuses_would_be_noticed(folder, planted, rules, monkeypatch):
    generator = Generator(load.load(folder, "cuda"))
    t = generator.engine.transformer
    mask, logits = t.mask, t.logits
    if planted == "mask":
        monkeypatch.setattr(t, "mask", lambda allowed: mask(allowed).float())
    made = itertools.count()
    spoil = {
        "look": lambda x: x * x.sum().item(),
        "late look": lambda x: x * x.sum().item() if next(made) == ROUND - 2 else x,
        "cpu": lambda x: x + torch.zeros(1).to("cuda"),
        "copy": lambda x: (
            x.half().float().index_copy_(0, torch.zeros(1, dtype=torch.long, device="cuda"), x[:1].half())
        ),
    }
    if planted in spoil:
        monkeypatch.setattr(t, "logits", lambda x: spoil[planted](logits(x)))
    rules.eager = planted == "late look"
    with pytest.raises(AssertionError):
        generator.generate_codes(GenerationRequest(["a"], 20, [(0, 0, 0)], Sampling(top_k=20)))


@pytest.mark.parametrize("folder", ["biases"], indirect=True)
def test_a_generator_without_graphs_captures_none(folder, rules, monkeypatch):
    monkeypatch.setattr("looper.generation.engine.graphs_wanted", lambda device: True)
    monkeypatch.setattr("looper.generation.engine.GraphPool", lambda device: device)
    model = load.load(folder, "cuda")
    assert Generator(model).engine.pool is not None
    assert Generator(model, disable_graphs=True).engine.pool is None
