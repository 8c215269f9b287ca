"""Melody models: audiocraft's own codes with text alone and with a melody, and what is no melody said in words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from safetensors.torch import load_file, save_file

from looper import LoopMaker, LoopRequest, Melody
from looper.checkpoints import load
from looper.checkpoints.convert import convert
from looper.checkpoints.manifest import write_manifest
from looper.checkpoints.sources import WeightsError
from looper.generation.batch import Row
from looper.generation.generator import Generator
from looper.generation.messages import GenerationRequest, Passage
from looper.pipeline.session import LoopSession
from looper.request import Sampling
from testkit import stand_ins
from testkit.checkpoints import Shape
from testkit.command_line import run
from testkit.decoding import prompt_codes
from testkit.melody import audiocrafts_musicgen, their_codes, tune

pytestmark = pytest.mark.usefixtures("one_thread", "drawn_once")
TEXT = "deep house warm chords"
SHAPES = {
    "t5": Shape(melody=True, num_layers=2),
    "lut": Shape(
        melody=True, text="lut", bias=True, dim=48, num_heads=6, num_layers=2, memory_efficient=False
    ),
    "stereo": Shape(melody=True, text="lut", stereo=True, num_layers=1),
}
MELODIES = {"none": None, "phrase": tune(3), "longer than the window": tune(40)[100:], "short": tune(0.52)}


@pytest.fixture(scope="module", params=SHAPES)
def both(request, tmp_path_factory):
    """Audiocraft's model and ours, of the same published files."""
    folder = tmp_path_factory.mktemp("melody")
    published = stand_ins.publish(folder / "published", SHAPES[request.param], scale=3.0)
    (folder / "scratch").mkdir()
    theirs = audiocrafts_musicgen(published, folder / "scratch")
    t5 = published / "t5" if SHAPES[request.param].text == "t5" else None
    return theirs, Generator.load(convert(published, t5, folder / "mine"), "cpu")


def our_codes(generator, frames, melody, **asked):
    keys = [(0, 0, 0)] * len(asked.get("prompts", [TEXT]))
    asked = {"prompts": [TEXT], "keys": keys, "sampling": Sampling(temperature=0)} | asked
    return generator.generate_codes(GenerationRequest(frames=frames, melody=melody, **asked))


@pytest.mark.slow
@pytest.mark.parametrize("melody", MELODIES)
def test_greedy_codes_are_audiocrafts(both, melody):
    theirs, ours = both
    expected = their_codes(theirs, TEXT, 60, MELODIES[melody])
    assert torch.equal(our_codes(ours, 60, MELODIES[melody]), expected)
    assert len(expected.unique()) > 3


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 21])
def test_greedy_codes_after_an_audio_prompt_are_audiocrafts(both, frames):
    theirs, ours = both
    prompt = prompt_codes(ours, frames)
    expected = their_codes(theirs, TEXT, 40, tune(3), prompt[None])
    melody = ours._encode_melody(tune(3))
    told = ours._condition(ours.encode_text(TEXT), melody)
    row = Row(told.text, (0, 0, 0), prompt, prefix=told.prefix)
    found = ours.engine.decode([row], 40, Sampling(temperature=0))
    assert torch.equal(found, expected)


