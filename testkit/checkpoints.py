"""Miniature random checkpoints in the published format, made on the spot.

The same files that `facebook/musicgen-*` publishes, at any size: state_dict.bin,
compression_state_dict.bin, and a T5 folder with a sentencepiece vocabulary of its own.
"""

from __future__ import annotations

import io
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from omegaconf import OmegaConf

from looper.checkpoints import load
from looper.checkpoints.convert import convert
from looper.model.musicgen import Model

WORDS = re.findall(
    r"\w+",
    "deep house warm chords techno driving bass drums hat snare kick slow fast jazz swing funk rock guitar "
    "piano strings ambient pad lofi hip hop trap break beat bossa samba bpm 60 80 90 100 120 124 140 174",
)


@dataclass(frozen=True)
class Shape:
    """What the published models differ in, and what ours may."""

    dim: int = 32
    num_heads: int = 4
    num_layers: int = 3
    n_q: int = 4  # of each channel
    stereo: bool = False
    card: int = 64
    text: str = "t5"
    melody: bool = False
    custom: bool = False
    memory_efficient: bool = True
    bias: bool = False
    layer_scale: float | None = None
    qk_layer_norm: bool = False
    delays: tuple[int, ...] | None = None
    t5_dim: int = 24
    codec_filters: int = 2
    codec_dim: int = 16
    codec_lstm: int = 0
    seconds: float = 30.0


TINY = Shape()
SMALL = Shape(1024, 16, 24, card=2048, t5_dim=768, codec_filters=64, codec_dim=128, codec_lstm=2)
DIM512 = Shape(512, 8, 12, card=2048, t5_dim=64, codec_filters=16, codec_dim=64)
MEDIUM = Shape(1536, 24, 48, card=2048, t5_dim=768, codec_filters=64, codec_dim=128, codec_lstm=2)
STEREO = Shape(stereo=True)
LARGE = Shape(2048, 32, 48, card=2048, t5_dim=768, codec_filters=64, codec_dim=128, codec_lstm=2)


def lm_config(shape: Shape) -> dict:
    """Return the language model's xp.cfg: audiocraft's config/model/lm/musicgen_lm.yaml, resolved."""
    conditioner = {
        "t5": {
            "model": "t5",
            "t5": {"name": "t5-base", "finetune": False, "word_dropout": 0.3, "normalize_text": False},
        },
        "lut": {"model": "lut", "lut": {"n_bins": 128, "dim": 16, "tokenizer": "noop", "pad_idx": 0}},
    }[shape.text]
    chroma = {
        "sample_rate": 32000,
        "n_chroma": 12,
        "radix2_exp": 14,
        "argmax": True,
        "match_len_on_eval": False,
        "eval_wavs": None,
        "n_eval_wavs": 100,
        "cache_path": None,
    }
    melody = {"self_wav": {"model": "chroma_stem", "chroma_stem": chroma}} if shape.melody else {}
    return {
        "lm_model": "transformer_lm",
        "device": "cuda",
        "dtype": "float16",
        "sample_rate": 32000,
        "channels": 1 + shape.stereo,
        "interleave_stereo_codebooks": {"use": shape.stereo, "per_timestep": False},
        "compression_model_n_q": None,
        "dataset": {"segment_duration": shape.seconds},
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {
                "delays": list(
                    shape.delays or (q for q in range(shape.n_q) for _ in range(1 + shape.stereo))
                ),
                "flatten_first": 0,
                "empty_initial": 0,
            },
        },
        "transformer_lm": {
            "dim": shape.dim,
            "num_heads": shape.num_heads,
            "num_layers": shape.num_layers,
            "hidden_scale": 4,
            "n_q": shape.n_q * (1 + shape.stereo),
            "card": shape.card,
            "dropout": 0.0,
            "emb_lr": None,
            "activation": "gelu",
            "norm_first": True,
            "bias_ff": shape.bias,
            "bias_attn": shape.bias,
            "bias_proj": shape.bias,
            "past_context": None,
            "causal": True,
            "custom": shape.custom,
            "memory_efficient": shape.memory_efficient,
            "attention_as_float32": False,
            "layer_scale": shape.layer_scale,
            "positional_embedding": "sin",
            "xpos": False,
            "checkpointing": "none",
            "weight_init": "gaussian",
            "depthwise_init": "current",
            "zero_bias_init": shape.bias,
            "norm": "layer_norm",
            "cross_attention": False,
            "qk_layer_norm": shape.qk_layer_norm,
            "qk_layer_norm_cross": shape.qk_layer_norm,
            "attention_dropout": None,
            "kv_repeat": 1,
            "two_step_cfg": False,
        },
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": ["self_wav", "description"] if shape.melody else [],
            "cross": [] if shape.melody else ["description"],
            "input_interpolate": [],
        },
        "conditioners": {**melody, "description": conditioner},
    }


