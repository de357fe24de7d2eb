"""Tokenizers built from a GGUF file's metadata.

The rule this module protects: a tokenizer is built as its model was trained with, or refused; a
nearly right one gives nearly right text and no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from daemon.errors import ModelError
from workers.language.sentencepiece_text import SentencePieceWrapper, surfaces
from workers.language.sentencepiece_tokenizer import sentencepiece_tokenizer
from workers.language.vocabulary import (
    Vocabulary,
    add_frame,
    add_special_tokens,
    read_vocabulary,
)


def _smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _llama3() -> pre_tokenizers.PreTokenizer:
    """Cut as Llama 3 does.

    The pattern is ``pat_str`` of ``llama/tokenizer.py`` in github.com/meta-llama/llama3.
    """
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# tokenizer.ggml.pre: how the text is cut before BPE.
_PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "smollm": _smollm,
    "gpt-2": _gpt2,
    "llama-bpe": _llama3,
}
_FOLDER = "use the model's Hugging Face or MLX folder"


def gguf_tokenizer(metadata: Mapping[str, Any]) -> TokenizerWrapper:
    """Build the tokenizer that a GGUF file describes, chat template included.

    Raises:
        ModelError: the file has no tokenizer, or one of a kind that is not supported.
    """
    vocabulary = read_vocabulary(metadata)
    tokenizer, wrap, starts = _build(vocabulary, metadata)
    names = vocabulary.named()
    if _flag(metadata, "add_bos_token", default=starts):
        add_frame(tokenizer, names.get("bos_token"), None)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names
    )
    fast.chat_template = metadata.get("tokenizer.chat_template")
    ends = [vocabulary.roles[role] for role in ("eos", "eot") if role in vocabulary.roles]
    return wrap(fast, eos_token_ids=ends)


def _build(
    vocabulary: Vocabulary, metadata: Mapping[str, Any]
) -> tuple[Tokenizer, Callable[..., Any], bool]:
    """Return the tokenizer, its wrapper, and whether texts get a start token by default.

    The defaults are llama.cpp's: a start token for SentencePiece and Llama 3.
    """
    kind = metadata.get("tokenizer.ggml.model")
    cut = metadata.get("tokenizer.ggml.pre")
    if kind == "llama":
        return *_sentencepiece(vocabulary, metadata), True
    if kind == "gpt2" and (cut or "gpt-2") in _PRE_TOKENIZERS:
        tokenizer = _byte_level_bpe(vocabulary, metadata, cut or "gpt-2")
        wrap = partial(TokenizerWrapper, detokenizer_class=BPEStreamingDetokenizer)
        return tokenizer, wrap, cut == "llama-bpe"
    raise ModelError(
        f"the GGUF file's tokenizer is of the kind {kind!r}, pre-tokenizer {cut!r}, "
        "which is not supported",
        remedy="SentencePiece BPE (llama) and byte-level BPE (gpt2) with one of "
        f"{', '.join(_PRE_TOKENIZERS)} can be read; {_FOLDER}",
    )


def _sentencepiece(
    vocabulary: Vocabulary, metadata: Mapping[str, Any]
) -> tuple[Tokenizer, Callable[..., Any]]:
    if metadata.get("tokenizer.ggml.precompiled_charsmap") is not None or _flag(
        metadata, "remove_extra_whitespaces", default=False
    ):
        raise ModelError(
            "the GGUF file's SentencePiece tokenizer normalises text, which is not supported",
            remedy=_FOLDER,
        )
    prefix = _flag(metadata, "add_space_prefix", default=True)
    tokenizer = sentencepiece_tokenizer(vocabulary, space_prefix=prefix)
    return tokenizer, partial(
        SentencePieceWrapper, surfaces=surfaces(vocabulary, space_prefix=prefix)
    )


def _byte_level_bpe(vocabulary: Vocabulary, metadata: Mapping[str, Any], cut: str) -> Tokenizer:
    merges = [_pair(line) for line in metadata.get("tokenizer.ggml.merges", ())]
    # Llama 3 takes a word that is in the vocabulary whole, even where no merges lead to it.
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary.ids, merges=merges, ignore_merges=cut == "llama-bpe")
    )
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[cut]()
    tokenizer.decoder = decoders.ByteLevel()
    add_special_tokens(tokenizer, vocabulary)
    return tokenizer


def _pair(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    return left, right


def _flag(metadata: Mapping[str, Any], name: str, *, default: bool) -> bool:
    return bool(metadata.get(f"tokenizer.ggml.{name}", default))
