"""Train tiny's EnCodec: L1, mel and commitment losses on synthesised loops; resumable.

    python -m training.tiny.codec [--steps 4000] [--warm 250] [--freeze 2200]

First without quantisation, then k-means and the whole codec, then (after --freeze steps) the decoder alone on
frozen codes, so that a language model can train on the codes meanwhile.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import time

import librosa
import numpy as np
import omegaconf
import torch
from torch import nn
from torch.nn import functional as F

from training.tiny.config import CODEC
from training.tiny.grooves import draw_score
from training.tiny.synth import HOP_LENGTH, SAMPLE_RATE, render

WORK = pathlib.Path("training/work")
CROP = 32 * HOP_LENGTH  # 0.64 s, on the frame grid
BATCH = 8


def build(config: str = CODEC) -> nn.Module:
    """EncodecModel as audiocraft builds it."""
    from audiocraft.models import builders

    return builders.get_compression_model(omegaconf.OmegaConf.create(config))


def corpus(seed: int, loops: int, frames: int = 600) -> np.ndarray:
    """Synthesise int16 [loops, samples]."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [np.round(render(draw_score(rng), frames) * 32767).astype(np.int16) for _ in range(loops)]
    )


class MelLoss(nn.Module):
    """L1 of log and square-root mel magnitudes at several window sizes, two drawn a call."""

    SIZES = (2048, 1024, 512, 256)

    def __init__(self) -> None:
        super().__init__()
        for n in self.SIZES:
            mel = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=n, n_mels=max(16, n // 16), fmin=20)
            self.register_buffer(f"mel{n}", torch.tensor(mel, dtype=torch.float32))
            self.register_buffer(f"window{n}", torch.hann_window(n))

    def magnitude(self, x: torch.Tensor, n: int) -> torch.Tensor:
        frames = F.pad(x, (n // 2, n // 2)).unfold(-1, n, n // 4) * getattr(self, f"window{n}")
        power = torch.fft.rfft(frames).abs()
        return power @ getattr(self, f"mel{n}").T

    def forward(self, x: torch.Tensor, y: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
        total = x.new_zeros(())
        for n in sizes:
            a, b = self.magnitude(x, n), self.magnitude(y, n)
            total = total + F.l1_loss((a + 1e-3).log(), (b + 1e-3).log())
            total = total + 2 * F.l1_loss((a + 1e-6).sqrt(), (b + 1e-6).sqrt())
        return total / len(sizes)


def si_sdr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Scale-invariant SNR in dB over the last axis (Le Roux et al., ICASSP 2019)."""
    reference, estimate = reference - reference.mean(-1, True), estimate - estimate.mean(-1, True)
    target = (
        (reference * estimate).sum(-1, True) / reference.square().sum(-1, True).clamp(min=1e-9) * reference
    )
    return 10 * torch.log10(target.square().sum(-1) / (target - estimate).square().sum(-1).clamp(min=1e-9))


@torch.no_grad()
def validate(model: nn.Module, mel: MelLoss, held_out: np.ndarray) -> tuple[float, float]:
    """(SI-SNR dB, mel distance) of whole held-out loops through codes and back."""
    model.eval()
    ratios, distances = [], []
    for loop in held_out:
        x = torch.from_numpy(loop.astype(np.float32) / 32767)[None, None, : 500 * HOP_LENGTH]
        y = model.decode(model.encode(x)[0])
        ratios.append(float(si_sdr(x[:, 0], y[:, 0])))
        distances.append(float(mel(x[:, 0], y[:, 0], MelLoss.SIZES)))
    model.train()
    return float(np.median(ratios)), float(np.mean(distances))


def reconstruct(model: nn.Module, x: torch.Tensor, stage: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pass a crop through the codec as its training stage asks: (output, commitment loss)."""
    if stage == "warm":
        return model.decoder(model.encoder(x)), x.new_zeros(())
    if stage == "whole":
        q = model.quantizer(model.encoder(x), model.frame_rate)
        return model.decoder(q.x), q.penalty
    with torch.no_grad():
        model.quantizer.eval()
        latent = model.quantizer.decode(model.quantizer.encode(model.encoder(x)))
    return model.decoder(latent), x.new_zeros(())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--warm", type=int, default=250)
    parser.add_argument("--freeze", type=int, default=2500)
    parser.add_argument("--loops", type=int, default=500)
    args = parser.parse_args()
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    model, mel = build(), MelLoss()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.8, 0.99), weight_decay=1e-3)
    step, path = 0, WORK / "codec.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    train, held_out = corpus(100 + step, args.loops), corpus(7, 12)
    model.train()
    started = time.process_time()
    while step < args.steps:
        rng = np.random.default_rng((2, step))
        stage = "warm" if step < args.warm else "whole" if step < args.freeze else "decoder"
        rows = rng.integers(len(train), size=BATCH)
        starts = rng.integers((train.shape[1] - CROP) // HOP_LENGTH, size=BATCH) * HOP_LENGTH
        x = torch.from_numpy(np.stack([train[r, s : s + CROP] for r, s in zip(rows, starts, strict=True)]))
        x = x.float()[:, None] / 32767
        inside = step - args.freeze if stage == "decoder" else step
        span = args.steps - args.freeze if stage == "decoder" else args.freeze
        peak = 1.5e-3 if stage == "decoder" else 2e-3
        rate = peak * max(0.03, 0.5 + 0.5 * math.cos(math.pi * inside / span)) * min(1, (inside + 1) / 50)
        for group in optimiser.param_groups:
            group["lr"] = rate
        y, commitment = reconstruct(model, x, stage)
        sizes = tuple(rng.choice(MelLoss.SIZES, 2, replace=False))
        loss = 8 * F.l1_loss(x, y) + mel(x[:, 0], y[:, 0], sizes) + 0.25 * commitment
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step += 1
        if step % 100 == 0:
            note = f"step {step} {stage} loss {loss.item():.3f} cpu {time.process_time() - started:.0f} s"
            if step % 500 == 0:
                note += " held out: SI-SNR {:.2f} dB, mel {:.3f}".format(*validate(model, mel, held_out))
            print(note, flush=True)
        if step % 250 == 0 or step in (args.freeze, args.steps):
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            torch.save(state, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
            if step == args.freeze:  # from here on the codes stand still
                torch.save(model.state_dict(), WORK / "codes.pt")


if __name__ == "__main__":
    main()
