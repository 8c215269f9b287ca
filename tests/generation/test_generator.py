"""Text and audio prompts in, waveforms out."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from looper.generation.generator import Generator
from looper.generation.messages import GenerationRequest, Passage
from looper.model.beat_clock import clock_features
from looper.request import Sampling
from testkit import stand_ins
from testkit.checkpoints import Shape

TEXT = "deep house warm chords 120"
SAMPLING = Sampling(top_k=20)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Generator:
    return Generator.load(stand_ins.weights(tmp_path_factory.mktemp("w") / "mini"), "cpu")


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    t = np.arange(20 * 640) / 32_000
    return (0.3 * np.sin(2 * np.pi * 220 * t) * np.exp(-3 * t)).astype(np.float32)[None]


def generate(generator, prompts, frames, **asked) -> np.ndarray:
    return generator.generate(GenerationRequest(prompts, frames, **({"sampling": SAMPLING} | asked))).samples


def codes(generator, prompts, frames, **asked) -> torch.Tensor:
    return generator.generate_codes(GenerationRequest(prompts, frames, **({"sampling": SAMPLING} | asked)))


def keys(count: int, seed: int = 1) -> list[tuple[int, int, int]]:
    return [(seed, k, 0) for k in range(count)]


def test_it_says_what_it_makes(generator):
    assert (generator.sample_rate, generator.frame_rate, generator.hop_length) == (32_000, 50.0, 640)
    assert (generator.window_seconds, generator.name, generator.clocked) == (30.0, "mini", False)


@pytest.mark.parametrize("frames", [1, 7, 60])
@pytest.mark.parametrize("rows", [1, 3])
def test_as_many_samples_as_asked(generator, frames, rows):
    audio = generate(generator, [TEXT] * rows, frames, keys=keys(rows))
    assert audio.shape == (rows, frames * 640)
    assert audio.dtype == np.float32
    assert np.isfinite(audio).all()
    assert audio.std() > 0


def test_it_repeats_to_the_bit_and_differs_by_seed_variation_and_attempt(generator):
    audio = generate(generator, [TEXT] * 4, 30, keys=[(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)])
    again = generate(generator, [TEXT], 30, keys=[(1, 0, 0)])
    assert np.array_equal(audio[:1], again)
    assert len({row.tobytes() for row in audio}) == 4


def test_a_row_is_the_same_alone_and_among_others_with_other_texts(generator, tone):
    texts = [TEXT, "jazz", "ambient pad " * 30, TEXT, "rock guitar"]
    prompts = np.concatenate([tone, -tone, tone, tone[:, ::-1], tone])
    together = generate(generator, texts, 45, keys=keys(5), audio_prompts=prompts)
    for k in range(5):
        alone = generate(generator, texts[k : k + 1], 45, keys=[(1, k, 0)], audio_prompts=prompts[k : k + 1])
        assert np.array_equal(alone[0], together[k])


def test_one_audio_prompt_serves_all_rows(generator, tone):
    shared = generate(generator, [TEXT] * 3, 40, keys=keys(3), audio_prompts=tone)
    spread = generate(generator, [TEXT] * 3, 40, keys=keys(3), audio_prompts=tone.repeat(3, axis=0))
    assert np.array_equal(shared, spread)


@torch.inference_mode()
def test_the_audio_prompt_comes_back_at_the_beginning(generator, tone):
    """As audiocraft's codec gives it back; the last frames before the seam already hear what follows."""
    encoded_first = codes(generator, [TEXT], 60, keys=keys(1), audio_prompts=tone)[:, :, :20]
    encoded, _ = generator.model.codec.encode(torch.from_numpy(tone)[None])
    assert torch.equal(encoded_first, encoded)
    audio = generate(generator, [TEXT], 60, keys=keys(1), audio_prompts=tone)
    decoded = generator.model.codec.decode(encoded)[0, 0].numpy()
    np.testing.assert_allclose(audio[0, : 15 * 640], decoded[: 15 * 640], atol=1e-5)


