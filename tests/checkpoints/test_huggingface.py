"""Models that transformers has made and saved: the same codes, logits and sound after they are converted."""

import json
import shutil

import numpy as np
import pytest
import torch

from looper.checkpoints.huggingface import convert_huggingface, is_huggingface
from looper.checkpoints.manifest import verify
from looper.checkpoints.sources import WeightsError
from looper.generation.generator import Generator
from looper.generation.messages import GenerationRequest
from looper.request import Sampling
from testkit.melody import tune
from testkit.musicgen_hf import random_musicgen, save

TEXT = "deep house warm chords"
GREEDY = Sampling(temperature=0, cfg_coef=3.0)


@pytest.fixture(scope="module", params=[1, 2], ids=["mono", "stereo"])
def both(request):
    """A mono and a stereo model, one after the other."""
    return random_musicgen(channels=request.param)


@pytest.fixture(scope="module")
def both_ours(both, tmp_path_factory):
    saved = save(both, tmp_path_factory.mktemp("hf") / "mine")
    return Generator.load(convert_huggingface(saved, tmp_path_factory.mktemp("w") / "mine"), "cpu")


@pytest.fixture(scope="module")
def theirs():
    return random_musicgen()


@pytest.fixture(scope="module")
def saved(theirs, tmp_path_factory):
    return save(theirs, tmp_path_factory.mktemp("hf") / "mine")


@pytest.fixture(scope="module")
def ours(saved, tmp_path_factory):
    return Generator.load(convert_huggingface(saved, tmp_path_factory.mktemp("w") / "mine"), "cpu")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "mine")


def tokens(generator, text):
    conditioner = generator.model.lm.condition_provider.conditioners["description"]
    return conditioner.t5_tokenizer([text], return_tensors="pt", padding=True)


def codes_of(generator, texts, frames, **more):
    asked = GenerationRequest(texts, frames, [(1, k, 0) for k in range(len(texts))], GREEDY, **more)
    return generator.generate_codes(asked)


@torch.inference_mode()
def generated(theirs, inputs, frames, **more):
    """Codes [rows, n_q, frames] of transformers' own generate, greedy and guided."""
    seen = []
    decode = theirs.audio_encoder.decode
    theirs.audio_encoder.decode = lambda codes, *a, **k: seen.append(codes) or decode(codes, *a, **k)
    try:
        theirs.generate(
            **inputs,
            do_sample=False,
            guidance_scale=3.0,
            max_new_tokens=frames + 3,
            min_new_tokens=frames + 3,
            **more,
        )
    finally:
        del theirs.audio_encoder.decode
    return torch.stack([codes[0] for codes in seen], dim=2).flatten(
        1, 2
    )  # left and right, one after the other


@pytest.mark.slow
@pytest.mark.parametrize("text", [TEXT, "jazz"])
def test_greedy_codes_are_those_of_transformers_own_generate(both, both_ours, text):
    expected = generated(both, tokens(both_ours, text), 40)
    found = codes_of(both_ours, [text], expected.shape[-1])
    assert found.shape[-1] >= 40 and torch.equal(found, expected)
    assert len(found.unique()) > 3 and found.shape[1] == both.config.decoder.num_codebooks


@pytest.mark.slow
@torch.inference_mode()
def test_the_sound_of_a_stereo_model_is_that_of_transformers_own_generate(tmp_path):
    theirs = random_musicgen(channels=2)
    ours = Generator.load(convert_huggingface(save(theirs, tmp_path / "hf"), tmp_path / "w" / "x"), "cpu")
    inputs = tokens(ours, TEXT)
    sound = theirs.generate(
        **inputs, do_sample=False, guidance_scale=3.0, max_new_tokens=33, min_new_tokens=33
    )[0].numpy()
    frames = sound.shape[-1] // 640
    found = ours.decode_audio(codes_of(ours, [TEXT], frames))[0]
    assert sound.shape[0] == 2 and not np.allclose(sound[0], sound[1])
    np.testing.assert_allclose(found, sound.T[: frames * 640], atol=1e-5)


