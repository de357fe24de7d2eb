"""Tokenizers built from a GGUF file's metadata.

The rule this module protects: a tokenizer is built as its model was trained with, or refused; a
nearly right one gives nearly right text and no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from daemon.errors import ModelError


class TokenType(IntEnum):
    """Kinds of token in ``tokenizer.ggml.token_type`` (llama.cpp's enum)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def _smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


# tokenizer.ggml.pre: how the text is cut before BPE.
_PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "smollm": _smollm,
    "gpt-2": _gpt2,
}


def gguf_tokenizer(metadata: Mapping[str, Any]) -> TokenizerWrapper:
    """Build the tokenizer that a GGUF file describes, chat template included.

    Raises:
        ModelError: the file has no tokenizer, or one of a kind that is not supported.
    """
    _check_kind(metadata)
    tokens = [str(token) for token in metadata["tokenizer.ggml.tokens"]]
    tokenizer = _byte_level_bpe(tokens, metadata)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        **_named_tokens(tokens, metadata),
    )
    fast.chat_template = metadata.get("tokenizer.chat_template")
    ends = (_token_id(metadata, name, len(tokens)) for name in ("eos", "eot"))
    return TokenizerWrapper(
        fast, BPEStreamingDetokenizer, eos_token_ids=[end for end in ends if end is not None]
    )


def _check_kind(metadata: Mapping[str, Any]) -> None:
    if not metadata.get("tokenizer.ggml.tokens"):
        raise ModelError(
            "the GGUF file has no tokenizer", remedy="use a file that holds its tokenizer"
        )
    kind = metadata.get("tokenizer.ggml.model")
    cut = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or cut not in _PRE_TOKENIZERS:
        known = ", ".join(_PRE_TOKENIZERS)
        raise ModelError(
            f"the GGUF file's tokenizer is of the kind {kind!r}, pre-tokenizer {cut!r}, "
            "which is not supported",
            remedy=f"byte-level BPE (gpt2) with one of {known} can be read; "
            "use the model's Hugging Face or MLX folder",
        )


def _byte_level_bpe(tokens: list[str], metadata: Mapping[str, Any]) -> Tokenizer:
    """Build the fast tokenizer: BPE over bytes, special and added tokens, start token if asked."""
    merges = [_pair(line) for line in metadata.get("tokenizer.ggml.merges", ())]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[metadata.get("tokenizer.ggml.pre", "gpt-2")]()
    tokenizer.decoder = decoders.ByteLevel()
    kinds = _token_types(metadata, len(tokens))
    tokenizer.add_special_tokens(_of_kind(tokens, kinds, TokenType.CONTROL, special=True))
    tokenizer.add_tokens(_of_kind(tokens, kinds, TokenType.USER_DEFINED, special=False))
    start = _token_id(metadata, "bos", len(tokens))
    if start is not None and bool(metadata.get("tokenizer.ggml.add_bos_token", False)):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[start]} $A",
            pair=f"{tokens[start]} $A {tokens[start]} $B",
            special_tokens=[(tokens[start], start)],
        )
    return tokenizer


def _pair(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    return left, right


def _token_types(metadata: Mapping[str, Any], count: int) -> list[int]:
    kinds = metadata.get("tokenizer.ggml.token_type")
    return (
        [int(TokenType.NORMAL)] * count if kinds is None else [int(kind) for kind in kinds.tolist()]
    )


def _of_kind(
    tokens: list[str], kinds: list[int], kind: TokenType, *, special: bool
) -> list[AddedToken]:
    return [
        AddedToken(token, special=special, normalized=False)
        for token, found in zip(tokens, kinds, strict=True)
        if found == kind
    ]


def _token_id(metadata: Mapping[str, Any], name: str, count: int) -> int | None:
    """Return the id of the token with a role (bos, eos, …), None if the file names none."""
    value = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if value is None:
        return None
    number = int(value.item() if hasattr(value, "item") else value)
    return number if 0 <= number < count else None


def _named_tokens(tokens: list[str], metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of the tokens with a role, as transformers names the roles."""
    roles = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
    ids = {role: _token_id(metadata, name, len(tokens)) for name, role in roles.items()}
    return {f"{role}_token": tokens[number] for role, number in ids.items() if number is not None}