@torch.inference_mode()
def test_decoding_is_audiocrafts(generator):
    drawn = codes(generator, [TEXT] * 3, 25, keys=keys(3))
    theirs = generator.model.codec.decode(drawn)[:, 0].numpy()
    np.testing.assert_allclose(generator.decode_audio(drawn), theirs[:, : 25 * 640], atol=1e-5)


@pytest.fixture
def encoded(generator, monkeypatch):
    """What is encoded from here on: texts and audio prompts."""
    from looper.generation import generator as module

    generator.release()
    seen: dict[str, list] = {"texts": [], "audio": []}
    encode, codec = module.encode_text, generator.codec.encode
    monkeypatch.setattr(
        module, "encode_text", lambda lm, text: seen["texts"].append(text) or encode(lm, text)
    )
    monkeypatch.setattr(
        generator.codec, "encode", lambda samples: seen["audio"].append(samples.shape) or codec(samples)
    )
    return seen


def test_a_text_is_encoded_once_by_itself_and_for_all_that_a_request_asks_of_it(generator, encoded, tone):
    first = codes(generator, [TEXT, "jazz", TEXT], 25, keys=keys(3))
    generator.log_likelihoods(TEXT, [Passage(first[0].numpy())])
    codes(generator, [TEXT] * 2, 25, keys=keys(2), audio_prompts=tone)
    assert encoded["texts"] == [TEXT, "jazz"]
    generator.release()  # gives back what is kept
    codes(generator, ["jazz"], 5, keys=keys(1))
    assert encoded["texts"] == [TEXT, "jazz", "jazz"]


def test_an_audio_prompt_is_encoded_once_for_all_draws_and_another_anew(generator, encoded, tone):
    drawn = [
        codes(generator, [TEXT], 25, keys=[(1, 0, attempt)], audio_prompts=prompt)
        for prompt, attempt in ((tone, 0), (tone, 1), (-tone, 0), (tone, 0))
    ]
    assert len(encoded["audio"]) == 2
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[2])


def test_few_texts_and_audio_prompts_are_kept(generator, encoded, tone):
    for k in range(20):
        codes(generator, [f"jazz {k}"], 25, keys=keys(1), audio_prompts=tone / (20 - k))
    codes(generator, ["jazz 19", "jazz 0"], 25, keys=keys(2), audio_prompts=tone)
    assert len(encoded["texts"]) == 21
    assert len(encoded["audio"]) == 20
    codes(generator, ["jazz 19"], 25, keys=keys(1), audio_prompts=tone / 20)
    assert len(encoded["audio"]) == 21


def test_an_endless_text_is_cut_at_the_token_limit_with_a_log_line_each_time(generator, caplog):
    text = "deep house " * 9_000
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="looper.model.conditioning"):
            encoded = generator.encode_text(text)
        assert encoded.shape == (512, 32)
        assert "cut to 512" in caplog.text
    assert generate(generator, [text], 5, keys=keys(1)).shape == (1, 5 * 640)


def test_a_text_within_the_limit_is_not_cut(generator, caplog):
    assert len(generator.encode_text("deep house")) < 20
    assert not caplog.records


