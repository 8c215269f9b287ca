"""Figures of weights/tiny for its model card, on prompts and loops that nothing was chosen on.

    python -m training.tiny.evaluate [--prompts 40] [--plot spectrograms.png] [--json]

Sampling values are the API's defaults. Tempi are measured by `measure_bpm`, which does not know what was asked.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import librosa
import numpy as np
import torch

from looper.checkpoints.store import find
from looper.generation.generator import Generator
from looper.pipeline.maker import LoopMaker
from looper.pipeline.session import CANDIDATES
from looper.request import LoopRequest
from training.tiny.codec import MelLoss, corpus, validate
from training.tiny.grooves import KIT_WORDS, STYLES

SEED = 90_000  # apart from training's 1000 and the development prompts' small numbers
HOP = 160


def measure_bpm(samples: np.ndarray, sample_rate: int) -> float:
    """Tempo in 75..150 BPM, octaves folded, by a comb over the autocorrelation of onset strength."""
    envelope = librosa.onset.onset_strength(y=samples, sr=sample_rate, hop_length=HOP, n_fft=1024, fmax=8000)
    envelope = envelope - envelope.mean()
    n = len(envelope)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(envelope, 2 * n)) ** 2)[:n] / np.arange(n, 0, -1)
    tempi = np.exp(np.linspace(np.log(75), np.log(150), 1400, endpoint=False))
    beat = 60 / tempi * sample_rate / HOP
    lags = beat[:, None] * np.array([0.5, 1, 2, 4, 8])
    values = np.interp(lags, np.arange(n), correlation)
    values[lags > 0.75 * n] = 0  # too few pairs left to trust
    return float(tempi[np.argmax(values @ np.array([0.5, 1, 1, 1, 1]))])


def near(measured: float, asked: float, tolerance: float) -> bool:
    """Whether two tempi agree within `tolerance`, octaves free."""
    return abs((np.log2(measured / asked) + 0.5) % 1 - 0.5) <= np.log2(1 + tolerance)


def requests(count: int) -> list[LoopRequest]:
    """Prompts and tempi from 60 to 180 BPM, odd ones among them."""
    rng = np.random.default_rng(SEED)
    odd = (93.7, 61.3, 127.003, 174.0, 88.8, 141.41, 163.2, 70.07)
    wishes = []
    for i in range(count):
        style = STYLES[tuple(STYLES)[i % len(STYLES)]]
        words = [style.words[int(rng.integers(len(style.words)))]]
        if rng.random() < 0.5:
            words.append(KIT_WORDS[style.kit][int(rng.integers(3))])
        bpm = odd[i // 3 % len(odd)] if i % 3 == 0 else round(float(rng.uniform(60, 180)), 1)
        wishes.append(LoopRequest(", ".join(words), bpm=bpm, variations=2, max_duration=8, seed=SEED + i))
    return wishes


def tempo_figures(maker: LoopMaker, count: int) -> tuple[dict[str, float], list[np.ndarray]]:
    """Shares of best candidates and of continuations that hold their tempo, and the first audios."""
    from looper.pipeline.session import LoopSession

    rng = np.random.default_rng(SEED + 1)
    right, wrong, librosa_right, held, audios = [], [], [], [], []
    rate = maker.generator.sample_rate
    for request in requests(count):
        session = LoopSession(maker.generator, request, lambda *_: None)
        first = session.first()
        (second,) = session.continuations(first)
        measured = measure_bpm(first.samples[: 8 * rate], rate)
        right.append(near(measured, request.bpm, 0.03))
        off = request.bpm * (1 + rng.uniform(0.07, 0.11) * rng.choice([-1, 1]))
        wrong.append(near(measured, off, 0.03))
        tempo = librosa.feature.tempo(y=first.samples[: 8 * rate], sr=rate, hop_length=HOP)[0]
        librosa_right.append(near(float(tempo), request.bpm, 0.03))
        after = second.samples[session.plan.prompt_frames * maker.generator.hop_length :]
        held.append(near(measure_bpm(after[: 8 * rate], rate), measured, 0.02))
        audios.append(first.samples)
        print(
            f"{request.prompt:44s} {request.bpm:8g} measured {measured:7.2f} continued {held[-1]}", flush=True
        )
    figures = {
        "tempo_within_3_percent": np.mean(right),
        "same_audio_against_wrong_tempo": np.mean(wrong),
        "librosa_tempo_within_3_percent": np.mean(librosa_right),
        "continuation_within_2_percent": np.mean(held),
    }
    return {name: float(value) for name, value in figures.items()}, audios


def codec_figures(generator: Generator) -> dict[str, float]:
    """SI-SNR and mel distance on loops the codec has never heard."""
    ratio, mel = validate(generator.model.codec, MelLoss(), corpus(SEED, 24))
    generator.model.codec.eval()
    return {"codec_si_snr_db": ratio, "codec_mel_distance": mel}


def plot(audios: list[np.ndarray], titles: list[str], path: pathlib.Path) -> None:
    """Spectrograms with the asked tempo's beats."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 3 * len(audios)), layout="constrained")
    for axis, samples, title in zip(figure.subplots(len(audios), 1), audios, titles, strict=True):
        power = np.abs(librosa.stft(samples[: 8 * 32000], n_fft=1024, hop_length=HOP))
        image = librosa.amplitude_to_db(power, ref=1.0)[:352]
        axis.imshow(image, origin="lower", aspect="auto", extent=(0, 8, 0, 11), vmin=-40, vmax=30)
        axis.set(title=title, ylabel="kHz")
    figure.savefig(path, dpi=60)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--plot", type=pathlib.Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    maker = LoopMaker(Generator.load(find(args.model), "cpu"))
    figures, audios = tempo_figures(maker, args.prompts)
    figures |= codec_figures(maker.generator) | {"prompts": args.prompts, "candidates": CANDIDATES}
    if args.plot:
        wishes = requests(args.prompts)[:7]
        plot(audios[:7], [f"{w.prompt}, {w.bpm:g} BPM" for w in wishes], args.plot)
    print(json.dumps(figures) if args.json else "\n".join(f"{k:34s} {v:.3f}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
