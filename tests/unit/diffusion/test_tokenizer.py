"""CLIP's tokenizer gives transformers' numbers, from the files of either age."""

from __future__ import annotations

import pytest

from tests.unit.diffusion import kept
from workers.diffusion.clip_vocabulary import clip_vocabulary
from workers.diffusion.tokenizer import Tokenizer

FOLDERS = {
    "end": ("sd1/tokenizer", "sd1-old/tokenizer"),
    "exclamation": ("sd2/tokenizer", "sdxl-old/tokenizer_2"),
}
SHIPPED = "the shipped vocabulary"
PLACES = [("clip", SHIPPED)] + [
    (padding, place) for padding, places in FOLDERS.items() for place in places
]


def read(place: str) -> Tokenizer:
    if place == SHIPPED:
        return Tokenizer.from_vocabulary(*clip_vocabulary())
    return Tokenizer.from_folder(kept.PLACE / "folders" / place)


@pytest.mark.parametrize(("padding", "place"), PLACES)
def test_texts_get_the_numbers_that_transformers_gives(padding: str, place: str) -> None:
    tokenizer, wanted = read(place), kept.tokens()[padding]["ids"]
    found = {text: tokenizer.encode(text) for text in kept.tokens()["texts"]}
    differing = {
        text: (found[text], ids[1:-1])
        for text, ids in zip(kept.tokens()["texts"], wanted, strict=True)
        if found[text] != ids[1:-1]
    }
    assert not differing


@pytest.mark.parametrize(("padding", "place"), PLACES)
def test_a_window_is_begun_ended_and_padded(padding: str, place: str) -> None:
    tokenizer, wanted = read(place), kept.tokens()[padding]
    for text, ids in zip(kept.tokens()["texts"], wanted["ids"], strict=True):
        windows = tokenizer.windows(text, 77)
        assert all(len(window) == 77 for window in windows)
        if len(ids) <= 77:
            assert windows == [ids + [wanted["pad"]] * (77 - len(ids))]


def test_a_long_text_goes_on_in_further_windows() -> None:
    tokenizer, text = read("sd1/tokenizer"), "photo of the " * 60
    windows = tokenizer.windows(text, 77, least=5)
    joined = [number for window in windows for number in window[1:76]]
    tokens = tokenizer.encode(text)
    assert joined[: len(tokens)] == tokens
    assert set(joined[len(tokens) :]) == {tokenizer.eos}
    assert windows[-1] == tokenizer.windows("", 77)[0]
