"""What audiocraft calls the parts of a model that transformers describes in a config of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 32_000  # Hz, of every MusicGen
WINDOW_SECONDS = 30
CHROMA_WINDOW = 14  # of a melody's spectra, as a power of two samples
CHROMA_LENGTH = 1 + WINDOW_SECONDS * SAMPLE_RATE // (2**CHROMA_WINDOW // 4)


def lm_config(decoder: dict[str, Any], state: dict[str, Tensor], chroma: int = 0) -> dict[str, Any]:
    """Audiocraft's config of the language model that transformers describes; with `chroma` bins it takes melodies."""
    codebooks, channels = decoder["num_codebooks"], decoder.get("audio_channels", 1)
    transformer = {
        "dim": decoder["hidden_size"],
        "num_heads": decoder["num_attention_heads"],
        "num_layers": decoder["num_hidden_layers"],
        "hidden_scale": decoder["ffn_dim"] // decoder["hidden_size"],
        "n_q": codebooks,
        "card": decoder["vocab_size"],
        "activation": decoder.get("activation_function", "gelu"),
        "norm_first": True,
        "bias_ff": "transformer.layers.0.linear1.bias" in state,
        "bias_attn": "transformer.layers.0.self_attn.in_proj_bias" in state,
        "bias_proj": "linears.0.bias" in state,
        "causal": True,
        "memory_efficient": True,
        "positional_embedding": "sin",
        "norm": "layer_norm",
        **dict.fromkeys(("emb_lr", "past_context", "layer_scale", "attention_dropout")),
        **dict.fromkeys(
            ("custom", "attention_as_float32", "xpos", "cross_attention", "qk_layer_norm", "qk_layer_norm_cross",
             "two_step_cfg"), False
        ),
        "kv_repeat": 1,
        "dropout": 0.0,
        "checkpointing": "none",
    }  # fmt: skip
    t5 = {"name": "t5-base", "finetune": False, "word_dropout": 0.0, "normalize_text": False}
    delays = [codebook // channels for codebook in range(codebooks)]
    delay = {"delays": delays, "flatten_first": 0, "empty_initial": 0}
    stem = {"sample_rate": SAMPLE_RATE, "n_chroma": chroma, "radix2_exp": CHROMA_WINDOW, "argmax": True}
    melody = {"self_wav": {"model": "chroma_stem", "chroma_stem": stem}} if chroma else {}
    return {
        "lm_model": "transformer_lm",
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": SAMPLE_RATE,
        "channels": channels,
        **({"interleave_stereo_codebooks": {"use": True, "per_timestep": False}} if channels == 2 else {}),
        "dataset": {"segment_duration": WINDOW_SECONDS},
        "codebooks_pattern": {"modeling": "delay", "delay": delay},
        "transformer_lm": transformer,
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": ["self_wav", "description"] if chroma else [],
            "cross": [] if chroma else ["description"],
            "input_interpolate": [],
        },
        "conditioners": {**melody, "description": {"model": "t5", "t5": t5}},
    }


def codec_config(codec: dict[str, Any], quantizers: int) -> dict[str, Any]:
    """Audiocraft's config of the EnCodec that transformers describes."""
    causal = codec["use_causal_conv"]
    seanet = {
        "dimension": codec["hidden_size"],
        "channels": 1,
        "causal": causal,
        "n_filters": codec["num_filters"],
        "n_residual_layers": codec["num_residual_layers"],
        "ratios": codec["upsampling_ratios"],
        "activation": "ELU",
        "activation_params": {"alpha": 1.0},
        "norm": codec["norm_type"],
        "norm_params": {},
        "kernel_size": codec["kernel_size"],
        "residual_kernel_size": codec["residual_kernel_size"],
        "last_kernel_size": codec["last_kernel_size"],
        "dilation_base": codec["dilation_growth_rate"],
        "pad_mode": codec["pad_mode"],
        "true_skip": not codec["use_conv_shortcut"],
        "compress": codec["compress"],
        "lstm": codec["num_lstm_layers"],
        "disable_norm_outer_blocks": 0,
        "encoder": {},
        "decoder": {
            "trim_right_ratio": codec["trim_right_ratio"],
            "final_activation": None,
            "final_activation_params": None,
        },
    }
    encodec = {
        "autoencoder": "seanet",
        "quantizer": "rvq",
        "sample_rate": SAMPLE_RATE,
        "channels": 1,
        "causal": causal,
        "renormalize": codec.get("normalize", False),
    }
    rvq = {"n_q": quantizers, "bins": codec["codebook_size"], "q_dropout": False, "kmeans_init": False}
    return {
        "compression_model": "encodec",
        "device": "cpu",
        "sample_rate": SAMPLE_RATE,
        "channels": 1,
        "encodec": encodec,
        "seanet": seanet,
        "rvq": rvq,
    }
