"""GGUF files with a SentencePiece tokenizer, against the ``sentencepiece`` package itself."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from daemon.errors import ModelError
from workers.language.load import LanguageModel, load_language_model
from workers.language.sentencepiece_tokenizer import SPACE, merges, sentencepiece_tokenizer
from workers.language.vocabulary import TokenType, Vocabulary

Write = Callable[..., Path]
SYLLABLES = (
    "ka",
    "tel",
    "mor",
    "éa",
    "ß",
    "ло",
    "же",
    "漢",
    "字",
    "in",
    "the",
    "aa",
    "0",
    "12",
    ".",
)
HARD = [
    "",
    " ",
    "  ",
    "a",
    " a ",
    "\n\n\t x",
    "\x00\x07\x7f",
    "😀👩‍👩‍👧 e\u0301",
    "a\u2581b",
    "\u00a0 \u3000",
]


def corpus(count: int, seed: int) -> list[str]:
    """Return made-up sentences with runs of spaces in them."""
    chosen = random.Random(seed)

    def word() -> str:
        return "".join(chosen.choices(SYLLABLES, k=chosen.randint(1, 4)))

    return [
        "".join(word() + " " * chosen.choice((1, 1, 1, 2, 4)) for _ in range(chosen.randint(3, 12)))
        for _ in range(count)
    ]


def odd_texts(count: int, seed: int) -> list[str]:
    """Return texts of many scripts, control characters, emoji and long runs."""
    chosen = random.Random(seed)
    ranges = [(0, 127), (0x80, 0x3000), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF)]

    def part() -> str:
        if chosen.random() < 0.4:
            return chosen.choice(" a\n-0") * chosen.randint(1, 24)
        if chosen.random() < 0.5:
            return chosen.choice(SYLLABLES)
        return chr(chosen.randint(*chosen.choice(ranges)))

    return ["".join(part() for _ in range(chosen.randint(1, 25))) for _ in range(count)]


def trained(**options: Any) -> Any:
    """Train a SentencePiece model as Llama 2's and Mistral's are: BPE, bytes, no normalisation."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(300, 1)),
        model_writer=written,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.fixture(scope="module")
def reference() -> Any:
    return trained()


def vocabulary_of(reference: Any) -> Vocabulary:
    proto = sentencepiece_model_pb2.ModelProto.FromString(reference.serialized_model_proto())
    return Vocabulary(
        tokens=tuple(piece.piece for piece in proto.pieces),
        types=tuple(piece.type for piece in proto.pieces),
        scores=tuple(piece.score for piece in proto.pieces),
        roles={"unknown": 0, "bos": 1, "eos": 2},
    )


@pytest.fixture
def vocabulary(reference: Any) -> Vocabulary:
    return vocabulary_of(reference)


@pytest.fixture
def load(vocabulary: Vocabulary, write_gguf: Write, tmp_path: Path) -> Callable[..., LanguageModel]:
    """Load a GGUF file with this tokenizer: ``load(**{"tokenizer.ggml.…": value})``."""

    def loaded(**changes: Any) -> LanguageModel:
        count = len(vocabulary.tokens)
        metadata = {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": list(vocabulary.tokens),
            "tokenizer.ggml.scores": mx.array(vocabulary.scores),
            "tokenizer.ggml.token_type": mx.array(vocabulary.types, dtype=mx.int32),
            "tokenizer.ggml.merges": None,
            "tokenizer.ggml.bos_token_id": mx.array(1, dtype=mx.uint32),
            "tokenizer.ggml.eos_token_id": mx.array(2, dtype=mx.uint32),
            "tokenizer.ggml.unknown_token_id": mx.array(0, dtype=mx.uint32),
        }
        rows = {"token_embd.weight": mx.random.normal((count, 64))}
        return load_language_model(
            write_gguf(tmp_path / "spm.gguf", metadata=metadata | changes, tensors=rows)
        )

    return loaded


def test_tokens_and_texts_are_those_of_sentencepiece(
    load: Callable[..., LanguageModel], reference: Any
) -> None:
    tokenizer = load().tokenizer
    for text in [*HARD, *corpus(200, 2), *odd_texts(300, 3)]:
        expected = reference.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False) == expected, text
        assert tokenizer.decode(expected) == reference.decode(expected), text


def test_streamed_text_is_that_of_sentencepiece(
    load: Callable[..., LanguageModel], reference: Any
) -> None:
    detokenizer = load().tokenizer.detokenizer
    for text in corpus(20, 4):
        detokenizer.reset()
        for token in reference.encode(text):
            detokenizer.add_token(token)
        detokenizer.finalize()
        assert detokenizer.text == text


