"""Folders with a ``tokenizer.model`` alone, against the ``sentencepiece`` package itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx_lm
import pytest
import sentencepiece
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mlx import nn

from daemon.errors import ModelError
from workers.language.data import Dataset, Encoder
from workers.language.generate import Options, generate
from workers.language.load import LanguageModel, load_language_model
from workers.language.prompts import PromptFormat
from workers.language.sentencepiece_folder import check_vocabulary_size, load_sentencepiece_folder
from workers.language.streaming import text_stream

VERSIONS = ("v1", "v2", "v3", "v7", "v7m1")
FIRST_BYTE = {"v1": 3}  # the id of <0x00>; 771 in the later versions

# Written in a text these are tokens, as in every Hugging Face tokenizer; in SentencePiece they are
# text. User-defined pieces are tokens in both, but alone get no space: see sentencepiece_tokenizer.
SPECIAL = ("<unk>", "<s>", "</s>")
USER_DEFINED = ("[REF]", "[/REF]", "[REFERENCE_DOC_0]")

SYMBOLS = (
    "👩\u200d👩\u200d👧",
    "🇪🇺",
    "é",
    "e\u0301",
    "▁",
    "\ufffd",
    "\u202e",
    "ﷺ",
    "\U0010ffff",
    "\r\n",
)
WORDS = (
    *("Der Bär", "ночь", "नमस्ते", "العربية", "עברית", "ไทย", "한국어", "日本語", "汉字", "ქართული"),
    *("SELECT name FROM t", " WHERE a = 'b'", "\t\t", "0.5e-3", "https://a.b/c?d"),
)

TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.integers(1, 40).map(lambda count: " " * count),
        st.text(alphabet=st.characters(categories=["Cc", "Cf", "Zs"]), max_size=4),
        st.text(alphabet=st.characters(min_codepoint=0x1F300, max_codepoint=0x1FAFF), max_size=3),
        st.sampled_from([*USER_DEFINED, *SYMBOLS, *WORDS]),
    ),
    max_size=10,
).map("".join)

thousand = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def reference(version: str, tokenizer_files: dict[str, Path]) -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_files[version]))


@pytest.fixture(scope="module")
def tokenizer(
    version: str, tokenizer_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp(version)
    shutil.copy(tokenizer_files[version], folder / "tokenizer.model")
    return load_sentencepiece_folder(folder)


def streamed(tokenizer: Any, tokens: list[int], prompt: list[int]) -> str:
    stream = text_stream(tokenizer, prompt)
    return "".join([*map(stream.add, tokens), stream.finish()])


def streamed_by_mlx_lm(tokenizer: Any, tokens: list[int]) -> str:
    """Decode as ``mlx_lm.stream_generate`` does."""
    detokenizer, pieces = tokenizer.detokenizer, []
    for token in tokens:
        detokenizer.add_token(token)
        pieces.append(detokenizer.last_segment)
    detokenizer.finalize()
    return "".join([*pieces, detokenizer.last_segment])


@thousand
@given(text=TEXTS)
def test_tokens_and_texts_are_those_of_sentencepiece(
    tokenizer: Any, reference: Any, text: str
) -> None:
    assume(not any(piece in text for piece in SPECIAL))
    assume(text not in USER_DEFINED)
    expected = reference.encode(text)
    assert tokenizer.encode(text, add_special_tokens=False) == expected
    assert tokenizer.encode(text) == [1, *expected]
    decoded = reference.decode(expected)
    assert tokenizer.decode(expected) == decoded
    assert streamed(tokenizer, expected, []) == decoded
    assert streamed_by_mlx_lm(tokenizer, expected) == decoded


@thousand
@given(data=st.data())
def test_any_tokens_at_all_decode_as_in_sentencepiece(
    tokenizer: Any, reference: Any, version: str, data: st.DataObject
) -> None:
    """Bytes that make no UTF-8, unknown pieces, and control pieces, which show nothing."""
    first = FIRST_BYTE.get(version, 771)
    token = st.one_of(
        st.integers(first, first + 255),
        st.sampled_from([first + byte for byte in "a é€😀".encode()]),
        st.integers(0, len(reference) - 1),
    )
    tokens = data.draw(st.lists(token, max_size=30))
    assert tokenizer.decode(tokens, skip_special_tokens=True) == reference.decode(tokens)
    shown = [token for token in tokens if not reference.is_control(token)]
    decoded = reference.decode(shown)
    assert streamed(tokenizer, shown, []) == decoded
    assert streamed_by_mlx_lm(tokenizer, shown) == decoded
    prompt = reference.encode("a prompt")
    assert streamed(tokenizer, shown, prompt) == reference.decode(prompt + shown)[len("a prompt") :]


def test_answers_are_sentencepieces_text_in_our_generation_and_in_mlx_lms(
    sentencepiece_model: Path, mistral: Any
) -> None:
    model = load_language_model(sentencepiece_model)
    prompt = PromptFormat(raw=True).tokens(model, "Grüße an alle")
    assert prompt == [1, *mistral.encode("Grüße an alle")]
    responses = list(mlx_lm.stream_generate(model.model, model.tokenizer, prompt, max_tokens=60))
    tokens = [response.token for response in responses]
    assert tokens[-1] not in model.tokenizer.eos_token_ids
    assert "".join(response.text for response in responses) == streamed_by_mlx_lm(
        model.tokenizer, tokens
    )
    pieces = generate(model, prompt, Options(max_tokens=60), seed=0)
    assert "".join(pieces) == streamed(model.tokenizer, tokens, prompt)


def test_an_answer_ends_at_the_tokenizers_end_and_at_those_of_the_configuration(
    spm_folder: Path,
) -> None:
    assert load_language_model(spm_folder).tokenizer.eos_token_ids == {2}
    assert load_sentencepiece_folder(spm_folder, [5, 7]).eos_token_ids == {2, 5, 7}
    assert load_sentencepiece_folder(spm_folder, 9).eos_token_ids == {2, 9}


def test_training_rows_begin_and_end_with_the_models_tokens(
    sentencepiece_model: Path, mistral: Any
) -> None:
    tokenizer = load_language_model(sentencepiece_model).tokenizer
    dataset = Dataset()
    Encoder(tokenizer=tokenizer, max_seq_length=99).add(dataset, {"text": "Q:  a\nA: b"}, "x:1")
    assert dataset.samples[0].tokens.tolist() == [1, *mistral.encode("Q:  a\nA: b"), 2]


@pytest.fixture(scope="module")
def newer(
    configure: Callable[..., Any],
    sentencepiece_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    folder = tmp_path_factory.mktemp("newer")
    shutil.copy(sentencepiece_model / "tokenizer.model", folder)
    return configure(folder, legacy=False)


@thousand
@given(text=TEXTS)
def test_without_special_tokens_the_newer_way_gives_the_same(
    newer: Any, mistral: Any, text: str
) -> None:
    assume(not any(piece in text for piece in SPECIAL))
    assume(text not in USER_DEFINED)
    assert newer.encode(text, add_special_tokens=False) == mistral.encode(text)


def test_tokens_beyond_the_vocabulary_show_nothing(spm_folder: Path, mistral: Any) -> None:
    tokenizer = load_sentencepiece_folder(spm_folder)
    assert tokenizer.decode([*mistral.encode("a"), 40000, *mistral.encode("b")]) == "a b"


def test_a_tokenizer_of_another_model_is_refused(
    refusal: Callable[[Path], str], spm_folder: Path, tokenizer_files: dict[str, Path]
) -> None:
    shutil.copy(tokenizer_files["v1"], spm_folder / "tokenizer.model")
    message = refusal(spm_folder)
    assert "copy" in message
    assert "32,000 tokens" in message
    assert "32,768 rows" in message


@pytest.mark.parametrize(
    ("tokens", "rows", "fits"),
    [(100, 100, True), (100, 355, True), (100, 356, False), (101, 100, False)],
)
def test_the_embedding_may_be_padded_and_no_more(tokens: int, rows: int, fits: bool) -> None:
    model: Any = nn.Sequential(nn.Embedding(7, 32), nn.Embedding(rows, 32))
    if fits:
        check_vocabulary_size("m", range(tokens), model)
        nn.quantize(model, group_size=32, bits=4)
        check_vocabulary_size("m", range(tokens), model)
    else:
        with pytest.raises(ModelError, match="different models"):
            check_vocabulary_size("m", range(tokens), model)


def test_tokenizer_json_counts_where_both_are_there(
    model: LanguageModel, tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "both"))
    (folder / "tokenizer.model").write_bytes(b"not even looked at")
    loaded = load_language_model(folder)
    assert loaded.tokenizer.encode("a b") == model.tokenizer.encode("a b")
