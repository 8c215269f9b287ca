"""T5's encoder, which reads the prompt: the published weights in plain PyTorch.

The arithmetic, order included, is that of transformers' ``T5EncoderModel`` with its default attention, and so are the
bits; importing that one takes as long as importing PyTorch itself. Names of modules are those of the weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from looper.runtime.empty_weights import EmptyWeights

RELU, GATED_GELU = "relu", "gated-gelu"


@dataclass(frozen=True)
class T5Config:
    """Sizes of an encoder, named as in T5's ``config.json``."""

    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    vocab_size: int
    feed_forward_proj: str = RELU
    layer_norm_epsilon: float = 1e-6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128

    @classmethod
    def read(cls, folder: Path) -> T5Config:
        """Read it from a folder.

        Raises
        ------
        OSError, ValueError
            If ``config.json`` is missing, no encoder's, or asks for what is not done here.
        """
        raw = json.loads((folder / "config.json").read_text())
        if not isinstance(raw, dict):
            raise ValueError("config.json holds no T5 config")
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        try:
            config = cls(**known)
        except TypeError as error:
            raise ValueError(f"config.json is no T5 config: {error}") from None
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError for what cannot be a T5."""
        for name in _counts():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 24:
                raise ValueError(f"config.json: {name} cannot be {value!r:.40}")
        if self.feed_forward_proj not in (RELU, GATED_GELU):
            raise ValueError(
                f"config.json: feed_forward_proj {self.feed_forward_proj!r:.40} is not known here"
            )


def _counts() -> tuple[str, ...]:
    """Fields of `T5Config` that are counts."""
    return (
        "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size",
        "relative_attention_num_buckets", "relative_attention_max_distance",
    )  # fmt: skip


class T5LayerNorm(nn.Module):
    """Divide by the root mean square; no mean is taken off."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.epsilon))


class T5Attention(nn.Module):
    """Self-attention whose scores are not scaled, with a bias for each distance."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.width, self.most = config.d_kv, config.relative_attention_max_distance
        self.q, self.k, self.v = (nn.Linear(config.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_bias:
            buckets = config.relative_attention_num_buckets
            self.relative_attention_bias = nn.Embedding(buckets, config.num_heads)

    def bias(self, length: int) -> Tensor:
        """Bias of the scores by distance, [1, heads, length, length]."""
        table = self.relative_attention_bias
        place = torch.arange(length, device=table.weight.device)
        bucket = _buckets(place[None, :] - place[:, None], table.num_embeddings, self.most)
        return table(bucket).permute([2, 0, 1]).unsqueeze(0)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[rows, length, d_model] -> the same."""
        shape = (*x.shape[:-1], -1, self.width)
        query, key, value = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        return self.o(mixed.transpose(1, 2).contiguous().reshape(*x.shape[:-1], -1))


def _buckets(distance: Tensor, buckets: int, most: int) -> Tensor:
    """Number of each distance's bucket: half of them for each direction, exact when near, by logarithm when far."""
    half = buckets // 2
    exact = half // 2
    away = distance.abs()
    far = exact + (torch.log(away.float() / exact) / math.log(most / exact) * (half - exact)).to(torch.long)
    far = torch.min(far, torch.full_like(far, half - 1))
    return (distance > 0).to(torch.long) * half + torch.where(away < exact, away, far)


class _FeedForward(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.gated = config.feed_forward_proj == GATED_GELU
        make = lambda: nn.Linear(config.d_model, config.d_ff, bias=False)
        if self.gated:
            self.wi_0, self.wi_1 = make(), make()
        else:
            self.wi = make()
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.gated:
            return self.wo(F.relu(self.wi(x)))
        gate = self.wi_0(x)
        gate = (
            0.5
            * gate
            * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (gate + 0.044715 * torch.pow(gate, 3.0))))
        )
        return self.wo(gate * self.wi_1(x))


class _Layer(nn.Module):
    """One half of a block: what it adds to its input."""

    def __init__(self, config: T5Config, name: str, inside: nn.Module) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, inside)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor, *bias: Tensor) -> Tensor:
        return x + getattr(self, self.name)(self.layer_norm(x), *bias)


class _Block(nn.Module):
    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()
        attention = _Layer(config, "SelfAttention", T5Attention(config, has_bias))
        self.layer = nn.ModuleList([attention, _Layer(config, "DenseReluDense", _FeedForward(config))])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.layer[1](self.layer[0](x, bias))


class _Stack(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Block(config, has_bias=i == 0) for i in range(config.num_layers))
        self.final_layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)


class T5Encoder(nn.Module):
    """The encoder; call it as transformers' is called.

    Parameters
    ----------
    config : T5Config
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = _Stack(config)

    @property
    def _attention(self) -> T5Attention:
        """The first block's, whose bias is all blocks'."""
        return self.encoder.get_submodule("block.0.layer.0.SelfAttention")  # type: ignore[return-value]

    @classmethod
    def load(cls, folder: Path) -> T5Encoder:
        """Load ``config.json`` and ``model.safetensors``; a decoder's weights in there are passed over.

        Raises
        ------
        OSError, ValueError, safetensors.SafetensorError
            If a file is missing, damaged, or does not fit the other.
        """
        with torch.device("meta"), EmptyWeights():
            model = cls(T5Config.read(folder))
        wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
        state = dict(_read(folder / "model.safetensors", set(wanted)))
        wrong = [name for name, shape in wanted.items() if name not in state or state[name].shape != shape]
        if wrong:
            raise ValueError(
                f"model.safetensors does not fit config.json: {wrong[0]} is missing or misshapen"
            )
        model.load_state_dict(state, assign=True)
        return model.requires_grad_(False).eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> SimpleNamespace:
        """Encode tokens [rows, length]; the result's ``last_hidden_state`` is [rows, length, d_model].

        `attention_mask` [rows, length] is 0 where a row is padded.
        """
        x = self.shared(input_ids)
        bias = self._attention.bias(x.shape[1])
        if attention_mask is not None and not attention_mask.all():
            seen = attention_mask.bool()[:, None, None, :].expand(-1, 1, x.shape[1], -1)
            bias = torch.where(seen, bias, torch.finfo(x.dtype).min)
        for block in self.encoder.block:
            x = block(x, bias)
        return SimpleNamespace(last_hidden_state=self.encoder.final_layer_norm(x))


def _read(path: Path, wanted: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the wanted tensors as float32; the embedding has two names."""
    with safe_open(path, framework="pt") as file:
        there = set(file.keys())
        for name in sorted(wanted):
            alias = "encoder.embed_tokens.weight"
            found = alias if name == "shared.weight" and name not in there and alias in there else name
            if found in there:
                yield name, file.get_tensor(found).to(torch.float32)
