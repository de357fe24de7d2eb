"""The vocabulary that a GGUF file's metadata describes.

The rule this module protects: what a token is comes from the file's token types, never from its
spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from daemon.errors import ModelError

_WHOLE = "use a file that holds its tokenizer"


class TokenType(IntEnum):
    """Kinds of token in ``tokenizer.ggml.token_type`` (llama.cpp's enum)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Token texts, kinds and merge scores, each in the order of the token ids.

    ``roles``: the ids of the tokens with a role (bos, eos, eot, unknown, padding).
    """

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    roles: Mapping[str, int]

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
    """Read the vocabulary from ``mx.load``'s metadata of a GGUF file.

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


def add_special_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Make the tokens that are matched in the raw text, before anything else, known as such."""
    special = vocabulary.of_type(TokenType.UNKNOWN, TokenType.CONTROL)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    added = vocabulary.of_type(TokenType.USER_DEFINED)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in added])


def add_start_token(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Let every encoded text begin with the start token, if the vocabulary has one."""
    if "bos" not in vocabulary.roles:
        return
    number = vocabulary.roles["bos"]
    start = vocabulary.tokens[number]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[start, "$A"], pair=[start, "$A", start, "$B"], special_tokens=[(start, number)]
    )
