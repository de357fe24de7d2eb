"""Training rows as token ids, all of them before the first step.

The rule this module protects: the loss sees exactly the tokens that should be learned. A sample
says where they begin (after the prompt, if that is masked); they end with the row itself, so
padding is never learned. Rows are cut at ``max_seq_length`` and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.errors import JobError
from daemon.rows import Row, read_rows, row_form, split_sizes

Tokens = NDArray[np.int32]

# Distinguishes this use of the job's seed from the data order, which draws from [seed, epoch].
_SPLIT = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row: its token ids, and the index of the first token that is learned (at least 1)."""

    tokens: Tokens
    first: int


@dataclass(kw_only=True)
class Dataset:
    """The samples of one file or split, their form, and how many rows were cut or left out.

    ``left_out`` counts rows in which no token remains to be learned: a single token, or a masked
    prompt that fills ``max_seq_length``.
    """

    samples: list[Sample] = field(default_factory=list)
    form: str = "text"
    truncated: int = 0
    left_out: int = 0

    def __len__(self) -> int:
        """Return the number of usable samples."""
        return len(self.samples)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample."""
        return np.array([len(sample.tokens) for sample in self.samples], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Turns rows into samples, formatting and masking as mlx-lm does.

    Messages, and prompt with completion, go through the tokenizer's chat template; without one a
    prompt and its completion are joined as they are. Text rows end with the end-of-sequence token.
    """

    tokenizer: Any
    max_seq_length: int
    mask_prompt: bool = False

    def add(self, dataset: Dataset, row: Row, place: str) -> None:
        """Encode ``row`` into ``dataset``; ``place`` is file and line for messages.

        Raises:
            JobError: the model's chat template or tokenizer refuses the row.
        """
        dataset.form = str(row_form(row))
        try:
            tokens, first = _ENCODERS[dataset.form](self, row)
        except Exception as error:
            raise JobError(f"{place}: {_reason(error)}", remedy="correct the row") from error
        dataset.truncated += len(tokens) > self.max_seq_length
        kept = np.array(tokens[: self.max_seq_length], dtype=np.int32)
        if first >= len(kept):
            dataset.left_out += 1
        else:
            dataset.samples.append(Sample(tokens=kept, first=first))

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer knows how its model is spoken to."""
        own = getattr(self.tokenizer, "has_chat_template", None)
        return bool(getattr(self.tokenizer, "chat_template", None) if own is None else own)

    def text(self, row: Row) -> tuple[list[int], int]:
        """Encode a text row; everything is learned."""
        return self._ended(list(self.tokenizer.encode(row["text"]))), 1

    def completion(self, row: Row) -> tuple[list[int], int]:
        """Encode prompt and completion."""
        if not self.has_template:
            prompt = self.tokenizer.encode(row["prompt"])
            whole = self._ended(list(self.tokenizer.encode(row["prompt"] + row["completion"])))
            return whole, self._first(whole, prompt)
        messages = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
        return self._chat(messages, row)

    def messages(self, row: Row) -> tuple[list[int], int]:
        """Encode a conversation; with ``mask_prompt`` only its last message is learned."""
        if not self.has_template:
            raise ValueError("the model has no chat template: use text, or prompt and completion")
        return self._chat(row["messages"], row)

    def _chat(self, messages: list[Row], row: Row) -> tuple[list[int], int]:
        whole = self._template(messages, row)
        if not self.mask_prompt:
            return whole, 1
        asks = messages[-1]["role"] == "assistant"
        return whole, self._first(whole, self._template(messages[:-1], row, ask=asks))

    def _template(self, messages: list[Row], row: Row, *, ask: bool = False) -> list[int]:
        tokens = self.tokenizer.apply_chat_template(
            messages, tools=row.get("tools"), add_generation_prompt=ask, return_dict=False
        )
        return list(tokens)

    def _ended(self, tokens: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        if end is not None and (not tokens or tokens[-1] != end):
            tokens.append(end)
        return tokens

    def _first(self, whole: list[int], prompt: list[int]) -> int:
        """Return where ``whole`` leaves the prompt (the tokens at the seam may differ)."""
        if not self.mask_prompt:
            return 1
        same = zip(whole, prompt, strict=False)
        seam = next((at for at, (a, b) in enumerate(same) if a != b), min(len(whole), len(prompt)))
        return max(1, seam)


_ENCODERS: dict[str, Callable[[Encoder, Row], tuple[list[int], int]]] = {
    "text": Encoder.text,
    "completion": Encoder.completion,
    "messages": Encoder.messages,
}


def encode_file(encoder: Encoder, name: str, path: Path, field: str) -> Iterator[Dataset]:
    """Encode a file row by row; yields the same growing dataset after each, for safe points."""
    dataset = Dataset()
    for line, row in read_rows(name, path, field):
        encoder.add(dataset, row, f"{name}:{line}")
        yield dataset


def split_dataset(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Split one file's samples into training and validation, a tenth for the latter, by seed."""
    keep, _ = split_sizes(len(dataset))
    order = np.random.default_rng([seed, *_SPLIT]).permutation(len(dataset))
    parts = sorted(order[:keep]), sorted(order[keep:])
    train, valid = (replace(dataset, samples=[dataset.samples[at] for at in p]) for p in parts)
    return train, valid


def _reason(error: Exception) -> str:
    if type(error).__name__ == "TemplateError":
        return f"the model's chat template refuses the row: {error}"
    return f"the row cannot be encoded: {error}"
