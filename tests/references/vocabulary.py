"""A small vocabulary in CLIP's format, learned here by byte-pair encoding from a few sentences.

Order as in CLIP's own: 256 bytes, the same at a word's end, merges, begin, end (Radford et al.
2021, section 2.4; Sennrich et al. 2016, algorithm 1).
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from tests.references.families import VOCABULARY

TEXT = """
a red circle left of a blue square on a gray background . a photo of a cat sitting on the table
an oil painting of the old house by the sea , highly detailed , sharp focus , trending on artstation
a green triangle above a yellow circle on a black background . the cat's whiskers and the dog's nose
portrait of a woman with long hair , soft light , bokeh , best quality , masterpiece , 4 k , 8 k
blurry , low quality , bad anatomy , watermark , text , signature , out of frame , ugly , deformed
a purple square below an orange circle . a pink triangle right of a cyan square . it isn't there
we've they're you'll i'd i'm naïve café über straße señor the painting of the photo in the light
"""


def bytes_as_letters() -> list[str]:
    """Return the printable letter for each byte, in CLIP's (GPT-2's) order.

    Printable bytes stand for themselves; the others follow from code point 256.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]


def _letters(text: str) -> tuple[str, ...]:
    """Return the letters of a word's bytes, the last marked as the word's end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = [*printable, *(byte for byte in range(256) if byte not in printable)]
    letter = dict(zip(order, bytes_as_letters(), strict=True))
    found = [letter[byte] for byte in text.encode()]
    return (*found[:-1], found[-1] + "</w>")


def learn_merges(count: int) -> list[tuple[str, str]]:
    """Return ``count`` merges; the most frequent pair first, then the alphabetically first."""
    words = Counter(_letters(word) for word in TEXT.split())
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs = Counter[tuple[str, str]]()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({_merged(word, best): times for word, times in words.items()})
    return merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result: list[str] = []
    for piece in word:
        if result and (result[-1], piece) == pair:
            result[-1] = "".join(pair)
        else:
            result.append(piece)
    return tuple(result)


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the tokens' numbers and the merges, VOCABULARY tokens in all."""
    letters = bytes_as_letters()
    merges = learn_merges(VOCABULARY - 2 * len(letters) - 2)
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(tokens)) == VOCABULARY, "two merges make the same token"
    return {token: number for number, token in enumerate(tokens)}, merges