@pytest.fixture(scope="module", params=[1, 2], ids=["mono", "stereo"])
def melodic(request, tmp_path_factory):
    theirs = random_musicgen(channels=request.param, melody=True)
    saved = save(theirs, tmp_path_factory.mktemp("hf") / "mine")
    made = convert_huggingface(saved, tmp_path_factory.mktemp("w") / "mine")
    verify(made)
    return theirs, Generator.load(made, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [None, 2, 31])
def test_greedy_codes_of_a_melody_model_are_those_of_transformers_own_generate(melodic, seconds):
    """Without its cache: with one, transformers 5.17 forgets text and melody before the first step."""
    from transformers import MusicgenMelodyFeatureExtractor

    theirs, ours = melodic
    melody = None if seconds is None else tune(seconds)
    more = {"use_cache": False}
    if melody is not None:
        heard = MusicgenMelodyFeatureExtractor(sampling_rate=32_000)(
            melody, sampling_rate=32_000, return_tensors="pt"
        )
        more["input_features"] = heard["input_features"]
    expected = generated(theirs, tokens(ours, TEXT), 30, **more)
    found = codes_of(ours, [TEXT], expected.shape[-1], melody=melody)
    assert found.shape[-1] >= 30 and torch.equal(found, expected)
    assert len(found.unique()) > 3


@pytest.mark.slow
@torch.inference_mode()
def test_encodec_gives_the_codes_and_the_sound_of_transformers(theirs, ours):
    tone = (0.3 * np.sin(2 * np.pi * 220 * np.arange(25 * 640) / 32_000)).astype(np.float32)
    encoded = theirs.audio_encoder.encode(torch.from_numpy(tone)[None, None], bandwidth=1.2).audio_codes
    assert torch.equal(ours.encode_audio(tone), encoded[0, 0])
    sound = theirs.audio_encoder.decode(encoded, [None]).audio_values[0].numpy()
    np.testing.assert_allclose(ours.decode_audio(encoded[0]), sound[:, : 25 * 640], atol=1e-5)


@torch.inference_mode()
def test_logits_with_and_without_text_are_those_of_transformers(theirs, ours):
    inputs = tokens(ours, TEXT)
    codes = torch.randint(0, 64, (1, 4, 12), generator=torch.Generator().manual_seed(5))
    hidden = theirs.text_encoder(**inputs).last_hidden_state
    projected = theirs.enc_to_dec_proj(hidden)
    decoder_input = codes.reshape(4, 12)
    expected = theirs.decoder(input_ids=decoder_input, encoder_hidden_states=projected).logits
    lm = ours.model.lm
    conditions = {"description": (projected, torch.ones(projected.shape[:2]))}
    found = lm(codes, [], condition_tensors=conditions)
    np.testing.assert_allclose(found[0].numpy(), expected.reshape(4, 12, 64).numpy(), atol=1e-4)


@torch.inference_mode()
def test_the_text_is_read_as_transformers_reads_it(theirs, ours):
    expected = theirs.enc_to_dec_proj(theirs.text_encoder(**tokens(ours, TEXT)).last_hidden_state)[0]
    np.testing.assert_allclose(ours.encode_text(TEXT).numpy(), expected.numpy(), atol=1e-5)


