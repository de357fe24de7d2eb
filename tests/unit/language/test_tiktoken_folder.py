"""Llama 3's ``tokenizer.model``, against the ``tiktoken`` package itself.

Meta's file cannot be had without its licence, so the tokens are the first 20,000 of Mistral's
Tekken vocabulary, which was made in the same way; tiktoken comes with mistral-common.
"""

from __future__ import annotations

import base64
import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.errors import ModelError
from workers.language.streaming import text_stream
from workers.language.tiktoken_folder import is_tiktoken, load_tiktoken_folder

TOKENS = 20_000
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = (
    *(
        "Der Bär",
        "ночь",
        "नमस्ते",
        "العربية",
        "ไทย",
        "한국어",
        "日本語",
        "👩\u200d👩\u200d👧",
        "e\u0301",
    ),
    *(
        "SELECT name FROM t",
        " WHERE a = 'b'",
        "\t\t",
        "0.5e-3",
        "I'LL",
        "1234567",
        "\r\n\r\n",
        "aaaaaaa",
    ),
)
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.text(alphabet="ab \n", max_size=20),
        st.integers(1, 40).map(lambda count: " " * count),
        st.sampled_from(WORDS),
    ),
    max_size=10,
).map("".join)


@pytest.fixture(scope="module")
def ranks() -> list[bytes]:
    files = distribution("mistral-common").files or []
    path = next(file.locate() for file in files if file.name == "tekken_240718.json")
    vocabulary = json.loads(Path(str(path)).read_bytes())["vocab"]
    return [base64.b64decode(entry["token_bytes"]) for entry in vocabulary[:TOKENS]]


@pytest.fixture(scope="module")
def folder(ranks: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama3")
    lines = (b"%s %d\n" % (base64.b64encode(token), at) for at, token in enumerate(ranks))
    (folder / "tokenizer.model").write_bytes(b"".join(lines))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    assert is_tiktoken(folder)
    return load_tiktoken_folder(folder)


@pytest.fixture(scope="module")
def reference(ranks: list[bytes]) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "llama3",
        pat_str=PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(ranks)},
        special_tokens={},
    )


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS)
def test_tokens_and_texts_are_those_of_tiktoken(
    tokenizer: Any, reference: tiktoken.Encoding, text: str
) -> None:
    expected = reference.encode_ordinary(text)
    assert tokenizer.encode(text, add_special_tokens=False) == expected
    assert tokenizer.encode(text) == [TOKENS, *expected]
    assert tokenizer.decode(expected) == text
    stream = text_stream(tokenizer, [])
    assert "".join([*map(stream.add, expected), stream.finish()]) == text


def test_special_tokens_follow_the_ranks(tokenizer: Any) -> None:
    """The places are those in ``llama/tokenizer.py``, with the names of Llama 3.1."""
    named = {
        "<|begin_of_text|>": 0,
        "<|end_of_text|>": 1,
        "<|reserved_special_token_0|>": 2,
        "<|start_header_id|>": 6,
        "<|end_header_id|>": 7,
        "<|eom_id|>": 8,
        "<|eot_id|>": 9,
        "<|python_tag|>": 10,
        "<|reserved_special_token_247|>": 255,
    }
    assert len(tokenizer) == TOKENS + 256
    for name, place in named.items():
        assert tokenizer.encode(name, add_special_tokens=False) == [TOKENS + place]
    assert tokenizer.eos_token_ids == {TOKENS + place for place in (1, 8, 9)}
    assert tokenizer.bos_token == "<|begin_of_text|>"


def test_more_tokens_may_end_an_answer(folder: Path) -> None:
    assert load_tiktoken_folder(folder, 7).eos_token_ids >= {7, TOKENS + 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines[:200], "no token for the byte"),
        (lambda lines: [*lines[:300], b"!", *lines[300:]], "line 301 is b'!'"),
        (lambda lines: [*lines[:300], *lines[301:]], "line 301 is"),
        (lambda lines: [*lines[:300], lines[5].split()[0] + b" 300"], "a token twice"),
        (lambda lines: [*lines[:300], b"QQ 300"], "padding"),
    ],
)
def test_damaged_files_are_refused(folder: Path, tmp_path: Path, change: Any, reason: str) -> None:
    lines = (folder / "tokenizer.model").read_bytes().splitlines()
    (tmp_path / "tokenizer.model").write_bytes(b"\n".join(change(lines)))
    with pytest.raises(ModelError, match=reason) as refused:
        load_tiktoken_folder(tmp_path)
    assert refused.value.remedy


def test_sentencepiece_files_are_told_apart(
    tokenizer_files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(tokenizer_files["v1"].read_bytes())
    assert not is_tiktoken(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    assert not is_tiktoken(tmp_path)
