"""The tokenizer of a folder with Llama 3's ``tokenizer.model``, which is tiktoken's text format.

The rule this module protects: tokens are those of the ``tiktoken`` package with Llama 3's pattern
and special tokens. Special tokens written in a text are tokens, as in every Hugging Face tokenizer.

A line has a token's bytes in base64 and its rank, which is its id. 256 special tokens follow
(github.com/meta-llama/llama3, ``llama/tokenizer.py``). They are named as in Llama 3.1, which gave
three reserved ones a meaning; Llama 3 never writes those.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from daemon.errors import ModelError
from workers.language.tokenizer import LLAMA3, cut_by
from workers.language.vocabulary import add_frame

FILE = "tokenizer.model"

_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d+)")
_SPECIAL = 256
_NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}
_START, _END = _NAMED[0], _NAMED[1]
_ENDS = (_END, _NAMED[8], _NAMED[9])


def is_tiktoken(folder: Path) -> bool:
    """Say whether the ``tokenizer.model`` of a folder begins as tiktoken's files do."""
    with (folder / FILE).open("rb") as file:
        return _LINE.fullmatch(file.readline(2**16).rstrip(b"\r\n")) is not None


def load_tiktoken_folder(
    folder: Path, eos_token_ids: int | Iterable[int] | None = None
) -> TokenizerWrapper:
    """Load ``folder``'s ``tokenizer.model``; texts get a start token.

    ``eos_token_ids`` end an answer besides the tokens that end a text, a turn and a message.

    Raises:
        ModelError: the file is damaged.
    """
    tokenizer = _byte_level(_read_ranks(folder / FILE))
    add_frame(tokenizer, _START, None)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        bos_token=_START,
        eos_token=_END,
    )
    ends = [eos_token_ids] if isinstance(eos_token_ids, int) else list(eos_token_ids or ())
    own = fast.convert_tokens_to_ids(list(_ENDS))
    return TokenizerWrapper(fast, BPEStreamingDetokenizer, eos_token_ids=[*ends, *own])


def _read_ranks(file: Path) -> list[bytes]:
    """Return the tokens by rank; the ranks have to be 0, 1, 2 and so on, in this order."""
    tokens: list[bytes] = []
    try:
        for number, line in enumerate(file.read_bytes().splitlines()):
            match = _LINE.fullmatch(line)
            if match is None or int(match[2]) != number:
                raise ValueError(f"line {number + 1} is {line[:40]!r}")
            tokens.append(base64.b64decode(match[1], validate=True))
        missing = {bytes([byte]) for byte in range(256)} - set(tokens)
        if missing:
            raise ValueError(f"it has no token for the byte {min(missing)!r}")
        if len(set(tokens)) != len(tokens):
            raise ValueError("it has a token twice")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file.parent.name}/{file.name} is damaged: {error}", remedy="download the file again"
        ) from None
    return tokens


def _byte_level(tokens: list[bytes]) -> Tokenizer:
    texts = ["".join(map(_CHARACTERS.__getitem__, token)) for token in tokens]
    ids = {text: number for number, text in enumerate(texts)}
    # tiktoken takes a word that is a token whole, even where no merges lead to it.
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=_merges(ids), ignore_merges=True))
    tokenizer.pre_tokenizer = cut_by(LLAMA3)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in _special_names()]
    )
    return tokenizer


def _special_names() -> list[str]:
    """Return the special tokens by id; those without a name are numbered."""
    unnamed = (number for number in range(_SPECIAL))
    return [
        _NAMED.get(place) or f"<|reserved_special_token_{next(unnamed)}|>"
        for place in range(_SPECIAL)
    ]


def _merges(ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return every way to put a token together from two others, the lowest rank first.

    tiktoken joins the neighbours whose joint token has the lowest rank, the leftmost of equals.
    Among the pairs that make one token the longest left half stands leftmost, because runs of one
    character grow from the left.
    """
    found = [
        (rank, -cut, text[:cut], text[cut:])
        for text, rank in ids.items()
        for cut in range(1, len(text))
        if text[:cut] in ids and text[cut:] in ids
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def _byte_characters() -> list[str]:
    """Return the character that stands for each byte in byte-level BPE, as in GPT-2's encoder.py.

    Printable ones stand for themselves, the others, by value, for those from 256 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_CHARACTERS = _byte_characters()