@torch.inference_mode()
def test_chroma_and_its_place_are_audiocrafts(both):
    theirs, ours = both
    conditioner = theirs.lm.condition_provider.conditioners["self_wav"]
    for melody in (tune(3), np.zeros(1, np.float32)):
        chroma = conditioner._extract_chroma(torch.from_numpy(melody)[None, None])
        repeated = chroma.repeat(1, -(-conditioner.chroma_len // chroma.shape[1]), 1)[
            0, : conditioner.chroma_len
        ]
        expected = conditioner.output_proj(repeated)
        found = ours.model.melody.encode(melody if melody.any() else None)
        torch.testing.assert_close(found, expected)
    assert ours.model.melody.length == conditioner.chroma_len == 235


@torch.inference_mode()
def test_likelihoods_are_audiocrafts(both):
    theirs, ours = both
    codes = np.random.default_rng(3).integers(0, 64, (ours.model.lm.n_q, 30))
    attributes, _ = theirs._prepare_tokens_and_attributes([TEXT], None, None)
    out = theirs.lm.compute_predictions(
        torch.from_numpy(codes)[None], attributes, keep_only_valid_steps=False
    )
    chances = out.logits[0].log_softmax(dim=-1).gather(-1, torch.from_numpy(codes)[..., None])[..., 0]
    (found,) = ours.log_likelihoods(TEXT, [Passage(codes, 12)])
    assert found == pytest.approx(float(chances[:, 12:].mean()), abs=1e-4)


@pytest.mark.slow
def test_rows_with_texts_and_melodies_of_their_own_stand_side_by_side(both):
    """Of different lengths in front, in one lane or in another: each as it is alone."""
    _, ours = both
    texts = [TEXT, "jazz", "ambient pad " * 150, TEXT]
    keys = [(1, k, 0) for k in range(4)]
    sampling = Sampling(top_k=20)
    together = our_codes(ours, [40, 12, 25, 40], tune(3), prompts=texts, keys=keys, sampling=sampling)
    for k, frames in enumerate([40, 12, 25, 40]):
        alone = our_codes(ours, frames, tune(3), prompts=[texts[k]], keys=[keys[k]], sampling=sampling)
        assert torch.equal(together[k, :, :frames], alone[0])
    assert not torch.equal(together[0], our_codes(ours, 40, None, keys=keys[:1], sampling=sampling)[0])


# --- as loops ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stand_ins.weights(tmp_path_factory.mktemp("w") / "melody", SHAPES["lut"])


@pytest.fixture(scope="module")
def maker(folder):
    return LoopMaker.load(str(folder), "cpu")


REQUEST = LoopRequest("drums", bpm=120, variations=2, max_duration=2, top_k=60, seed=1)


@pytest.mark.slow
def test_a_melody_changes_the_loops_and_stands_in_their_comments(maker, monkeypatch):
    heard = []
    encode = maker.generator.model.melody.encode
    monkeypatch.setattr(
        maker.generator.model.melody, "encode", lambda tune: heard.append(tune) or encode(tune)
    )
    melody = Melody(np.stack([tune(3, 44_100)] * 2, 1), 44_100)
    loops = maker.make(REQUEST, melody=melody)
    one = replace(REQUEST, variations=1)
    (again,) = maker.make(one, melody=Melody(tune(3, 44_100), 44_100))
    (without,) = maker.make(one)
    assert [len(loop.samples) for loop in loops] == [64_000] * 2
    assert np.array_equal(loops[0].samples, again.samples)
    assert not np.array_equal(loops[0].samples, without.samples)
    assert loops[0].info["melody"] == melody.identity and "melody" not in without.info
    assert {len(tune) for tune in heard if tune is not None} == {30 * 32_000}


@pytest.mark.slow
def test_variations_hear_the_melody_of_their_prompt_and_then_that_of_the_loops_beginning(maker):
    """What the melody says of a moment of the loop is the same wherever that is played."""
    asked = []

    class Listening:
        def __getattr__(self, name):
            return getattr(maker.generator, name)

        def generate(self, request, progress=None):
            asked.append(request)
            return maker.generator.generate(request, progress)

    melody = Melody(tune(40), 32_000)
    session = LoopSession(Listening(), REQUEST, lambda *a: None, melody=melody)
    first = session.first()
    session.continuations(first)
    start, end = (round(s * 32_000) for s in (first.grid.loop_start, first.grid.loop_end))
    prompt = asked[-1].prompt_samples
    whole = melody.at_rate(32_000)[: 30 * 32_000]
    heard = asked[-1].melody
    assert np.array_equal(asked[0].melody, whole) and len(heard) == len(whole)
    assert np.array_equal(heard[:prompt], whole[end - prompt : end])
    assert np.array_equal(heard[prompt : prompt + end - start], whole[start:end])
    assert any("its first 30 s are followed" in note for note in session.report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["t5", "stereo"])
def test_a_model_for_text_alone_refuses_a_melody_with_the_remedy(models, model):
    words = "melody cannot be followed by mini, .* run `looper weights get melody`"
    with pytest.raises(ValueError, match=words):
        LoopMaker(models(model)).make(REQUEST, melody=Melody(tune(2), 32_000))
    with pytest.raises(ValueError, match="melody cannot be followed by this model"):
        our_codes(models(model), 20, tune(2))


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (tune(0.9), "melody must last 1 s or longer, .* got 0.90 s"),
        (np.zeros(64_000, np.float32), "melody must not be silent"),
        (np.full(64_000, np.nan), "samples must be finite"),
        (np.zeros((2, 3, 4)), "samples must be"),
        (np.zeros(0), "samples is empty"),
    ],
)
def test_what_is_no_melody_is_said_in_words(samples, words):
    with pytest.raises(ValueError, match=words):
        Melody(samples, 32_000)


