from __future__ import annotations

import pytest
from tokenizers.models import BPE

from workers.diffusion.clip_vocabulary import END, SIZE, START, clip_vocabulary


def test_numbers_are_those_of_clip() -> None:
    vocabulary, merges = clip_vocabulary()
    assert len(vocabulary) == SIZE == len(set(vocabulary.values()))
    assert len(merges) == SIZE - 2 * 256 - 2
    assert (vocabulary["!"], vocabulary["!</w>"]) == (0, 256)
    assert (vocabulary[START], vocabulary[END]) == (49406, 49407)


def test_every_merge_joins_two_tokens_into_a_third() -> None:
    vocabulary, merges = clip_vocabulary()
    assert all({left, right, left + right} <= vocabulary.keys() for left, right in merges)


# The numbers that transformers' CLIPTokenizer and OpenAI's SimpleTokenizer give for these words.
@pytest.mark.parametrize(
    ("word", "numbers"),
    [
        ("photo", [1125]),
        ("cat", [2368]),
        ("hello", [3306]),
        ("rutkowski", [14973, 17649]),
        ("artstation", [1486, 2631]),
        ("wÃ¶rld", [86, 31762, 730]),
        ("æ¼¢", [162, 120, 351]),
    ],
)
def test_words_get_their_known_numbers(word: str, numbers: list[int]) -> None:
    vocabulary, merges = clip_vocabulary()
    model = BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=END)
    assert [token.id for token in model.tokenize(word)] == numbers
