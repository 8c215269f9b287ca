"""T5's tokenizer: a prompt -> token numbers, from ``tokenizer.json`` or ``spiece.model``.

Built as transformers' ``T5Tokenizer`` builds it, and with the same result; the pieces of a SentencePiece model, a
protocol buffer, are read here.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from torch import Tensor

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
EXTRA_IDS = 100
_CONTROL, _USER = 3, 4  # kinds of SentencePiece's pieces that are never split


@dataclass
class Pieces:
    """A vocabulary: pieces with their scores, those never split, and how characters are normalised first."""

    scores: list[tuple[str, float]] = field(default_factory=list)
    whole: list[tuple[str, bool]] = field(default_factory=list)  # and whether they are special
    characters: bytes = b""


class Tokens(dict[str, Tensor]):
    """``input_ids`` and ``attention_mask``, each [rows, length]."""

    def to(self, device: Any) -> Tokens:
        """Copy them to a device."""
        return Tokens({name: tensor.to(device) for name, tensor in self.items()})


class T5Tokenizer:
    """Turn texts into tokens, called as transformers' is called.

    Parameters
    ----------
    folder : Path
        With ``tokenizer.json`` or ``spiece.model``.
    vocabulary : int
        Number of tokens that the encoder knows.

    Raises
    ------
    OSError, ValueError
        If neither file is there, or it is damaged.
    """

    def __init__(self, folder: Path, vocabulary: int) -> None:
        pieces = _read(folder)
        while len(pieces.scores) > vocabulary and pieces.scores[-1][0].startswith("<extra_id_"):
            pieces.scores.pop()  # marks that no prompt needs and the encoder lacks
        if len(pieces.scores) > vocabulary:
            raise ValueError(f"the tokenizer has {len(pieces.scores)} tokens, the encoder only {vocabulary}")
        self._pad = [piece for piece, _ in pieces.scores].index(PAD)
        self._tokenizer = _build(pieces, vocabulary)

    def __call__(self, texts: Sequence[str], **_: Any) -> Tokens:
        """Tokens of `texts`, padded on the right to the longest."""
        found = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        longest = max(map(len, found))
        ids = torch.tensor([row + [self._pad] * (longest - len(row)) for row in found])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in found])
        return Tokens(input_ids=ids, attention_mask=mask)


def _build(pieces: Pieces, vocabulary: int) -> Tokenizer:
    try:
        built = Tokenizer(Unigram(pieces.scores, unk_id=2, byte_fallback=False))
        if pieces.characters:
            built.normalizer = normalizers.Precompiled(pieces.characters)
    except Exception as error:  # tokenizers raises nothing more particular
        raise ValueError(f"the tokenizer's vocabulary is damaged: {error}") from error
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    built.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    built.post_processor = processors.TemplateProcessing(
        single=["$A", END], special_tokens=[(END, built.token_to_id(END))]
    )
    here = {piece for piece, _ in pieces.scores}
    extra = [f"<extra_id_{i}>" for i in reversed(range(EXTRA_IDS))]
    extra = [token for token in extra if token in here] or extra[: vocabulary - len(pieces.scores)]
    whole = (
        [(token, True) for token in (PAD, END, UNKNOWN)] + pieces.whole + [(token, True) for token in extra]
    )
    built.add_tokens([AddedToken(token, normalized=False, special=special) for token, special in whole])
    return built


def _read(folder: Path) -> Pieces:
    try:
        if (folder / "tokenizer.json").is_file():
            pieces = _from_json(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
        else:
            pieces = _from_sentencepiece((folder / "spiece.model").read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise ValueError(f"the tokenizer in {folder} is damaged: {error}") from error
    missing = {PAD, END, UNKNOWN} - {piece for piece, _ in pieces.scores}
    if missing:
        raise ValueError(f"the tokenizer in {folder} is not T5's: it lacks {', '.join(sorted(missing))}")
    return pieces


def _from_json(raw: Any) -> Pieces:
    pieces = Pieces([(str(piece), float(score)) for piece, score in raw["model"]["vocab"]])
    steps = raw.get("normalizer") or {}
    steps = steps["normalizers"] if steps.get("type") == "Sequence" else [steps]
    for step in steps:
        if step.get("type") == "Precompiled":
            pieces.characters = base64.b64decode(step["precompiled_charsmap"])
    return pieces


def _from_sentencepiece(data: bytes) -> Pieces:
    """Read ``ModelProto``: field 1 the pieces (text, score, kind), field 3 the normaliser (2: its table)."""
    pieces = Pieces()
    for number, value in _fields(data):
        if number == 1:
            found = dict(_fields(value))
            text, kind = found[1].decode(), found.get(3, 1)
            pieces.scores.append((text, struct.unpack("<f", found.get(2, bytes(4)))[0]))
            if kind in (_CONTROL, _USER):
                pieces.whole.append((text, kind == _CONTROL))
        elif number == 3:
            pieces.characters = dict(_fields(value)).get(2, b"")
    return pieces


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protocol buffer: bytes, or an integer."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + size > len(data):
            raise ValueError("it breaks off")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an integer of 7 bits a byte; it, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
        if shift > 63:
            raise ValueError("it holds no number where one belongs")