def test_shards_give_the_same_model_as_one_file(theirs, saved, tmp_path):
    shards = save(theirs, tmp_path / "shards", max_shard_size="100KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    one, many = (convert_huggingface(f, tmp_path / n / "x") for f, n in ((saved, "a"), (shards, "b")))
    for name in ("lm.safetensors", "codec.safetensors", "config.yaml"):
        assert (one / name).read_bytes() == (many / name).read_bytes()


def test_names_of_before_weight_parametrizations_are_known(theirs, saved, folder, tmp_path):
    from safetensors.torch import load_file, save_file

    old = {
        name.replace(".parametrizations.weight.original0", ".weight_g").replace(
            ".parametrizations.weight.original1", ".weight_v"
        ): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(old, folder / "model.safetensors", {"format": "pt"})
    new, before = (convert_huggingface(f, tmp_path / n / "x") for f, n in ((saved, "a"), (folder, "b")))
    assert (new / "codec.safetensors").read_bytes() == (before / "codec.safetensors").read_bytes()


@pytest.mark.slow
def test_a_text_encoder_as_wide_as_the_model_needs_no_projection(tmp_path):
    theirs = random_musicgen(text_width=32)
    assert not hasattr(theirs, "enc_to_dec_proj")
    ours = Generator.load(convert_huggingface(save(theirs, tmp_path / "hf"), tmp_path / "w" / "x"), "cpu")
    expected = generated(theirs, tokens(ours, TEXT), 20)
    assert torch.equal(codes_of(ours, [TEXT], expected.shape[-1]), expected)


@pytest.mark.slow
def test_the_folder_is_verified_and_loops_can_be_made_of_it(saved, tmp_path, drawn_once):
    from looper import LoopMaker, LoopRequest

    made = convert_huggingface(saved, tmp_path / "mine")
    verify(made)
    loops = LoopMaker.load(str(made), "cpu").make(
        LoopRequest("drums", bpm=120, variations=2, max_duration=2, top_k=60, seed=1)
    )
    assert [len(loop.samples) for loop in loops] == [64_000, 64_000]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "audiogen"}, "sounds, not music"),
        ({"model_type": "musicgen_melody", "chroma_length": 100}, "melodies of 100 vectors"),
        ({"model_type": "bert"}, "no MusicGen"),
        ({"decoder": {"audio_channels": 3}}, "makes 3 channels"),
        ({"decoder": {"audio_channels": 2, "num_codebooks": 7}}, "7 codebooks are not"),
        ({"audio_encoder": {"audio_channels": 2}}, "with a codec of 2"),
        ({"audio_encoder": {"sampling_rate": 24_000}}, "24000 Hz"),
        ({"audio_encoder": {"num_filters": None}}, "does not say"),
        ({"decoder": {"num_codebooks": None}}, "does not say"),
        ({"decoder": {"hidden_size": "wide"}}, "does not say"),
        ({"decoder": {"hidden_size": 0}}, "does not say"),
    ],
)
def test_another_kind_of_model_is_refused_in_words_and_nothing_is_left(folder, tmp_path, changes, words):
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        if isinstance(value, dict):
            config[name] |= value
            config[name] = {key: v for key, v in config[name].items() if v is not None or key not in value}
        else:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=words):
        convert_huggingface(folder, tmp_path / "out" / "x")
    assert not list((tmp_path / "out").rglob("*"))


def test_pickles_alone_are_refused_by_name(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickles alone"):
        convert_huggingface(folder, tmp_path / "x")


@pytest.mark.parametrize("damage", ["torn", "gone", "no tokenizer", "index"])
def test_a_folder_with_something_missing_says_what(folder, tmp_path, damage):
    weights = folder / "model.safetensors"
    if damage == "torn":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "gone":
        weights.unlink()
    elif damage == "index":
        (folder / "model.safetensors.index.json").write_text("{}")
    else:
        (folder / "spiece.model").unlink()
    words = {
        "torn": "model.safetensors",
        "gone": "has neither",
        "no tokenizer": "no tokenizer",
        "index": "damaged",
    }
    with pytest.raises(WeightsError, match=words[damage]):
        convert_huggingface(folder, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_two_formats_are_told_apart(saved, tmp_path):
    assert is_huggingface(saved)
    (tmp_path / "state_dict.bin").touch()
    assert not is_huggingface(tmp_path)
