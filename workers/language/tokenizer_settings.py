"""What a Hugging Face folder says about its tokenizer beside the vocabulary itself.

The rule this module protects: what the folder says holds and what it leaves out is the model
file's own; a setting that contradicts the vocabulary is refused, never ignored.

The files are those that transformers writes: ``tokenizer_config.json``, its older companions
``special_tokens_map.json`` and ``added_tokens.json``, and ``chat_template.jinja``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from daemon.errors import ModelError
from workers.language.vocabulary import TokenType, Vocabulary

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_FLAGS = ("special", "lstrip", "rstrip", "single_word")
_REMEDY = "download the tokenizer's files again, all of them from one model"


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """``names`` are the tokens with a role, ``added`` those that follow the vocabulary, by id.

    ``starts`` and ``ends``: whether texts get the start and the end token. ``space_prefix``:
    whether they get a space before them if the model says so; ``space_after_special``: also the
    text after a special token. ``chat_template`` is one template or several by name.
    """

    names: Mapping[str, str]
    added: tuple[AddedToken, ...]
    starts: bool
    ends: bool
    space_prefix: bool
    space_after_special: bool
    chat_template: str | dict[str, str] | None


def read_settings(folder: Path, vocabulary: Vocabulary) -> TokenizerSettings:
    """Read the settings in ``folder`` of a tokenizer with ``vocabulary``.

    Without a word on it texts get a start token and no end token, and every text a space before
    it, as Llama's and Mistral's do.

    Raises:
        ModelError: a file cannot be read, or contradicts the vocabulary.
    """
    config = _read(folder, "tokenizer_config.json")
    added = _added(folder, config, vocabulary)
    known = {*vocabulary.tokens, *(token.content for token in added)}
    return TokenizerSettings(
        names=_names(folder, config, vocabulary, known),
        added=added,
        starts=bool(config.get("add_bos_token", True)),
        ends=bool(config.get("add_eos_token", False)),
        space_prefix=config.get("add_prefix_space") is not False,
        space_after_special=config.get("legacy") is not False,
        chat_template=_chat_template(folder, config),
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one where there is no such file."""
    file = folder / name
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _refusal(folder, f"{name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise _refusal(folder, f"{name} is no JSON object")
    return found


def _names(
    folder: Path, config: Mapping[str, Any], vocabulary: Vocabulary, known: set[str]
) -> dict[str, str]:
    """Return the token of each role; null takes away what the vocabulary names."""
    found = vocabulary.named() | _read(folder, "special_tokens_map.json") | dict(config)
    names = {role: _content(found[role]) for role in _ROLES if found.get(role) is not None}
    for role, token in names.items():
        if token not in known:
            raise _refusal(folder, f"{role} is {token!r}, which the tokenizer does not have")
    return names


def _content(token: Any) -> str:
    """Return a token's text, which transformers writes bare or in an object."""
    return str(token.get("content") if isinstance(token, dict) else token)


def _added(
    folder: Path, config: Mapping[str, Any], vocabulary: Vocabulary
) -> tuple[AddedToken, ...]:
    """Return the tokens that the folder adds, whose ids must follow the vocabulary's."""
    entries = _entries(folder, config)
    count = len(vocabulary.tokens)
    for number, entry in entries.items():
        _check_piece(folder, number, _content(entry), vocabulary)
    numbers = sorted(number for number in entries if number >= count)
    for expected, number in enumerate(numbers, start=count):
        if number != expected:
            raise _refusal(
                folder,
                f"the added token {_content(entries[number])!r} has the id {number}, "
                f"and there is none of the id {expected}",
            )
    return tuple(_token(entries[number]) for number in numbers)


def _entries(folder: Path, config: Mapping[str, Any]) -> dict[int, Any]:
    """Return the folder's added tokens by id, as its newer file describes them if both do."""
    try:
        older = {int(at): text for text, at in _read(folder, "added_tokens.json").items()}
        newer = {int(at): entry for at, entry in config.get("added_tokens_decoder", {}).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise _refusal(folder, f"the added tokens cannot be read: {error}") from None
    return older | newer


def _check_piece(folder: Path, number: int, text: str, vocabulary: Vocabulary) -> None:
    """Refuse an added token that stands for another piece than the vocabulary has there."""
    if 0 <= number < len(vocabulary.tokens):
        piece, kind = vocabulary.tokens[number], vocabulary.types[number]
        if piece != text:
            raise _refusal(
                folder, f"token {number} is {text!r} there and {piece!r} in tokenizer.model"
            )
        if kind in (TokenType.NORMAL, TokenType.UNUSED, TokenType.BYTE):
            raise _refusal(
                folder, f"the added token {text!r} is an ordinary piece of tokenizer.model"
            )
    elif number < 0 or text in vocabulary.ids:
        raise _refusal(folder, f"the added token {text!r} has the id {number}")


def _token(entry: Any) -> AddedToken:
    flags = entry if isinstance(entry, dict) else {}
    return AddedToken(_content(entry), **{name: bool(flags.get(name)) for name in _FLAGS})


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | dict[str, str] | None:
    """Return the folder's chat template; its own file counts before the configuration."""
    file = folder / "chat_template.jinja"
    try:
        if file.is_file():
            return file.read_text(encoding="utf-8")
        found = config.get("chat_template")
        if isinstance(found, list):
            return {str(entry["name"]): str(entry["template"]) for entry in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refusal(folder, f"the chat template cannot be read: {error}") from None
    return None if found is None else str(found)


def _refusal(folder: Path, reason: str) -> ModelError:
    return ModelError(f"the tokenizer of {folder.name} is not usable: {reason}", remedy=_REMEDY)
