"""The vocabulary of CLIP's tokenizer, for checkpoints that bring none.

The rule this module protects: token numbers are those that CLIP was trained with. They follow from
the order of the merges alone, so the merges are all that is shipped (``clip_merges.txt.gz``; their
licence is in ``clip_merges.md``).
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
SIZE = 49408

_MERGES = Path(__file__).with_name("clip_merges.txt.gz")
_WORD_END = "</w>"


@cache
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the token numbers and the merges, best first. Shared: not to be modified.

    The order is that of ``SimpleTokenizer`` in OpenAI's CLIP: 256 bytes, the same at the end of a
    word, one token for each merge, start and end of text.
    """
    merges = _read_merges()
    letters = _byte_letters()
    tokens = [
        *letters,
        *(letter + _WORD_END for letter in letters),
        *(left + right for left, right in merges),
        START,
        END,
    ]
    return {token: number for number, token in enumerate(tokens)}, merges


def _read_merges() -> list[tuple[str, str]]:
    lines = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").splitlines()
    pairs = (line.partition(" ") for line in lines)
    return [(left, right) for left, _, right in pairs]


def _byte_letters() -> list[str]:
    """Return the letters that stand for the bytes in byte-level BPE, in CLIP's order.

    Printable Latin-1 stands for itself; the other 68 bytes are the letters from U+0100.
    """
    ranges = (range(33, 127), range(161, 173), range(174, 256), range(256, 324))
    return [chr(code) for codes in ranges for code in codes]
