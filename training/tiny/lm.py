"""Train tiny's language model with its T5 text encoder and beat clock on frozen codes; resumable.

    python -m training.tiny.lm encode [--loops 5000]    # codes of synthesised loops, training/work/codes.npz
    python -m training.tiny.lm train  [--steps 4000] [--threads 1]

The forward pass is audiocraft's (a test holds them together), with cross-attention masked, as the decoder has it.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import time

import numpy as np
import omegaconf
import torch
from torch import nn
from torch.nn import functional as F

from looper.model.beat_clock import FEATURES, clock_features
from training.tiny.codec import WORK, build
from training.tiny.config import LM
from training.tiny.grooves import draw_prompt, draw_score
from training.tiny.synth import render

FRAMES = 800  # of each training loop
CODEBOOK_WEIGHTS = (1.0, 0.6, 0.45, 0.35)
T5 = WORK / "t5"


def encode(loops: int, seed: int = 1000) -> None:
    """Synthesise loops and store their codes, tempi and two prompts each."""
    torch.set_num_threads(1)
    codec = build()
    codec.load_state_dict(torch.load(WORK / "codes.pt", weights_only=True))
    codec.eval()
    codes, periods, prompts = [], [], []
    started = time.time()
    with torch.no_grad():
        for i in range(loops):
            rng = np.random.default_rng((seed, i))
            score = draw_score(rng)
            x = torch.from_numpy(render(score, FRAMES))[None, None]
            codes.append(codec.encode(x)[0][0].numpy().astype(np.int16))
            periods.append(score.frames_per_beat)
            prompts.append([draw_prompt(score, rng) for _ in range(2)])
            if i % 500 == 499:
                print(f"encoded {i + 1} loops in {time.time() - started:.0f} s", flush=True)
    np.savez(WORK / "codes.npz", codes=np.stack(codes), periods=np.array(periods), prompts=np.array(prompts))


def make_t5() -> None:
    """A very small T5 encoder with a vocabulary of its own, in Hugging Face's folder layout."""
    import sentencepiece
    from transformers import T5Config, T5EncoderModel

    T5.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    lines = [draw_prompt(draw_score(rng), rng) for _ in range(8000)]
    lines += [chr(c) for c in range(33, 127)] * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(T5 / "spiece"), vocab_size=400, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    (T5 / "spiece.vocab").unlink()
    torch.manual_seed(4)
    config = T5Config(
        vocab_size=400, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="relu", pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    T5EncoderModel(config).save_pretrained(T5)


def build_lm(config: str = LM, finetune: bool = True) -> nn.Module:
    """LMModel as audiocraft builds it, with the T5 of training/work."""
    from audiocraft.models import builders
    from audiocraft.modules.conditioners import T5Conditioner

    name = str(T5)
    if name not in T5Conditioner.MODELS:
        T5Conditioner.MODELS.append(name)
    T5Conditioner.MODELS_DIMS[name] = 64
    cfg = omegaconf.OmegaConf.create(config)
    cfg.conditioners.description.t5.update({"name": name, "finetune": finetune})
    return builders.get_lm_model(cfg)


class Text(nn.Module):
    """Prompts to cross-attention inputs: T5, projection and a padding mask."""

    def __init__(self, conditioner: nn.Module) -> None:
        super().__init__()
        self.conditioner = conditioner

    def forward(self, prompts: list[str], keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, L, dim] and a boolean mask [B, 1, 1, L]; rows not kept are the null condition, all zero."""
        embeds, mask = self.conditioner(self.conditioner.tokenize(prompts))
        mask = mask.bool() | ~keep[:, None]  # zeros, attended to or not, add nothing
        return embeds * keep[:, None, None], mask[:, None, None]


def attend(layer: nn.Module, x: torch.Tensor, source: torch.Tensor, **kwargs: object) -> torch.Tensor:
    """Multi-head attention with audiocraft's packed weights."""
    heads = lambda z: z.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
    q, k, v = layer.in_proj_weight.chunk(3)
    if x is source:
        q, k, v = (heads(z) for z in F.linear(x, layer.in_proj_weight).chunk(3, -1))
    else:
        q, k, v = heads(F.linear(x, q)), heads(F.linear(source, k)), heads(F.linear(source, v))
    y = F.scaled_dot_product_attention(q, k, v, **kwargs)
    return layer.out_proj(y.transpose(1, 2).flatten(2))


def hidden(lm: nn.Module, x: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The transformer, [B, S, dim] to [B, S, dim]."""
    for layer in lm.transformer.layers:
        z = layer.norm1(x)
        x = x + attend(layer.self_attn, z, z, is_causal=True)
        x = x + attend(layer.cross_attention, layer.norm_cross(x), text, attn_mask=mask)
        x = x + layer.linear2(layer.activation(layer.linear1(layer.norm2(x))))
    return lm.out_norm(x)


def delayed(codes: torch.Tensor, special: int) -> torch.Tensor:
    """Input columns of the delay pattern: [B, K, T] codes to [B, K, T + K], column 0 special."""
    b, k, t = codes.shape
    out = codes.new_full((b, k, t + k), special)
    for i in range(k):
        out[:, i, 1 + i : 1 + i + t] = codes[:, i]
    return out


class Tiny(nn.Module):
    """The language model, its text encoder and the beat clock's layer as one trainable module."""

    def __init__(self) -> None:
        super().__init__()
        self.lm = build_lm()
        self.text = Text(self.lm.condition_provider.conditioners["description"])
        self.clock = nn.Linear(FEATURES, self.lm.dim, bias=False)
        nn.init.normal_(self.clock.weight, std=0.1)

    def loss(
        self, codes: torch.Tensor, clock: torch.Tensor, prompts: list[str], keep: torch.Tensor
    ) -> torch.Tensor:
        """Cross entropy of each codebook, float [K]; clock is [B, T + K - 1, C]."""
        inputs = delayed(codes, self.lm.card)[:, :, :-1]
        targets = delayed(codes, -100)[:, :, 1:]
        x = sum(self.lm.emb[k](inputs[:, k]) for k in range(self.lm.n_q)) + self.clock(clock)
        out = hidden(self.lm, x, *self.text(prompts, keep))
        losses = [F.cross_entropy(self.lm.linears[k](out).flatten(0, 1), targets[:, k].flatten(), ignore_index=-100)
                  for k in range(self.lm.n_q)]  # fmt: skip
        return torch.stack(losses)


class Batches:
    """Crops of the stored loops that start on a bar line, with prompts and clock; a function of the step alone."""

    def __init__(self, path: pathlib.Path, held_out: int = 64) -> None:
        data = np.load(path)
        self.codes, self.periods, self.prompts = data["codes"], data["periods"], data["prompts"]
        self.train, self.valid = np.arange(held_out, len(self.codes)), np.arange(held_out)
        self.clocks = {int(p): clock_features(FRAMES + 200, int(p)) for p in np.unique(self.periods)}

    def draw(self, seed: tuple[int, ...], rows: int, frames: int, which: np.ndarray) -> tuple:
        rng = np.random.default_rng(seed)
        codes, clocks, prompts = [], [], []
        for i in rng.choice(which, rows, replace=rows > len(which)):
            bar = 4 * int(self.periods[i])
            start = int(rng.integers((FRAMES - frames) // bar + 1)) * bar
            codes.append(self.codes[i, :, start : start + frames])
            clocks.append(
                self.clocks[int(self.periods[i])][: frames + 3]
            )  # the four-bar phase starts with the crop
            prompts.append(str(self.prompts[i, int(rng.integers(2))]))
        keep = torch.from_numpy(rng.random(rows) >= 0.12)
        return torch.from_numpy(np.stack(codes)).long(), torch.from_numpy(np.stack(clocks)), prompts, keep


def train(steps: int, threads: int, peak: float) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(5)
    if not (T5 / "config.json").exists():
        make_t5()
    model = Tiny()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.03)
    step, path = 0, WORK / "lm.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    batches = Batches(WORK / "codes.npz")
    weights = torch.tensor(CODEBOOK_WEIGHTS)
    model.train()
    started, seen = time.time(), []
    while step < steps:
        rows, frames = (8, 400) if step % 8 else (4, 800)  # one step in eight over the long span
        with torch.autocast("cpu", dtype=torch.bfloat16):  # a fifth faster where the processor has it
            loss = model.loss(*batches.draw((6, step), rows, frames, batches.train))
        rate = peak * max(0.02, 0.5 + 0.5 * math.cos(math.pi * step / steps)) * min(1, (step + 1) / 100)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        (loss * weights).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        seen.append(loss.detach())
        if step % 100 == 0:
            with torch.no_grad():
                model.eval()
                codes, clock, prompts, keep = batches.draw((7, 0), 16, 400, batches.valid)
                valid = model.loss(codes, clock, prompts, torch.ones_like(keep))
                model.train()
            show = lambda x: " ".join(f"{v:.3f}" for v in x.tolist())
            print(f"step {step} train {show(torch.stack(seen).mean(0))} held out {show(valid)} {time.time() - started:.0f} s",
                  flush=True)  # fmt: skip
            seen = []
        if step % 250 == 0 or step == steps:
            torch.save(
                {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step},
                WORK / "lm.tmp",
            )
            (WORK / "lm.tmp").rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["encode", "train"])
    parser.add_argument("--loops", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", type=float, default=2e-3)
    args = parser.parse_args()
    if args.what == "encode":
        encode(args.loops)
    else:
        train(args.steps, args.threads, args.peak)


if __name__ == "__main__":
    main()
