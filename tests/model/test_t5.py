"""The prompt's encoder and tokens, against transformers'."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.model.t5 import T5Encoder
from looper.model.t5_tokens import T5Tokenizer
from testkit import checkpoints

TEXTS = [
    "deep house, 124 bpm", "", " ", "two  spaces\tand\na line", "ﬁne e\u0301 １２ ｶﾞ", "日本 😀",
    "</s> <pad>x<unk>y", "\ufeff\u200bzero", "— “quoted” —", "a" * 300,
]  # fmt: skip


@pytest.fixture(scope="module", params=["spiece.model", "tokenizer.json", "gated"])
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("t5") / "t5"
    shutil.copytree("weights/tiny/t5", place)
    if request.param == "tokenizer.json":
        transformers.T5Tokenizer.from_pretrained(place).save_pretrained(place)
        (place / "spiece.model").unlink()
    if request.param == "gated":
        sizes = json.loads((place / "config.json").read_text())
        wanted = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size")
        config = transformers.T5Config(
            **{k: sizes[k] for k in wanted}, feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1
        )
        torch.manual_seed(2)
        transformers.T5EncoderModel(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def pair(folder):
    theirs = transformers.T5EncoderModel.from_pretrained(folder).eval()
    ours = T5Encoder.load(folder)
    return (
        (transformers.T5Tokenizer.from_pretrained(folder), theirs),
        (T5Tokenizer(folder, ours.config.vocab_size), ours),
    )


@torch.inference_mode()
def encoded(tokenizer, encoder, texts):
    tokens = tokenizer(texts, return_tensors="pt", padding=True)
    return tokens["input_ids"], tokens["attention_mask"], encoder(**tokens).last_hidden_state


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_is_encoded_to_the_bit_as_transformers_does(pair, text):
    for theirs, ours in zip(*(encoded(*one, [text]) for one in pair), strict=True):
        assert torch.equal(theirs, ours)


def test_texts_of_several_lengths_are_padded_and_masked_alike(pair):
    theirs, ours = (encoded(*one, TEXTS) for one in pair)
    assert torch.equal(theirs[0], ours[0]) and torch.equal(theirs[1], ours[1])
    seen = ours[1].bool()
    torch.testing.assert_close(theirs[2][seen], ours[2][seen], rtol=1e-5, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60).filter(lambda text: "<extra_id_" not in text))
def test_any_text_has_transformers_tokens(tiny_tokenizers, text):
    theirs, ours = tiny_tokenizers
    assert theirs([text])["input_ids"] == ours([text])["input_ids"].tolist()


@pytest.fixture(scope="module")
def tiny_tokenizers():
    theirs = transformers.T5Tokenizer.from_pretrained("weights/tiny/t5")
    from pathlib import Path

    return theirs, T5Tokenizer(Path("weights/tiny/t5"), 400)


def test_marks_that_the_encoder_lacks_are_text(tiny_tokenizers):
    assert tiny_tokenizers[1](["<extra_id_0>"])["input_ids"].max() < 400


def test_a_published_t5_with_a_decoder_and_one_embedding_of_another_name_loads(tmp_path):
    from safetensors.torch import load_file, save_file

    place = checkpoints.write_t5(tmp_path / "t5")
    before = T5Encoder.load(place)
    state = load_file(place / "model.safetensors")
    state["encoder.embed_tokens.weight"] = state.pop("shared.weight")
    save_file(
        {**state, "decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(3)},
        place / "model.safetensors",
    )
    ids = torch.tensor([[3, 4, 5]])
    assert np.array_equal(before(ids).last_hidden_state, T5Encoder.load(place)(ids).last_hidden_state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_model": 32}, "does not fit config.json"),
        ({"num_layers": 10**9}, "num_layers cannot be"),
        ({"d_kv": None}, "d_kv cannot be"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj 'gated-silu' is not known"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path, change, words):
    place = checkpoints.write_t5(tmp_path / "t5")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=words):
        T5Encoder.load(place)


@pytest.mark.parametrize("damage", [b"", b"\x0a\xff", b"\xff" * 40, b"\x0a\x05abc", b"\x0b", bytes(100)])
def test_a_damaged_vocabulary_is_refused(tmp_path, damage):
    (tmp_path / "spiece.model").write_bytes(damage)
    with pytest.raises(ValueError, match="the tokenizer in"):
        T5Tokenizer(tmp_path, 400)


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"model": 3}', '{"model": {"vocab": [["a"]]}}', '{"model": {"vocab": {}}}']
)
def test_a_damaged_tokenizer_file_is_refused(tmp_path, damage):
    (tmp_path / "tokenizer.json").write_text(damage)
    with pytest.raises(ValueError, match="the tokenizer in"):
        T5Tokenizer(tmp_path, 400)
