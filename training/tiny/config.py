"""Tiny's two configurations, in the published xp.cfg layout that audiocraft's builders read."""

from __future__ import annotations

CODEC = """\
compression_model: encodec
device: cpu
dtype: float32
sample_rate: 32000
channels: 1
encodec: {autoencoder: seanet, quantizer: rvq, sample_rate: 32000, channels: 1, causal: false, renormalize: false}
seanet:
  dimension: 64
  channels: 1
  causal: false
  n_filters: 8
  n_residual_layers: 0
  ratios: [8, 5, 4, 4]
  activation: ELU
  activation_params: {alpha: 1.0}
  norm: weight_norm
  norm_params: {}
  kernel_size: 7
  last_kernel_size: 7
  residual_kernel_size: 3
  dilation_base: 2
  pad_mode: constant
  true_skip: true
  compress: 2
  lstm: 0
  disable_norm_outer_blocks: 0
  encoder: {last_kernel_size: 3}
  decoder: {n_filters: 12, trim_right_ratio: 1.0, final_activation: null, final_activation_params: null}
rvq: {n_q: 4, bins: 512, q_dropout: false, decay: 0.99, kmeans_init: true, kmeans_iters: 15, threshold_ema_dead_code: 2}
"""

LM = """\
lm_model: transformer_lm
device: cpu
dtype: float32
sample_rate: 32000
channels: 1
dataset: {segment_duration: 30}
compression_model_checkpoint: none
interleave_stereo_codebooks: {use: false, per_timestep: false}
transformer_lm:
  dim: 160
  num_heads: 4
  num_layers: 4
  hidden_scale: 4
  n_q: 4
  card: 512
  dropout: 0.0
  emb_lr: null
  activation: gelu
  norm_first: true
  bias_ff: false
  bias_attn: false
  bias_proj: false
  past_context: null
  causal: true
  custom: false
  memory_efficient: true
  attention_as_float32: false
  layer_scale: null
  positional_embedding: sin
  positional_scale: 0.0
  xpos: false
  checkpointing: none
  weight_init: gaussian
  depthwise_init: current
  zero_bias_init: true
  norm: layer_norm
  cross_attention: false
  qk_layer_norm: false
  qk_layer_norm_cross: false
  attention_dropout: null
  kv_repeat: 1
  two_step_cfg: false
codebooks_pattern:
  modeling: delay
  delay: {delays: [0, 1, 2, 3], flatten_first: 0, empty_initial: 0}
conditioners:
  description: {model: t5, t5: {name: t5, finetune: false, word_dropout: 0.0, normalize_text: false}}
fuser:
  cross_attention_pos_emb: false
  cross_attention_pos_emb_scale: 1
  sum: []
  prepend: []
  cross: [description]
  input_interpolate: []
classifier_free_guidance: {training_dropout: 0.12, inference_coef: 3.0}
attribute_dropout: {}
"""
