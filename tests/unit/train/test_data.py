"""Rows become tokens as in mlx-lm, and prompts are masked where they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.tuner import datasets as peer
from mlx_lm.utils import load_tokenizer

from daemon.errors import JobError
from workers.language.data import Dataset, Encoder, encode_file

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    ]
}
PAIR = {"prompt": "2 + 2?", "completion": "4"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


def encode(tokenizer: Any, row: dict[str, Any], **options: Any) -> tuple[list[int], int]:
    dataset = Dataset()
    Encoder(tokenizer=tokenizer, **{"max_seq_length": 500, **options}).add(dataset, row, "f:1")
    (sample,) = dataset.samples
    return sample.tokens.tolist(), sample.first


def test_text_rows_are_mlx_lms(tokenizer: Any) -> None:
    row = {"text": "a b"}
    assert encode(tokenizer, row) == (peer.TextDataset([row], tokenizer).process(row)[0], 1)


@pytest.mark.parametrize("mask", [False, True])
def test_chat_rows_are_mlx_lms(tokenizer: Any, mask: bool) -> None:
    tokens, start = peer.ChatDataset([CHAT], tokenizer, mask_prompt=mask).process(CHAT)
    assert encode(tokenizer, CHAT, mask_prompt=mask) == (tokens, max(1, start))


@pytest.mark.parametrize("mask", [False, True])
def test_completions_are_mlx_lms(tokenizer: Any, mask: bool) -> None:
    dataset = peer.CompletionsDataset([PAIR], tokenizer, "prompt", "completion", mask)
    tokens, start = dataset.process(PAIR)
    assert encode(tokenizer, PAIR, mask_prompt=mask) == (tokens, max(1, start))


class Plain:
    """A tokenizer of single characters that knows no chat template."""

    has_chat_template = False
    eos_token_id = 0

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def test_without_a_template_prompt_and_completion_are_joined() -> None:
    tokens, first = encode(Plain(), PAIR, mask_prompt=True)
    assert tokens == [*map(ord, "2 + 2?4"), 0]
    assert first == 6


def test_without_a_template_a_conversation_is_refused() -> None:
    with pytest.raises(JobError, match=r"f:1: .*no chat template"):
        encode(Plain(), CHAT)


def test_long_rows_are_cut_and_counted(tokenizer: Any) -> None:
    dataset = Dataset()
    encoder = Encoder(tokenizer=tokenizer, max_seq_length=10)
    for length in (3, 9, 10, 50):
        encoder.add(dataset, {"text": "x" * length}, "f:1")
    assert [len(sample.tokens) for sample in dataset.samples] == [4, 10, 10, 10]
    assert dataset.truncated == 2


def test_rows_without_a_learned_token_are_left_out(tokenizer: Any) -> None:
    dataset = Dataset()
    encoder = Encoder(tokenizer=tokenizer, max_seq_length=10, mask_prompt=True)
    encoder.add(dataset, PAIR, "f:1")
    assert (len(dataset), dataset.left_out) == (0, 1)


def test_a_row_that_the_template_refuses_is_named(tmp_path: Path, tiny_model: Path) -> None:
    strict = load_tokenizer(tiny_model)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + json.dumps(CHAT) + "\n")
    encoder = Encoder(tokenizer=strict, max_seq_length=64)
    with pytest.raises(JobError, match=r"rows\.jsonl:2: .*refuses the row: roles must alternate"):
        list(encode_file(encoder, "rows.jsonl", path, "data.rows"))