def test_a_lookup_table_model_works_without_a_text_encoder(tmp_path):
    folder = stand_ins.weights(tmp_path / "lut", Shape(text="lut", num_layers=1))
    assert not (folder / "t5").exists()
    generator = Generator.load(folder, "cpu")
    audio = generate(generator, ["jazz", "rock"], 10, keys=[(1, 0, 0), (1, 0, 0)])
    assert not np.array_equal(audio[0], audio[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompts": []}, "at least one text"),
        ({"prompts": "techno"}, "list of"),
        ({"keys": keys(1)}, "got 1 keys for 2 prompts"),
        ({"frames": 0}, "frames must be between 1 and 1500"),
        ({"frames": 1501}, r"frames must be between 1 and 1500 \(30 s\), got 1501"),
        ({"audio_prompts": np.zeros((2, 700), np.float32)}, "n . 640"),
        ({"audio_prompts": np.zeros((2, 0), np.float32)}, "audio_prompts must be"),
        ({"audio_prompts": np.zeros((3, 640), np.float32)}, "audio_prompts must be"),
        ({"audio_prompts": np.zeros(640, np.float32)}, "audio_prompts must be"),
        ({"audio_prompts": np.full((1, 640), np.nan, np.float32)}, "not finite"),
        ({"audio_prompts": np.zeros((1, 20 * 640), np.float32)}, r"\(0.4 s\) must be shorter than the 0.4 s"),
        ({"sampling": Sampling(top_k=65)}, "top_k must be between 0 and 64"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused_in_plain_words(generator, changed, message):
    arguments = {"prompts": [TEXT] * 2, "frames": 20, "keys": keys(2)} | changed
    with pytest.raises(ValueError, match=message):
        generate(generator, **arguments)


@pytest.mark.parametrize("shape", [(5,), (20, 3), (3, 20, 7)])
def test_a_clock_of_the_wrong_shape_is_refused(shape):
    tiny = Generator.load("tiny", "cpu")
    with pytest.raises(ValueError, match="clock must be"):
        generate(tiny, [TEXT], 20, keys=keys(1), clock=np.zeros(shape, np.float32))


def test_the_thread_count_is_left_as_found_even_after_an_error(generator):
    torch.set_num_threads(2)
    generate(generator, [TEXT], 5, keys=keys(1))
    assert torch.get_num_threads() == 2

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.generate(GenerationRequest([TEXT], 5, keys=keys(1), sampling=SAMPLING), cancel)
    assert torch.get_num_threads() == 2


def test_rows_may_have_lengths_of_their_own(generator):
    together = generate(generator, [TEXT, "jazz", TEXT], [40, 12, 25], keys=keys(3))
    assert together.shape == (3, 40 * 640)
    for k, frames in enumerate([40, 12, 25]):
        alone = generate(generator, [[TEXT, "jazz", TEXT][k]], frames, keys=[(1, k, 0)])
        assert np.array_equal(together[k, : frames * 640], alone[0])
        assert not together[k, frames * 640 :].any()


def test_a_wrong_number_of_lengths_is_refused(generator):
    with pytest.raises(ValueError, match=r"one number or one per prompt \(2\), got 3"):
        generate(generator, [TEXT] * 2, [5, 5, 5], keys=keys(2))


@torch.inference_mode()
def test_half_precision_of_the_codec_is_far_below_the_music(shipped, monkeypatch):
    clock = clock_features(158, 25)
    drawn = shipped.generate(GenerationRequest(["techno, 120 bpm"], 150, keys=keys(1), clock=clock))
    monkeypatch.setattr(shipped.codec, "half", True)
    half = shipped.decode_audio(torch.from_numpy(drawn.codes))
    error = float(((half - drawn.samples) ** 2).sum())
    assert error > 0, "it was half precision"
    assert 10 * np.log10(float((drawn.samples**2).sum()) / error) > 60


@torch.inference_mode()
def test_a_codec_that_overflows_in_half_precision_is_decoded_in_full(tmp_path, caplog):
    generator = Generator.load(stand_ins.weights(tmp_path / "mini"), "cpu")
    drawn = codes(generator, [TEXT], 10, keys=keys(1))
    convolution = next(m for m in generator.model.codec.decoder.modules() if isinstance(m, torch.nn.Conv1d))
    with torch.no_grad():
        convolution.bias.fill_(1e5)  # beyond what half precision holds
    full = generator.decode_audio(drawn)
    generator.codec.half = True
    assert np.isfinite(full).all() and np.array_equal(generator.decode_audio(drawn), full)
    assert "overflows in half precision" in caplog.text


@pytest.mark.parametrize("frames", [[1.5, 2, 3], ["5", 5, 5], float("nan"), 10**400])
def test_lengths_that_are_no_whole_numbers_are_refused(generator, frames):
    with pytest.raises(ValueError, match="frames must be a whole number"):
        generate(generator, [TEXT] * 3, frames, keys=keys(3))


def test_a_cut_prompt_is_told_once_a_request(generator, caplog):
    text = "jazz " * 600
    tone = np.zeros((1, 640), np.float32)
    generate(generator, [text], 3, keys=keys(1))
    generate(generator, [text], 3, keys=keys(1), audio_prompts=tone)
    generator.log_likelihoods(text, [Passage(np.zeros((4, 3), int), 0)])
    assert caplog.text.count("cut to 512") == 1
