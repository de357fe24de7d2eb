"""CLIP's tokenizer: from ``tokenizer.json``, or from ``vocab.json`` and ``merges.txt``.

The rule this module protects: a prompt is never cut. What does not fit one window of the text
encoder goes on in the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from daemon.errors import ModelError

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

# Tokens of a window besides its first and last.
_MARKS = 2

# How CLIP divides text into words (openai/CLIP, simple_tokenizer.py); tokenizers' \p{L} is its.
_WORDS = rf"{BOS}|{EOS}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+".replace(
    "<|", r"<\|"
).replace("|>", r"\|>")


class Tokenizer:
    """Turns prompts into windows of token numbers for a text encoder.

    ``pad`` is the token that fills a window: the end token, or ``!`` for OpenCLIP's encoders. As
    in transformers it is special: an exclamation mark in a prompt is then this token too.
    """

    def __init__(self, fast: FastTokenizer, *, pad: str = EOS, source: str = "tokenizer") -> None:
        self._fast = fast
        self._fast.no_padding()
        self._fast.no_truncation()
        self.bos = self._number(BOS, source)
        self.eos = self._number(EOS, source)
        self.pad = self._number(pad, source)
        self._fast.add_special_tokens([pad])

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read the tokenizer in ``folder``.

        Raises:
            ModelError: its files are missing or damaged.
        """
        source = f"{folder.parent.name}/{folder.name}"
        try:
            return cls(_read(folder, source), pad=_pad_token(folder), source=source)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(source, error) from None

    @classmethod
    def from_vocabulary(
        cls,
        vocabulary: Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        *,
        pad: str = EOS,
    ) -> Tokenizer:
        """Build a tokenizer from token numbers and pairs to merge, in order of their rank."""
        return cls(_build(vocabulary, list(merges)), pad=pad)

    def encode(self, text: str) -> list[int]:
        """Return the numbers of the text's tokens, without start and end."""
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def windows(self, text: str, length: int, least: int = 1) -> list[list[int]]:
        """Return the text as windows of ``length`` tokens with start and end, padded.

        There are at least ``least`` windows; those beyond the text are empty.
        """
        room = length - _MARKS
        tokens = self.encode(text)
        count = max(least, -(-len(tokens) // room))
        return [self._window(tokens[i * room : (i + 1) * room], length) for i in range(count)]

    def _window(self, tokens: Sequence[int], length: int) -> list[int]:
        filled = [self.bos, *tokens, self.eos]
        return filled + [self.pad] * (length - len(filled))

    def _number(self, token: str, source: str) -> int:
        number = self._fast.token_to_id(token)
        if number is None:
            raise ModelError(
                f"{source} has no token {token!r}, so it is not CLIP's",
                remedy="use the tokenizer that belongs to the model",
            )
        return int(number)


def _read(folder: Path, source: str) -> FastTokenizer:
    if (folder / "tokenizer.json").is_file():
        return _from_file(folder / "tokenizer.json", source)
    if not (folder / "vocab.json").is_file() or not (folder / "merges.txt").is_file():
        raise ModelError(
            f"{source} holds neither tokenizer.json nor vocab.json with merges.txt",
            remedy="copy the tokenizer's files into the folder",
        )
    vocabulary = json.loads((folder / "vocab.json").read_bytes())
    return _build(vocabulary, _merges((folder / "merges.txt").read_text(encoding="utf-8")))


def _from_file(path: Path, source: str) -> FastTokenizer:
    try:
        return FastTokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises plain Exception
        raise _unreadable(source, error) from None


def _build(vocabulary: Mapping[str, int], merges: list[tuple[str, str]]) -> FastTokenizer:
    """Build CLIP's byte-level BPE, as transformers' ``CLIPTokenizer`` describes it."""
    fast = FastTokenizer(
        models.BPE(
            vocab=dict(vocabulary),
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=EOS,
        )
    )
    fast.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    fast.add_special_tokens([BOS, EOS])
    return fast


def _merges(text: str) -> list[tuple[str, str]]:
    """Return the pairs of ``merges.txt``, whose first line may be a comment."""
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    pairs = [tuple(line.split()) for line in lines]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _pad_token(folder: Path) -> str:
    """Return the padding token that the folder's files name, by default the end token."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            token: Any = json.loads((folder / name).read_bytes()).get("pad_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
    return EOS


def _unreadable(source: str, error: Exception) -> ModelError:
    return ModelError(
        f"the tokenizer in {source} cannot be read: {error}", remedy="download the model again"
    )
