"""Fast tokenizers that split text as SentencePiece's BPE models do.

The rule this module protects: the tokens are those of the ``sentencepiece`` package, or the model
is refused. A piece's score stands for the order in which pieces are merged; there are no merges.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

from daemon.errors import ModelError
from workers.language.vocabulary import TokenType, Vocabulary, add_special_tokens

SPACE = "\u2581"
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_SPECIAL = (TokenType.UNKNOWN, TokenType.CONTROL)
_REMEDY = "use the model's Hugging Face or MLX folder, with its tokenizer.json"


def sentencepiece_tokenizer(
    vocabulary: Vocabulary,
    *,
    space_prefix: bool,
    space_after_special: bool = True,
    added: Sequence[AddedToken] = (),
) -> Tokenizer:
    """Build the tokenizer of a SentencePiece model of the kind BPE, identity normalisation.

    With ``space_prefix`` a space goes before the text. Text after a special token counts as a new
    text, as in llama.cpp; not so without ``space_after_special``, which is transformers'
    ``legacy=False``. A text that is nothing but one user-defined piece gets no space before it;
    SentencePiece gives it one. ``added`` tokens follow the vocabulary's, and are sought as special
    ones are.

    Raises:
        ModelError: the vocabulary holds pieces that a fast tokenizer would treat otherwise.
    """
    _check(vocabulary)
    tokenizer = _joining(vocabulary)
    special = [*vocabulary.of_type(*_SPECIAL), *(token.content for token in added)]
    starts = [] if space_after_special else special
    prefix = [_space_prefix(vocabulary, starts)] if space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if space_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    whole = () if space_after_special else _SPECIAL  # the text is normalised before it is cut
    add_special_tokens(tokenizer, vocabulary, normalized=(*whole, TokenType.USER_DEFINED))
    tokenizer.add_tokens([_cutting(token, normalized=bool(whole)) for token in added])
    return tokenizer


def _joining(vocabulary: Vocabulary) -> Tokenizer:
    """Return what joins the pieces of a normalised text."""
    return Tokenizer(
        models.BPE(
            vocab=vocabulary.ids,
            merges=merges(vocabulary),
            unk_token=vocabulary.of_type(TokenType.UNKNOWN)[0],
            fuse_unk=True,
            byte_fallback=set(_BYTES) <= set(vocabulary.of_type(TokenType.BYTE)),
        )
    )


def _cutting(token: AddedToken, *, normalized: bool) -> AddedToken:
    return AddedToken(
        token.content,
        special=token.special,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
        normalized=normalized,
    )


def _space_prefix(vocabulary: Vocabulary, starts: Sequence[str]) -> normalizers.Normalizer:
    """Return what puts the space before a text, unless it begins with one of ``starts``.

    Pieces that are sought in the normalised text go through the same steps as the text themselves,
    so a user-defined one that stands alone must remain as it is.
    """
    pieces = vocabulary.of_type(TokenType.USER_DEFINED)
    if not pieces and not starts:
        return normalizers.Prepend(SPACE)
    alone = "".join(rf"(?!{re.escape(piece)}\z)" for piece in pieces)
    first = "".join(rf"(?!{re.escape(start)})" for start in starts)
    return normalizers.Replace(Regex(rf"\A(?!\z){alone}{first}"), SPACE)


def merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return every way to put a piece together from two others, the best score first.

    SentencePiece joins the neighbours whose joint piece has the highest score, the leftmost of
    equals. A fast tokenizer prefers the pair with the lower rank, wherever it stands; among equals
    the longest left half stands leftmost, because runs of one character grow from the left.
    """
    ids = vocabulary.ids
    pieces = vocabulary.of_type(TokenType.NORMAL)
    normal = set(pieces)
    found = [pair for piece in pieces for pair in _splits(piece, normal)]

    def order(pair: tuple[str, str]) -> tuple[float, int, int]:
        left, right = pair
        return -vocabulary.scores[ids[left + right]], -len(left), -len(right)

    return sorted(found, key=order)


def _splits(piece: str, pieces: set[str]) -> list[tuple[str, str]]:
    cuts = ((piece[:place], piece[place:]) for place in range(1, len(piece)))
    return [(left, right) for left, right in cuts if left in pieces and right in pieces]


def _check(vocabulary: Vocabulary) -> None:
    """Refuse what a fast tokenizer cannot follow, and name one such piece."""
    if len(vocabulary.ids) != len(vocabulary.tokens):
        raise ModelError("the SentencePiece vocabulary has a piece twice", remedy=_REMEDY)
    if not vocabulary.of_type(TokenType.UNKNOWN):
        raise ModelError("the SentencePiece vocabulary has no unknown piece", remedy=_REMEDY)
    for piece, reason in _obstacles(vocabulary):
        raise ModelError(
            f"the SentencePiece vocabulary has the piece {piece!r}, which is {reason}; "
            "that is not supported",
            remedy=_REMEDY,
        )


def _obstacles(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """Yield the pieces that a fast tokenizer would treat otherwise, each with the reason."""
    normal = set(vocabulary.of_type(TokenType.NORMAL))
    for piece in vocabulary.of_type(TokenType.UNUSED):
        if _splits(piece, normal):  # SentencePiece joins it and takes it apart again
            yield piece, "unused, but made of others"
    for piece in vocabulary.of_type(TokenType.BYTE):
        if piece not in _BYTES:
            yield piece, "said to be a byte and is none"
    joined = [piece for piece in normal if len(set(piece)) > 1 and _splits(piece, normal)]
    ids = vocabulary.ids
    counts = Counter(vocabulary.scores[ids[piece]] for piece in joined)
    for piece in joined:
        if counts[vocabulary.scores[ids[piece]]] > 1:  # which comes first depends on the place
            yield piece, "of the same score as another"
