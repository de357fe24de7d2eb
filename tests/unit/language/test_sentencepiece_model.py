"""``tokenizer.model`` files that are damaged, of another kind, or rare."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from daemon.errors import ModelError
from workers.language.sentencepiece_folder import load_sentencepiece_folder


@pytest.mark.parametrize("kept", [0, 1, 5, 1000, 300_001, 587_300, 587_500])
def test_a_truncated_file_is_refused(
    refusal: Callable[[Path], str], spm_folder: Path, kept: int
) -> None:
    file = spm_folder / "tokenizer.model"
    file.write_bytes(file.read_bytes()[:kept])
    assert refusal(spm_folder).startswith("copy/tokenizer.model is damaged, or is no SentencePiece")


@pytest.mark.parametrize("text", [b"<s>", b"???"])
def test_a_file_whose_text_is_not_utf8_is_refused(
    load_bytes: Callable[[bytes], Any], text: bytes
) -> None:
    with pytest.raises(ModelError, match="is not UTF-8"):
        load_bytes(model_bytes(unk_surface="???").replace(text, b"<\x80>"))


def test_a_file_of_another_kind_is_refused(
    refusal: Callable[[Path], str], spm_folder: Path
) -> None:
    shutil.copy(spm_folder / "config.json", spm_folder / "tokenizer.model")
    assert refusal(spm_folder).startswith("copy/tokenizer.model is damaged")


@pytest.fixture(scope="module")
def small() -> bytes:
    return model_bytes()


@pytest.fixture
def load_bytes(tmp_path: Path) -> Callable[[bytes], Any]:
    def load(data: bytes) -> Any:
        (tmp_path / "tokenizer.model").write_bytes(data)
        return load_sentencepiece_folder(tmp_path)

    return load


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_but_never_fails_otherwise(
    small: bytes, load_bytes: Callable[[bytes], Any], data: st.DataObject
) -> None:
    damaged = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(small) - 1))] = data.draw(st.integers(0, 255))
    try:
        tokenizer = load_bytes(bytes(damaged))
    except ModelError as error:
        assert error.remedy
    else:
        tokenizer.encode("the  kat\n漢")


def model_bytes(**options: Any) -> bytes:
    """Return a small SentencePiece model; ``options`` are the trainer's."""
    written = io.BytesIO()
    kind: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 300,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat", "on the mat", "a rat that ate"] * 20),
        model_writer=written,
        num_threads=1,
        minloglevel=2,
        **(kind | options),
    )
    return written.getvalue()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"model_type": "unigram", "vocab_size": 270}, "of the kind unigram and not BPE"),
        ({"model_type": "char"}, "of the kind character"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalises text (nmt_nfkc)"),
        ({"remove_extra_whitespaces": True}, "removes repeated spaces"),
        ({"treat_whitespace_as_suffix": True}, "puts spaces behind words"),
    ],
)
def test_what_a_fast_tokenizer_cannot_follow_is_refused(
    load_bytes: Callable[[bytes], Any], options: dict[str, Any], word: str
) -> None:
    with pytest.raises(ModelError) as refused:
        load_bytes(model_bytes(**options))
    assert word in refused.value.message
    assert "tokenizer.json" in str(refused.value.remedy)


def test_a_model_that_keeps_spaces_is_refused(
    small: bytes, load_bytes: Callable[[bytes], Any]
) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(small)
    proto.normalizer_spec.escape_whitespaces = False
    with pytest.raises(ModelError, match="keeps spaces as they are"):
        load_bytes(proto.SerializeToString())


def test_a_model_without_bytes_shows_what_it_shows_for_unknown_characters(
    load_bytes: Callable[[bytes], Any],
) -> None:
    data = model_bytes(byte_fallback=False, vocab_size=30, unk_surface="?", add_dummy_prefix=False)
    tokenizer = load_bytes(data)
    reference = sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in ("the 漢字 cat", "漢", " the"):
        tokens = reference.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False) == tokens
        assert tokenizer.decode(tokens) == reference.decode(tokens)