def test_a_start_token_is_added_unless_the_file_says_no(load: Callable[..., LanguageModel]) -> None:
    assert load().tokenizer.encode("the")[0] == 1
    without = load(**{"tokenizer.ggml.add_bos_token": mx.array(False)})
    assert without.tokenizer.encode("the")[0] != 1
    assert without.tokenizer.eos_token_ids == {2}


def test_control_tokens_in_a_text_are_tokens(
    load: Callable[..., LanguageModel], reference: Any
) -> None:
    found = load().tokenizer.encode("<s>the</s>", add_special_tokens=False)
    assert found == [1, *reference.encode("the"), 2]


def test_no_space_goes_before_the_text_where_the_file_says_so(
    load: Callable[..., LanguageModel], reference: Any
) -> None:
    tokenizer = load(**{"tokenizer.ggml.add_space_prefix": mx.array(False)}).tokenizer
    for text in (" the", "the  aa"):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        assert "".join(map(reference.id_to_piece, tokens)) == text.replace(" ", SPACE)
        assert tokenizer.decode(tokens) == text


def small(pieces: dict[str, float], **types: TokenType) -> Vocabulary:
    """Return a vocabulary of an unknown token and ``pieces``, each with its score."""
    return Vocabulary(
        tokens=("<unk>", *pieces),
        types=(TokenType.UNKNOWN, *(types.get(piece, TokenType.NORMAL) for piece in pieces)),
        scores=(0.0, *pieces.values()),
        roles={},
    )


def test_merges_are_all_splits_by_score() -> None:
    pieces = {"aab": -2.0, "aa": -1.0, "ab": -3.0, "a": -4.0, "b": -5.0}
    assert merges(small(pieces)) == [("a", "a"), ("aa", "b"), ("a", "ab"), ("a", "b")]


@pytest.mark.parametrize("length", [*range(1, 40), 63, 64, 65])
def test_runs_of_pieces_with_one_score_grow_from_the_left(length: int) -> None:
    """Mistral's pieces of spaces all have one score, and none is of 15."""
    lengths = [*range(1, 15), 16]
    tokenizer = sentencepiece_tokenizer(
        small({SPACE * length: -1e9 for length in reversed(lengths)}), space_prefix=False
    )
    full, rest = divmod(length, 16)
    expected = [16] * full + ([14, 1] if rest == 15 else [rest] if rest else [])
    assert [len(token) for token in tokenizer.encode(" " * length).tokens] == expected


def test_unknown_characters_are_one_unknown_token_without_byte_pieces() -> None:
    tokenizer = sentencepiece_tokenizer(small({"a": -1.0}), space_prefix=False)
    assert tokenizer.encode("aéßa").ids == [1, 0, 1]


def test_user_defined_pieces_are_found_as_sentencepiece_finds_them() -> None:
    reference = trained(user_defined_symbols=["<sep>", SPACE * 3, SPACE + "the"])
    tokenizer = sentencepiece_tokenizer(vocabulary_of(reference), space_prefix=True)
    parts = ["<sep>", " ", "   ", "the", "ka", "telmor", "\n", "<s", "<sep"]
    chosen = random.Random(5)
    for _ in range(2000):
        text = "".join(chosen.choices(parts, k=chosen.randint(0, 8)))
        if text != "<sep>":
            assert tokenizer.encode(text).ids == reference.encode(text), text
    assert tokenizer.encode("<sep>").ids == reference.encode("<sep>")[1:]


PIECES = {"ab": -1.0, "bc": -2.0, "a": -3.0, "b": -4.0, "c": -5.0}


@pytest.mark.parametrize(
    ("vocabulary", "word"),
    [
        (small(PIECES, ab=TokenType.UNUSED), "'ab'"),
        (small(PIECES | {"bc": -1.0}), "same score"),
        (small(PIECES | {"<0xZZ>": 0.0}, **{"<0xZZ>": TokenType.BYTE}), "is none"),
        (replace(small(PIECES), tokens=("<unk>", "a", "a", "a", "b", "c")), "twice"),
        (replace(small(PIECES), types=(TokenType.NORMAL,) * 6), "unknown piece"),
    ],
)
def test_what_a_fast_tokenizer_cannot_follow_is_refused(vocabulary: Vocabulary, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        sentencepiece_tokenizer(vocabulary, space_prefix=True)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tokenizer.ggml.scores": None}, "same score"),
        ({"tokenizer.ggml.scores": mx.array([1.0])}, "1 entries in scores"),
        ({"tokenizer.ggml.remove_extra_whitespaces": mx.array(True)}, "normalises"),
    ],
)
def test_a_file_without_what_the_tokenizer_needs_is_refused(
    load: Callable[..., LanguageModel], changes: dict[str, Any], word: str
) -> None:
    with pytest.raises(ModelError, match=word):
        load(**changes)
