"""From SentencePiece's tokens back to text, one at a time or all at once.

The rule this module protects: the text is that of ``SentencePieceProcessor.decode``, however the
tokens come; only the names of control pieces are shown besides, as every Hugging Face tokenizer
shows them, unless they are to be skipped.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_lm.tokenizer_utils import StreamingDetokenizer, TokenizerWrapper

from workers.language.sentencepiece_tokenizer import SPACE
from workers.language.vocabulary import TokenType, Vocabulary

# What SentencePiece shows for an unknown piece where its model names nothing else.
UNKNOWN_TEXT = " \u2047 "
_BROKEN = "\ufffd"


@dataclass(frozen=True, kw_only=True)
class Surfaces:
    """What each token shows as: ``pieces`` by id, ``bytes`` the values of byte pieces by id.

    ``special`` are the ids whose names are no part of the text. With ``space_prefix`` the text's
    first space is the one that encoding put there.
    """

    pieces: tuple[str, ...]
    bytes: Mapping[int, int]
    special: frozenset[int]
    space_prefix: bool


def surfaces(
    vocabulary: Vocabulary, *, space_prefix: bool, unknown_text: str = UNKNOWN_TEXT
) -> Surfaces:
    """Return what the tokens of a SentencePiece vocabulary show as."""
    tokens = list(enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True)))
    return Surfaces(
        pieces=tuple(
            unknown_text if kind == TokenType.UNKNOWN else token for _, (token, kind) in tokens
        ),
        bytes={at: int(token[3:5], 16) for at, (token, kind) in tokens if kind == TokenType.BYTE},
        special=frozenset(at for at, (_, kind) in tokens if kind == TokenType.CONTROL),
        space_prefix=space_prefix,
    )


class SentencePieceDetokenizer(StreamingDetokenizer):  # type: ignore[misc]  # mlx-lm is untyped
    """Decodes tokens as they come, through mlx-lm's interface for that.

    ``text`` is what has become certain: bytes that may still become a character are held back.
    Tokens beyond the vocabulary show nothing.
    """

    def __init__(self, _tokenizer: Any, surfaces: Surfaces, *, skip_special: bool = False) -> None:
        self._surfaces = surfaces
        self._skip_special = skip_special
        self.reset()

    def reset(self) -> None:
        """Begin a new text."""
        self.tokens: list[int] = []
        self.offset = 0  # parts that have been handed out
        self._parts: list[str] = []
        self._begun = False
        self._held = b""

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join(self._parts)

    @property
    def last_segment(self) -> str:
        """The text that is new since the last look at it; takes time for that text alone."""
        new = "".join(self._parts[self.offset :])
        self.offset = len(self._parts)
        return new

    def add_token(self, token: int) -> None:
        """Take the next token."""
        self.tokens.append(token)
        byte = self._surfaces.bytes.get(token)
        if byte is not None:
            self._held += bytes([byte])
            self._add_bytes(final=False)
        elif token < len(self._surfaces.pieces):
            self._add_bytes(final=True)
            self._add_piece(token)

    def finalize(self) -> None:
        """Show the bytes that have been held back; each is broken."""
        self._add_bytes(final=True)

    def _add_bytes(self, *, final: bool) -> None:
        text, self._held = _characters(self._held, final=final)
        self._parts.append(text)
        self._begun = self._begun or bool(text)

    def _add_piece(self, token: int) -> None:
        piece = self._surfaces.pieces[token]
        if token in self._surfaces.special:
            self._parts.append("" if self._skip_special else piece)
            return
        if self._surfaces.space_prefix and not self._begun:
            piece = piece.removeprefix(SPACE)
        self._parts.append(piece.replace(SPACE, " "))
        self._begun = True


def _characters(data: bytes, *, final: bool) -> tuple[str, bytes]:
    """Return the characters that ``data`` begins with, and the bytes that may become one.

    Each byte that belongs to no character becomes one replacement character, as in
    SentencePiece; after the ``final`` byte nothing remains.
    """
    text = ""
    while True:
        try:
            found, used = codecs.utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as error:
            text += data[: error.start].decode() + _BROKEN
            data = data[error.start + 1 :]
        else:
            return text + found, data[used:]


class SentencePieceWrapper(TokenizerWrapper):  # type: ignore[misc]  # mlx-lm is untyped
    """A fast tokenizer in mlx-lm's wrapper, with SentencePiece's decoding."""

    def __init__(self, tokenizer: Any, surfaces: Surfaces, *, eos_token_ids: Iterable[int]) -> None:
        self._surfaces = surfaces
        detokenizer = partial(SentencePieceDetokenizer, surfaces=surfaces)
        super().__init__(tokenizer, detokenizer, eos_token_ids=eos_token_ids)

    def decode(
        self, token_ids: Iterable[int], skip_special_tokens: bool = False, **_: object
    ) -> str:
        """Return the text of ``token_ids``; other options of transformers change nothing."""
        detokenizer = SentencePieceDetokenizer(
            self, self._surfaces, skip_special=skip_special_tokens
        )
        for token in token_ids:
            detokenizer.add_token(int(token))
        detokenizer.finalize()
        return detokenizer.text
