"""MusicGen's transformer with a static KV cache: the same weights and numbers, far fewer moves.

What audiocraft does at every step and this does not: grow the cache by concatenation, recompute the
text's keys and values, run cross-attention for the unconditional half (its text is all zeros, so
every layer adds the same vector: nothing, or a function of the biases). Positions are data, shapes
are constant, and nothing asks the device for a value, so a step can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from looper.model.attention import attention_by_rows
from looper.model.kv_cache import Cache, Cross, Window, zeros
from looper.model.linear import BatchInvariantLinear

if TYPE_CHECKING:
    from audiocraft.models.lm import LMModel


class Norm:
    """Layer norm in float32, whatever the layers' type."""

    def __init__(self, module: torch.nn.Module) -> None:
        assert isinstance(module, torch.nn.LayerNorm)
        self.shape, self.eps = module.normalized_shape, module.eps
        self.weight: Tensor = module.weight.float()
        self.bias: Tensor = module.bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the last axis of `x`."""
        return torch.layer_norm(x.float(), self.shape, self.weight, self.bias, self.eps)


class Layer:
    """One of audiocraft's `StreamingTransformerLayer`, taken apart into the matrices it needs."""

    def __init__(self, module: Any, linear: Callable[..., BatchInvariantLinear]) -> None:
        attention, cross = module.self_attn, module.cross_attention
        self.heads = attention.num_heads
        self.head_dim = attention.embed_dim // self.heads
        self.norm1, self.norm2 = Norm(module.norm1), Norm(module.norm2)
        weight, bias, out = _projections(attention)
        self.qkv, self.out = linear(weight, bias), linear(out.weight, out.bias)
        self.up = linear(module.linear1.weight, module.linear1.bias)
        self.down = linear(module.linear2.weight, module.linear2.bias)
        self.activation = module.activation
        self.qk_norm = _qk_norms(attention)
        self.scale1, self.scale2 = _scale(module.layer_scale_1), _scale(module.layer_scale_2)
        self.has_cross = cross is not None
        if cross is not None:
            weight, bias, out = _projections(cross)
            width = weight.shape[0] // 3
            b_q, b_kv = (None, None) if bias is None else (bias[:width], bias[width:])
            self.norm_cross, self.scale_cross = Norm(module.norm_cross), _scale(module.layer_scale_cross)
            self.cross_q, self.cross_kv = linear(weight[:width], b_q), linear(weight[width:], b_kv)
            self.cross_out = linear(out.weight, out.bias)
            self.cross_qk_norm = _qk_norms(cross)
            self.null_cross = self._null_cross(bias, width)

    def _null_cross(self, bias: Tensor | None, width: int) -> Tensor | None:
        """Cross-attention of a text of zeros: every value is the value bias, so that comes out."""
        if bias is None:
            return None
        return scaled(self.cross_out(bias[None, 2 * width :]), self.scale_cross)

    def split(self, x: Tensor, rows: int) -> Tensor:
        """[rows * time, n * dim] -> [rows, n * heads, time, head_dim]."""
        return x.view(rows, x.shape[0] // rows, -1, self.head_dim).transpose(1, 2)

    def self_attention(self, x: Tensor, cache: Window, position: Tensor, mask: Tensor) -> Tensor:
        """Write keys and values at `position`, attend to what `mask` allows, [rows * time, dim]."""
        qkv = self.qkv(self.norm1(x))
        if self.qk_norm:
            q, k, v = qkv.chunk(3, dim=-1)
            qkv = torch.cat([self.qk_norm[0](q).to(v.dtype), self.qk_norm[1](k).to(v.dtype), v], dim=-1)
        q, kv = self.split(qkv, cache.whole.shape[0]).split((self.heads, 2 * self.heads), dim=1)
        cache.write(position, kv)
        return scaled(self.out(attend(q, cache.k, cache.v, mask)), self.scale1)

    def cross_attention(self, x: Tensor, text: Window, mask: Tensor, rows: int) -> Tensor:
        """Add what the texts say to [rows * time, dim]; of as many rows for each text, the first is told it."""
        texts = text.whole.shape[0]
        each = x.view(texts, rows // texts, -1, x.shape[-1])
        told = each[:, 0].reshape(-1, x.shape[-1])
        q = self.cross_q(self.norm_cross(told))
        if self.cross_qk_norm:
            q = self.cross_qk_norm[0](q).to(text.whole.dtype)
        said = self.cross_out(attend(self.split(q, texts), text.k, text.v, mask))
        # in place: `x` is the sum before it, nobody else's
        each[:, 0] += scaled(said, self.scale_cross).view_as(each[:, 0])
        if texts < rows and self.null_cross is not None:
            each[:, 1:] += self.null_cross
        return x

    def text_keys(self, source: Tensor) -> Tensor:
        """Keys and values [2 * heads, text, head_dim] of one encoded text [text, dim]."""
        kv = self.cross_kv(source)
        if self.cross_qk_norm:
            k, v = kv.chunk(2, dim=-1)
            kv = torch.cat([self.cross_qk_norm[1](k).to(v.dtype), v], dim=-1)
        return self.split(kv, 1)[0]

    def feed_forward(self, x: Tensor) -> Tensor:
        """[rows * time, dim] -> the same."""
        wide = self.activation(self.up.padded(self.norm2(x)))
        return scaled(self.down(wide)[: x.shape[0]], self.scale2)


def scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """Apply a layer scale where there is one."""
    return x if scale is None else x * scale


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention, [rows, heads, time, head_dim] -> [rows * time, dim]; `mask` is added."""
    attention = attention_by_rows if q.device.type == "cpu" else F.scaled_dot_product_attention
    mixed = attention(q, k, v, mask)
    return mixed.transpose(1, 2).reshape(q.shape[0] * q.shape[2], -1)


def one_attention_kernel(device: torch.device) -> AbstractContextManager[Any]:
    """Keep CUDA to the kernel that works on each row and head by itself.

    Others split the keys by how much there is to do: a row's last bits would depend on its neighbours.
    """
    if device.type != "cuda":
        return nullcontext()
    # no silent way to another: head sizes of a multiple of 8 are all that the kernel asks for
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION])


class Transformer:
    """Embeddings, layers and heads of an audiocraft LMModel.

    Parameters
    ----------
    lm : audiocraft.models.lm.LMModel
        Pre-norm, with sinusoidal positions and text in cross-attention, as all of MusicGen's are.
    clock_weight : torch.Tensor, optional
        [dim, C], see `looper.model.musicgen.Clock`.

    Raises
    ------
    ValueError
        If the model is of a kind that is not supported.
    """

    def __init__(self, lm: LMModel, clock_weight: Tensor | None = None) -> None:
        _check_supported(lm)
        first: Any = lm.transformer.layers[0]
        self.device: torch.device = first.linear1.weight.device
        self.dtype: torch.dtype = first.linear1.weight.dtype
        self.delays: list[int] = list(lm.pattern_provider.delays)  # type: ignore[attr-defined]
        size = sum(p.numel() for p in lm.transformer.parameters())
        # packing copies the weights: not those of gigabytes, which a CPU only tries
        tile = 64 if self.device.type == "cuda" else None
        linear = partial(BatchInvariantLinear, tile=tile, packing=size < 1e9, buffers={})
        self.dim, self.n_q, self.card, self.special = lm.dim, lm.n_q, lm.card, lm.special_token_id
        self.layers = [Layer(layer, linear) for layer in lm.transformer.layers]
        self.heads = self.layers[0].heads
        self.has_cross = self.layers[0].has_cross
        tables: list[Any] = list(lm.emb)
        self.embeddings = torch.cat([table.weight for table in tables]).float()
        self.offsets = torch.arange(self.n_q, device=self.device) * (self.card + 1)
        assert lm.out_norm is not None
        self.out_norm = Norm(lm.out_norm)
        outputs: list[Any] = list(lm.linears)
        weight = torch.cat([head.weight for head in outputs]).to(self.dtype)
        bias = None if outputs[0].bias is None else torch.cat([head.bias for head in outputs]).to(self.dtype)
        self.output = linear(weight, bias)
        self.period, self.position_scale = lm.transformer.max_period, lm.transformer.positional_scale
        self.clock_weight = clock_weight

    def positions(self, length: int) -> Tensor:
        """Positional embeddings [length, dim] float32."""
        from audiocraft.modules.transformer import create_sin_embedding

        steps = torch.arange(length, device=self.device).view(1, -1, 1)
        return self.position_scale * create_sin_embedding(steps, self.dim, max_period=self.period)[0]

    def embed(self, tokens: Tensor) -> Tensor:
        """[rows, n_q, time] tokens -> [rows, time, dim] float32."""
        return F.embedding(tokens + self.offsets[:, None], self.embeddings).sum(dim=1)

    def clock(self, features: Tensor | None, columns: int) -> Tensor:
        """Project clock features [time, C] to what is added to each of `columns` inputs, [columns, dim]."""
        assert self.clock_weight is not None
        if features is None:
            return torch.zeros(columns, self.dim, device=self.device)
        at = torch.arange(columns, device=self.device).clamp_(max=features.shape[0] - 1)
        return F.linear(features.to(self.device, torch.float32), self.clock_weight.float())[at]

    def new_cache(self, rows: int, length: int, layers: int | None = None) -> Cache:
        """Room for `rows` rows (conditional and unconditional ones counted) of `length` steps."""
        shape = (rows, 2 * self.heads, length, self.dim // self.heads)
        # zeros, not empty: masked places are multiplied by zero, which turns a stray NaN into one
        count = len(self.layers) if layers is None else layers
        return tuple(zeros(shape, self.dtype, self.device) for _ in range(count))

    def new_cross(self, rows: int, length: int) -> Cross:
        """Room for the keys and values of `rows` texts of up to `length` tokens."""
        mask = torch.full((rows, 1, 1, length), -torch.inf, dtype=self.dtype, device=self.device)
        lengths = torch.zeros(rows, dtype=torch.long, device=self.device)
        return Cross(self.new_cache(rows, length), mask, lengths)

    def write_text(self, cross: Cross, rows: list[int], source: Tensor) -> None:
        """Compute the keys and values of one text [text, dim] and store them for `rows`."""
        length = source.shape[0]
        for layer, text in zip(self.layers, cross.layers, strict=True):
            text[rows, :, :length] = layer.text_keys(source)
        cross.mask[rows] = self.mask(torch.arange(cross.mask.shape[-1], device=self.device) < length)
        cross.lengths[rows] = length

    def __call__(
        self,
        x: Tensor,
        cache: tuple[Window, ...],
        cross: Cross | None,
        position: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """Run the layers on [rows, time, dim]; return the last time's output [rows, dim], for `logits`."""
        rows, time, _ = x.shape
        x = self.run(x, cache, cross, position, mask)
        return self.out_norm(x if time == 1 else x.view(rows, time, -1)[:, -1])

    def run(
        self,
        x: Tensor,
        cache: tuple[Window, ...],
        cross: Cross | None,
        position: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """As calling it, but return all times, before the last norm, [rows * time, dim]."""
        rows = x.shape[0]
        x = x.flatten(0, 1)
        with one_attention_kernel(self.device):
            for index, layer in enumerate(self.layers):
                x = x + layer.self_attention(x, cache[index], position, mask)
                if cross is not None:
                    x = layer.cross_attention(x, cross.windows[index], cross.mask, rows)
                x = x + layer.feed_forward(x)
        return x

    def mask(self, allowed: Tensor) -> Tensor:
        """Attention mask to add: 0 where `allowed` is true, else -inf."""
        return torch.where(allowed, 0.0, -torch.inf).to(self.dtype)

    def logits(self, x: Tensor) -> Tensor:
        """[rows, dim] -> [rows, n_q, card] float32."""
        return self.output(x).float().view(x.shape[0], self.n_q, self.card)


def _projections(attention: Any) -> tuple[Tensor, Tensor | None, torch.nn.Linear]:
    source = attention if attention.custom else attention.mha
    return source.in_proj_weight, source.in_proj_bias, source.out_proj


def _qk_norms(attention: Any) -> tuple[Norm, Norm] | None:
    if not attention.qk_layer_norm:
        return None
    return Norm(attention.q_layer_norm), Norm(attention.k_layer_norm)


def _scale(module: torch.nn.Module) -> Tensor | None:
    return getattr(module, "scale", None)


def _check_supported(lm: LMModel) -> None:
    layer: Any = lm.transformer.layers[0]
    delays = getattr(lm.pattern_provider, "delays", None)
    flattened = getattr(lm.pattern_provider, "flatten_first", 0) or getattr(
        lm.pattern_provider, "empty_initial", 0
    )
    for unsupported, what in (
        (delays is None or flattened, "a codebook pattern other than delays"),
        (not layer.norm_first, "post-norm layers"),
        (lm.transformer.positional_embedding != "sin", "rotary positions"),
        (layer.self_attn.past_context is not None, "a limited context"),
        (layer.self_attn.kv_repeat != 1, "repeated keys"),
        (lm.fuser.cross_attention_pos_emb, "positions in cross-attention"),
        (
            any(lm.fuser.fuse2cond[how] for how in ("sum", "input_interpolate")),
            "conditions that are added to the music",
        ),
    ):
        if unsupported:
            raise ValueError(f"this model has {what}, which looper does not decode")
