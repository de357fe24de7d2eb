"""Tokenizers built from a GGUF file's metadata.

The rule this module protects: a tokenizer is built as its model was trained with, or refused; a
nearly right one gives nearly right text and no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from daemon.errors import ModelError
from workers.language.sentencepiece_text import SentencePieceWrapper, surfaces
from workers.language.sentencepiece_tokenizer import sentencepiece_tokenizer
from workers.language.vocabulary import (
    TokenType,
    Vocabulary,
    add_frame,
    add_special_tokens,
    read_vocabulary,
)


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """How a text is cut before BPE, and what else goes with that.

    With ``whole`` a word that is in the vocabulary is taken whole, even where no merges lead to it;
    with ``starts`` texts get a start token unless the file says otherwise. Both are llama.cpp's.
    """

    cut: Callable[[], pre_tokenizers.PreTokenizer]
    normalizer: normalizers.Normalizer | None = None
    whole: bool = False
    starts: bool = False


def _smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def cut_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Return what cuts a text by a pattern of tiktoken's kind, and its pieces into bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# ``pat_str`` of llama/tokenizer.py in github.com/meta-llama/llama3.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The pattern of Qwen2Tokenizer in transformers: Llama 3's, but for digits one by one.
_QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# ``config.pattern`` of Mistral's tekken.json, in mistral-common.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizer.ggml.pre.
_CUTS = {
    "smollm": _Cut(cut=_smollm),
    "gpt-2": _Cut(cut=_gpt2),
    "phi-2": _Cut(cut=_gpt2),
    "llama-bpe": _Cut(cut=partial(cut_by, LLAMA3), whole=True, starts=True),
    "qwen2": _Cut(cut=partial(cut_by, _QWEN2), normalizer=normalizers.NFC()),
    "tekken": _Cut(cut=partial(cut_by, _TEKKEN), whole=True, starts=True),
}
_FOLDER = "use the model's Hugging Face or MLX folder"
# Special tokens that end an answer whether or not the file names them (llama.cpp, llama-vocab.cpp:
# special_eog_ids). Phi-3's files name <|endoftext|>, and its answers end with <|end|>.
_ENDS = frozenset(
    {
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<EOT>",
        "_<EOT>",
    }
)
# Tokens of Phi-3 that leave the space behind them, as its others do not.
_NOT_STRIPPING = frozenset({"<unk>", "<s>", "<|endoftext|>"})


def gguf_tokenizer(metadata: Mapping[str, Any]) -> TokenizerWrapper:
    """Build the tokenizer that a GGUF file describes, chat template included.

    Raises:
        ModelError: the file has no tokenizer, or one of a kind that is not supported.
    """
    vocabulary = _stripping(read_vocabulary(metadata), metadata)
    tokenizer, wrap, starts = _build(vocabulary, metadata)
    names = vocabulary.named()
    if _flag(metadata, "add_bos_token", default=starts):
        add_frame(tokenizer, names.get("bos_token"), None)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names
    )
    fast.chat_template = metadata.get("tokenizer.chat_template")
    return wrap(fast, eos_token_ids=_ends(vocabulary))


def _ends(vocabulary: Vocabulary) -> list[int]:
    """Return the tokens that end an answer, the file's own end token first."""
    named = [vocabulary.roles[role] for role in ("eos", "eot") if role in vocabulary.roles]
    special = set(vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED)) & _ENDS
    ids = vocabulary.ids
    return list(dict.fromkeys([*named, *sorted(ids[text] for text in special)]))


def _stripping(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> Vocabulary:
    """Let the special tokens of Phi-3 swallow the space behind them.

    Its tokenizer.json says so, and GGUF has no word for it; llama.cpp knows the model by its name.
    """
    kinds = metadata.get("general.architecture"), metadata.get("tokenizer.ggml.model")
    if kinds != ("phi3", "llama"):
        return vocabulary
    special = {"</s>", *vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED)}
    return replace(vocabulary, stripping=frozenset(special - _NOT_STRIPPING))


def _build(
    vocabulary: Vocabulary, metadata: Mapping[str, Any]
) -> tuple[Tokenizer, Callable[..., Any], bool]:
    """Return the tokenizer, its wrapper, and whether texts get a start token by default.

    The default is llama.cpp's: with SentencePiece they do.
    """
    kind = metadata.get("tokenizer.ggml.model")
    name = metadata.get("tokenizer.ggml.pre")
    cut = _CUTS.get(name or "gpt-2")
    if kind == "llama":
        return *_sentencepiece(vocabulary, metadata), True
    if kind == "gpt2" and cut:
        wrap = partial(TokenizerWrapper, detokenizer_class=BPEStreamingDetokenizer)
        return _byte_level_bpe(vocabulary, metadata, cut), wrap, cut.starts
    raise ModelError(
        f"the GGUF file's tokenizer is of the kind {kind!r}, pre-tokenizer {name!r}, "
        "which is not supported",
        remedy="SentencePiece BPE (llama) and byte-level BPE (gpt2) with one of "
        f"{', '.join(_CUTS)} can be read; {_FOLDER}",
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


def _byte_level_bpe(vocabulary: Vocabulary, metadata: Mapping[str, Any], cut: _Cut) -> Tokenizer:
    merges = [_pair(line) for line in metadata.get("tokenizer.ggml.merges", ())]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary.ids, merges=merges, ignore_merges=cut.whole))
    if cut.normalizer:
        tokenizer.normalizer = cut.normalizer
    tokenizer.pre_tokenizer = cut.cut()
    tokenizer.decoder = decoders.ByteLevel()
    add_special_tokens(tokenizer, vocabulary)
    return tokenizer


def _pair(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    return left, right


def _flag(metadata: Mapping[str, Any], name: str, *, default: bool) -> bool:
    return bool(metadata.get(f"tokenizer.ggml.{name}", default))