def codec_config(shape: Shape) -> dict:
    """Return the codec's xp.cfg: audiocraft's encodec_large_nq4_s640.yaml, resolved and narrowed."""
    return {
        "compression_model": "encodec",
        "device": "cuda",
        "sample_rate": 32000,
        "channels": 1,
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": 32000,
            "channels": 1,
            "causal": False,
            "renormalize": False,
        },
        "seanet": {
            "dimension": shape.codec_dim,
            "channels": 1,
            "causal": False,
            "n_filters": shape.codec_filters,
            "n_residual_layers": 1,
            "ratios": [8, 5, 4, 4],
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": "weight_norm",
            "norm_params": {},
            "kernel_size": 7,
            "residual_kernel_size": 3,
            "last_kernel_size": 7,
            "dilation_base": 2,
            "pad_mode": "constant",
            "true_skip": True,
            "compress": 2,
            "lstm": shape.codec_lstm,
            "disable_norm_outer_blocks": 0,
            "decoder": {"trim_right_ratio": 1.0, "final_activation": None, "final_activation_params": None},
            "encoder": {},
        },
        "rvq": {
            "n_q": shape.n_q,
            "q_dropout": False,
            "bins": shape.card,
            "decay": 0.99,
            "kmeans_init": False,
            "kmeans_iters": 50,
            "threshold_ema_dead_code": 2,
            "orthogonal_reg_weight": 0.0,
            "orthogonal_reg_active_codes_only": False,
        },
    }


def write_t5(folder: Path, dim: int = 24) -> Path:
    """Make a random T5 encoder with a sentencepiece vocabulary trained on `WORDS`; t5-base's size at dim 768."""
    import sentencepiece
    from transformers import T5Config, T5EncoderModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]),
        model_writer=vocabulary,
        vocab_size=120,
        hard_vocab_limit=False,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(vocabulary.getvalue())
    torch.manual_seed(7)
    size = {"vocab_size": 256, "d_kv": 8, "d_ff": 2 * dim, "num_layers": 2, "num_heads": 2}
    if dim == 768:
        size = {"vocab_size": 32128, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
    config = T5Config(d_model=dim, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **size)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def publish(folder: Path, shape: Shape = TINY, seed: int = 0, scale: float = 1.0) -> Path:
    """Write random fp16 state_dict.bin and compression_state_dict.bin of the given shape.

    `scale` multiplies the output heads: larger means more decided (peaked) next-token distributions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    t5 = write_t5(folder / "t5", shape.t5_dim) if shape.text == "t5" else folder / "none"
    cfg = lm_config(shape)
    lm = load.build_lm(OmegaConf.create(cfg), t5, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    state = {name: _random(name, tensor, generator, scale) for name, tensor in lm.state_dict().items()}
    if shape.melody:
        stem = "condition_provider.conditioners.self_wav"
        for name, like in (("weight", torch.empty(shape.dim, 12)), ("bias", torch.empty(shape.dim))):
            state[f"{stem}.output_proj.{name}"] = _random(name, like, generator, scale)
        state[f"{stem}.chroma.spec.window"] = torch.hann_window(2**14)
    _save(folder / "state_dict.bin", state, cfg)
    from audiocraft.models import builders  # checkpoint.build_codec draws no weights

    cfg = codec_config(shape)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codec = builders.get_compression_model(OmegaConf.create({**cfg, "device": "cpu"}))
    for name, tensor in codec.state_dict().items():
        if name.endswith("codebook.embed"):
            tensor.normal_(generator=generator)
    _save(folder / "compression_state_dict.bin", codec.state_dict(), cfg)
    return folder


def _random(name: str, like: torch.Tensor, generator: torch.Generator, scale: float) -> torch.Tensor:
    tensor = torch.empty(like.shape, dtype=torch.float16)
    if "norm" in name and name.endswith("weight"):
        return tensor.fill_(1.0)
    if "layer_scale" in name:
        return tensor.fill_(0.7)
    width = like.shape[-1] ** 0.5
    if name.startswith("linears."):
        width /= 3 * scale
    if name.startswith("emb."):
        width = 1.0
    return tensor.normal_(generator=generator).div_(width)


def _save(path: Path, state: dict, cfg: dict) -> None:
    torch.save(
        {"best_state": state, "xp.cfg": yaml.safe_dump(cfg), "version": "1.3.0", "exported": True}, path
    )


def weights(folder: Path, shape: Shape = TINY, **kwargs) -> Path:
    """Make a model folder of ours from a fresh `publish`."""
    published = publish(folder.parent / f"{folder.name}-published", shape, **kwargs)
    return convert(published, published / "t5" if shape.text == "t5" else None, folder)


def random_model(shape: Shape, device: str = "cpu", folder: Path | None = None) -> Model:
    """Build a random model straight on the device, without files: for measuring speed at full size."""
    with tempfile.TemporaryDirectory() as scratch:
        t5 = write_t5(Path(folder or scratch) / "t5", shape.t5_dim)
        config = OmegaConf.create(lm_config(shape))
        lm = load.build_lm(config, t5, torch.device(device))
    half = torch.float16 if device.startswith("cuda") else torch.float32
    generator = torch.Generator(device).manual_seed(0)
    state = {}
    for name, like in lm.state_dict().items():
        dtype = half if name.startswith("transformer.layers.") else torch.float32
        tensor = torch.empty(like.shape, dtype=dtype, device=device)
        norm = "norm" in name and name.endswith("weight")
        state[name] = (
            tensor.fill_(1) if norm else tensor.normal_(std=like.shape[-1] ** -0.5, generator=generator)
        )
    lm.load_state_dict(state, assign=True)
    codec_cfg = OmegaConf.create(codec_config(shape))
    codec = load.build_codec(codec_cfg).to(device).eval()
    for name, tensor in codec.state_dict().items():
        if name.endswith("weight_g"):
            tensor.fill_(1)
        elif tensor.is_floating_point():
            tensor.normal_(std=max(1, tensor[:1].numel()) ** -0.5, generator=generator)
    config = {"lm": config, "codec": codec_cfg, "looper": {}}
    return Model(lm.eval().requires_grad_(False), codec, config, "random", None, torch.device(device))
