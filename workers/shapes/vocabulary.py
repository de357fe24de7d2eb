"""The tokenizer of the ``shapes`` model: CLIP's byte-level BPE, learnt from the captions' words.

The rule this module protects: each word of a caption is one token, and any other text still has
tokens, because every byte is one. Files are those of transformers' ``CLIPTokenizer``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.diffusion.tokenizer import Tokenizer
from workers.files import write_json, write_text
from workers.shapes.captions import all_scenes, words

WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Token numbers, and pairs to merge in order of rank."""

    tokens: dict[str, int]
    merges: tuple[Pair, ...]

    @property
    def start(self) -> int:
        """The number of the token that begins a text."""
        return self.tokens[START]

    @property
    def end(self) -> int:
        """The number of the token that ends a text, and fills what is left."""
        return self.tokens[END]


def learn(words: Iterable[str]) -> Vocabulary:
    """Learn merges until every word is one token (Sennrich et al. 2016, arXiv:1508.07909).

    The most frequent pair is merged first; of equals the alphabetically first. Numbers are given as
    CLIP gives them: 256 bytes, 256 bytes that end a word, merges by rank, start and end.
    """
    counts = Counter(words)
    splits = {word: (*word[:-1], word[-1] + WORD_END) for word in sorted(counts)}
    merges: list[Pair] = []
    while pairs := _pair_counts(splits, counts):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        splits = {word: _merged(parts, best) for word, parts in splits.items()}
    characters = list(byte_characters())
    ends = [character + WORD_END for character in characters]
    joined = ["".join(pair) for pair in merges]
    names = [*characters, *ends, *joined, START, END]
    return Vocabulary(
        tokens={name: number for number, name in enumerate(names)}, merges=tuple(merges)
    )


def _pair_counts(splits: dict[str, tuple[str, ...]], counts: Counter[str]) -> Counter[Pair]:
    pairs: Counter[Pair] = Counter()
    for word, parts in splits.items():
        for pair in pairwise(parts):
            pairs[pair] += counts[word]
    return pairs


def _merged(parts: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    """Return ``parts`` with every occurrence of ``pair``, from the left, made one."""
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)


def byte_characters() -> Iterator[str]:
    """Yield the character that stands for each byte in CLIP's vocabulary, in its order.

    Printable Latin-1 bytes stand for themselves; the others take characters from U+0100 on
    (openai/CLIP, ``simple_tokenizer.py``).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    yield from (chr(byte) for byte in printable)
    yield from (chr(0x100 + number) for number in range(0x100 - len(printable)))


def write_tokenizer(folder: Path, vocabulary: Vocabulary) -> None:
    """Write ``vocab.json``, ``merges.txt`` and the two files of settings into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = json.dumps(vocabulary.tokens, ensure_ascii=False)
    write_text(folder / "vocab.json", vocab + "\n")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in vocabulary.merges)]
    write_text(folder / "merges.txt", "\n".join(lines) + "\n")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    write_json(folder / "special_tokens_map.json", special)
    settings: dict[str, Any] = {
        **special,
        "do_lower_case": True,
        "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
    }
    write_json(folder / "tokenizer_config.json", settings)


@cache
def caption_vocabulary() -> Vocabulary:
    """Return the vocabulary of the captions."""
    return learn(words())


def caption_tokens() -> NDArray[np.int32]:
    """Return the tokens of every caption in the order of ``all_scenes``, and of the empty text.

    Shape (captions + 1, 77).
    """
    vocabulary = caption_vocabulary()
    tokenizer = Tokenizer.from_vocabulary(vocabulary.tokens, vocabulary.merges)
    texts = [*(scene.caption for scene in all_scenes()), ""]
    return np.array([tokenizer.windows(text, LENGTH)[0] for text in texts], dtype=np.int32)
