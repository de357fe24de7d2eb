"""Every word of a caption is one token, any other text has tokens, and the files are CLIP's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.diffusion.tokenizer import Tokenizer
from workers.shapes.captions import all_scenes
from workers.shapes.vocabulary import (
    END,
    LENGTH,
    START,
    byte_characters,
    caption_tokens,
    caption_vocabulary,
    learn,
    write_tokenizer,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tokenizer"
    write_tokenizer(path, caption_vocabulary())
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


def test_each_word_of_each_caption_is_one_token(tokenizer: Tokenizer) -> None:
    for scene in all_scenes():
        assert len(tokenizer.encode(scene.caption)) == len(scene.caption.split())


def test_numbers_are_given_as_clip_gives_them() -> None:
    vocabulary = caption_vocabulary()
    names = list(vocabulary.tokens)
    assert list(vocabulary.tokens.values()) == list(range(len(names)))
    assert names[:3] == ["!", '"', "#"]
    assert names[256:259] == ["!</w>", '"</w>', "#</w>"]
    assert names[512] == "".join(vocabulary.merges[0])
    assert names[-2:] == [START, END]
    assert 560 <= len(names) <= 620


def test_words_that_share_letters_are_each_one_token() -> None:
    vocabulary = learn(["green", "red", "read", "bread", "green", "a"])
    assert {"green</w>", "red</w>", "read</w>", "bread</w>", "a</w>"} <= vocabulary.tokens.keys()


def test_the_256_bytes_have_256_characters() -> None:
    assert len(set(byte_characters())) == 256


@given(text=st.text(max_size=40))
def test_any_text_has_only_known_tokens(tokenizer: Tokenizer, text: str) -> None:
    known = len(caption_vocabulary().tokens)
    assert all(0 <= token < known for token in tokenizer.encode(text))


def test_the_folder_gives_the_training_s_tokens(tokenizer: Tokenizer) -> None:
    rows = caption_tokens()
    assert rows.shape == (6121, LENGTH)
    assert tokenizer.windows(all_scenes()[100].caption, LENGTH) == [rows[100].tolist()]
    assert tokenizer.windows("", LENGTH) == [rows[-1].tolist()]
    vocabulary = caption_vocabulary()
    assert rows[-1].tolist() == [vocabulary.start] + [vocabulary.end] * (LENGTH - 1)
    assert len({tuple(row) for row in rows.tolist()}) == 6121


def test_the_folder_says_whose_tokenizer_it_is(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "CLIPTokenizer"
    assert (folder / "merges.txt").read_text().startswith("#version: 0.2\n")
