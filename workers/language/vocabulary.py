"""The vocabulary of a tokenizer, and how a GGUF file's metadata describes it.

The rule this module protects: what a token is comes from the file's token types, never from its
spelling.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from daemon.errors import ModelError

_WHOLE = "use a file that holds its tokenizer"


class TokenType(IntEnum):
    """Kinds of token: SentencePiece's, and llama.cpp's ``tokenizer.ggml.token_type`` alike."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Token texts, kinds and merge scores, each in the order of the token ids.

    ``roles``: the ids of the tokens with a role (bos, eos, eot, unknown, padding). ``stripping``:
    the special tokens that swallow the space behind them.
    """

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    roles: Mapping[str, int]
    stripping: frozenset[str] = frozenset()

    @property
    def ids(self) -> dict[str, int]:
        """Return the id of each token's text."""
        return {token: number for number, token in enumerate(self.tokens)}

    def of_type(self, *types: TokenType) -> list[str]:
        """Return the tokens of one of the given kinds, by id."""
        pairs = zip(self.tokens, self.types, strict=True)
        return [token for token, found in pairs if found in types]

    def named(self) -> dict[str, str]:
        """Return the texts of the tokens with a role, as transformers names the roles."""
        names = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
        return {
            f"{name}_token": self.tokens[self.roles[role]]
            for role, name in names.items()
            if role in self.roles
        }


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Read the vocabulary from the metadata of a GGUF file, arrays included.

    Raises:
        ModelError: there is none, or its parts differ in length.
    """
    tokens = tuple(str(token) for token in metadata.get("tokenizer.ggml.tokens", ()))
    if not tokens:
        raise ModelError("the GGUF file has no tokenizer", remedy=_WHOLE)
    types = _numbers(metadata, "token_type", len(tokens), default=TokenType.NORMAL)
    return Vocabulary(
        tokens=tokens,
        types=tuple(int(kind) for kind in types),
        scores=_numbers(metadata, "scores", len(tokens), default=0.0),
        roles=_roles(metadata, len(tokens)),
    )


def _numbers(
    metadata: Mapping[str, Any], name: str, count: int, *, default: float
) -> tuple[float, ...]:
    found = metadata.get(f"tokenizer.ggml.{name}")
    if found is None:
        return (default,) * count
    if len(found) != count:
        raise ModelError(
            f"the GGUF file's tokenizer has {count} tokens and {len(found)} entries in {name}",
            remedy=_WHOLE,
        )
    return tuple(found.tolist())


def _roles(metadata: Mapping[str, Any], count: int) -> dict[str, int]:
    """Return the id of each role that the file names; an id outside the vocabulary names none."""
    found = {}
    for role in ("bos", "eos", "eot", "unknown", "padding"):
        value = metadata.get(f"tokenizer.ggml.{role}_token_id")
        number = -1 if value is None else int(value)
        if 0 <= number < count:
            found[role] = number
    return found


def add_special_tokens(
    tokenizer: Tokenizer, vocabulary: Vocabulary, *, normalized: Collection[TokenType] = ()
) -> None:
    """Make the tokens that are matched before anything else known as such.

    They are matched in the raw text; the kinds in ``normalized`` in the normalised text.
    """
    for kind in (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED):
        special = kind != TokenType.USER_DEFINED
        add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
        texts = vocabulary.of_type(kind)
        add(
            [
                AddedToken(
                    text,
                    special=special,
                    normalized=kind in normalized,
                    rstrip=text in vocabulary.stripping,
                )
                for text in texts
            ]
        )


def add_frame(tokenizer: Tokenizer, start: str | None, end: str | None) -> None:
    """Let every encoded text begin with ``start`` and end with ``end``, tokens of its own."""
    frame = [token for token in (start, end) if token is not None]
    before, after = ([token] if token is not None else [] for token in (start, end))
    if frame:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *before, "$B", *after],
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in frame],
        )
