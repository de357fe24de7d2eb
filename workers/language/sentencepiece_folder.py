"""The tokenizer of a folder that has a SentencePiece ``tokenizer.model`` alone.

The rule this module protects: tokens and texts are those of the ``sentencepiece`` package, and a
tokenizer that belongs to another model than the weights is refused. (transformers builds
tokenizers from such files too; their tokens differ from SentencePiece's.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx import nn
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import PreTrainedTokenizerFast

from daemon.errors import ModelError
from workers.language.sentencepiece_model import read_sentencepiece
from workers.language.sentencepiece_text import SentencePieceWrapper, Surfaces, surfaces
from workers.language.sentencepiece_tokenizer import sentencepiece_tokenizer
from workers.language.tokenizer_settings import TokenizerSettings, read_settings
from workers.language.vocabulary import add_frame

FILE = "tokenizer.model"

# Rows of the embedding beyond the tokens: it may be padded to a multiple of up to 256.
_PADDING = 256


def load_sentencepiece_folder(
    folder: Path, eos_token_ids: int | Iterable[int] | None = None
) -> TokenizerWrapper:
    """Load ``folder``'s ``tokenizer.model`` with the settings that lie beside it.

    ``eos_token_ids`` end an answer besides the tokenizer's own end token.

    Raises:
        ModelError: a file is damaged or contradicts another, or the tokenizer's kind is not
            supported.
    """
    model = read_sentencepiece(folder / FILE)
    settings = read_settings(folder, model.vocabulary)
    prefix = model.space_prefix and settings.space_prefix
    tokenizer = sentencepiece_tokenizer(
        model.vocabulary,
        space_prefix=prefix,
        space_after_special=settings.space_after_special,
        added=settings.added,
    )
    add_frame(
        tokenizer,
        settings.names.get("bos_token") if settings.starts else None,
        settings.names.get("eos_token") if settings.ends else None,
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **settings.names
    )
    fast.chat_template = settings.chat_template
    shown = surfaces(model.vocabulary, space_prefix=prefix, unknown_text=model.unknown_text)
    ends = [eos_token_ids] if isinstance(eos_token_ids, int) else list(eos_token_ids or ())
    return SentencePieceWrapper(fast, _with_added(shown, settings), eos_token_ids=ends)


def _with_added(shown: Surfaces, settings: TokenizerSettings) -> Surfaces:
    count = len(shown.pieces)
    special = {at for at, token in enumerate(settings.added, start=count) if token.special}
    return replace(
        shown,
        pieces=(*shown.pieces, *(token.content for token in settings.added)),
        special=shown.special | special,
    )


def check_vocabulary_size(name: str, tokenizer: Any, model: nn.Module) -> None:
    """Refuse a tokenizer whose tokens are not those that the embedding of ``model`` has rows for.

    Raises:
        ModelError: there are more tokens than rows, or more rows left over than padding takes.
    """
    tokens, rows = len(tokenizer), _embedding_rows(model)
    if not 0 <= rows - tokens < _PADDING:
        raise ModelError(
            f"the {FILE} of {name} has {tokens:,} tokens, and the model's embedding {rows:,} rows: "
            "they belong to different models",
            remedy=f"put the model's own {FILE} into the folder, and added_tokens.json if it has "
            "one",
        )


def check_tokens_have_rows(name: str, tokenizer: Any, model: nn.Module) -> None:
    """Refuse a ``tokenizer.json`` with far more tokens than the embedding of ``model`` has rows.

    A few more are common: tokens for padding that nothing writes. Rows that are left over are, too.

    Raises:
        ModelError: the tokenizer is another model's.
    """
    tokens, rows = len(tokenizer), _embedding_rows(model)
    if tokens - rows >= _PADDING:
        raise ModelError(
            f"the tokenizer of {name} has {tokens:,} tokens, and the model's embedding {rows:,} "
            "rows: they belong to different models",
            remedy="put the model's own tokenizer.json into the folder; where it has a "
            f"{FILE} alone, take the foreign tokenizer.json away",
        )


def _embedding_rows(model: nn.Module) -> int:
    """Return the rows of the largest embedding, which is that of the tokens."""
    kinds = (nn.Embedding, nn.QuantizedEmbedding)
    return max(
        int(module.weight.shape[0]) for module in model.modules() if isinstance(module, kinds)
    )
