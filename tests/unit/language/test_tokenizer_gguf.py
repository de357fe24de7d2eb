"""Byte-level tokenizers of GGUF files against those their models were trained with."""

from __future__ import annotations

import base64
import json
import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import mistral_common
import numpy as np
import pytest
import tiktoken
from transformers import Qwen2Tokenizer

from daemon.errors import ModelError
from workers.language.tokenizer import gguf_tokenizer
from workers.language.vocabulary import TokenType

TEKKEN = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
KEPT = 3000  # of its tokens, the shortest in the order of training
HARD = ["", " ", "  a", "I'LL", "don't", "\r\n\n x", "e\u0301 \u00e9", "1234567", "a/b//\n", "👩‍👧"]


@cache
def tekken() -> tuple[str, dict[bytes, int]]:
    """Return the pattern and the first tokens of Mistral's own tokenizer."""
    read = json.loads(TEKKEN.read_bytes())
    ranks = {base64.b64decode(each["token_bytes"]): each["rank"] for each in read["vocab"][:KEPT]}
    return read["config"]["pattern"], ranks


def letters() -> list[str]:
    """Return the character that stands for each byte (bytes_to_unicode of GPT-2)."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    rest = iter(range(256, 512))
    return [chr(byte if byte in shown else next(rest)) for byte in range(256)]


def spelled(token: bytes) -> str:
    return "".join(letters()[byte] for byte in token)


def halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts that a token is joined from at last."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        joined = [left + right for left, right in pairwise(parts)]
        best = min(range(len(joined)), key=lambda at: ranks.get(joined[at], KEPT))
        parts[best : best + 2] = [joined[best]]
    return parts[0], parts[1]


@cache
def merges() -> list[tuple[str, str]]:
    _, ranks = tekken()
    found = (halves(token, ranks) for token in ranks if len(token) > 1)
    return [(spelled(left), spelled(right)) for left, right in found]


def metadata(pre: str, *added: tuple[str, TokenType], **roles: int) -> dict[str, Any]:
    """Return a GGUF file's metadata with these tokens, and ``added`` ones behind them."""
    tokens = [spelled(token) for token in tekken()[1]]
    types = [TokenType.NORMAL] * len(tokens) + [kind for _, kind in added]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": (*tokens, *(text for text, _ in added)),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": tuple(" ".join(pair) for pair in merges()),
    } | {f"tokenizer.ggml.{role}_token_id": number for role, number in roles.items()}


def odd_texts(count: int) -> list[str]:
    """Return texts of many scripts and characters, in runs."""
    chosen = random.Random(11)
    ranges = [(9, 126), (65, 122), (0xA0, 0x17F), (0x300, 0x3FF), (0x4E00, 0x4EFF), (0x660, 0x669)]
    runs = [" ", "\n", "  ", "12", "Ab", "'s ", "é", "e\u0301"]

    def part() -> str:
        if chosen.random() < 0.4:
            return chosen.choice(runs) * chosen.randint(1, 4)
        return chr(chosen.randint(*chosen.choice(ranges)))

    return ["".join(part() for _ in range(chosen.randint(1, 30))) for _ in range(count)]


def test_tekken_cuts_as_mistrals_own_tokenizer() -> None:
    pattern, ranks = tekken()
    reference = tiktoken.Encoding(
        "tekken", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
    )
    tokenizer = gguf_tokenizer(metadata("tekken"))
    for text in [*HARD, *odd_texts(600)]:
        expected = reference.encode(text)
        assert tokenizer.encode(text) == expected, text
        assert tokenizer.decode(expected) == text


def test_qwen2_cuts_and_normalises_as_transformers_does() -> None:
    vocab = {spelled(token): rank for token, rank in tekken()[1].items()} | {"<|endoftext|>": KEPT}
    reference = Qwen2Tokenizer(vocab=vocab, merges=list(merges()))
    added = ("<|endoftext|>", TokenType.CONTROL)
    tokenizer = gguf_tokenizer(metadata("qwen2", added, eos=KEPT))
    for text in [*HARD, *odd_texts(600)]:
        assert tokenizer.encode(text) == reference.encode(text), text
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")


def test_a_start_token_is_added_by_default_where_llama_cpp_does() -> None:
    added = ("<s>", TokenType.CONTROL)
    for pre, starts in {"tekken": True, "llama-bpe": True, "qwen2": False, "phi-2": False}.items():
        tokens = gguf_tokenizer(metadata(pre, added, bos=KEPT)).encode("a")
        assert (tokens[0] == KEPT) is starts, pre


def test_what_ends_a_turn_ends_an_answer_named_or_not() -> None:
    ends = [("<|endoftext|>", TokenType.CONTROL), ("<|im_end|>", TokenType.USER_DEFINED)]
    found = gguf_tokenizer(metadata("qwen2", *ends, eos=KEPT))
    assert found.eos_token_ids == {KEPT, KEPT + 1}
    assert found.eos_token_id == KEPT
    named = gguf_tokenizer(metadata("qwen2", ("<end>", TokenType.CONTROL), eos=7, eot=KEPT))
    assert named.eos_token_ids == {7, KEPT}
    spelled_so = gguf_tokenizer(metadata("qwen2", ("<|im_end|>", TokenType.NORMAL), eos=7))
    assert spelled_so.eos_token_ids == {7}


@pytest.mark.parametrize("pre", ["default", "llama-bpe2", "gpt-4o"])
def test_an_unknown_way_to_cut_is_refused_by_name(pre: str) -> None:
    with pytest.raises(ModelError, match=f"pre-tokenizer '{pre}'") as refused:
        gguf_tokenizer(metadata(pre))
    assert "qwen2, tekken" in str(refused.value.remedy)


def phi3(architecture: str) -> Any:
    """Return a small SentencePiece tokenizer as the files of Phi-3 have it."""
    special = {"<s>": 3, "</s>": 3, "<|endoftext|>": 3, "<|user|>": 4, "<|end|>": 3}
    pieces = ["<unk>", *special, "\u2581", "a", "\n"]
    return gguf_tokenizer(
        {
            "general.architecture": architecture,
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tuple(pieces),
            "tokenizer.ggml.token_type": np.array([2, *special.values(), 1, 1, 1]),
            "tokenizer.ggml.scores": np.array([-float(place) for place in range(len(pieces))]),
            "tokenizer.ggml.add_space_prefix": False,
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.eos_token_id": 3,
        }
    )


def test_special_tokens_of_phi3_swallow_the_space_behind_them() -> None:
    text = "<|user|>\na<|end|> \na<|endoftext|>\na"
    assert phi3("phi3").encode(text) == [4, 7, 5, 7, 3, 8, 7]
    assert phi3("llama").encode(text) == [4, 8, 7, 5, 6, 8, 7, 3, 8, 7]
    assert phi3("phi3").eos_token_ids == {3, 5}