@pytest.mark.parametrize("rate", [0, -1, 10**9, 1.5, "x"])
def test_a_melodys_rate_is_checked(rate):
    with pytest.raises(ValueError, match="sample_rate must be"):
        Melody(tune(2), rate)


@pytest.mark.parametrize(
    ("melody", "words"),
    [(tune(0.3), "must last 0.51 s"), (np.zeros(64_000), "silent"), (tune(2)[:, None], "in mono")],
)
def test_a_generator_checks_its_melody_too(maker, melody, words):
    with pytest.raises(ValueError, match=f"melody .*{words}"):
        our_codes(maker.generator, 20, melody)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
def test_the_command_line_follows_a_melody_in_a_file(folder, tmp_path, channels):
    sf.write(tmp_path / "tune.flac", np.stack([tune(2, 44_100)] * channels, 1), 44_100)
    made = run("make", "drums", "--model", str(folder), "--melody", str(tmp_path / "tune.flac"), "--bpm", "120",
               "--max-duration", "2", "-n", "1", "--top-k", "60", "--json", "--out", str(tmp_path))  # fmt: skip
    assert made.returncode == 0, made.stderr
    (row,) = json.loads(made.stdout)["loops"]
    assert row["samples"] == 64_000


@pytest.mark.parametrize(
    ("model", "melody", "words"),
    [
        ("tiny", "tune.wav", "--melody cannot be followed by tiny, which takes text alone: run `looper weights get melody`"),
        ("melody", "short.wav", "--melody must last 1 s or longer"),
        ("melody", "silent.wav", "--melody must not be silent"),
        ("melody", "nothing.wav", "no such file"),
    ],
)  # fmt: skip
def test_the_command_line_refuses_a_melody_before_a_model_is_loaded(
    folder, tmp_path, monkeypatch, model, melody, words
):
    for name, samples in (("tune", tune(2)), ("short", tune(0.5)), ("silent", np.zeros(64_000))):
        sf.write(tmp_path / f"{name}.wav", samples, 32_000)
    monkeypatch.setattr(LoopMaker, "load", lambda *a: pytest.fail("a model was loaded"))
    made = run("make", "drums", "--model", str(folder) if model == "melody" else model,
               "--melody", str(tmp_path / melody), "--out", str(tmp_path / "out"))  # fmt: skip
    assert made.returncode == 1 and words in made.stderr
    assert not (tmp_path / "out").exists()


# --- files that do not fit -----------------------------------------------------------------------


def rewritten(folder, out, change_config=None, change_state=None):
    broken = shutil.copytree(folder, out)
    config = yaml.safe_load((broken / "config.yaml").read_text())
    lm = yaml.safe_load(config["lm"])
    if change_config:
        change_config(lm)
    (broken / "config.yaml").write_text(yaml.safe_dump({**config, "lm": yaml.safe_dump(lm)}))
    if change_state:
        state = load_file(broken / "lm.safetensors")
        change_state(state)
        save_file(state, broken / "lm.safetensors")
    write_manifest(broken, "melody")
    return broken


STEM = "condition_provider.conditioners.self_wav.output_proj"
CHROMA = lambda **change: lambda lm: lm["conditioners"]["self_wav"]["chroma_stem"].update(change)
UNFIT = {
    "no projection": (None, lambda s: s.pop(f"{STEM}.weight"), "output_proj.weight missing or misshapen"),
    "another width": (None, lambda s: s.update({f"{STEM}.bias": torch.ones(3)}), "output_proj.bias missing"),
    "not asked for": (lambda lm: lm["conditioners"].pop("self_wav"), None, "names no self_wav"),
    "elsewhere": (lambda lm: lm["fuser"].update(prepend=[], cross=["self_wav", "description"]), None, "melody|holds"),
    "twice": (lambda lm: lm["fuser"].update(prepend=["self_wav", "self_wav"]), None, "stand in front"),
    "endless window": (CHROMA(radix2_exp=40), None, r"windows of 2\^40"),
    "no hop": (CHROMA(winhop=-1), None, "is not a model config"),
    "another rate": (CHROMA(sample_rate=16_000), None, "melodies are 16000 Hz"),
    "no such setting": (lambda lm: lm["conditioners"]["self_wav"].pop("chroma_stem"), None, "is not a model config"),
    "hours": (lambda lm: lm["dataset"].update(segment_duration=1e12), None, "is not a model config"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", UNFIT)
def test_a_melody_model_that_does_not_fit_together_is_refused_in_words(folder, tmp_path, what):
    change_config, change_state, words = UNFIT[what]
    with pytest.raises(WeightsError, match=words):
        load.load(rewritten(folder, tmp_path / "melody", change_config, change_state))
